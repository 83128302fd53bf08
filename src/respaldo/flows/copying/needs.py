"""What a target lacks of a source's snapshots, where both name content alike: found out from the trees alone.

Invariant: a tree counts as seen only once all that it refers to was looked up in the target; nothing is taken for there
because something above it is. But a subtree of a snapshot that the target has is left out as it is. Notes positions, a
bit a chunk. Implements docs/format.md, "Copies" and W1.
"""

from __future__ import annotations

import stat

from respaldo.catalog.trees import TreeReader
from respaldo.core.errors import ChunkMissing, Corruption, ObjectMissing
from respaldo.core.ids import CHUNK_ID_BYTES, ChunkId, Kind
from respaldo.core.model import Mark
from respaldo.core.seams import Cancel
from respaldo.format.content import parse_node_ids
from respaldo.format.tree import Branch, Leaf, References, parse_references, parse_tree, references
from respaldo.store.bitmaps import Bitmaps
from respaldo.store.chunks import ChunkSink
from respaldo.store.repo import Repo

GONE = (ChunkMissing, ObjectMissing, Corruption)
"""What says that content is not to be had; a storage that fails says nothing about that."""


class Needs:
    """Goes through trees of the source. One thread."""

    def __init__(self, source: Repo, target: Repo, sink: ChunkSink, cancel: Cancel) -> None:
        self._source = source
        self._target = target
        self._sink = sink
        self._cancel = cancel
        self._seen = Bitmaps()
        self.wanted = Bitmaps()
        """Positions in the source of what the target lacks; whoever moves it takes it out."""
        self.lost: set[bytes] = set()
        """Ids of what the source does not have, though it should."""

    def walk(self, root: ChunkId, base: ChunkId | None) -> bool:
        """Notes what the target lacks of a tree; returns whether it left something out that lies below ``base`` too.

        ``base``: a tree for the same directory, of a snapshot that the target has.
        """
        used = False
        stack: list[tuple[ChunkId, ChunkId | None]] = [(root, base)]
        while stack:
            self._cancel.check()
            tree_id, beside = stack.pop()
            if tree_id == beside:
                used = True
                continue
            raw = self._structure(Kind.TREE, tree_id)
            if not raw:
                continue
            below = self._below(beside) if beside is not None else {}
            try:
                children = self._children(raw, below)
                found = parse_references(raw, f"tree {tree_id.hex()[:16]}")
            except Corruption:
                self.lost.add(tree_id)
                continue
            known = set(below.values())
            used = used or any(child in known for child, _ in children)
            stack += [(child, other) for child, other in children if child not in known]
            self._content(found, optional=False)
            if found.lost is not None:
                self._content(found.lost, optional=True)
                stack += [(child, None) for child in _ids(found.lost.trees) if self._there(child)]
        return used

    def _there(self, chunk_id: ChunkId) -> bool:
        return self._source.index.find(chunk_id, usable_only=False) is not None

    def _below(self, tree_id: ChunkId) -> dict[bytes, ChunkId]:
        """Returns the trees below one that the target has, by name; runs under their ids, which are no names."""
        trees = TreeReader(self._target.source)
        try:
            found = {b"/" + run: run for run in trees.run_ids(tree_id)}
            for leaf in trees.leaves(tree_id):
                found |= _subdirectories(leaf)
        except GONE:
            return {}
        return found

    def _children(self, raw: bytes, below: dict[bytes, ChunkId]) -> list[tuple[ChunkId, ChunkId | None]]:
        """Returns the trees below one, each with the one of the same name."""
        if not below:
            return [(child, None) for child in _ids(parse_references(raw, "tree").trees)]
        tree = parse_tree(raw, "tree")
        if isinstance(tree, Branch):
            return [(run, None) for run, _ in tree.runs]
        return [(child, below.get(name)) for name, child in _subdirectories(tree).items()]

    def _content(self, found: References, *, optional: bool) -> None:
        self._data(found.data, optional=optional)
        for level, list_id in found.lists:
            stack = [(level, ChunkId(list_id))]
            while stack:
                level, node = stack.pop()  # noqa: PLW2901 - of the node now
                if optional and not self._there(node):
                    continue
                raw = self._structure(Kind.LIST, node)
                if not raw:
                    continue
                try:
                    below = parse_node_ids(raw, f"list {node.hex()[:16]}")
                except Corruption:
                    self.lost.add(node)
                    continue
                if level > 1:
                    stack += [(level - 1, child) for child in reversed(_ids(below))]
                else:
                    self._data(below, optional=optional)

    def _structure(self, kind: Kind, chunk_id: ChunkId) -> bytes:
        """Returns a tree or list to be gone through; empty where that was done, or where it is lost."""
        position = self._source.index.find(chunk_id, usable_only=False)
        if position is not None and not self._seen.add(position):
            return b""
        try:
            raw = self._source.source.get(kind, chunk_id)
        except GONE:
            self.lost.add(chunk_id)
            return b""
        if not self._sink.knows(kind, chunk_id):
            position = self._source.index.find(chunk_id, usable_only=False)
            if position is not None:
                self.wanted.add(position)
        return raw

    def _data(self, ids: bytes, *, optional: bool) -> None:
        missing = self._missing(ids)
        find_run, at = self._source.index.find_run, 0
        while at < len(missing):
            run = find_run(missing, at, usable_only=False)
            if run is not None:
                self.wanted.add_run(*run)
                at += run[2] * CHUNK_ID_BYTES
                continue
            if not optional:
                self.lost.add(missing[at : at + CHUNK_ID_BYTES])
            at += CHUNK_ID_BYTES

    def _missing(self, ids: bytes) -> bytes:
        """Returns those of some data chunks that the target lacks; relies on the others."""
        find_run, relied = self._target.index.find_run, self._sink.relied
        missing = bytearray()
        at = 0
        while at < len(ids):
            run = find_run(ids, at)
            if run is None:
                missing += ids[at : at + CHUNK_ID_BYTES]
                at += CHUNK_ID_BYTES
                continue
            end = at + run[2] * CHUNK_ID_BYTES
            for first in range(at, end, CHUNK_ID_BYTES):
                relied.add(run[0], Kind.DATA, ids[first : first + CHUNK_ID_BYTES])
            at = end
        if not missing:
            return b""
        # What is under way to the target stands in no index yet.
        return b"".join(item for item in _ids(missing) if not self._sink.knows(Kind.DATA, item))


def _ids(joined: bytes | bytearray) -> list[ChunkId]:
    return [ChunkId(bytes(joined[at : at + CHUNK_ID_BYTES])) for at in range(0, len(joined), CHUNK_ID_BYTES)]


def _subdirectories(leaf: Leaf) -> dict[bytes, ChunkId]:
    """Returns the trees of a directory's subdirectories that are not lost, by name."""
    names = leaf.names.split(b"\0")
    return {
        names[row]: ChunkId(ids)
        for row, mode, _, _, ids in references(leaf)
        if stat.S_ISDIR(mode) and leaf.marks.get(row) != Mark.LOST
    }
