"""Contents: the bytes of one file, in order, each piece checked against its id, and all of them against its size.

Holds a piece at a time, whatever the file. One thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from respaldo.catalog.extents import Extents
from respaldo.catalog.trees import Reader, TreeReader
from respaldo.core.errors import Corruption, RespaldoError
from respaldo.core.ids import ChunkId, Kind
from respaldo.core.model import Entry, Mark
from respaldo.core.seams import Buffer
from respaldo.format.content import HOLE, Row

ZEROS = bytes(1 << 20)
WITHOUT_CONTENT = {
    Mark.UNREADABLE: "its content could not be read when it was backed up",
    Mark.LOST: "its content was lost to damage",
}
"""Why a file that is recorded has no content that could be given out."""


class Span(NamedTuple):
    """Is a range of a file that holds data."""

    offset: int
    length: int


class Member(NamedTuple):
    """Is an entry under its name. ``error``: why its content cannot be had."""

    name: bytes
    entry: Entry
    error: RespaldoError | None = None


class Contents:
    """Reads what files consist of."""

    def __init__(self, reader: Reader, trees: TreeReader, extents: Extents | None = None) -> None:
        """``extents``: what tells where holes are, where that is to end soon whatever lists say."""
        self._reader = reader
        self._trees = trees
        self._extents = extents or Extents(reader)

    def members(self, found: Iterator[tuple[bytes, Entry]]) -> Iterator[Member]:
        """Yields entries in their order; what is in one can be read until the next is asked for."""
        for name, entry in found:
            yield Member(name, entry)

    def read(self, entry: Entry) -> Iterator[Buffer]:
        """Yields a file's bytes, zeros for its holes; raises `Corruption`, `ChunkMissing`, `StorageError`."""
        for length, raw in self.pieces(entry):
            if raw is not None:
                yield raw
                continue
            for _ in range(length // len(ZEROS)):
                yield ZEROS
            if length % len(ZEROS):
                yield ZEROS[: length % len(ZEROS)]

    def pieces(self, entry: Entry) -> Iterator[tuple[int, Buffer | None]]:
        """Yields the pieces of a file, None for a hole of that length; raises what `read` does."""
        left = entry.size
        for chunk_id, length in self._rows(entry):
            raw = None if chunk_id == HOLE else self._reader.get(Kind.DATA, chunk_id)
            if raw is not None and length not in {0, len(raw)}:
                raise Corruption(f"data chunk {chunk_id.hex()[:16]}", "its length is not the one its list says")
            length = length if raw is None else len(raw)  # noqa: PLW2901 - a direct row does not say it
            left -= length
            if left < 0:
                raise too_long(entry)
            yield length, raw
        if left:
            raise too_short(entry)

    def spans(self, entry: Entry) -> Iterator[Span]:
        """Yields the ranges of a file between its holes, without reading what is in them."""
        if not entry.content.level:
            if entry.size:
                yield Span(0, entry.size)
            return
        at = start = 0
        for length, is_hole in self._extents.of(entry.content):
            if is_hole:
                if at > start:
                    yield Span(start, at - start)
                start = at + length
            at += length
        if at > start:
            yield Span(start, at - start)
        if at != entry.size:
            raise Corruption(_what(entry), "it is not as long as the file's size")

    def _rows(self, entry: Entry) -> Iterator[Row]:
        if entry.content.level:
            return self._trees.list_rows(entry.content)
        return (Row(ChunkId(chunk_id), 0) for chunk_id in entry.content)


def too_long(entry: Entry) -> Corruption:
    """Returns the error for content that goes beyond its file's size."""
    return Corruption(_what(entry), "it is longer than the file's size")


def too_short(entry: Entry) -> Corruption:
    """Returns the error for content that ends before its file's size."""
    return Corruption(_what(entry), "it is shorter than the file's size")


def _what(entry: Entry) -> str:
    return f"content of {entry.name.decode('utf-8', 'surrogateescape')}"
