"""Directories of snapshots that somebody looked into, numbered: which node each is, of which snapshot, and its tree.

44 bytes and a key for each, for as long as the mount lives. Number 0 is nobody's. One thread.
"""

from __future__ import annotations

from array import array

from respaldo.core.errors import NoSuchSnapshot
from respaldo.core.ids import CHUNK_ID_BYTES, ChunkId


_NO_TREE = bytes(CHUNK_ID_BYTES)


class Visited:
    """Numbers directories by their nodes."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        self._nodes = array("Q", [0])
        self._snapshots = array("I", [0])
        self._trees = bytearray(CHUNK_ID_BYTES)

    def find(self, node: int) -> int | None:
        """Returns the number of a directory, None of one that nobody looked into yet."""
        return self._numbers.get(node)

    def add(self, node: int, snapshot: int, tree: ChunkId | None) -> int:
        """Numbers a directory, which may be without a tree."""
        number = self._numbers[node] = len(self._nodes)
        self._nodes.append(node)
        self._snapshots.append(snapshot)
        self._trees += tree or bytes(CHUNK_ID_BYTES)
        return number

    def tree(self, number: int) -> ChunkId | None:
        """Returns the tree of a directory, None where it has none; raises `NoSuchSnapshot` for a number of none."""
        if not 0 < number < len(self._nodes):
            raise NoSuchSnapshot(str(number))
        tree = bytes(self._trees[number * CHUNK_ID_BYTES : (number + 1) * CHUNK_ID_BYTES])
        return ChunkId(tree) if tree != _NO_TREE else None

    def node(self, number: int) -> int:
        """Returns the node of a directory."""
        return self._nodes[number]

    def snapshot(self, number: int) -> int:
        """Returns the number of the snapshot that a directory is in."""
        return self._snapshots[number]
