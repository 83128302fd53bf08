"""Growth: which directories became bigger from one snapshot to another, the most specific ones that account for it.

Both trees are gone through side by side; where their ids are equal, nothing below is read. Twice, so that memory holds
no more than the directories on the way: once for the sum, and once for the directories that make up a share of it.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from respaldo.catalog.trees import TreeReader
from respaldo.core.errors import ChunkMissing, Corruption, ObjectMissing
from respaldo.core.ids import ChunkId
from respaldo.core.seams import Cancel
from respaldo.format.tree import references

SHARES = 20
"""A directory is named that makes up one in so many of what came, without those below it that are named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grown:
    """Is a directory that became bigger.

    ``grown_bytes`` counts what is in it and below it; ``rest_bytes``, that without the directories below it that are
    named as well. ``came_bytes``, ``went_bytes``: sizes of files that are new or other than before, and of those that
    are no more, or no more the same; as ``grown_bytes``, of everything below.
    """

    path: bytes
    grown_bytes: int
    rest_bytes: int
    came_bytes: int
    went_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """Is what became of everything: directories by what they make up, the most first.

    ``failed``: how many directories could not be read, and count as empty.
    """

    grown_bytes: int = 0
    came_bytes: int = 0
    went_bytes: int = 0
    directories: tuple[Grown, ...] = ()
    failed: int = 0


@dataclass(slots=True)
class _Side:
    """Is a directory: its files by name, and the trees of its subdirectories."""

    files: dict[bytes, tuple[int, bytes]] = field(default_factory=dict)
    below: dict[bytes, ChunkId] = field(default_factory=dict)


@dataclass(slots=True)
class _Frame:
    path: bytes
    came: int
    went: int
    below: Iterator[tuple[bytes, ChunkId | None, ChunkId | None]]
    all_came: int = 0
    all_went: int = 0
    rest: int = 0


class _Pass:
    """Goes through both trees once."""

    def __init__(self, trees: TreeReader, cancel: Cancel) -> None:
        self._trees = trees
        self._cancel = cancel
        self.failed = 0

    def run(self, before: ChunkId | None, after: ChunkId | None, leave: Callable[[_Frame], None]) -> _Frame:
        """Tells of each directory that differs, after what is below it; returns the topmost."""
        top = self._frame(b"/", before, after)
        stack = [top]
        while True:
            self._cancel.check()
            frame = stack[-1]
            step = next(frame.below, None)
            if step is not None:
                name, one, other = step
                stack.append(self._frame(frame.path.rstrip(b"/") + b"/" + name, one, other))
                continue
            stack.pop()
            frame.all_came += frame.came
            frame.all_went += frame.went
            frame.rest += frame.came - frame.went
            leave(frame)
            if not stack:
                return frame
            above = stack[-1]
            above.all_came += frame.all_came
            above.all_went += frame.all_went
            above.rest += frame.rest

    def _frame(self, path: bytes, before: ChunkId | None, after: ChunkId | None) -> _Frame:
        if before == after:
            return _Frame(path, 0, 0, iter(()))
        one, other = self._side(before), self._side(after)
        came = sum(size for name, (size, ids) in other.files.items() if one.files.get(name) != (size, ids))
        went = sum(size for name, (size, ids) in one.files.items() if other.files.get(name) != (size, ids))
        names = sorted({*one.below, *other.below})
        below = ((name, one.below.get(name), other.below.get(name)) for name in names)
        return _Frame(path, came, went, (step for step in below if step[1] != step[2]))

    def _side(self, tree: ChunkId | None) -> _Side:
        side = _Side()
        if tree is None:
            return side
        try:
            for leaf in self._trees.leaves(tree):
                names = leaf.names.split(b"\0")
                for row, mode, size, _, ids in references(leaf):
                    if stat.S_ISDIR(mode):
                        side.below[names[row]] = ChunkId(ids)
                    else:
                        side.files[names[row]] = size, ids
        except (ChunkMissing, Corruption, ObjectMissing):
            self.failed += 1
        return side


def find_growth(trees: TreeReader, before: ChunkId | None, after: ChunkId, *, cancel: Cancel) -> Growth:
    """Returns what grew from one root to another; from nothing where there is none before."""
    total = 0

    def add(frame: _Frame) -> None:
        nonlocal total
        total += max(0, frame.came - frame.went)

    first = _Pass(trees, cancel)
    top = first.run(before, after, add)
    least = max(1, total // SHARES)
    found: list[Grown] = []

    def name(frame: _Frame) -> None:
        if frame.rest >= least:
            grown = Grown(
                path=frame.path,
                grown_bytes=frame.all_came - frame.all_went,
                rest_bytes=frame.rest,
                came_bytes=frame.all_came,
                went_bytes=frame.all_went,
            )
            found.append(grown)
            frame.rest = 0

    _Pass(trees, cancel).run(before, after, name)
    return Growth(
        grown_bytes=top.all_came - top.all_went,
        came_bytes=top.all_came,
        went_bytes=top.all_went,
        directories=tuple(sorted(found, key=lambda item: (-item.rest_bytes, item.path))),
        failed=first.failed,
    )
