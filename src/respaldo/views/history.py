"""History: every state that one path went through, snapshot by snapshot.

What was looked through before is in the register; of other snapshots only the directories on the way are read. Those
that did not change are looked at once for all of them.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from respaldo.catalog.register import FOLDER, NOWHERE, Register, handle_of
from respaldo.catalog.trees import TreeReader
from respaldo.core.errors import ChunkMissing, Corruption
from respaldo.core.ids import ChunkId
from respaldo.core.model import Entry, Mark
from respaldo.views.content import WITHOUT_CONTENT
from respaldo.views.diff import plain_fields
from respaldo.views.family import Family
from respaldo.views.row import Row, row_of, version_of
from respaldo.views.walk import tree_of


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Is a state of a path, and how many snapshots in a row hold it. ``entry``: None where it was not there.

    ``fields``: what differs from the state before, as `respaldo.views.diff.Change` has it. ``unread``: why it is not
    known, because a directory on the way could not be read; ``lost``: a repair has said so. An entry is as that of
    `respaldo.views.find.Version`.
    """

    first: int
    last: int
    entry: Entry | None
    fields: tuple[str, ...] = ()
    unread: str = ""
    lost: bool = False


class Point(NamedTuple):
    """Is what stands at a path in a snapshot: its row, None where there is nothing, and the handle of its tree."""

    row: Row | None = None
    tree: bytes = NOWHERE
    unread: str = ""
    lost: bool = False


class _Registered:
    """Follows paths through the register."""

    def __init__(self, register: Register) -> None:
        self._register = register
        self._spots: dict[tuple[bytes, bytes], tuple[int, int] | None] = {}
        self._families: dict[bytes, Family] = {}
        self._found: dict[tuple[bytes, bytes], Point] = {}

    def find(self, root: bytes, names: Sequence[bytes]) -> Point:
        """Returns what stands at a path in a snapshot that is entered."""
        point = Point(tree=root)
        for name in names:
            if point.tree == NOWHERE:
                return Point()
            key = (point.tree, name)
            known = self._found.get(key)
            if known is None:
                known = self._found[key] = self._step(*key)
            point = known
        return point

    def _step(self, tree: bytes, name: bytes) -> Point:
        waiting = [tree]
        while waiting:
            found = self._register.tree(waiting.pop())
            if found is None:  # below it all is entered
                continue
            family = self._families.get(found.base)
            if family is None:
                family = self._families[found.base] = Family(self._register, found.base)
            runs = family.runs(found)
            if runs:
                waiting += runs
                continue
            spot = self._spot(self._register.shape(found.shape)[0], name)
            if spot is not None:
                row, place = spot
                return Point(family.row(found, row), family.tree(found, place) if place >= 0 else NOWHERE)
        return Point()

    def _spot(self, key: bytes, name: bytes) -> tuple[int, int] | None:
        """Returns where a name stands in a list, and which of its directories it is, -1 for none."""
        if (key, name) not in self._spots:
            joined, kinds = self._register.names(key)
            spot = None
            at = (b"\0" + joined).find(b"\0" + name + b"\0")
            if at >= 0:
                row = joined.count(b"\0", 0, at)
                spot = (row, kinds.count(FOLDER, 0, row) if kinds[row] == FOLDER else -1)
            self._spots[key, name] = spot
        return self._spots[key, name]


class _Read:
    """Follows paths through trees, and remembers what is in which."""

    def __init__(self, trees: TreeReader) -> None:
        self._trees = trees
        self._known: dict[tuple[ChunkId, bytes], Entry | ChunkMissing | Corruption | None] = {}

    def find(self, root: ChunkId, names: Sequence[bytes]) -> Point:
        """Returns what stands at a path in a snapshot."""
        tree: ChunkId | None = root
        entry = None
        for name in names:
            if tree is None:
                return Point()
            lost = entry is not None and entry.mark is Mark.LOST
            found = self._step(tree, name)
            if isinstance(found, Exception):
                lost = lost and isinstance(found, ChunkMissing)
                return Point(unread=WITHOUT_CONTENT[Mark.LOST] if lost else str(found), lost=lost)
            if found is None:
                return Point()
            entry, tree = found, tree_of(found)
        return Point() if entry is None else Point(row_of(entry), handle_of(tree or b""))

    def _step(self, tree: ChunkId, name: bytes) -> Entry | ChunkMissing | Corruption | None:
        key = (tree, name)
        if key not in self._known:
            try:
                self._known[key] = self._trees.find(tree, name)
            except (ChunkMissing, Corruption) as error:
                self._known[key] = error
        return self._known[key]


def history(register: Register, trees: TreeReader, roots: Sequence[ChunkId], path: bytes) -> Iterator[State]:
    """Yields the states of a path, ``roots`` numbered from 0; a state that comes back is a new one."""
    names = path.strip(b"/").split(b"/")
    registered, read = _Registered(register), _Read(trees)
    before = standing = Point()
    first = number = 0
    for number, root in enumerate(roots):
        handle = handle_of(root)
        point = registered.find(handle, names) if register.has(handle) else read.find(root, names)
        if number and _meaning(point) != _meaning(standing):
            yield _state(first, number - 1, before, standing)
            before = before if standing.unread else standing
            first = number
        standing = point
    yield _state(first, number, before, standing)


def _meaning(point: Point) -> tuple[Row | None, bytes, str]:
    """Returns what makes a state another one: of a directory, what is in it counts; its own attributes mostly stay."""
    return (None if point.row is None else version_of(point.row), point.tree, point.unread)


def _state(first: int, last: int, before: Point, point: Point) -> State:
    if point.unread:
        return State(first=first, last=last, entry=None, unread=point.unread, lost=point.lost)
    if point.row is None:
        return State(first=first, last=last, entry=None)
    entry = point.row.entry(b"")
    return State(first=first, last=last, entry=entry, fields=_fields(before, point, entry))


def _fields(before: Point, after: Point, entry: Entry) -> tuple[str, ...]:
    if before.row is None:
        return ()
    was = before.row.entry(b"")
    if stat.S_IFMT(was.mode) != stat.S_IFMT(entry.mode):
        return ("type",)
    inside = ("entries",) if before.tree != after.tree else ()
    content = was.is_regular and (was.content, was.size) != (entry.content, entry.size)
    return (*inside, *(("content",) if content else ()), *plain_fields(was, entry))
