r"""Checksums: the SHA-256 of every file of a snapshot, as a list that ``sha256sum -c`` checks.

Computed from the content, each piece of which is checked against its id, or taken from what was computed before. Holds
one piece of one file at a time, whatever the snapshot. A name with a newline or a backslash is written as ``sha256sum``
writes it: a backslash in front of the line, ``\n``, ``\r`` and ``\\`` in the name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from respaldo.catalog.trees import Reader, TreeReader
from respaldo.core.errors import ChunkMissing, Corruption, RespaldoError
from respaldo.core.model import Content, Entry, Mark
from respaldo.core.seams import Buffer, Cancel, Progress
from respaldo.store.blocks import Blocks
from respaldo.store.fetch import Fetcher
from respaldo.views.ahead import Ahead
from respaldo.views.content import WITHOUT_CONTENT, ZEROS, Contents
from respaldo.views.walk import walk

EMPTY = hashlib.sha256().digest()
HOLES_SUMMED_BYTES = 1 << 30
"""Of a file with more of them no checksum is made by the way: a terabyte of zeros takes a quarter of an hour."""
Failed = Callable[[bytes, RespaldoError | str], None]


class Known(Protocol):
    """Knows the SHA-256 of contents, and learns."""

    def find(self, content: Content) -> bytes | None: ...

    def add(self, content: Content, digest: bytes) -> None: ...


class Checksum(NamedTuple):
    """Is a file and its SHA-256."""

    path: bytes
    size: int
    digest: bytes

    def line(self) -> bytes:
        """Returns the line of ``sha256sum``, its end included."""
        return sum_line(self.digest.hex(), self.path)


def sum_line(digest: str, path: bytes) -> bytes:
    """Returns a line that ``sha256sum -c`` reads."""
    escaped = path.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")
    return (b"\\" if escaped != path else b"") + digest.encode() + b"  " + escaped + b"\n"


class SummingAhead(Ahead):
    """Reads what files consist of, and remembers the SHA-256 of each that was read to its end."""

    def __init__(self, reader: Reader, trees: TreeReader, blocks: Blocks, fetcher: Fetcher, known: Known) -> None:
        super().__init__(reader, trees, blocks, fetcher)
        self._known = known

    def pieces(self, entry: Entry) -> Iterator[tuple[int, Buffer | None]]:
        """Yields the pieces of a file as `Ahead.pieces` does."""
        hasher = hashlib.sha256()
        holes = 0
        for length, raw in super().pieces(entry):
            if raw is not None:
                hasher.update(raw)
            elif (holes := holes + length) <= HOLES_SUMMED_BYTES:
                for at in range(0, length, len(ZEROS)):
                    hasher.update(ZEROS[: length - at])
            yield length, raw
        if entry.size and holes <= HOLES_SUMMED_BYTES:
            self._known.add(entry.content, hasher.digest())


class Checksums:
    """Computes checksums. ``anew``: from the content, whatever is known. One thread."""

    def __init__(
        self,
        trees: TreeReader,
        contents: Contents,
        known: Known,
        *,
        progress: Progress,
        failed: Failed,
        cancel: Cancel,
        anew: bool = False,
    ) -> None:
        self._trees = trees
        self._contents = contents
        self._known = known
        self._progress = progress
        self._failed = failed
        self._cancel = cancel
        self._anew = anew
        self.read_bytes = 0

    def of(self, top: Entry) -> Iterator[Checksum]:
        """Yields the checksum of every file below a directory, or of one file, in the order of names."""
        self._cancel.check()
        if not top.is_dir:
            yield from self._one(b"./" + top.name, top)
            return
        for path, entry in walk(self._trees, top, b"./", failed=self._unread):
            self._cancel.check()
            yield from self._one(path, entry)

    def _unread(self, path: bytes, error: Corruption | ChunkMissing, lost: bool) -> None:  # noqa: FBT001 - walk's
        self._failed(path, WITHOUT_CONTENT[Mark.LOST] if lost else error)

    def _one(self, path: bytes, entry: Entry) -> Iterator[Checksum]:
        if not entry.is_regular:
            return
        if entry.mark in WITHOUT_CONTENT:
            self._failed(path, WITHOUT_CONTENT[entry.mark])
            return
        digest = self._digest(path, entry)
        if digest is not None:
            self._progress.advance(files=1, length_bytes=entry.size)
            yield Checksum(path, entry.size, digest)

    def _digest(self, path: bytes, entry: Entry) -> bytes | None:
        if not entry.size:
            return EMPTY
        known = self._known.find(entry.content)
        if known is not None and not self._anew:
            return known
        self._progress.at(path)
        hasher = hashlib.sha256()
        try:
            for raw in self._contents.read(entry):
                self._cancel.check()  # one file may take hours
                hasher.update(raw)
        except (Corruption, ChunkMissing) as error:
            self._failed(path, error)
            return None
        self.read_bytes += entry.size
        digest = hasher.digest()
        if known is not None and known != digest:
            what = f"what is kept of {path.decode('utf-8', 'surrogateescape')}"
            self._failed(path, Corruption(what, "its checksum is another than that of the content; it is put right"))
        self._known.add(entry.content, digest)
        return digest
