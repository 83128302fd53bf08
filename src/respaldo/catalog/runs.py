"""Runs: a directory as one tree, or a long one in parts, so that one more file rewrites one of them.

A directory longer than `RUN_ENTRIES_SPLIT` entries is cut at names that a keyed hash chooses: nobody without the key
can choose names that force degenerate runs. Where a run begins and holds what one of a stored tree does, it is that:
nothing of it is built or hashed again. Implements docs/format.md, "Tree".
"""

from __future__ import annotations

import stat
from bisect import bisect_left, bisect_right
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

from blake3 import blake3

from respaldo.catalog.trees import TreeSink
from respaldo.core.ids import CHUNK_ID_BYTES, ChunkId, Kind
from respaldo.format.columns import u32_array
from respaldo.format.tree import META, Branch, Leaf

RUN_ENTRIES_SPLIT = 4096
RUN_ENTRIES_MIN = 1024
RUN_ENTRIES_MAX = 8192
RUN_BYTES_MAX = 8 << 20
"""Half of what a block holds: a run ends before it weighs more, whatever its entries carry."""
_RUN_MASK = (1 << 11) - 1
_ENTRY_BYTES = 64
_PAIR_BYTES = 16
_META_WORDS = META.size // 4
T = TypeVar("T")
Run = tuple[ChunkId, int]
"""A run that is stored: its tree, the number of its entries."""


class Span(NamedTuple):
    """Is entries of two directories that are equal: the rows where they begin, and how many there are."""

    row: int
    row_there: int
    length: int


class Alike(NamedTuple):
    """Says what a directory has in common with one that is stored: the runs of that, and the rows, in ascending order.

    Whoever says so has compared the names of owners, too.
    """

    runs: Sequence[Run]
    spans: Sequence[Span]


def encode_short(leaf: Leaf) -> bytes:
    """Returns the tree of a directory that is stored in one piece, nothing for a long one."""
    encoded = leaf.encode() if len(leaf) <= RUN_ENTRIES_SPLIT else b""
    return encoded if len(encoded) <= RUN_BYTES_MAX else b""


def put_tree(sink: TreeSink, leaf: Leaf, name_order: bytes, alike: Alike | None = None) -> ChunkId:
    """Stores a directory, returns its tree's id. ``name_order`` is the key that chooses where long ones are cut."""
    encoded = encode_short(leaf)
    return sink.put(Kind.TREE, encoded) if encoded else put_runs(sink, leaf, name_order, alike)[0]


def put_runs(sink: TreeSink, leaf: Leaf, name_order: bytes, alike: Alike | None) -> tuple[ChunkId, list[Run]]:
    """Stores a long directory; returns its tree's id, and its runs."""
    cutter = _Cutter(leaf, name_order)
    known = _Known(alike, cutter) if alike is not None else None
    runs: list[Run] = []
    while not cutter.done:
        run = known.at(cutter.row) if known is not None else None
        if run is None:
            built = cutter.cut()
            run = (sink.put(Kind.TREE, built.encode()), len(built))
        else:
            cutter.skip(run[1])
        runs.append(run)
    return sink.put(Kind.TREE, Branch(tuple(runs)).encode()), runs


def without_runs(leaf: Leaf, runs: Sequence[Run], known: Container[ChunkId]) -> Iterator[Leaf]:
    """Yields a directory that stands in runs, without those that are known."""
    cutter = _Cutter(leaf, b"")
    for run, count in runs:
        if run in known:
            cutter.skip(count)
        else:
            yield cutter.cut(cutter.row + count)


def split_leaf(leaf: Leaf, name_order: bytes) -> Iterator[Leaf]:
    """Yields the runs of a long directory, in order."""
    cutter = _Cutter(leaf, name_order)
    while not cutter.done:
        yield cutter.cut()


class _Known:
    """Finds the runs of a stored directory again."""

    def __init__(self, alike: Alike, cutter: _Cutter) -> None:
        self._spans = alike.spans
        self._starts = [span.row for span in alike.spans]
        self._cutter = cutter
        self._runs: dict[int, Run] = {}
        row = 0
        for run in alike.runs:
            self._runs[row] = run
            row += run[1]

    def at(self, row: int) -> Run | None:
        """Returns the run that begins at a row, None where that is not one of the stored ones."""
        place = bisect_right(self._starts, row) - 1
        if place < 0:
            return None
        span = self._spans[place]
        there = row - span.row + span.row_there
        run = self._runs.get(there)
        if run is None or there + run[1] > span.row_there + span.length:
            return None
        return run if self._cutter.ends_after(row, run[1]) else None


