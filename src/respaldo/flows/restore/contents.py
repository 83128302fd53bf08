"""Contents: the pieces of a file, located and held against its size; and whether a file that exists has them already.

Invariant: rows add up to the size of the entry exactly, or `Corruption` is raised before or at the row that does not
fit.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from respaldo.core.errors import ChunkMissing, Corruption, StorageError
from respaldo.core.ids import ChunkId, Kind
from respaldo.core.model import Entry, Mark
from respaldo.flows.restore.seams import Trees
from respaldo.format.content import HOLE
from respaldo.fs.place import open_own
from respaldo.store.blocks import Blocks, Location

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_HOLE_READ_BYTES = 1 << 20


class Piece(NamedTuple):
    """Is a piece of a file: its length, its chunk and where that lies; a hole has neither."""

    length: int
    id: ChunkId
    at: Location | None


class Contents:
    """Reads what files consist of. One thread."""

    def __init__(self, blocks: Blocks, trees: Trees) -> None:
        self._blocks = blocks
        self._trees = trees

    def pieces(self, entry: Entry) -> Iterator[Piece]:
        """Yields the pieces of a file in order; raises `Corruption`, `ChunkMissing`, `StorageError`."""
        left = entry.size
        locate = self._blocks.locate
        if entry.content.level:
            for chunk_id, length in self._trees.list_rows(entry.content):
                left -= length
                if left < 0:
                    raise too_long(entry.name)
                if chunk_id == HOLE:
                    yield Piece(length, chunk_id, None)
                    continue
                at = locate(Kind.DATA, chunk_id)
                if at.length != length:
                    raise Corruption(f"data chunk {chunk_id.hex()[:16]}", "its length is not the one its list says")
                yield Piece(length, chunk_id, at)
        else:
            for chunk_id in entry.content:
                at = locate(Kind.DATA, chunk_id)
                left -= at.length
                if left < 0:
                    raise too_long(entry.name)
                yield Piece(at.length, chunk_id, at)
        if left:
            raise too_short(entry.name)

    def found(self, entry: Entry) -> Entry:
        """Returns an entry without the mark of what is lost, where all of its content is there again."""
        if entry.mark is not Mark.LOST or not entry.is_regular:
            return entry
        try:
            for _ in self.pieces(entry):
                pass
        except (ChunkMissing, Corruption, StorageError):
            return entry
        return replace(entry, mark=Mark.NONE)

    def data_bytes(self, entry: Entry) -> int:
        """Returns how many bytes of a file are not holes, as far as its list can be read."""
        if not entry.content.level:
            return entry.size
        try:
            return self._trees.data_bytes(entry.content)
        except (ChunkMissing, Corruption):
            return 0

    def same(self, dir_fd: int, entry: Entry, name: bytes, *, cold: bool = False) -> bool:
        """Whether a file that exists has the content of an entry. ``cold`` reads it from the disk, not from memory.

        A cold look, which is about what was just written, is not kept out by a mode that bars the owner from reading.
        False, too, where either cannot be read: then it is to be written, which says what is wrong.
        """
        try:
            fd = _open(dir_fd, name, cold=cold)
        except OSError:
            return False
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or found.st_size != entry.size:
                return False
            if cold:
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            return self._same_pieces(fd, entry)
        except OSError:
            return False
        finally:
            os.close(fd)

    def _same_pieces(self, fd: int, entry: Entry) -> bool:
        # A file of one chunk needs no look into the index: its chunk is as long as the file.
        if not entry.content.level and len(entry.content) == 1:
            (chunk_id,) = entry.content
            return self.has(fd, 0, Piece(entry.size, chunk_id, None))
        at = 0
        try:
            for piece in self.pieces(entry):
                if not self.has(fd, at, piece):
                    return False
                at += piece.length
        except (ChunkMissing, Corruption):
            return False
        return True

    def has(self, fd: int, offset: int, piece: Piece) -> bool:
        """Whether an open file has a piece at an offset; raises `OSError`."""
        if piece.id == HOLE:
            return is_zero(fd, offset, piece.length)
        raw = os.pread(fd, piece.length, offset)
        if len(raw) != piece.length:
            return False
        try:
            self._blocks.check(Kind.DATA, piece.id, raw)
        except Corruption:
            return False
        return True


def _open(dir_fd: int, name: bytes, *, cold: bool) -> int:
    try:
        return os.open(name, _READ, dir_fd=dir_fd)
    except PermissionError:
        if not cold:
            raise
        return open_own(dir_fd, name)


def is_zero(fd: int, offset: int, length: int) -> bool:
    """Whether an open file has nothing but zeros in a range; jumps over its holes."""
    end = offset + length
    while offset < end:
        try:
            offset = os.lseek(fd, offset, os.SEEK_DATA)
        except OSError:  # No data behind it.
            return os.fstat(fd).st_size >= end
        if offset >= end:
            return True
        raw = os.pread(fd, min(_HOLE_READ_BYTES, end - offset), offset)
        if not raw or raw.count(0) != len(raw):
            return False
        offset += len(raw)
    return True


def too_long(name: bytes) -> Corruption:
    """Returns the error for content that goes beyond its file's size."""
    return Corruption(f"content of {_shown(name)}", "it is longer than the file's size")


def too_short(name: bytes) -> Corruption:
    """Returns the error for content that ends before its file's size."""
    return Corruption(f"content of {_shown(name)}", "it is shorter than the file's size")


def _shown(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
