"""Families: trees of the register that have a base in common, and what stands in them at some places.

What the base holds is looked at once for all of them, and what is other in several of them once, too.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property

import lmdb

from respaldo.catalog.register import KEY_BYTES, NO_CELL, NOWHERE, Base, Recorded, Register, handle_of
from respaldo.core.ids import CHUNK_ID_BYTES
from respaldo.format.columns import u32_array
from respaldo.format.tree import META, Leaf, leaf_as_encoded
from respaldo.views.row import Packer, Row

Members = Sequence[tuple[Recorded, int]]
"""Trees, each with the snapshots that hold it, a bit each."""
Trees = dict[bytes, int]
"""Trees by handle, with the snapshots that hold them at one path."""
_Variant = tuple[bytes, tuple[tuple[int, bytes], ...]]
"""Of a row: its metadata, empty for the base's, and ids by cell where they are not the base's."""


_NUMBER = struct.Struct("<I").pack
"""Packs the number of a row or cell as it stands in a column of them: looked for as it is, without unpacking others."""
_NUMBER_BYTES = 4
_SEARCHED_FOR = 2
"""Numbers are searched for in a column of more than twice as many; else each of the column is looked up."""


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

    def rows(self, members: Members, places: Collection[int]) -> Iterator[tuple[int, Row, int]]:
        """Yields (number, row, snapshots) of what stands in some rows of members."""
        spots = self._packer.spots
        metas: dict[bytes, dict[bytes, int]] = {_NUMBER(row): {} for row in places}
        ids: dict[bytes, dict[bytes, int]] = {}
        everywhere = 0
        # Most that differs from the base is the same in many members: by row and by cell, before rows are made.
        for (_, _, numbers, meta, cells, chunks), held in members:
            everywhere |= held
            if numbers:
                _add_each(metas, numbers, meta, held)
            if cells:
                ids = ids or {_NUMBER(cell): {} for row in places for cell in range(spots[row], spots[row + 1])}
                _add_each(ids, cells, chunks, held)
        own = self._packer.own
        for row, changed in zip(places, metas.values(), strict=True):
            others: Sequence[tuple[int, dict[bytes, int]]] = ()
            if ids:
                among = range(spots[row], spots[row + 1])
                others = [(cell, in_cell) for cell in among if (in_cell := ids[_NUMBER(cell)])]
            if changed or others:
                for variant, held in _variants(everywhere, changed, others):
                    yield row, self._packed(row, variant), held
            elif everywhere:
                yield row, own(row), everywhere

    def row(self, found: Recorded, row: int) -> Row:
        """Returns what stands in a row of a member."""
        return next(packed for _, packed, _ in self.rows([(found, 1)], (row,)))

    def _packed(self, row: int, variant: _Variant) -> Row:
        meta, changed = variant
        ids = self._packer.ids(row)
        for cell, chunk in changed:
            at = (cell - self._packer.spots[row]) * CHUNK_ID_BYTES
            ids = ids[:at] + chunk + ids[at + CHUNK_ID_BYTES :]
        return self._packer.pack(row, meta or self._leaf.meta[row * META.size : (row + 1) * META.size], ids)

    def below(self, members: Members, places: Collection[int]) -> Iterator[tuple[int, Trees]]:
        """Yields the trees of some directories or runs of members, each by its number."""
        if not self._base.raw:
            for place in places:
                runs: Trees = {}
                for found, held in members:
                    _add(runs, handle_of(found.id_at(place)), held)
                yield place, runs
            return
        everywhere = 0
        cell_of = {place: self._base.folders[place] for place in places}
        ids: dict[bytes, dict[bytes, int]] = {_NUMBER(cell): {} for cell in cell_of.values()}
        for (_, _, _, _, cells, chunks), held in members:
            everywhere |= held
            if cells:
                _add_each(ids, cells, chunks, held)
        for place, cell in cell_of.items():
            found_in: Trees = {}
            held = everywhere
            for tree, others in ids[_NUMBER(cell)].items() if cell != NO_CELL else ():
                found_in[tree[:KEY_BYTES]] = others
                held &= ~others
            if held:
                _add(found_in, self._own_tree(place), held)
            yield place, found_in

    def tree(self, found: Recorded, place: int) -> bytes:
        """Returns the handle of the tree of a directory in a member."""
        return next(handle for _, trees in self.below([(found, 1)], (place,)) for handle in trees)

    def runs(self, found: Recorded) -> list[bytes]:
        """Returns the handles of the runs of a member, none where it is no branch."""
        if self._base.raw:
            return []
        return [handle_of(found.id_at(place)) for place in range(len(found.ids) // CHUNK_ID_BYTES)]

    def _own_tree(self, place: int) -> bytes:
        cell = self._base.folders[place]
        content = self._leaf.content
        return NOWHERE if cell == NO_CELL else handle_of(content[cell * CHUNK_ID_BYTES : (cell + 1) * CHUNK_ID_BYTES])


def _add_each(wanted: dict[bytes, dict[bytes, int]], numbers: bytes, column: bytes, held: int) -> None:
    """Adds the rows of a column whose numbers are wanted. ``numbers``: u32, joined, one for each row."""
    if len(numbers) == _NUMBER_BYTES:  # mostly one file differs
        if (of_it := wanted.get(numbers)) is not None:
            of_it[column] = of_it.get(column, 0) | held
        return
    width = len(column) // (len(numbers) // _NUMBER_BYTES)
    if len(wanted) * _SEARCHED_FOR * _NUMBER_BYTES < len(numbers):
        for number, known in wanted.items():
            start = numbers.find(number)
            while start > 0 and start % _NUMBER_BYTES:
                start = numbers.find(number, start + 1)
            if start >= 0:
                at = start // _NUMBER_BYTES * width
                row = column[at : at + width]
                known[row] = known.get(row, 0) | held
        return
    at = 0
    for start in range(0, len(numbers), _NUMBER_BYTES):
        if (of_it := wanted.get(numbers[start : start + _NUMBER_BYTES])) is not None:
            row = column[at : at + width]
            of_it[row] = of_it.get(row, 0) | held
        at += width


def _add(trees: Trees, tree: bytes, held: int) -> None:
    trees[tree] = trees.get(tree, 0) | held


def _variants(
    everywhere: int, metas: dict[bytes, int], cells: Sequence[tuple[int, dict[bytes, int]]]
) -> Iterator[tuple[_Variant, int]]:
    """Yields what a row is in members, with the snapshots: metadata and ids that are there together."""
    found: list[tuple[_Variant, int]] = [((meta, ()), held) for meta, held in _whole(everywhere, metas)]
    for cell, ids in cells:
        by_held = {held: chunk for chunk, held in ids.items()}
        parted: list[tuple[_Variant, int]] = []
        for (meta, changed), held in found:
            chunk = by_held.get(held)  # what is written anew has another time: mostly both change at once
            parts = ((chunk, held),) if chunk is not None else _whole(held, ids)
            parted += [((meta, (*changed, (cell, part)) if part else changed), of_it) for part, of_it in parts]
        found = parted
    yield from found


def _whole(everywhere: int, found: dict[bytes, int]) -> list[tuple[bytes, int]]:
    """Returns in which of some snapshots something is what; in those that are left, what the base has: nothing."""
    parts = [(key, held & everywhere) for key, held in found.items() if held & everywhere]
    for _, held in parts:
        everywhere &= ~held
    return [*parts, (b"", everywhere)] if everywhere else parts
