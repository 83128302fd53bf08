"""Changes: how many entries were added, changed or removed since the snapshot that this one is compared with.

Directories are gone into and not counted; of all else, an entry has changed if anything differs that a restore brings
back. A name that is a directory on one side only is removed and added. Exact or nothing: where a tree of that snapshot
cannot be read, nobody knows. What has the tree that it had is not looked at; what it had is taken from the memo where
that holds the same tree. One thread.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from respaldo.catalog.parted import parted
from respaldo.catalog.runs import RUN_ENTRIES_SPLIT, Run, without_runs
from respaldo.catalog.trees import TreeReader
from respaldo.core.errors import ChunkMissing, Corruption, ObjectMissing
from respaldo.core.ids import CHUNK_ID_BYTES, ChunkId
from respaldo.flows.backup.frame import Frame
from respaldo.flows.backup.memo import Memo, Totals
from respaldo.format import figures
from respaldo.format.leafcheck import default_count
from respaldo.format.tree import META, Leaf, leaf_as_encoded, references

COUNT_MAX = (1 << 63) - 1
"""Trees may share subtrees, so that a few of them stand for more entries than there can be."""
_GONE = (ChunkMissing, ObjectMissing, Corruption)
"""What says that a tree is not to be had; a storage that fails says nothing about that, and ends the run as ever."""
_SHORT_BYTES = RUN_ENTRIES_SPLIT * META.size
_Row = tuple[bytes, bytes | None, tuple[object, ...]]
"""A name; of a directory its tree's id, empty where it has none, else None; of all else what a restore brings back."""


class ChangeCount:
    """Counts for one walk. A frame's ``parent_tree`` is the tree that its directory had, None where it had none."""

    def __init__(self, trees: TreeReader, memo: Memo | None) -> None:
        self._trees = trees
        self._memo = memo
        self._added = self._changed = self._removed = 0
        self._known = True
        self._below: dict[ChunkId, int] = {}

    @property
    def total(self) -> figures.Changes | None:
        """What was counted, None where something could not be."""
        if not self._known:
            return None
        added, changed, removed = (min(n, COUNT_MAX) for n in (self._added, self._changed, self._removed))
        return figures.Changes(added=added, changed=changed, removed=removed)

    def tree_before(self, parent: Frame, name: bytes) -> ChunkId | None:
        """Returns the tree that the subdirectory had which is entered next."""
        if parent.parent_tree is None:
            return None
        same = parent.same
        if same is not None and same.tree == parent.parent_tree:
            at = (parent.next - 1) * CHUNK_ID_BYTES
            return ChunkId(same.children[at : at + CHUNK_ID_BYTES])
        if parent.trees_before is None:
            parent.trees_before = {}
            with self._failing():
                parent.trees_before = dict(_subdirectories(self._leaves_before(parent)))
        return parent.trees_before.get(name)

    def settle(self, frame: Frame, tree: ChunkId, leaf: Leaf | None, totals: Totals) -> None:
        """Counts what is directly in a directory that is finished, before the memo is told of it.

        ``leaf`` None: it is as the memo holds it.
        """
        before = frame.parent_tree
        if before is None:
            self._added += totals.files + totals.others
        elif tree != before and not (frame.same is not None and frame.same.tree == before) and self._known:
            with self._failing():
                if frame.runs and leaf is not None:
                    self._compare_runs(before, frame.runs, leaf)
                    return
                after = leaf if leaf is not None else self._remembered(frame)
                short = self._short_before(frame)
                if short is not None:
                    parts = parted(short, after)
                    self._compare(parts[:1], parts[1:])
                else:
                    self._compare(self._leaves_before(frame), [after])

    def _compare_runs(self, before: ChunkId, runs: Sequence[Run], leaf: Leaf) -> None:
        """Compares a long directory with what it was: where both have the same runs, there is nothing to see."""
        shared = {run for run, _ in self._trees.runs(before)}.intersection(run for run, _ in runs)
        self._compare(self._trees.leaves(before, shared), without_runs(leaf, runs, shared))

    def settle_file(self, path: bytes, root_before: ChunkId | None, leaf: Leaf) -> None:
        """Counts a file that is all there is in a snapshot; ``leaf``: that of its directory."""
        before: Iterator[Leaf] = iter(())
        with self._failing():
            if root_before is not None:
                tree: ChunkId | None = root_before
                for name in path.split(b"/")[1:-1]:
                    entry = self._trees.find(tree, name) if tree is not None else None
                    tree = ChunkId(entry.content.ids) if entry is not None and entry.is_dir else None
                before = self._trees.leaves(tree) if tree is not None else before
            self._compare(before, [leaf])

    def _failing(self) -> _Failing:
        return _Failing(self)

    def unknown(self) -> None:
        """Notes that something cannot be counted."""
        self._known = False

    def _leaves_before(self, frame: Frame) -> Iterator[Leaf]:
        """Returns a directory as it was; a long one run by run: whole, it takes much memory a second time."""
        short = self._short_before(frame)
        if short is not None:
            return iter([short])
        return iter(()) if frame.parent_tree is None else self._trees.leaves(frame.parent_tree)

    def _short_before(self, frame: Frame) -> Leaf | None:
        """Returns a short directory as it was, where it is remembered."""
        remembered = self._memo.get(frame.key) if self._memo is not None else None
        if remembered is not None and remembered.tree == frame.parent_tree and len(frame.meta) <= _SHORT_BYTES:
            with suppress(ValueError):
                return leaf_as_encoded(bytes(remembered.leaf))
        return None

    def _remembered(self, frame: Frame) -> Leaf:
        remembered = self._memo.get(frame.key) if self._memo is not None else None
        try:
            return leaf_as_encoded(bytes(remembered.leaf) if remembered is not None else b"")
        except ValueError:
            raise Corruption("local cache", "it changed while it was used") from None

    def _compare(self, before: Iterable[Leaf], after: Iterable[Leaf]) -> None:
        """Goes through two directories in step, by name."""
        olds, news = _rows(before), _rows(after)
        old, new = next(olds, None), next(news, None)
        while old is not None or new is not None:
            if new is None or (old is not None and old[0] < new[0]):
                self._gone(old)
                old = next(olds, None)
            elif old is None or new[0] < old[0]:
                self._came(new)
                new = next(news, None)
            else:
                self._pair(old, new)
                old, new = next(olds, None), next(news, None)

    def _pair(self, old: _Row, new: _Row) -> None:
        if old[1] is None and new[1] is None:
            self._changed += old[2] != new[2]
        elif old[1] is None or new[1] is None or (old[1] and not new[1]):
            self._gone(old)
            self._came(new)
        # Of two directories, whoever walked the second has compared it.

    def _came(self, row: _Row) -> None:
        self._added += row[1] is None  # what is in a directory was counted when it was walked

    def _gone(self, row: _Row | None) -> None:
        if row is not None and row[1] is None:
            self._removed += 1
        elif row is not None and row[1]:
            self._removed += self._count_below(ChunkId(row[1]))

    def _count_below(self, top: ChunkId) -> int:
        """Returns how many entries below a tree are no directories; each tree is read once, however often it stands."""
        known = self._below
        own: dict[ChunkId, tuple[int, list[ChunkId]]] = {}
        stack = [top]
        while stack:
            tree = stack[-1]
            if tree in known:
                stack.pop()
            elif tree in own:
                count, below = own.pop(tree)
                known[tree] = min(count + sum(known[child] for child in below), COUNT_MAX)
            else:
                own[tree] = self._look(tree)
                stack += own[tree][1]
        return known[top]

    def _look(self, tree: ChunkId) -> tuple[int, list[ChunkId]]:
        count = 0
        below: list[ChunkId] = []
        for leaf in self._trees.leaves(tree):
            count += sum(not stat.S_ISDIR(item[0]) for item in META.iter_unpack(leaf.meta))
            below += [ChunkId(ids) for _, mode, _, _, ids in references(leaf) if stat.S_ISDIR(mode)]
        return count, below


