"""Trees of a snapshot that lacks something, written anew: an entry whose content is not all there is marked as lost.

Invariant: an entry keeps everything that it says, what it refers to included, so that it is whole again when that is
stored again. What is whole keeps its id. A directory whose tree, or a run of it, is gone is marked in the one above it.
Goes through trees without recursion. Implements docs/format.md, "Tree" (mark 6) and "Repair".
"""

from __future__ import annotations

import stat
from collections.abc import Collection
from dataclasses import dataclass, field, replace

from respaldo.core.errors import ChunkMissing, Corruption
from respaldo.core.ids import CHUNK_ID_BYTES, ChunkId, Kind
from respaldo.core.model import Mark
from respaldo.core.seams import Cancel
from respaldo.format.content import HOLE, parse_node
from respaldo.format.snapshot import LOST_KEPT
from respaldo.format.tree import Branch, Leaf, parse_tree, references
from respaldo.store.chunks import ChunkSink
from respaldo.store.repo import Repo

_MISSING = -1


@dataclass(frozen=True, slots=True)
class Rewritten:
    """Is what became of a tree: its id now, and whether it, or a run of it, is not to be had."""

    id: ChunkId
    gone: bool = False


@dataclass(slots=True)
class _Frame:
    """Is a tree that waits for what became of its children."""

    id: ChunkId
    tree: Leaf | Branch
    children: list[ChunkId]
    at: int = 0
    found: dict[ChunkId, Rewritten] = field(default_factory=dict)


