"""Trees of a snapshot written anew without what patterns exclude.

Invariant: what is left is the tree that a backup with these patterns makes of the same files, id for id; what nothing
was taken out of keeps its id. A directory that cannot be read is marked as lost in the one above it, as a repair does,
and named: nothing below it could be left out. No recursion, and nothing in memory but the directories on the way.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple

from respaldo.catalog.runs import put_tree
from respaldo.catalog.trees import Sink
from respaldo.core.errors import ChunkMissing, Corruption, ObjectMissing
from respaldo.core.ids import ChunkId, Kind
from respaldo.core.model import Mark
from respaldo.core.seams import Cancel, Progress
from respaldo.flows.rewrite.leaves import altered, directories, joined
from respaldo.format.tree import META, Branch, Leaf, parse_tree
from respaldo.fs.match import Rules
from respaldo.store.repo import Repo

_REMEMBERED_MAX = 1 << 20


class Totals(NamedTuple):
    """Counts what is in a directory and all below it."""

    files: int = 0
    directories: int = 0
    others: int = 0
    length_bytes: int = 0

    def plus(self, other: Totals) -> Totals:
        """Returns the sums."""
        return Totals(*(one + more for one, more in zip(self, other, strict=True)))


@dataclass(frozen=True, slots=True)
class Result:
    """Is what became of a tree. ``gone``: it, or a run of it, is not to be had."""

    id: ChunkId
    totals: Totals = field(default_factory=Totals)
    gone: bool = False


@dataclass(slots=True)
class _Piece:
    """Is a directory, or a run of it; ``leaf`` is None where that cannot be had."""

    id: ChunkId
    count: int
    leaf: Leaf | None
    kept: list[bool] | None = None
    trees: dict[int, bytes] = field(default_factory=dict)
    marks: dict[int, int] = field(default_factory=dict)

    def done(self) -> Leaf | None:
        return None if self.leaf is None else altered(self.leaf, self.kept, self.trees, self.marks)


@dataclass(slots=True)
class _Frame:
    """Is a directory that is being gone through. ``relative``: its path in its source, None above all sources."""

    id: ChunkId
    path: bytes
    relative: bytes | None
    pieces: list[_Piece]
    totals: Totals
    children: Iterator[tuple[_Piece, int, bytes, ChunkId]]
    here: tuple[_Piece, int] | None = None
    """The entry whose directory is being gone through."""


class Excluder:
    """Writes trees for snapshots of one session. One thread.

    Remembers what became of a tree at a place, so that what snapshots share is gone through once.
    """

    def __init__(
        self,
        repo: Repo,
        sink: Sink,
        *,
        rules: Rules,
        larger_bytes: int,
        progress: Progress,
        cancel: Cancel,
    ) -> None:
        self._repo = repo
        self._sink = sink
        self._rules = rules
        self._larger_bytes = larger_bytes
        self._progress = progress
        self._cancel = cancel
        self._sources: frozenset[bytes] = frozenset()
        self._known: dict[bytes, Result] = {}
        self.lost: dict[bytes, ChunkId] = {}
        """Directories of the last snapshot that could not be read, and their trees."""

    def run(self, root: ChunkId, sources: Sequence[bytes]) -> Result:
        """Returns what became of a snapshot's root. What was put is not durable yet."""
        self._sources = frozenset(sources)
        self.lost = {}
        self._sink.separate()
        frames: list[_Frame] = []
        result = self._open(root, b"/", b"" if b"/" in self._sources else None, frames)
        while frames:
            frame = frames[-1]
            if result is not None and frame.here is not None:
                self._settle(frame, *frame.here, result)
                result = frame.here = None
            step = next(frame.children, None)
            if step is None:
                frames.pop()
                result = self._close(frame)
                continue
            piece, row, name, child = step
            path, relative = self._place(frame, name)
            frame.here = piece, row
            result = self._open(child, path, relative, frames)
        return result if result is not None else Result(root, gone=True)

    def _place(self, frame: _Frame, name: bytes) -> tuple[bytes, bytes | None]:
        """Returns the path of a directory, and the one in its source."""
        path = frame.path.rstrip(b"/") + b"/" + name
        if frame.relative is not None:
            return path, (frame.relative + b"/" + name).lstrip(b"/")
        if path in self._sources:
            self._sink.separate()  # sources never share a block
            return path, b""
        return path, None

    # --- a directory -----------------------------------------------------------------------------------------------

    def _key(self, tree: ChunkId, relative: bytes | None) -> bytes:
        return b"" if relative is None else blake2b(tree + relative, digest_size=16).digest()

    def _open(self, tree: ChunkId, path: bytes, relative: bytes | None, frames: list[_Frame]) -> Result | None:
        """Pushes a frame for a tree; returns what became of it where that is known at once."""
        self._cancel.check()
        known = self._known.get(self._key(tree, relative))
        if known is not None:
            return known
        self._progress.at(path)
        found = self._read(tree)
        if found is None:
            self.lost[path] = tree
            return Result(tree, gone=True)
        if isinstance(found, Leaf):
            pieces = [_Piece(tree, len(found), found)]
        else:
            pieces = [self._run(run_id, count, path) for run_id, count in found.runs]
            if not _are_in_order(pieces):
                self.lost[path] = tree
                return Result(tree, gone=True)
        frame = _Frame(tree, path, relative, pieces, Totals(directories=1), _children(pieces))
        for piece in pieces:
            if piece.leaf is not None:
                self._leave_out(frame, piece, piece.leaf)
        frames.append(frame)
        return None

    def _run(self, run_id: ChunkId, count: int, path: bytes) -> _Piece:
        run = self._read(run_id)
        if isinstance(run, Leaf) and len(run) == count:
            return _Piece(run_id, count, run)
        self.lost[path] = run_id
        return _Piece(run_id, count, None)

    def _read(self, tree: ChunkId) -> Leaf | Branch | None:
        try:
            return parse_tree(self._repo.source.get(Kind.TREE, tree), f"tree {tree.hex()[:16]}")
        except (ChunkMissing, Corruption, ObjectMissing):
            return None

    def _leave_out(self, frame: _Frame, piece: _Piece, leaf: Leaf) -> None:
        """Finds out which rows are kept, and counts those."""
        rows = [(stat.S_IFMT(item[0]), item[4]) for item in META.iter_unpack(leaf.meta)]
        if frame.relative is not None:
            is_dir = [kind == stat.S_IFDIR for kind, _ in rows]
            kept = self._rules.kept(frame.relative, leaf.names.split(b"\0")[:-1], is_dir)
            limit = self._larger_bytes
            if limit and any(kind == stat.S_IFREG and size > limit for kind, size in rows):
                kept = [
                    keep and not (kind == stat.S_IFREG and size > limit)
                    for keep, (kind, size) in zip(kept or [True] * len(rows), rows, strict=True)
                ]
            piece.kept = kept
        left = [row for number, row in enumerate(rows) if piece.kept is None or piece.kept[number]]
        sizes = [size for kind, size in left if kind == stat.S_IFREG]
        others = sum(kind not in {stat.S_IFREG, stat.S_IFDIR} for kind, _ in left)
        frame.totals = frame.totals.plus(Totals(files=len(sizes), others=others, length_bytes=sum(sizes)))
        self._progress.advance(files=len(sizes), length_bytes=sum(sizes))

    @staticmethod
    def _settle(frame: _Frame, piece: _Piece, row: int, result: Result) -> None:
        piece.trees[row] = result.id
        if result.gone:
            piece.marks[row] = Mark.LOST
        frame.totals = frame.totals.plus(result.totals)

    def _close(self, frame: _Frame) -> Result:
        leaves = [piece.done() for piece in frame.pieces]
        fresh = [leaf for leaf in leaves if leaf is not None]
        if all(leaf is piece.leaf for leaf, piece in zip(leaves, frame.pieces, strict=True)):
            tree = frame.id
        elif len(fresh) == len(leaves):
            tree = put_tree(self._sink, joined(fresh), self._repo.ring.name_order)
        else:  # what cannot be had keeps its place between the others
            runs = [
                (piece.id if leaf is piece.leaf else self._sink.put(Kind.TREE, leaf.encode()), len(leaf))
                if leaf is not None
                else (piece.id, piece.count)
                for leaf, piece in zip(leaves, frame.pieces, strict=True)
            ]
            tree = self._sink.put(Kind.TREE, Branch(tuple(run for run in runs if run[1])).encode())
        result = Result(tree, frame.totals, gone=len(fresh) < len(leaves))
        key = self._key(frame.id, frame.relative)
        if key and not self.lost and len(self._known) < _REMEMBERED_MAX:
            self._known[key] = result
        return result


def _children(pieces: list[_Piece]) -> Iterator[tuple[_Piece, int, bytes, ChunkId]]:
    """Yields the subdirectories that are kept."""
    for piece in pieces:
        if piece.leaf is not None:
            names = piece.leaf.names.split(b"\0")
            for row, tree in directories(piece.leaf):
                if piece.kept is None or piece.kept[row]:
                    yield piece, row, names[row], tree


def _are_in_order(pieces: list[_Piece]) -> bool:
    """Whether names ascend from run to run, as every reader demands."""
    last = b""
    for piece in pieces:
        if piece.leaf is not None and piece.count:
            if piece.leaf.names.partition(b"\0")[0] <= last:
                return False
            last = piece.leaf.names[:-1].rpartition(b"\0")[2]
    return True
