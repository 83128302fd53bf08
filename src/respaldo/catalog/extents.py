"""Extents: where the data and the holes of a file are, by its lists alone, without reading content.

A list of nothing but data is gone through once, however often others name it: whoever makes lists up can name one for
ever. One that holds holes has to be gone through each time; who cannot go on for ever says how often that may be.
Implements docs/format.md, "List".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from respaldo.catalog.trees import Reader, read_node
from respaldo.core.errors import Corruption
from respaldo.core.ids import ChunkId
from respaldo.core.model import Content
from respaldo.format.content import HOLE


class Extent(NamedTuple):
    """Is so many bytes of a file that are all data, or all hole."""

    length: int
    is_hole: bool


_Met = dict[tuple[ChunkId, int], int]
"""The lists of a file that were gone through: how many bytes they stand for, 0 for those with a hole."""


class Extents:
    """Goes through the lists of files, one after another. One thread."""

    def __init__(self, reader: Reader, *, again_max: int | None = None) -> None:
        """``again_max``: so many rows of lists with holes may be met again in one file; None: any number."""
        self._reader = reader
        self._again_max = again_max
        self.again = 0
        """Rows that were met again, of all files."""

    def of(self, content: Content) -> Iterator[Extent]:
        """Yields the extents of content that stands in a list, neighbours of one sort not joined.

        Raises `Corruption` also where it would go on for longer than ``again_max`` allows, `ChunkMissing`.
        """
        met: _Met = {}
        limit = None if self._again_max is None else self.again + self._again_max
        after_hole = False
        for top in content:
            for extent in self._below(top, content.level, None, met, limit):
                if extent.is_hole and after_hole:
                    raise Corruption(_what(top), "two holes are adjacent in it")
                after_hole = extent.is_hole
                yield extent

    def _below(self, node: ChunkId, level: int, expected: int | None, met: _Met, limit: int | None) -> Iterator[Extent]:
        key = node, level
        total = met.get(key)
        if total:
            _check(node, total, expected)
            yield Extent(total, is_hole=False)
            return
        rows = read_node(self._reader, node, level)
        total = sum(row.length for row in rows)
        _check(node, total, expected)
        if key in met:
            self.again += len(rows)
            if limit is not None and self.again > limit:
                raise Corruption(_what(node), "it is named too often to tell where all of the holes are")
        has_holes = False
        for row in rows:
            if level == 1:
                has_holes |= row.id == HOLE
                yield Extent(row.length, row.id == HOLE)
                continue
            for extent in self._below(row.id, level - 1, row.length, met, limit):
                has_holes |= extent.is_hole
                yield extent
        met[key] = 0 if has_holes else total


def _check(node: ChunkId, total: int, expected: int | None) -> None:
    if expected is not None and total != expected:
        raise Corruption(_what(node), "its rows do not add up to what refers to it")


def _what(node: ChunkId) -> str:
    return f"list {node.hex()[:16]}"
