"""Carrying: which files of a directory are as they were, found in columns, without an object for one of them.

Only what nothing can be said about is carried: regular files with one name, scanned as they were, recorded as scanned,
without a mark, and whose times are old enough to say something. All others are looked at one by one.
"""

from __future__ import annotations

import stat
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from respaldo.core.ids import CHUNK_ID_BYTES
from respaldo.flows.backup.frame import IDENT_BYTES, META_BYTES, Carried, Frame
from respaldo.format.columns import differing, u32_array
from respaldo.format.leafcheck import TYPE_MASK
from respaldo.format.tree import Leaf
from respaldo.kernel import layout

_META_WORDS = META_BYTES // 4
_IDENT_WORDS = IDENT_BYTES // 4
_LINKS_WORD, _FLAGS_WORD = 4, 5
_TOLD = layout.ENTRY_RECENT | layout.ENTRY_FAILED
_FEW = 4
"""Fewer in a row are looked at one by one."""


class _Step(NamedTuple):
    """Is rows that go on in step: in the old directory, in the new one, and how many."""

    old: int
    new: int
    length: int


class Scanned(NamedTuple):
    """Is a directory as it was scanned: its names, and the columns of metadata and identity."""

    names: list[bytes]
    meta: bytes
    ident: bytes


def in_step(old: list[bytes], new: list[bytes]) -> Iterator[_Step]:
    """Yields the rows of two sorted lists of names that have the same names."""
    if old == new:
        yield _Step(0, 0, len(old))
        return
    only_old, only_new = set(old).difference(new), set(new).difference(old)
    ends_old = [*(row for row, name in enumerate(old) if name in only_old), len(old)]
    ends_new = [*(row for row, name in enumerate(new) if name in only_new), len(new)]
    at_old = at_new = next_old = next_new = 0
    while at_old < len(old) and at_new < len(new):
        length = min(ends_old[next_old] - at_old, ends_new[next_new] - at_new)
        if length:
            yield _Step(at_old, at_new, length)
        at_old, at_new = at_old + length, at_new + length
        if at_old == ends_old[next_old] < len(old):
            at_old, next_old = at_old + 1, next_old + 1
        if at_new == ends_new[next_new] < len(new):
            at_new, next_new = at_new + 1, next_new + 1


def find_carried(frame: Frame, leaf: Leaf, held: list[bytes], was: Scanned) -> list[Carried]:
    """Returns which rows of a frame are files as they were, ascending.

    ``leaf``: what was recorded of the directory, ``held``: the names in it; ``was``: as it was scanned then.
    """
    odd, marks, spots = _odd(frame), sorted(leaf.marks), leaf.spots()
    found: list[Carried] = []
    for rows in _in_step(held, was.names, frame.name_list):
        if rows.length >= _FEW:
            other = _differing(frame, leaf, was, rows)
            other.update(row - rows.new for row in _part(odd, rows.new, rows.length))
            other.update(row - rows.leaf for row in _part(marks, rows.leaf, rows.length))
            found += _carried(rows, leaf, other, spots)
    return found


def _in_step(held: list[bytes], names: list[bytes], new: list[bytes]) -> Iterator[_Rows]:
    """Yields the rows that have the same names in a leaf, in the scan that it was made of, and in a new one."""
    recorded = list(in_step(held, names))
    ends = [step.new + step.length for step in recorded]
    for scanned, row, length in in_step(names, new):
        for step in recorded[bisect_right(ends, scanned) :]:
            start, end = max(step.new, scanned), min(step.new + step.length, scanned + length)
            if start >= end:
                break
            yield _Rows(step.old + start - step.new, start, row + start - scanned, end - start)


class _Rows(NamedTuple):
    """Is rows that go on in step: where they begin in the leaf, in the old scan, in the new one, and how many."""

    leaf: int
    old: int
    new: int
    length: int


def _odd(frame: Frame) -> list[int]:
    """Returns the rows of a frame of which more has to be known than that they are as they were."""
    odd = set(frame.dropped)
    modes = u32_array(frame.meta)[::_META_WORDS]
    strange = {mode for mode in set(modes) if mode & TYPE_MASK != stat.S_IFREG}
    words = u32_array(frame.ident)
    links, flags = words[_LINKS_WORD::_IDENT_WORDS], words[_FLAGS_WORD::_IDENT_WORDS]
    told = {flag for flag in set(flags) if flag & _TOLD}
    linked = {number for number in set(links) if number != 1}
    for column, wanted in ((modes, strange), (flags, told), (links, linked)):
        if wanted:
            odd.update(row for row, value in enumerate(column) if value in wanted)
    return sorted(odd)


def _part(rows: list[int], first: int, length: int) -> list[int]:
    return rows[bisect_left(rows, first) : bisect_left(rows, first + length)]


def _differing(frame: Frame, leaf: Leaf, was: Scanned, rows: _Rows) -> set[int]:
    """Returns which of some rows were scanned or recorded otherwise, counted from the first."""

    def meta(column: bytes, first: int) -> bytes:
        return column[first * META_BYTES : (first + rows.length) * META_BYTES]

    def ident(column: bytes, first: int) -> bytes:
        return column[first * IDENT_BYTES : (first + rows.length) * IDENT_BYTES]

    now = meta(frame.meta, rows.new)
    other = set(u32_array(differing(now, meta(was.meta, rows.old), META_BYTES)))
    other.update(u32_array(differing(now, meta(leaf.meta, rows.leaf), META_BYTES)))
    other.update(u32_array(differing(ident(frame.ident, rows.new), ident(was.ident, rows.old), IDENT_BYTES)))
    return other


def _carried(rows: _Rows, leaf: Leaf, other: set[int], spots: array[int]) -> Iterator[Carried]:
    for start, end in between(sorted(other), rows.length):
        if end - start >= _FEW:
            first, last = spots[rows.leaf + start], spots[rows.leaf + end]
            ids = leaf.content[first * CHUNK_ID_BYTES : last * CHUNK_ID_BYTES]
            yield Carried(rows.new + start, rows.leaf + start, end - start, ids)


def between(rows: Iterable[int], length: int) -> Iterator[tuple[int, int]]:
    """Yields what lies between some rows, from 0 to a length."""
    at = 0
    for row in rows:
        yield at, row
        at = row + 1
    yield at, length