class _Failing:
    """Lets a count that cannot be had fail no backup."""

    __slots__ = ("_count",)

    def __init__(self, count: ChangeCount) -> None:
        self._count = count

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, value: object, trace: object) -> bool:
        if isinstance(value, _GONE):
            self._count.unknown()
            return True
        return False


def _subdirectories(leaves: Iterable[Leaf]) -> Iterator[tuple[bytes, ChunkId]]:
    for leaf in leaves:
        names = leaf.names.split(b"\0")
        for row, mode, _, _, ids in references(leaf):
            if stat.S_ISDIR(mode):
                yield names[row], ChunkId(ids)


def _rows(leaves: Iterable[Leaf]) -> Iterator[_Row]:
    """Yields the entries in the order of their names; not by `Leaf.entries`, which makes objects of them."""
    for leaf in leaves:
        levels, links, xattrs, marks = leaf.levels, leaf.links, leaf.xattrs, leaf.marks
        users, groups = leaf.users, leaf.groups
        at = target_at = 0
        columns = zip(leaf.names.split(b"\0"), META.iter_unpack(leaf.meta), strict=False)
        for row, (name, (mode, uid, gid, attributes, size, mtime_ns, _)) in enumerate(columns):
            mark = marks.get(row, 0) if marks else 0
            level, count = (levels.get(row) if levels else None) or (0, default_count(mode, size, mark))
            end = at + count * CHUNK_ID_BYTES
            ids, at = leaf.content[at:end], end
            if stat.S_ISDIR(mode):
                yield name, ids, ()
                continue
            target = b""
            if stat.S_ISLNK(mode):
                end = leaf.targets.index(b"\0", target_at)
                target, target_at = leaf.targets[target_at:end], end + 1
            seen = (mode, uid, gid, attributes, size, mtime_ns, level, ids, target, mark)
            rare = (row in links, xattrs.get(row, ()), users.get(uid, ""), groups.get(gid, ""))
            yield name, None, seen + rare
