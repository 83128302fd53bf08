"""Numbers for the nodes that are made up: what a layout says stands above the snapshots.

A node is known by its parent, its name and the snapshot that it is about, and keeps its number for as long as the mount
lives. With every new layout each finds out anew, when it is asked for, what it is now: nothing, for those whose
snapshot has gone. One thread.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass

from respaldo.core.errors import Corruption, NoSuchSnapshot
from respaldo.core.ids import SnapshotId
from respaldo.views.attributes import Attributes
from respaldo.views.layout import Archive, ArchiveSum, Folder, Inside, Link, Spec, Text, seal_text

ROOT = 1
NODES_MAX = 1 << 26


@dataclass(slots=True, kw_only=True)
class _Node:
    """Is where a node stands, and what it is as of a layout."""

    parent: int
    name: bytes
    key: SnapshotId | None
    spec: Spec
    generation: int
    children: Mapping[bytes, Spec] | None = None


class MadeUp:
    """Numbers nodes, `ROOT` first, and says what they are."""

    def __init__(self, owner: tuple[int, int]) -> None:
        """``owner``: user and group that all of them belong to."""
        self._owner = owner
        self._generation = 0
        self._nodes: dict[int, _Node] = {}
        self._numbers: dict[tuple[int, bytes, SnapshotId | None], int] = {}
        self.changed_ns = 0
        """When the layout changed last."""

    def lay_out(self, root: Folder, now_ns: int) -> None:
        """Takes a new layout."""
        self._generation += 1
        self.changed_ns = now_ns
        self._nodes[ROOT] = _Node(parent=ROOT, name=b"", key=None, spec=root, generation=self._generation)

    def spec(self, number: int) -> Spec:
        """Returns what a node is today; raises `NoSuchSnapshot` where it is not there any more."""
        node = self._nodes.get(number)
        if node is None:
            raise NoSuchSnapshot(str(number))
        if node.generation != self._generation:
            child = self.children(node.parent).get(node.name)
            if child is None or _key(child) != node.key:
                raise NoSuchSnapshot(node.name.decode("utf-8", "surrogateescape"), "the snapshot has gone")
            if not (isinstance(child, Inside) and isinstance(node.spec, Inside) and child.path == node.spec.path):
                node.spec = child  # else what was found out of the same place is still so
            node.children = None
            node.generation = self._generation
        return node.spec

    def children(self, number: int) -> Mapping[bytes, Spec]:
        """Returns the entries of a directory, none where it is something else."""
        spec = self.spec(number)
        if not isinstance(spec, Folder):
            return {}
        node = self._nodes[number]
        if node.children is None:
            node.children = spec.children()
        return node.children

    def drop(self, number: int, name: bytes) -> None:
        """Leaves an entry out that is not there after all."""
        node = self._nodes[number]
        if node.children is not None:
            node.children = {other: spec for other, spec in node.children.items() if other != name}

    def number(self, parent: int, name: bytes, spec: Spec) -> int:
        """Returns the number of an entry."""
        key = (parent, name, _key(spec))
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self._numbers) + ROOT + 1
            if number >= NODES_MAX:
                raise Corruption("mount", "it has made up more entries than it has numbers")
            self._nodes[number] = _Node(
                parent=parent, name=name, key=_key(spec), spec=spec, generation=self._generation
            )
        return number

    def found(self, number: int, spec: Spec) -> None:
        """Notes what was found out of a node."""
        self._nodes[number].spec = spec

    def attributes(self, number: int, spec: Spec, length: int) -> Attributes:
        """Returns what `stat` says of a node; ``length``: of an archive."""
        mode, size, mtime_ns = stat.S_IFDIR | 0o755, 0, 0
        match spec:
            case Folder():
                mtime_ns = self.changed_ns  # whoever keeps the entries sees by it that there may be others now
            case Link():
                mode, size = stat.S_IFLNK | 0o777, len(spec.target)
            case Text():
                mode, size = stat.S_IFREG | 0o444, len(spec.content)
            case Archive():
                mode, size, mtime_ns = stat.S_IFREG | 0o444, length, spec.snapshot.time_ns
            case ArchiveSum():
                mode, size = stat.S_IFREG | 0o444, len(seal_text("0" * 64, spec.name))
            case Inside():
                pass
        return Attributes(number, mode, 1, *self._owner, size, size, mtime_ns, 0)

    def parent(self, number: int) -> int:
        """Returns the directory that a node stands in."""
        node = self._nodes.get(number)
        return ROOT if node is None else node.parent


def _key(spec: Spec) -> SnapshotId | None:
    if isinstance(spec, (Inside, Archive, ArchiveSum)):
        return spec.snapshot.id
    return spec.snapshot if isinstance(spec, Folder) else None
