"""The mark: goes through the trees of all roots and notes where what they need lies.

Invariant: a tree's bit is set only together with the bits of all that it refers to, or the marks are thrown away: so a
tree that is marked is never read again, not for another root, and not when roots are listed again. Works by columns; a
bit a chunk, and nothing that grows with the number of entries. Implements docs/format.md, "Prune" (G1, G5).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from respaldo.catalog.snapshots import list_pending
from respaldo.core.errors import ChunkMissing, ObjectMissing, StorageFailed
from respaldo.core.ids import CHUNK_ID_BYTES, ChunkId, Kind, SnapshotId
from respaldo.core.seams import Cancel, Progress
from respaldo.flows.gc.roots import Roots, list_roots
from respaldo.format.content import parse_node_ids
from respaldo.format.tree import References, parse_references
from respaldo.store.bitmaps import Bitmaps, Position
from respaldo.store.bulk import BULK_IDS_MAX
from respaldo.store.repo import Listing, Repo

_TRIES = 20
_LOOKS = 5
_RUN_MIN = 8
"""One look-up at random costs as much as so many chunks in bulk."""
_SKIP_MIN = 32
_SKIP_MAX = 1024


class Marks(Protocol):
    """Remembers which positions were met."""

    @property
    def rows(self) -> Mapping[int, object]:
        """By pack number, what is met in it."""

    def add(self, position: Position) -> bool:
        """Meets a position; returns whether what lies below it must be met as well."""

    def add_run(self, number: int, row: int, count: int) -> None:
        """Meets positions of one pack, of data, whose rows follow one another."""

    def add_rows(self, number: int, rows: Sequence[int]) -> None:
        """Meets positions of one pack, of data, in no order; ``rows`` is not empty."""


_LACKING_KEPT = 1 << 18


@dataclass(slots=True)
class _Lost:
    """Is what entries refer to that a repair has marked as lost: ids joined, and (level, id) of lists."""

    trees: bytearray = field(default_factory=bytearray)
    data: bytearray = field(default_factory=bytearray)
    lists: list[tuple[int, bytes]] = field(default_factory=list)

    def add(self, found: References) -> None:
        self.trees += found.trees
        self.data += found.data
        self.lists += found.lists

    def __bool__(self) -> bool:
        return bool(self.trees or self.data or self.lists)


class _VanishedError(Exception):
    """Says that a root was forgotten before all of it was read: another may have taken over from it meanwhile."""


class Mark:
    """Holds what is live. One thread."""

    def __init__(
        self, repo: Repo, *, progress: Progress, cancel: Cancel, without: Collection[SnapshotId] = frozenset()
    ) -> None:
        self._repo = repo
        self.without = without
        """Committed snapshots that are no roots, because they are about to go."""
        self._progress = progress
        self._cancel = cancel
        self._done: dict[SnapshotId, ChunkId] = {}
        self._incomplete = False
        """Whether an undecided root lacked something: it must be gone through again, it may be committed by then."""
        self._lenient = False
        self._lost = _Lost()
        self._lacking: set[ChunkId] = set()
        """What is lost and was not to be had: where a backup has stored it again, it is to be marked after all."""
        self._looks = _LOOKS
        self._later = bytearray()
        """Ids of data chunks that were put off; empty between two roots."""
        self._skip = 0
        self._patience = _SKIP_MIN
        self._behind = (0, 0)
        self.live = Bitmaps()
        self.marks: Marks = self.live
        """What is told of all that is met: `live`, unless a subclass wants to know more."""
        self.roots = Roots(committed={}, undecided={}, unreadable={})
        self.listing = Listing(packs={}, condemned=frozenset())
        self.anew = 0
        """How often all was marked anew."""
        self.trees = 0
        self.references = 0

    def update(self, leaving_out: Callable[[Roots], Collection[SnapshotId]] = lambda _roots: ()) -> None:
        """Lists roots, then condemnations, then packs, and marks what is not marked yet; again where one vanishes.

        ``leaving_out`` is asked which undecided roots are none. Raises `ChunkMissing` or `Corruption` where a root
        needs what cannot be had: then nobody knows what is live.
        """
        for _ in range(_TRIES):
            self.roots = list_roots(self._repo)
            self._synchronise()
            if self._incomplete or self._moved() or self._returned():
                self._clear()
            try:
                self._all(leaving_out(self.roots))
            except _VanishedError:
                self._clear()
                continue
            if not self._moved():
                return
        raise StorageFailed("packs", "what is needed moved again and again while it was looked at", retryable=True)

    def _all(self, leave_out: Collection[SnapshotId]) -> None:
        self._need_readable(leave_out)
        # Committed ones first: what an undecided one lacks must not hide behind its marks.
        for snapshot, root in self.roots.committed.items():
            if snapshot not in self.without:
                self._committed(snapshot, root)
        for snapshot, item in self.roots.undecided.items():
            if snapshot not in leave_out:
                self._root(snapshot, item.root, lenient=True)
        self._what_was_lost()

    def _committed(self, snapshot: SnapshotId, root: ChunkId) -> None:
        """Marks a committed snapshot; one whose root a repair has found lost, with what is lost."""
        if snapshot not in self.roots.lost:
            self._root(snapshot, root, lenient=False)
        elif self._done.get(snapshot) != root:
            self._lost.trees += root
            self._done[snapshot] = root

    def _need_readable(self, leave_out: Collection[SnapshotId]) -> None:
        for snapshot, error in self.roots.unreadable.items():
            if snapshot not in leave_out:
                raise error

    def _root(self, snapshot: SnapshotId, root: ChunkId, *, lenient: bool) -> None:
        if self._done.get(snapshot) == root:
            return
        self._lenient = lenient
        self._looks = _LOOKS
        self._progress.note(2, f"marking snapshot {snapshot.hex()[:8]}")
        try:
            self._walk(root)
            self._catch_up()
        except (ChunkMissing, ObjectMissing):
            if snapshot not in list_pending(self._repo):
                raise _VanishedError from None
            raise
        self._done[snapshot] = root

    def _clear(self) -> None:
        self.anew += 1
        self.live = self.marks = Bitmaps()
        self._done.clear()
        self._later.clear()
        self._lost = _Lost()
        self._lacking.clear()
        self._incomplete = False

    def _moved(self) -> bool:
        """Whether a pack is gone in which something is live: it lies elsewhere now, and nobody knows what it was."""
        return any(self._repo.index.pack(number) is None for number in self.marks.rows)

    def _returned(self) -> bool:
        """Whether something is there again that was lost when it was looked for."""
        return any(self._repo.index.find(chunk_id, usable_only=False) for chunk_id in self._lacking)

    def _what_was_lost(self) -> None:
        """Marks what entries that are marked as lost still refer to, as far as it is there: it may be whole again.

        Last, because what may be missing here must not hide what may not be missing elsewhere.
        """
        while self._lost:
            lost, self._lost = self._lost, _Lost()
            self._lenient, self._looks = True, 1
            incomplete, self._incomplete = self._incomplete, False
            for at in range(0, len(lost.trees), CHUNK_ID_BYTES):
                self._walk(ChunkId(bytes(lost.trees[at : at + CHUNK_ID_BYTES])))
            for level, list_id in lost.lists:
                self._list(level, ChunkId(list_id))
            self._data(bytes(lost.data))
            self._catch_up()
            if len(self._lacking) <= _LACKING_KEPT:
                self._incomplete = incomplete

    def _synchronise(self) -> None:
        self.listing = self._repo.synchronise(self._progress)

    # --- walking ---------------------------------------------------------------------------------------------------

    def _walk(self, root: ChunkId) -> None:
        stack = [root]
        while stack:
            tree_id = stack.pop()
            self._cancel.check()
            position = self.position(Kind.TREE, tree_id)
            if position is None or not self.marks.add(position):
                continue
            self.trees += 1
            raw = self._read(Kind.TREE, tree_id)
            if not raw:
                continue
            found = parse_references(raw, f"tree {tree_id.hex()[:16]}")
            stack += [
                ChunkId(found.trees[at : at + CHUNK_ID_BYTES]) for at in range(0, len(found.trees), CHUNK_ID_BYTES)
            ]
            self._data(found.data)
            for level, list_id in found.lists:
                self._list(level, ChunkId(list_id))
            if found.lost is not None:
                self._lost.add(found.lost)

    def _list(self, level: int, list_id: ChunkId) -> None:
        stack = [(level, list_id)]
        while stack:
            level, node_id = stack.pop()
            position = self.position(Kind.LIST, node_id)
            if position is None or not self.marks.add(position):
                continue
            raw = self._read(Kind.LIST, node_id)
            if not raw:
                continue
            below = parse_node_ids(raw, f"list {node_id.hex()[:16]}")
            if level > 1:
                firsts = range(len(below) - CHUNK_ID_BYTES, -1, -CHUNK_ID_BYTES)  # popped in the order of the file
                stack += [(level - 1, ChunkId(below[at : at + CHUNK_ID_BYTES])) for at in firsts]
            else:
                self._data(below)

    def _data(self, ids: bytes) -> None:
        """Marks data chunks: what was stored together is mostly referred to together, and is marked together.

        What comes in no order is put off and looked up in bulk. Where runs are short, the next one is looked for only
        after some chunks, the more the longer that goes on: a look-up is worth `_RUN_MIN` chunks in bulk.
        """
        find_run, add_run = self._repo.index.find_run, self.marks.add_run
        self.references += len(ids) // CHUNK_ID_BYTES
        at = 0
        while at < len(ids):
            if self._skip:
                end = min(at + self._skip * CHUNK_ID_BYTES, len(ids))
                self._skip -= (end - at) // CHUNK_ID_BYTES
                self._put_off(ids[at:end])
                at = end
                continue
            run = find_run(ids, at)
            if run is None:
                self._put_off(ids[at : at + CHUNK_ID_BYTES])
                at += CHUNK_ID_BYTES
                continue
            add_run(*run)
            at += run[2] * CHUNK_ID_BYTES
            if run[:2] == self._behind:  # it goes on where the last one ended, which costs next to nothing
                pass
            elif run[2] >= _RUN_MIN:
                self._patience = _SKIP_MIN
            else:
                self._skip = self._patience
                self._patience = min(2 * self._patience, _SKIP_MAX)
            self._behind = run[0], run[1] + run[2]

    def _put_off(self, ids: bytes) -> None:
        """Leaves data chunks to a look-up in bulk."""
        self._later += ids
        if len(self._later) >= BULK_IDS_MAX * CHUNK_ID_BYTES:
            self._catch_up()

    def _catch_up(self) -> None:
        """Marks what was put off."""
        size = BULK_IDS_MAX * CHUNK_ID_BYTES
        later, self._later = bytes(self._later), bytearray()
        for first in range(0, len(later), size):
            self._cancel.check()
            part = later[first : first + size]
            for which in self._repo.index.find_many(part, self.marks.add_rows):
                chunk_id = ChunkId(part[which * CHUNK_ID_BYTES : (which + 1) * CHUNK_ID_BYTES])
                position = self.position(Kind.DATA, chunk_id)
                if position is not None:
                    self.marks.add(position)

    def position(self, kind: Kind, chunk_id: ChunkId) -> tuple[int, int] | None:
        """Returns where a chunk lies, by choice in a pack that is not condemned; looks again where it is not found.

        None where an undecided root lacks it: its writer will store it again. Else raises `ChunkMissing`.
        """
        index = self._repo.index
        while True:
            found = index.find(chunk_id, usable_only=True) or index.find(chunk_id, usable_only=False)
            if found is not None:
                return found
            if not self._look_again():
                break
        if self._lenient:
            self._lack(chunk_id)
            return None
        raise ChunkMissing(kind.word, chunk_id)

    def _look_again(self) -> bool:
        """Brings the index up to date, because another collector may just have moved something; not for ever."""
        if not self._looks:
            return False
        self._looks -= 1
        self._synchronise()
        return True

    def _read(self, kind: Kind, chunk_id: ChunkId) -> bytes:
        """Returns a tree or list; empty where an undecided root lacks it."""
        while True:
            try:
                return self._repo.source.get(kind, chunk_id)
            except (ChunkMissing, ObjectMissing):
                if self._look_again():
                    continue
                if not self._lenient:
                    raise
                self._lack(chunk_id)
                return b""

    def _lack(self, chunk_id: ChunkId) -> None:
        self._incomplete = True
        if len(self._lacking) <= _LACKING_KEPT:
            self._lacking.add(chunk_id)
