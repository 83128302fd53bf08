"""Trees for a target that names content differently: written anew, entry by entry the same but for what they refer to.

Invariant: an entry keeps all that it says; one whose content the source has lost is marked as unreadable, named and
counted. Goes through trees without recursion. A tree that is part of a snapshot of the target is taken over unread.
"""

from __future__ import annotations

import stat
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from respaldo.catalog.runs import put_tree
from respaldo.catalog.trees import Sink, TreeReader
from respaldo.core.errors import StorageFailed
from respaldo.core.ids import ChunkId, SnapshotId
from respaldo.core.model import Content, Mark
from respaldo.core.seams import Cancel, Progress
from respaldo.flows.copying.known import Known
from respaldo.flows.copying.needs import GONE
from respaldo.flows.copying.options import LOST_KEPT
from respaldo.flows.copying.rechunk import Rechunker, SourceUnreadableError
from respaldo.format.tree import Leaf, references
from respaldo.store.header import still_there
from respaldo.store.repo import Repo


@dataclass(slots=True)
class _Frame:
    """Is a directory whose subdirectories are being translated. ``below``: (run, row, tree) of each of them."""

    id: ChunkId
    path: bytes
    leaves: list[Leaf]
    below: list[tuple[int, int, ChunkId]]
    at: int = 0
    became: dict[tuple[int, int], ChunkId] = field(default_factory=dict)
    errors_before: int = 0


class Translator:
    """Writes trees into the target. One thread."""

    def __init__(
        self,
        *,
        source: Repo,
        trees: TreeReader,
        files: Rechunker,
        sink: Sink,
        name_order: bytes,
        known: Known,
        snapshots: Collection[SnapshotId],
        progress: Progress,
        cancel: Cancel,
    ) -> None:
        self._source = source
        self._trees = trees
        self._files = files
        self._sink = sink
        self._name_order = name_order
        self._known = known
        self._snapshots = snapshots
        """Those of the target whose trees may be taken over."""
        self._progress = progress
        self._cancel = cancel
        self.relied: set[SnapshotId] = set()
        self.lost: list[bytes] = []
        self.errors = 0

    def translate(self, root: ChunkId, run: bytes) -> ChunkId:
        """Returns what a root became; raises `Corruption`, `ChunkMissing` where it is lost itself."""
        self.lost, self.errors = [], 0
        taken = self._taken(root)
        if taken is not None:
            return taken
        frames = [self._open(root, b"")]
        while True:
            frame = frames[-1]
            if frame.at == len(frame.below):
                became = self._close(frame, run)
                frames.pop()
                if not frames:
                    return became
                frames[-1].became[frames[-1].below[frames[-1].at - 1][:2]] = became
                continue
            part, row, tree = frame.below[frame.at]
            frame.at += 1
            taken = self._taken(tree)
            if taken is not None:
                frame.became[part, row] = taken
                continue
            child = self._try_open(tree, frame.path + b"/" + name_of(frame.leaves[part], row))
            if child is not None:
                frames.append(child)

    def _taken(self, tree: ChunkId) -> ChunkId | None:
        known = self._known.tree(tree)
        if known is None or known[1] not in self._snapshots:
            return None
        self.relied.add(known[1])
        return known[0]

    def _open(self, tree: ChunkId, path: bytes) -> _Frame:
        self._cancel.check()
        leaves = list(self._trees.leaves(tree))
        below = [
            (part, row, ChunkId(ids))
            for part, leaf in enumerate(leaves)
            for row, mode, _, _, ids in references(leaf)
            if stat.S_ISDIR(mode)
        ]
        return _Frame(tree, path, leaves, below, errors_before=self.errors)

    def _try_open(self, tree: ChunkId, path: bytes) -> _Frame | None:
        try:
            return self._open(tree, path)
        except (*GONE, StorageFailed) as error:
            if isinstance(error, StorageFailed):
                still_there(self._source.backend, error)
            self._lose(path)
            return None

    def _lose(self, path: bytes) -> None:
        self.errors += 1
        self._progress.note(-1, "its content is lost in the source", path)
        if len(self.lost) < LOST_KEPT:
            self.lost.append(path)

    def _close(self, frame: _Frame, run: bytes) -> ChunkId:
        """Reads the files of a directory and writes its tree."""
        leaves = [self._leaf(frame, part, leaf) for part, leaf in enumerate(frame.leaves)]
        tree = put_tree(self._sink, leaves[0] if len(leaves) == 1 else joined(leaves), self._name_order)
        if self.errors == frame.errors_before:
            self._known.put_tree(frame.id, tree, run)
        return tree

    def _leaf(self, frame: _Frame, part: int, leaf: Leaf) -> Leaf:
        """Returns a run of a directory with the content that the target has for it."""
        rows = list(references(leaf))
        self._files.ahead.expect(b"".join(ids for _, mode, _, level, ids in rows if not level and stat.S_ISREG(mode)))
        content = bytearray()
        levels, marks = dict(leaf.levels), dict(leaf.marks)
        names = leaf.names.split(b"\0")
        for row, mode, size, level, ids in rows:
            if stat.S_ISDIR(mode):
                became = frame.became.get((part, row), b"")
            else:
                old = Content(level=level, ids=ids)
                fresh = self._file(frame.path + b"/" + names[row], old, size)
                became = fresh.ids
                levels.pop(row, None)
                if fresh.level or len(fresh) > 1:
                    levels[row] = (fresh.level, len(fresh))
            content += became
            if not became:
                marks[row] = Mark.UNREADABLE
            elif marks.get(row) == Mark.LOST and stat.S_ISREG(mode):
                del marks[row]
        return replace(leaf, content=bytes(content), levels=levels, marks=marks)

    def _file(self, path: bytes, content: Content, size: int) -> Content:
        """Returns a file's content in the target, none where the source has lost it."""
        self._progress.at(path)
        try:
            return self._files.content(content, size)
        except SourceUnreadableError as found:
            if isinstance(found.error, StorageFailed):
                still_there(self._source.backend, found.error)
            self._lose(path)
            return Content()


def name_of(leaf: Leaf, row: int) -> bytes:
    """Returns the name in a row."""
    return leaf.names.split(b"\0", row + 1)[row]


def joined(leaves: Sequence[Leaf]) -> Leaf:
    """Returns the runs of a directory as one."""
    names, meta, content, targets = bytearray(), bytearray(), bytearray(), bytearray()
    levels: dict[int, tuple[int, int]] = {}
    links: dict[int, bytes] = {}
    xattrs: dict[int, tuple[tuple[bytes, bytes], ...]] = {}
    marks: dict[int, int] = {}
    users: dict[int, str] = {}
    groups: dict[int, str] = {}
    first = 0
    for leaf in leaves:
        names += leaf.names
        meta += leaf.meta
        content += leaf.content
        targets += leaf.targets
        levels |= {first + row: value for row, value in leaf.levels.items()}
        links |= {first + row: value for row, value in leaf.links.items()}
        xattrs |= {first + row: value for row, value in leaf.xattrs.items()}
        marks |= {first + row: value for row, value in leaf.marks.items()}
        users |= leaf.users
        groups |= leaf.groups
        first += len(leaf)
    return Leaf(
        names=bytes(names),
        meta=bytes(meta),
        content=bytes(content),
        targets=bytes(targets),
        levels=levels,
        links=links,
        xattrs=xattrs,
        marks=marks,
        users=users,
        groups=groups,
    )
