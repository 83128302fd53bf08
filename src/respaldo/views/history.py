"""History: every state that one path went through, snapshot by snapshot.

Of each snapshot only the directories on the way are read, and those that did not change once for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from respaldo.catalog.trees import TreeReader
from respaldo.core.ids import ChunkId
from respaldo.core.model import Entry
from respaldo.views.shelf import signature
from respaldo.views.sides import Snapshots
from respaldo.views.walk import tree_of


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Is a state of a path, and how many snapshots in a row hold it. ``entry``: None where it was not there.

    ``fields``: what differs from the state before, as `respaldo.views.diff.Change` has it.
    """

    first: int
    last: int
    entry: Entry | None
    fields: tuple[str, ...]


class Paths:
    """Finds entries by path, and remembers what is in which tree."""

    def __init__(self, trees: TreeReader) -> None:
        self._trees = trees
        self._known: dict[tuple[ChunkId, bytes], Entry | None] = {}

    def find(self, root: ChunkId, path: bytes) -> Entry | None:
        """Returns the entry of a path below a root, None where there is none, or for the root itself."""
        tree: ChunkId | None = root
        entry = None
        for name in path.strip(b"/").split(b"/"):
            if tree is None:
                return None
            key = (tree, name)
            if key not in self._known:
                self._known[key] = self._trees.find(tree, name)
            entry = self._known[key]
            if entry is None:
                return None
            tree = tree_of(entry)
        return entry


def history(trees: TreeReader, roots: Iterable[ChunkId], path: bytes) -> Iterator[State]:
    """Yields the states of a path, ``roots`` numbered from 0; a state that comes back is a new one."""
    find = Paths(trees).find
    fields = Snapshots(trees).fields
    first = number = 0
    before: Entry | None = None
    standing: Entry | None = None
    for number, root in enumerate(roots):
        entry = find(root, path)
        if number and not _same(standing, entry):
            yield State(first=first, last=number - 1, entry=standing, fields=_fields(fields, before, standing))
            before, first = standing, number
        standing = entry
    yield State(first=first, last=number, entry=standing, fields=_fields(fields, before, standing))


def _same(one: Entry | None, other: Entry | None) -> bool:
    if one is None or other is None:
        return one is other
    # Of a directory, it counts what is in it: its own attributes mostly stay.
    return signature(one) == signature(other) and tree_of(one) == tree_of(other)


def _fields(
    fields: Callable[[Entry, Entry, bytes], tuple[str, ...]], before: Entry | None, after: Entry | None
) -> tuple[str, ...]:
    if before is None or after is None:
        return ()
    if before.mode & 0o170000 != after.mode & 0o170000:
        return ("type",)
    inside = ("entries",) if tree_of(before) != tree_of(after) else ()
    return (*inside, *fields(before, after, b""))
