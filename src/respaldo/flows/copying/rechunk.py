"""Files for a target that cuts content differently: read from the source, cut anew, put into the target.

Reads ahead by blocks, so many and no more. What an earlier copy is known to have stored is not read again, if all of it
is still in the target. One thread, but for opening blocks.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from types import TracebackType
from typing import Self

from respaldo.catalog.trees import ListBuilder, Sink, TreeReader
from respaldo.chunk.chunker import Chunker
from respaldo.core.errors import ChunkMissing, Corruption, ObjectMissing, RespaldoError, StorageFailed
from respaldo.core.ids import ChunkId, Kind
from respaldo.core.model import Content
from respaldo.core.seams import Cancel, Progress
from respaldo.flows.copying.known import Known
from respaldo.flows.copying.needs import GONE
from respaldo.format.content import HOLE
from respaldo.store.repo import Repo
from respaldo.store.source import OPENED_AT_ONCE

_AHEAD = 3
_BLOCKS_KEPT = 6
_HELD_BYTES = 1 << 20
_ROWS_AHEAD = 256
"""So many chunks of a long file are looked up together: some 16 MiB."""


class Ahead:
    """Reads data chunks of the source, blocks opened ahead by threads. A context manager."""

    def __init__(self, source: Repo) -> None:
        self._source = source.source
        self._pool = ThreadPoolExecutor(OPENED_AT_ONCE, thread_name_prefix="ahead")
        self._coming: deque[tuple[int, int]] = deque()
        self._blocks: OrderedDict[tuple[int, int], Future[bytes]] = OrderedDict()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def expect(self, ids: bytes) -> None:
        """Says which chunks will be asked for next, in this order, and nothing else."""
        self._coming.clear()
        self.expect_first(ids)

    def expect_first(self, ids: bytes) -> None:
        """Says which chunks will be asked for before all that is expected."""
        keys: list[tuple[int, int]] = []
        for place in self._source.locate_each(ids):
            if place is not None and (not keys or place[:2] != keys[-1]):
                keys.append(place[:2])
        self._coming.extendleft(reversed(keys))
        self._fill()

    def _fill(self) -> None:
        open_now = sum(not future.done() for future in self._blocks.values())
        while self._coming and open_now < _AHEAD:
            key = self._coming.popleft()
            if key not in self._blocks:
                self._submit(key)
                open_now += 1

    def _submit(self, key: tuple[int, int]) -> Future[bytes]:
        future = self._blocks[key] = self._pool.submit(self._source.block, *key)
        while len(self._blocks) > _BLOCKS_KEPT:
            self._blocks.popitem(last=False)
        return future

    def get(self, chunk_id: ChunkId) -> bytes:
        """Returns a data chunk, checked; raises what `ChunkSource.get` does."""
        try:
            at = self._source.locate(Kind.DATA, chunk_id)
            key = (at.pack, at.block)
            future = self._blocks.get(key) or self._submit(key)
            raw = future.result()[at.offset : at.offset + at.length]
            self._source.check(Kind.DATA, chunk_id, raw)
        except (ChunkMissing, ObjectMissing, Corruption):  # it lies elsewhere too, or by now
            raw = self._source.get(Kind.DATA, chunk_id)
        if self._coming:
            self._fill()
        return raw


class SourceUnreadableError(Exception):
    """Says that content cannot be had from the source; what else fails is the target's, and no file's fault."""

    def __init__(self, error: RespaldoError) -> None:
        super().__init__(str(error))
        self.error = error


class Rechunker:
    """Makes content of the source content of the target."""

    def __init__(
        self,
        *,
        ahead: Ahead,
        trees: TreeReader,
        sink: Sink,
        chunker: Chunker,
        known: Known,
        there: TreeReader,
        progress: Progress,
        cancel: Cancel,
        checkpoint: Callable[[], object],
    ) -> None:
        self.ahead = ahead
        self._trees = trees
        self._sink = sink
        self._chunker = chunker
        self._known = known
        self._there = there
        self._progress = progress
        self._cancel = cancel
        self._checkpoint = checkpoint
        self.read_bytes = 0

    def content(self, content: Content, size: int) -> Content:
        """Returns a file's content in the target; raises `SourceUnreadableError`, and errors of the target."""
        before = self.known(content)
        if before is None:
            before = self._read(content, size)
            self._known.put_content(content, before)
        self._progress.advance(files=1)
        return before

    def known(self, content: Content) -> Content | None:
        """Returns what content became in an earlier copy, if all of that is in the target; relies on it then."""
        became = self._known.content(content)
        if became is None:
            return None
        kinds = {0: Kind.DATA}
        try:
            nodes = self._there.nodes(became)
            whole = all(self._sink.knows(kinds.get(level, Kind.LIST), chunk_id) for level, chunk_id in nodes)
        except (*GONE, StorageFailed):  # what cannot be read there is stored again
            return None
        return became if whole else None

    def _read(self, content: Content, size: int) -> Content:
        builder = ListBuilder(self._sink)
        held = bytearray()
        total = 0
        pieces = self._pieces(content)
        while True:
            self._cancel.check()
            try:
                piece = next(pieces, None)
            except (*GONE, StorageFailed) as error:
                raise SourceUnreadableError(error) from error
            if piece is None:
                break
            length, raw = piece
            total += length
            if raw is None:
                self._cut(held, builder, final=True)
                builder.hole(length)
                continue
            held += raw
            self.read_bytes += len(raw)
            self._progress.advance(length_bytes=len(raw))
            if len(held) >= _HELD_BYTES:
                self._cut(held, builder, final=False)
                self._checkpoint()
        if total != size:
            raise SourceUnreadableError(Corruption("content of a file", "it is not as long as the file's size"))
        self._cut(held, builder, final=True)
        return builder.finish()

    def _pieces(self, content: Content) -> Iterator[tuple[int, bytes | None]]:
        if not content.level:
            for chunk_id in content:
                raw = self.ahead.get(chunk_id)
                yield len(raw), raw
            return
        rows = self._trees.list_rows(content)
        while part := list(islice(rows, _ROWS_AHEAD)):
            self.ahead.expect_first(b"".join([row.id for row in part if row.id != HOLE]))
            for chunk_id, length in part:
                if chunk_id == HOLE:
                    yield length, None
                    continue
                raw = self.ahead.get(chunk_id)
                if len(raw) != length:
                    raise Corruption(f"data chunk {chunk_id.hex()[:16]}", "its length is not the one its list says")
                yield length, raw

    def _cut(self, held: bytearray, builder: ListBuilder, *, final: bool) -> None:
        """Puts the chunks that what is held begins with; of one run of data, all of it at its end."""
        at = 0
        with memoryview(held) as view:
            for length in self._chunker.lengths(view, final=final):
                builder.add(self._sink.put(Kind.DATA, view[at : at + length]), length)
                at += length
        del held[:at]
