"""Content of members: cut and put as it comes, holes left out. Holds a piece at a time, whatever the member."""

from __future__ import annotations

from collections.abc import Callable

from respaldo.catalog.trees import ListBuilder, Sink
from respaldo.chunk.chunker import Chunker
from respaldo.core.ids import Kind
from respaldo.core.model import EMPTY, Content
from respaldo.core.seams import Cancel, Progress
from respaldo.flows.importing.members import Member, Members

_PIECE_BYTES = 1 << 20


class Contents:
    """Stores what members hold. One thread."""

    def __init__(
        self, sink: Sink, chunker: Chunker, progress: Progress, cancel: Cancel, checkpoint: Callable[[], object]
    ) -> None:
        self._sink = sink
        self._chunker = chunker
        self._progress = progress
        self._cancel = cancel
        self._checkpoint = checkpoint
        self.read_bytes = 0

    def store(self, members: Members, member: Member) -> Content:
        """Stores a regular file; raises `EndedError` where the archive ends in it."""
        if not member.size:
            return EMPTY
        builder = ListBuilder(self._sink)
        if member.extents is None:
            self._run(members, member.size, builder)
        else:
            for at in range(0, len(member.extents), 2):
                builder.hole(member.extents[at] - builder.length)
                self._run(members, member.extents[at + 1], builder)
            builder.hole(member.size - builder.length)
        return builder.finish()

    def _run(self, members: Members, length: int, builder: ListBuilder) -> None:
        """Stores one run of data."""
        held = bytearray()
        while length:
            self._cancel.check()
            data = members.read(min(length, _PIECE_BYTES))
            length -= len(data)
            held += data
            self.read_bytes += len(data)
            self._progress.advance(length_bytes=len(data))
            at = 0
            with memoryview(held) as view:
                for size in self._chunker.lengths(view, final=not length):
                    builder.add(self._sink.put(Kind.DATA, view[at : at + size]), size)
                    at += size
            del held[:at]
            self._checkpoint()