class _Cutter:
    """Cuts runs off the front of a directory."""

    def __init__(self, leaf: Leaf, name_order: bytes) -> None:
        self._leaf = leaf
        self._names = leaf.names.split(b"\0")[:-1]
        self._name_order = name_order
        self._modes = u32_array(leaf.meta)[::_META_WORDS]
        self._spots = leaf.spots()
        self._target_at = 0
        self._sorted = {name: sorted(getattr(leaf, name)) for name in ("levels", "links", "xattrs", "marks")}
        self.row = 0

    @property
    def done(self) -> bool:
        """Whether all was cut off."""
        return self.row == len(self._names)

    def ends_after(self, row: int, count: int) -> bool:
        """Whether entries that go on for so many, where no run ends before, are a run whatever follows."""
        if row + count == len(self._names):
            return True
        return count >= RUN_ENTRIES_MIN and (count >= RUN_ENTRIES_MAX or self._is_chosen(row + count - 1))

    def _is_chosen(self, row: int) -> bool:
        digest = blake3(self._names[row], key=self._name_order).digest(8)
        return int.from_bytes(digest, "little") & _RUN_MASK == 0

    def skip(self, count: int) -> None:
        """Leaves a run out."""
        self._target_at = self._targets_end(self.row + count)
        self.row += count

    def _targets_end(self, end: int) -> int:
        """Returns where the targets of links before a row end."""
        at = self._target_at
        for mode in self._modes[self.row : end]:
            if stat.S_ISLNK(mode):
                at = self._leaf.targets.index(b"\0", at) + 1
        return at

    def cut(self, end: int = 0) -> Leaf:
        """Returns the next run; with ``end``, whatever is before that row."""
        first, end = self.row, end or self._end()
        leaf = self._leaf
        meta = leaf.meta[first * META.size : end * META.size]
        words = u32_array(meta)
        uids, gids = set(words[1::_META_WORDS]), set(words[2::_META_WORDS])
        target_at, self._target_at = self._target_at, self._targets_end(end)
        self.row = end
        return Leaf(
            names=b"".join([name + b"\0" for name in self._names[first:end]]),
            meta=meta,
            content=leaf.content[self._spots[first] * CHUNK_ID_BYTES : self._spots[end] * CHUNK_ID_BYTES],
            targets=leaf.targets[target_at : self._target_at],
            levels=self._dealt("levels", leaf.levels, first, end),
            links=self._dealt("links", leaf.links, first, end),
            xattrs=self._dealt("xattrs", leaf.xattrs, first, end),
            marks=self._dealt("marks", leaf.marks, first, end),
            users={number: name for number, name in leaf.users.items() if number in uids},
            groups={number: name for number, name in leaf.groups.items() if number in gids},
        )

    def _dealt(self, name: str, rows: Mapping[int, T], first: int, end: int) -> dict[int, T]:
        """Returns the rows of a map that lie in a run, numbered from the run's first."""
        keys = self._sorted[name]
        return {row - first: rows[row] for row in keys[bisect_left(keys, first) : bisect_left(keys, end)]}

    def _end(self) -> int:
        """Returns the row behind the next run's last: after a chosen name, before it gets too long or too heavy."""
        leaf, names, modes, spots, xattrs = self._leaf, self._names, self._modes, self._spots, self._leaf.xattrs
        first, target_at = self.row, self._target_at
        weight = 0
        for row in range(first, len(names)):
            heavy = META.size + _ENTRY_BYTES + len(names[row]) + (spots[row + 1] - spots[row]) * CHUNK_ID_BYTES
            if stat.S_ISLNK(modes[row]):
                end = leaf.targets.index(b"\0", target_at) + 1
                heavy += end - target_at
                target_at = end
            if xattrs:
                heavy += sum(len(key) + len(value) + _PAIR_BYTES for key, value in xattrs.get(row, ()))
            if row > first and weight + heavy > RUN_BYTES_MAX:
                return row
            weight += heavy
            length = row + 1 - first
            if length >= RUN_ENTRIES_MIN and (length >= RUN_ENTRIES_MAX or self._is_chosen(row)):
                return row + 1
        return len(names)