class Rewriter:
    """Writes trees. One thread; remembers what became of each tree, so that what snapshots share is written once."""

    def __init__(
        self,
        repo: Repo,
        sink: ChunkSink,
        distrusted: set[int],
        cancel: Cancel,
        *,
        known_lost: Collection[bytes] = frozenset(),
    ) -> None:
        self._repo = repo
        self._sink = sink
        self._distrusted = distrusted
        """Numbers of packs that are there and damaged: nothing that lies in them alone counts as there."""
        self._cancel = cancel
        self._known_lost = known_lost
        """Chunks that are not to be had though packs list them: whoever looked found all copies damaged."""
        self._whole: set[ChunkId] = set()
        self._done: dict[ChunkId, Rewritten] = {}
        self._lists: dict[tuple[ChunkId, int], int] = {}
        self.lost: dict[ChunkId, None] = {}
        """Chunks that were looked for in vain, the first of them."""
        self.lost_chunks = 0
        self.lost_files = 0

    def rewrite(self, root: ChunkId) -> Rewritten:
        """Returns what became of a tree and everything below it. What was put is not durable yet."""
        result = self._known(root)
        if result is not None:
            return result
        frames: list[_Frame] = []
        result = self._open(root, frames)
        while frames:
            frame = frames[-1]
            if frame.at < len(frame.children):
                child = frame.children[frame.at]
                known = self._known(child)
                if known is None:
                    known = self._open(child, frames)
                if known is not None:
                    frame.found[child] = known
                    frame.at += 1
                continue
            frames.pop()
            result = self._close(frame)
        return result if result is not None else Rewritten(root, gone=True)

    def forget(self) -> None:
        """Forgets what was written: it is to be written again, because a pack that it lies in may go."""
        self._done.clear()

    def _known(self, tree_id: ChunkId) -> Rewritten | None:
        return Rewritten(tree_id) if tree_id in self._whole else self._done.get(tree_id)

    def _open(self, tree_id: ChunkId, frames: list[_Frame]) -> Rewritten | None:
        """Pushes a frame for a tree; returns what became of it where that is known at once: it is gone."""
        self._cancel.check()
        tree = self._tree(tree_id)
        if tree is None:
            result = self._done[tree_id] = Rewritten(tree_id, gone=True)
            return result
        if isinstance(tree, Branch):
            children = [run_id for run_id, _ in tree.runs]
        else:
            children = [ChunkId(ids) for _, mode, _, _, ids in references(tree) if stat.S_ISDIR(mode)]
        frames.append(_Frame(tree_id, tree, children))
        return None

    def _tree(self, tree_id: ChunkId) -> Leaf | Branch | None:
        try:
            if tree_id in self._known_lost:
                raise ChunkMissing("tree", tree_id)
            return parse_tree(self._repo.source.get(Kind.TREE, tree_id), "tree")
        except (ChunkMissing, Corruption):
            self._lack(tree_id)
            return None

    def _close(self, frame: _Frame) -> Rewritten:
        tree: Leaf | Branch
        gone = False
        if isinstance(frame.tree, Branch):
            tree = Branch(tuple((frame.found[run_id].id, count) for run_id, count in frame.tree.runs))
            gone = any(frame.found[run_id].gone for run_id, _ in frame.tree.runs)
        else:
            tree = self._marked(frame.tree, frame.found)
        if tree == frame.tree and not gone:
            self._whole.add(frame.id)
            return Rewritten(frame.id)
        fresh = frame.id if tree == frame.tree else self._sink.put(Kind.TREE, tree.encode())
        result = self._done[frame.id] = Rewritten(fresh, gone=gone)
        return result

    def _marked(self, leaf: Leaf, found: dict[ChunkId, Rewritten]) -> Leaf:
        """Returns a directory with its children's new ids, and the marks of what is lost and of what has come back."""
        content = bytearray()
        marks = dict(leaf.marks)
        for row, mode, size, level, ids in references(leaf):
            if stat.S_ISDIR(mode):
                child = found[ChunkId(ids)]
                content += child.id
                if child.gone:
                    marks[row] = Mark.LOST
                    self.lost_files += 1
                continue
            content += ids
            if self._is_whole(size, level, ids):
                if marks.get(row) == Mark.LOST:
                    del marks[row]
            else:
                marks[row] = Mark.LOST
                self.lost_files += 1
        if bytes(content) == leaf.content and marks == leaf.marks:
            return leaf
        return replace(leaf, content=bytes(content), marks=marks)

    # --- files -----------------------------------------------------------------------------------------------------

    def _is_whole(self, size: int, level: int, ids: bytes) -> bool:
        """Whether all of a file's content is there, and is as long as the file."""
        lengths = [
            self._length(ChunkId(ids[at : at + CHUNK_ID_BYTES]), level) for at in range(0, len(ids), CHUNK_ID_BYTES)
        ]
        return _MISSING not in lengths and sum(lengths) == size

    def _length(self, chunk_id: ChunkId, level: int) -> int:
        if not level:
            found = self._find(chunk_id)
            if found is None:
                self._lack(chunk_id)
                return _MISSING
            return self._repo.source.locate_row(*found).length
        key = (chunk_id, level)
        if key not in self._lists:
            self._lists[key] = _MISSING  # a list that holds itself
            self._lists[key] = self._list_length(chunk_id, level)
        return self._lists[key]

    def _list_length(self, chunk_id: ChunkId, level: int) -> int:
        try:
            if chunk_id in self._known_lost:
                raise ChunkMissing("list", chunk_id)
            rows = parse_node(self._repo.source.get(Kind.LIST, chunk_id), "list")
        except (ChunkMissing, Corruption):
            self._lack(chunk_id)
            return _MISSING
        lengths = [row.length if row.id == HOLE else self._length(row.id, level - 1) for row in rows]
        if any(length != row.length for length, row in zip(lengths, rows, strict=True)):
            return _MISSING
        return sum(lengths)

    def _find(self, chunk_id: ChunkId) -> tuple[int, int] | None:
        if chunk_id in self._known_lost:
            return None
        found = self._repo.index.find(chunk_id, usable_only=False)
        if found is None or found[0] not in self._distrusted:
            return found
        copies = self._repo.index.copies(chunk_id)
        return next((copy for copy in copies if copy[0] not in self._distrusted), None)

    def _lack(self, chunk_id: ChunkId) -> None:
        if chunk_id not in self.lost:
            self.lost_chunks += 1
            if len(self.lost) < LOST_KEPT:
                self.lost[chunk_id] = None
