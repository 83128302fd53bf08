"""Families: trees of the register that have a base in common, and what stands in them at some places.

What the base holds is looked at once for all of them, and what is other in several of them once, too.
"""

from __future__ import annotations

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
        spots, meta_size = self._packer.spots, META.size
        metas: dict[int, dict[bytes, int]] = {row: {} for row in places}
        ids: dict[int, dict[bytes, int]] = {}
        everywhere = 0
        # Most that differs from the base is the same in many members: by row and by cell, before rows are made.
        for found, held in members:
            everywhere |= held
            if found.rows:
                meta = found.meta
                for at, row in enumerate(u32_array(found.rows)):
                    if row in metas:
                        key = meta[at * meta_size : (at + 1) * meta_size]
                        of_row = metas[row]
                        of_row[key] = of_row.get(key, 0) | held
            if found.cells:
                ids = ids or {cell: {} for row in places for cell in range(spots[row], spots[row + 1])}
                chunks = found.ids
                for at, cell in enumerate(u32_array(found.cells)):
                    if cell in ids:
                        key = chunks[at * CHUNK_ID_BYTES : (at + 1) * CHUNK_ID_BYTES]
                        of_cell = ids[cell]
                        of_cell[key] = of_cell.get(key, 0) | held
        own = self._packer.own
        for row, changed in metas.items():
            cells = [(cell, ids[cell]) for cell in range(spots[row], spots[row + 1]) if ids[cell]] if ids else ()
            if changed or cells:
                for variant, held in _variants(everywhere, changed, cells):
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
        trees: dict[int, Trees] = {cell: {} for cell in cell_of.values()}
        for found, held in members:
            everywhere |= held
            if found.cells:
                ids = found.ids
                # Of a directory with hundreds of others below it, every snapshot has dozens here: nothing is called.
                for at, cell in enumerate(u32_array(found.cells)):
                    if cell in trees:
                        in_cell = trees[cell]
                        tree = ids[at * CHUNK_ID_BYTES : at * CHUNK_ID_BYTES + KEY_BYTES]
                        in_cell[tree] = in_cell.get(tree, 0) | held
        for place, cell in cell_of.items():
            found_in = trees[cell] if cell != NO_CELL else {}
            held = everywhere
            for others in found_in.values():
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
