"""Directories as a mount reads them: by row, by name and in order, with the last ones kept decoded.

An entry is known by its row, its place among all entries of its directory: trees are sorted and never change, so a row
is a lasting name. Bounded: so many entries are kept, whatever was looked at. The caller sees to it that one thread is
in here at a time.
"""

from __future__ import annotations

import stat
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from respaldo.catalog.snapshots import Snapshot
from respaldo.catalog.trees import Reader
from respaldo.core.errors import Corruption
from respaldo.core.ids import CHUNK_ID_BYTES, ChunkId, Kind
from respaldo.core.model import Content, Entry, Mark
from respaldo.format.tree import Branch
from respaldo.views.columns import Columns, Row, parse_columns
from respaldo.views.walk import tree_of

ENTRIES_KEPT = 16_384
_BRANCH_WEIGHT = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class _Runs:
    """Is a long directory: the row that each of its runs begins at, and the run's id."""

    starts: list[int]
    ids: list[ChunkId]


class Directories:
    """Looks entries up in trees."""

    def __init__(self, reader: Reader, *, entries_kept: int = ENTRIES_KEPT) -> None:
        self._reader = reader
        self._entries_kept = entries_kept
        self._kept: OrderedDict[ChunkId, Columns | _Runs] = OrderedDict()
        self._weight = 0

    def entry(self, tree: ChunkId, row: int) -> Entry:
        """Returns the entry at a row; raises `Corruption` where there is none, `ChunkMissing`, `StorageError`."""
        start, run, _ = self.run_at(tree, row)
        if not 0 <= row - start < len(run.names):
            raise Corruption(f"tree {tree.hex()[:16]}", f"it has no entry {row}")
        return run.entries[row - start]

    def has_xattrs(self, tree: ChunkId, row: int) -> bool:
        """Whether the entry at a row has extended attributes."""
        start, run, _ = self.run_at(tree, row)
        return row - start in run.attributed

    def find(self, tree: ChunkId, name: bytes) -> tuple[int, Entry] | None:
        """Returns the row and the entry of a name, None where there is none."""
        start, run = 0, self._load(tree)
        if isinstance(run, _Runs):
            # The last run that begins at or before the name: the first name of each decides, so a few are read.
            low, high = 0, len(run.ids)
            while high - low > 1:
                middle = (low + high) // 2
                if self._leaf(run.ids[middle]).names[0] <= name:
                    low = middle
                else:
                    high = middle
            start, run = run.starts[low], self._leaf(run.ids[low])
        at = bisect_left(run.names, name)
        if at < len(run.names) and run.names[at] == name:
            return start + at, run.entries[at]
        return None

    def at(self, snapshot: Snapshot, path: bytes) -> Entry | None:
        """Returns the entry at a path of a snapshot, None where there is none."""
        entry = root_entry(snapshot)
        for name in path.split(b"/"):
            if name:
                tree = tree_of(entry)
                found = None if tree is None else self.find(tree, name)
                if found is None:
                    return None
                entry = found[1]
        return entry

    def rows(self, tree: ChunkId, first: int, count: int) -> list[Row]:
        """Returns up to so many rows from one on."""
        found = self._load(tree)
        if isinstance(found, Columns):
            return found.rows(first, count)
        number = max(bisect_right(found.starts, first) - 1, 0)
        rows: list[Row] = []
        for start, run_id in zip(found.starts[number:], found.ids[number:], strict=True):
            rows += self._leaf(run_id).rows(max(first - start, 0), count - len(rows))
            if len(rows) >= count:
                break
        return rows

    def entries(self, tree: ChunkId) -> Iterator[Entry]:
        """Yields the entries of a directory in the order of their names."""
        found = self._load(tree)
        for run in [found] if isinstance(found, Columns) else map(self._leaf, found.ids):
            yield from run.entries

    def tree(self, tree: ChunkId, row: int) -> ChunkId | None:
        """Returns the tree of the subdirectory at a row, None where there is none or it was left out."""
        start, run, _ = self.run_at(tree, row)
        return run.tree(row - start)

    def links_and_trees(self, tree: ChunkId) -> tuple[list[bytes], list[ChunkId]]:
        """Returns the hard-link groups of a directory's entries, and its subdirectories; keeps nothing."""
        parsed = parse_columns(self._reader.get(Kind.TREE, tree), f"tree {tree.hex()[:16]}")
        if isinstance(parsed, Branch):
            return [], [run_id for run_id, _ in parsed.runs]
        trees = parsed.trees()
        return parsed.groups, [ChunkId(trees[at : at + CHUNK_ID_BYTES]) for at in range(0, len(trees), CHUNK_ID_BYTES)]

    def run_at(self, tree: ChunkId, row: int) -> tuple[int, Columns, bool]:
        """Returns the run that a row stands in, the row that it begins at, and whether it is the last one."""
        found = self._load(tree)
        if isinstance(found, Columns):
            return 0, found, True
        number = max(bisect_right(found.starts, row) - 1, 0)
        return found.starts[number], self._leaf(found.ids[number]), number == len(found.ids) - 1

    def _leaf(self, run_id: ChunkId) -> Columns:
        found = self._load(run_id)
        if not isinstance(found, Columns) or not found.names:
            raise Corruption(f"tree {run_id.hex()[:16]}", "it is not a run of a directory")
        return found

    def _load(self, tree: ChunkId) -> Columns | _Runs:
        kept = self._kept.get(tree)
        if kept is not None:
            self._kept.move_to_end(tree)
            return kept
        what = f"tree {tree.hex()[:16]}"
        parsed = parse_columns(self._reader.get(Kind.TREE, tree), what)
        found = _starts(parsed) if isinstance(parsed, Branch) else parsed
        self._kept[tree] = found
        self._weight += _weight(found)
        while self._weight > self._entries_kept and len(self._kept) > 1:
            self._weight -= _weight(self._kept.popitem(last=False)[1])
        return found


def _weight(found: Columns | _Runs) -> int:
    """Returns what is counted for a directory: its entries, and something for being there."""
    return 1 + (len(found.names) if isinstance(found, Columns) else _BRANCH_WEIGHT)


def _starts(branch: Branch) -> _Runs:
    starts, at = [], 0
    for _, count in branch.runs:
        starts.append(at)
        at += count
    return _Runs(starts=starts, ids=[run_id for run_id, _ in branch.runs])


def root_entry(snapshot: Snapshot) -> Entry:
    """Returns the entry that stands for a snapshot's ``/``."""
    return Entry(
        name=b"",
        mode=stat.S_IFDIR | 0o755,
        uid=snapshot.manifest.uid,
        mtime_ns=snapshot.time_ns,
        content=Content(ids=snapshot.manifest.root),
        mark=Mark.PARTIAL,
    )
