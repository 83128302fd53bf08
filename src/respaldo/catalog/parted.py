"""What two versions of a directory do not have in common, found in columns: mostly a few rows of many."""

from __future__ import annotations

import stat
from array import array
from bisect import bisect_right
from collections.abc import Mapping
from typing import TypeVar

from respaldo.core.ids import CHUNK_ID_BYTES
from respaldo.format.columns import differing, u32_array
from respaldo.format.tree import META, Leaf

T = TypeVar("T")
_ALIKE = ("names", "targets", "levels", "links", "xattrs", "marks", "users", "groups")


def parted(one: Leaf, other: Leaf) -> tuple[Leaf, Leaf]:
    """Returns what two sound leaves do not have in common, or both as they are where that is not seen at once.

    Making an entry of a row takes longer than comparing it.
    """
    if any(getattr(one, name) != getattr(other, name) for name in _ALIKE) or len(one.content) != len(other.content):
        return one, other
    spots = one.spots()
    if spots != other.spots():
        return one, other
    rows = set(u32_array(differing(one.meta, other.meta, META.size)))
    cells = u32_array(differing(one.content, other.content, CHUNK_ID_BYTES))
    rows.update(bisect_right(spots, cell) - 1 for cell in cells)
    kept = sorted(rows)
    if any(stat.S_ISLNK(one.meta[row * META.size] | one.meta[row * META.size + 1] << 8) for row in kept):
        return one, other
    return _part(one, kept, spots), _part(other, kept, spots)


def _part(leaf: Leaf, rows: list[int], spots: array[int]) -> Leaf:
    names = leaf.names.split(b"\0")
    places = {row: place for place, row in enumerate(rows)}

    def of(mapping: Mapping[int, T]) -> dict[int, T]:
        return {places[row]: value for row, value in mapping.items() if row in places}

    return Leaf(
        names=b"".join([names[row] + b"\0" for row in rows]),
        meta=b"".join([leaf.meta[row * META.size : (row + 1) * META.size] for row in rows]),
        content=b"".join([leaf.content[spots[row] * CHUNK_ID_BYTES : spots[row + 1] * CHUNK_ID_BYTES] for row in rows]),
        levels=of(leaf.levels),
        links=of(leaf.links),
        xattrs=of(leaf.xattrs),
        marks=of(leaf.marks),
        users=leaf.users,
        groups=leaf.groups,
    )
