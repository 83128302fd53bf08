"""Families: trees of the register that have a base in common, and what stands in them at some places.

What the base holds is looked at once for all of them, and what is other in several of them once, too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import lmdb

from respaldo.catalog.register import NO_CELL, NOWHERE, Base, Recorded, Register, handle_of
from respaldo.core.ids import CHUNK_ID_BYTES
from respaldo.format.columns import u32_array
from respaldo.format.tree import META, Leaf, leaf_as_encoded
from respaldo.views.row import Packer

Members = Sequence[tuple[Recorded, int]]
"""Trees, each with the snapshots that hold it, a bit each."""
_Variant = tuple[int, bytes, tuple[tuple[int, bytes], ...]]
"""A row, its metadata where that is not the base's, and ids by cell that are not."""


class _Wanted(NamedTuple):
    """Is rows that are looked for, and which of them an id of content belongs to, by its cell."""

    rows: frozenset[int]
    cells: dict[int, int]


class Family:
    """Is all trees with one base. Numbers are those of rows; of directories and runs, among themselves."""

    def __init__(self, register: Register, base: bytes) -> None:
        """``base``: its handle, `NOWHERE` for branches, which have none."""
        self._base = Base(b"", u32_array(b""), b"") if base == NOWHERE else register.base(base)

    @cached_property
    def _leaf(self) -> Leaf:
        try:
            return leaf_as_encoded(self._base.raw)
        except ValueError as error:
            raise lmdb.CorruptedError(f"a base of the register is none: {error}") from None

    @cached_property
    def _packer(self) -> Packer:
        return Packer(self._leaf)

    def rows(self, members: Members, places: Collection[int]) -> Iterator[tuple[int, bytes, int]]:
        """Yields (number, row, snapshots) of what stands in some rows of members."""
        packer = self._packer
        wanted = self._wanted(places)
        everywhere = 0
        variants: dict[_Variant, int] = {}
        others: dict[int, int] = {}
        for found, held in members:
            everywhere |= held
            for variant in self._variants(found, wanted):
                variants[variant] = variants.get(variant, 0) | held
                row = variant[0]
                others[row] = others.get(row, 0) | held
        for variant, held in variants.items():
            yield variant[0], self._packed(variant), held
        for row in places:
            held = everywhere & ~others.get(row, 0)
            if held:
                yield row, packer.own(row), held

    def row(self, found: Recorded, row: int) -> bytes:
        """Returns what stands in a row of a member."""
        variants = self._variants(found, self._wanted((row,)))
        return next(map(self._packed, variants), None) or self._packer.own(row)

    def _wanted(self, places: Collection[int]) -> _Wanted:
        cells = self._packer.cells
        return _Wanted(frozenset(places), {cell: row for row in places for cell in cells(row)})

    @staticmethod
    def _variants(found: Recorded, wanted: _Wanted) -> Iterator[_Variant]:
        """Yields what a member has in some rows that its base has not."""
        metas: dict[int, bytes] = {}
        ids: dict[int, tuple[tuple[int, bytes], ...]] = {}
        rows, cells = u32_array(found.rows), u32_array(found.cells)
        if not wanted.rows.isdisjoint(rows):
            for at, row in enumerate(rows):
                if row in wanted.rows:
                    metas[row] = found.meta[at * META.size : (at + 1) * META.size]
        row_of = wanted.cells
        if not row_of.keys().isdisjoint(cells):
            for at, cell in enumerate(cells):
                if cell in row_of:
                    row = row_of[cell]
                    ids[row] = (*ids.get(row, ()), (cell, found.id_at(at)))
        for row, meta in metas.items():
            yield row, meta, ids.pop(row, ())
        for row, changed in ids.items():
            yield row, b"", changed

    def _packed(self, variant: _Variant) -> bytes:
        row, meta, changed = variant
        ids = self._packer.ids(row)
        if changed:
            first = self._packer.cells(row).start
            joined = bytearray(ids)
            for cell, chunk in changed:
                at = (cell - first) * CHUNK_ID_BYTES
                joined[at : at + CHUNK_ID_BYTES] = chunk
            ids = bytes(joined)
        return self._packer.pack(row, meta or self._leaf.meta[row * META.size : (row + 1) * META.size], ids)

    def below(self, members: Members, places: Collection[int]) -> Iterator[tuple[int, bytes, int]]:
        """Yields (number, handle, snapshots) of the trees of some directories or runs of members."""
        folders = self._base.folders
        if not self._base.raw:
            for found, held in members:
                for place in places:
                    yield place, handle_of(found.id_at(place)), held
            return
        place_of = {folders[place]: place for place in places if folders[place] != NO_CELL}
        everywhere = 0
        others: dict[int, int] = {}
        for found, held in members:
            everywhere |= held
            for at, cell in enumerate(u32_array(found.cells)):
                if cell in place_of:
                    place = place_of[cell]
                    others[place] = others.get(place, 0) | held
                    yield place, handle_of(found.id_at(at)), held
        for place in places:
            held = everywhere & ~others.get(place, 0)
            if held:
                yield place, self._own_tree(place), held

    def tree(self, found: Recorded, place: int) -> bytes:
        """Returns the handle of the tree of a directory in a member."""
        return next(handle for _, handle, _ in self.below([(found, 1)], (place,)))

    def runs(self, found: Recorded) -> list[bytes]:
        """Returns the handles of the runs of a member, none where it is no branch."""
        if self._base.raw:
            return []
        return [handle_of(found.id_at(place)) for place in range(len(found.ids) // CHUNK_ID_BYTES)]

    def _own_tree(self, place: int) -> bytes:
        cell = self._base.folders[place]
        content = self._leaf.content
        return NOWHERE if cell == NO_CELL else handle_of(content[cell * CHUNK_ID_BYTES : (cell + 1) * CHUNK_ID_BYTES])
