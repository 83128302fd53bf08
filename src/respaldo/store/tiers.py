"""Tiers: which of many small objects are merged into one, so that few are left that a new client must read.

An object that repeats n items (packs of a segment, manifests of a catalogue) is of class ⌊log₁₆ n⌋. Sixteen of one
class become one of the next. Invariant: of each class at most fifteen are left by one writer; items are copied once a
class, not once a session. An object that is long enough is left alone, so that merging needs bounded memory. Pure.
Implements docs/format.md, "Merging".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeVar

FANOUT = 16
"""So many objects of a class become one."""
FULL_BYTES = 8 << 20
"""An object that repeats more than this is never merged again."""
MERGED_BYTES_MAX = 16 << 20
"""A merged object repeats at most this: it is built in memory."""

T = TypeVar("T", str, bytes)


class Extent(NamedTuple):
    """Is what an object repeats: the number of items, and their bytes."""

    items: int
    length_bytes: int


def tier(extent: Extent) -> int:
    """Returns the class of an object."""
    found, items = 0, extent.items
    while items >= FANOUT:
        items //= FANOUT
        found += 1
    return found


def plan(objects: Mapping[T, Extent]) -> list[T]:
    """Returns the names of those that should become one now, none where there is nothing to do.

    What would at once be one too many in its new class takes that class with it, so that nothing is written twice.
    Where all of a class together would be too long, the shortest of it are taken.
    """
    chosen: list[T] = []
    items = length = 0
    for level in range(tier(Extent(sum(extent.items for extent in objects.values()), 0)) + 1):
        if chosen and tier(Extent(items, length)) != level:
            continue
        members = sorted(
            (extent.length_bytes, name)
            for name, extent in objects.items()
            if tier(extent) == level and extent.length_bytes <= FULL_BYTES
        )
        if len(members) + bool(chosen) < FANOUT:
            if chosen:
                break
            continue
        for length_bytes, name in members:
            if length + length_bytes > MERGED_BYTES_MAX:
                break
            chosen.append(name)
            items += objects[name].items
            length += length_bytes
        if length > FULL_BYTES:
            break
    return chosen if len(chosen) > 1 else []
