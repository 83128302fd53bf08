"""Trees, lists and references of all snapshots: each distinct tree is read once, each chunk looked up.

First `walk` goes through every snapshot and marks the trees below which something is lost; what is found to be damaged
on the way joins the findings. Then `name` goes into the marked ones only, and names the paths. Memory: two bits a
tree, some dozen bytes a list node or run, nothing for data chunks.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from respaldo.core.errors import Corruption
from respaldo.core.ids import CHUNK_ID_BYTES, ChunkId, Kind, SnapshotId
from respaldo.core.model import Mark
from respaldo.core.seams import Cancel
from respaldo.flows.check.chunks import Chunks
from respaldo.flows.check.findings import Finding, Findings, Positions
from respaldo.flows.check.marked import is_lost
from respaldo.flows.check.result import AFFECTED_KEPT, Affected
from respaldo.flows.check.sums import Sums
from respaldo.format.content import HOLE, Row, parse_node
from respaldo.format.tree import Branch, Leaf, parse_tree, references

DIRECTORIES_NAMED_MAX = 1 << 20
"""So many directories are gone through for the names of what is affected: a tree that refers to one child twice, and
that one to the next, stands for more paths than can be counted."""


@dataclass(slots=True)
class _Frame:
    """Is a tree whose children are being gone through."""

    position: tuple[int, int]
    children: bytes
    dirty: bool
    losing: bool
    at: int = 0


class Survey:
    """Goes through the trees of snapshots. One thread."""

    def __init__(self, chunks: Chunks, findings: Findings, cancel: Cancel, sums: Sums | None = None) -> None:
        self._chunks = chunks
        self._sums = sums
        """Is told of every file that can be had, once for each distinct tree."""
        self._findings = findings
        self._cancel = cancel
        self._seen = Positions()
        self._dirty = Positions()
        self._losing = Positions()
        """Trees with entries below them that a repair has marked as lost, and that are."""
        self._runs: dict[ChunkId, tuple[int, bytes, bytes]] = {}
        self._lists: dict[tuple[int, int, int], int] = {}
        self._hole_first: set[tuple[ChunkId, int]] = set()
        self._hole_last: set[tuple[ChunkId, int]] = set()
        self._spoilt: dict[tuple[int, int, int], tuple[Finding, ...]] = {}
        """Lists that are not whole, and why: one that holds another a thousand times is gone through once, too."""
        self._naming = False
        self._directories_left = DIRECTORIES_NAMED_MAX
        self.trees = 0
        self.references = 0
        self.lost: list[Affected] = []
        self.lost_count = 0
        """Entries of distinct trees that are marked as lost, and are; ``named_lost``: in all snapshots together."""
        self.named_lost = 0

    @property
    def cut_short(self) -> bool:
        """Whether there were more affected directories than are gone through."""
        return self._directories_left <= 0

    # --- walking: what is there ------------------------------------------------------------------------------------

    def walk(self, root: ChunkId) -> bool:
        """Goes through what a tree refers to and was not seen before; returns whether something below it is lost."""
        frames: list[_Frame] = []
        dirty = self._enter(root, frames)
        while frames:
            frame = frames[-1]
            if frame.at < len(frame.children):
                child = ChunkId(frame.children[frame.at : frame.at + CHUNK_ID_BYTES])
                frame.at += CHUNK_ID_BYTES
                frame.dirty |= self._enter(child, frames)
                continue
            frames.pop()
            above = frames[-1] if frames else None
            if frame.losing:
                self._losing.add(frame.position)
                if above is not None:
                    above.losing = True
            if frame.dirty:
                self._dirty.add(frame.position)
                if above is not None:
                    above.dirty = True
                else:
                    dirty = True
        return dirty

    def _enter(self, tree_id: ChunkId, frames: list[_Frame]) -> bool:
        """Pushes a frame for a tree that is new; returns whether it is known to be dirty."""
        self._cancel.check()
        blame: list[Finding] = []
        position = self._chunks.position(tree_id, blame)
        if position is not None and position in self._seen:
            if frames and position in self._losing:
                frames[-1].losing = True
            return position in self._dirty
        tree = self._tree(tree_id, blame)
        position = self._chunks.position(tree_id, blame)
        if tree is None or position is None:
            if position is not None:
                self._seen.add(position)
                self._dirty.add(position)
            return True
        self._seen.add(position)
        self.trees += 1
        lost = self.lost_count
        if isinstance(tree, Branch):
            children = b"".join(run_id for run_id, _ in tree.runs)
            self._fit(tree_id, tree, blame)
        else:
            children = self._leaf(tree_id, tree, blame)
        frames.append(_Frame(position, children, bool(blame), self.lost_count > lost))
        return False

    def _tree(self, tree_id: ChunkId, blame: list[Finding]) -> Leaf | Branch | None:
        raw = self._chunks.read(Kind.TREE, tree_id, blame)
        if raw is None:
            return None
        what = _tree_name(tree_id)
        try:
            return parse_tree(raw, what)
        except Corruption as error:
            blame.append(self._findings.add(what, error.reason))
            return None

    def _leaf(self, tree_id: ChunkId, leaf: Leaf, blame: list[Finding]) -> bytes:
        """Looks up what the files of a directory refer to; returns the ids of its subdirectories, joined."""
        children = bytearray()
        self.references += len(leaf.content) // CHUNK_ID_BYTES
        files: list[tuple[int, int, bytes]] = []
        for row, mode, size, level, ids in references(leaf):
            if leaf.marks.get(row) == Mark.LOST and is_lost(self._chunks, mode, size, level, ids):
                self.lost_count += 1
                self.references -= stat.S_ISDIR(mode)
            elif stat.S_ISDIR(mode):
                children += ids
                self.references -= 1
            else:
                self._file(tree_id, size, level, ids, blame)
                files.append((size, level, ids))
        if self._sums is not None and not blame:
            self._sums.want(files)
        return bytes(children)

    def _file(self, tree_id: ChunkId, size: int, level: int, ids: bytes, blame: list[Finding]) -> None:
        """Looks up what a file refers to; says in ``blame`` what keeps it from being restored."""
        if len(ids) == CHUNK_ID_BYTES:
            total = self._content(ChunkId(ids), level, blame)
        else:
            before = len(blame)
            lengths = [
                self._content(ChunkId(ids[at : at + CHUNK_ID_BYTES]), level, blame)
                for at in range(0, len(ids), CHUNK_ID_BYTES)
            ]
            total = sum(lengths) if len(blame) == before else -1
        if total not in {size, -1}:
            blame.append(self._findings.add(_tree_name(tree_id), "a file in it has another size than its content"))

    def _content(self, chunk_id: ChunkId, level: int, blame: list[Finding]) -> int:
        """Returns the bytes that a chunk or a list stands for, -1 where it is lost."""
        position = self._chunks.position(chunk_id, blame)
        if position is None:
            return -1
        if not level:
            return self._chunks.length(position)
        key = (*position, level)
        if key not in self._lists and key not in self._spoilt:
            found: list[Finding] = []
            total = self._node(chunk_id, level, found)
            if found:
                self._spoilt[key] = tuple(dict.fromkeys(found))
            else:
                self._lists[key] = total
        blame += self._spoilt.get(key, ())
        return self._lists.get(key, -1)

    def _node(self, chunk_id: ChunkId, level: int, blame: list[Finding]) -> int:
        """Reads a node of a list and looks up what it refers to; returns as `_content` does."""
        raw = self._chunks.read(Kind.LIST, chunk_id, blame)
        if raw is None:
            return -1
        what = f"list {chunk_id.hex()[:16]}"
        total = 0
        try:
            rows = parse_node(raw, what)
            for row in rows:
                total += row.length
                if row.id == HOLE:
                    if level > 1:
                        raise Corruption(what, "a hole stands above the lowest level")
                elif self._content(row.id, level - 1, blame) not in {row.length, -1}:
                    raise Corruption(what, "a row of it has another length than what it refers to")
            self._check_holes(chunk_id, level, rows, what)
        except Corruption as error:
            blame.append(self._findings.add(what, error.reason))
        if blame:
            return -1
        if level == 1:
            self.references += len(raw) // CHUNK_ID_BYTES
        return total

    def _check_holes(self, chunk_id: ChunkId, level: int, rows: list[Row], what: str) -> None:
        """Raises `Corruption` where a node's last hole meets the next one's first."""
        if level > 1:
            for one, other in pairwise(rows):
                if (one.id, level - 1) in self._hole_last and (other.id, level - 1) in self._hole_first:
                    raise Corruption(what, "two holes are adjacent below it")
        if rows[0].id == HOLE or (rows[0].id, level - 1) in self._hole_first:
            self._hole_first.add((chunk_id, level))
        if rows[-1].id == HOLE or (rows[-1].id, level - 1) in self._hole_last:
            self._hole_last.add((chunk_id, level))

    def _fit(self, tree_id: ChunkId, branch: Branch, blame: list[Finding]) -> None:
        """Checks that the runs of a long directory have the lengths it says, and that names ascend from run to run."""
        last = b""
        for run_id, count in branch.runs:
            if run_id not in self._runs:
                run = self._tree(run_id, blame)
                if run is None:
                    continue
                names = run.names if isinstance(run, Leaf) else b""
                self._runs[run_id] = (len(run) if isinstance(run, Leaf) else -1, *_ends(names))
            length, first, end = self._runs[run_id]
            if length != count or first <= last:
                blame.append(self._findings.add(_tree_name(tree_id), "its runs do not fit together"))
            last = end

    # --- naming: whom it concerns ----------------------------------------------------------------------------------

    def name(self, snapshot: SnapshotId, root: ChunkId) -> None:
        """Says which paths of a snapshot that is not whole are affected, and by what."""
        if not self._naming:  # what was in no pack has been blamed on one since the walk
            self._naming = True
            self._spoilt.clear()
        stack: list[tuple[bytes, ChunkId]] = [(b"", root)]
        while stack and not self.cut_short:
            self._cancel.check()
            self._directories_left -= 1
            path, tree_id = stack.pop()
            blame: list[Finding] = []
            tree = self._tree(tree_id, blame)
            if isinstance(tree, Branch):
                self._fit(tree_id, tree, blame)
            for finding in dict.fromkeys(blame):
                finding.affects(snapshot, path or b"/", below=True)
            if tree is None:
                continue
            if isinstance(tree, Branch):
                below = [(path, run_id) for run_id, _ in tree.runs if self._is_dirty(run_id)]
            else:
                below = list(self._name_entries(snapshot, path, tree_id, tree))
            stack += reversed(below)

    def has(self, tree_id: ChunkId) -> bool:
        """Whether a directory's tree is there; where it is not, that is nobody's fault."""
        return not is_lost(self._chunks, stat.S_IFDIR, 0, 0, tree_id)

    def loses(self, root: ChunkId) -> bool:
        """Whether something below a tree that was gone through is marked as lost, and is."""
        position = self._chunks.position(root, [])
        return position is not None and position in self._losing

    def name_lost(self, snapshot: SnapshotId, root: ChunkId) -> None:
        """Names the entries of a snapshot that are marked as lost, and are."""
        stack: list[tuple[bytes, ChunkId]] = [(b"", root)]
        while stack and not self.cut_short:
            self._cancel.check()
            path, tree_id = stack.pop()
            self._chunks.quiet = True
            position = self._chunks.position(tree_id, [])
            tree = self._tree(tree_id, []) if position is not None and position in self._losing else None
            self._chunks.quiet = False
            if tree is not None:
                self._directories_left -= 1
                if isinstance(tree, Branch):
                    stack += [(path, run_id) for run_id, _ in reversed(tree.runs)]
                else:
                    stack += reversed(list(self._name_lost_entries(snapshot, path, tree)))

    def _name_lost_entries(self, snapshot: SnapshotId, path: bytes, leaf: Leaf) -> Iterator[tuple[bytes, ChunkId]]:
        names = leaf.names.split(b"\0")
        for row, mode, size, level, ids in references(leaf):
            below = path + b"/" + names[row]
            if leaf.marks.get(row) == Mark.LOST and is_lost(self._chunks, mode, size, level, ids):
                self.name_one(snapshot, below, below=stat.S_ISDIR(mode))
            elif stat.S_ISDIR(mode):
                yield below, ChunkId(ids)

    def name_one(self, snapshot: SnapshotId, path: bytes, *, below: bool) -> None:
        """Counts a path that is lost; names the first ones."""
        self.named_lost += 1
        if len(self.lost) < AFFECTED_KEPT:
            self.lost.append(Affected(snapshot=snapshot, path=path, below=below))

    def _is_dirty(self, tree_id: ChunkId) -> bool:
        position = self._chunks.position(tree_id, [])
        return position is None or position in self._dirty

    def _name_entries(
        self, snapshot: SnapshotId, path: bytes, tree_id: ChunkId, leaf: Leaf
    ) -> Iterator[tuple[bytes, ChunkId]]:
        names = leaf.names.split(b"\0")
        for row, mode, size, level, ids in references(leaf):
            below = path + b"/" + names[row]
            if stat.S_ISDIR(mode):
                if self._is_dirty(ChunkId(ids)):
                    yield below, ChunkId(ids)
                continue
            blame: list[Finding] = []
            self._file(tree_id, size, level, ids, blame)
            for finding in dict.fromkeys(blame):
                finding.affects(snapshot, below)


def _ends(names: bytes) -> tuple[bytes, bytes]:
    """Returns the first and the last of names that are each followed by a zero byte."""
    return names.partition(b"\0")[0], names[:-1].rpartition(b"\0")[2]


def _tree_name(tree_id: ChunkId) -> str:
    return f"tree {tree_id.hex()[:16]}"
