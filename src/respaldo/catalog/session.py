"""A session: the writer's half of the protocol, from the marker to the outcome.

Invariant: a snapshot is committed only after every chunk below it was seen in a pack that exists and is not condemned,
in a listing that followed the manifest. Order is everything here: W1 lists, W2 packs then segment, W3 manifest, W4
condemnations *then* packs, W5 outcome. Implements docs/format.md, "Protocol".
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from types import TracebackType
from typing import Self

from respaldo.catalog.decided import commit_of, keep
from respaldo.catalog.litter import sweep_if_due
from respaldo.catalog.snapshots import Catalogue, decide, list_pending, load, pending_name, put_pending, roll_up
from respaldo.catalog.trees import TreeReader
from respaldo.core.errors import (
    ChunkMissing,
    Corruption,
    KeyRotated,
    ObjectMissing,
    Refused,
    StorageError,
    StorageFailed,
)
from respaldo.core.ids import RANDOM_ID_BYTES, ChunkId, Kind, SessionId, SnapshotId
from respaldo.core.model import Mark
from respaldo.core.seams import Progress
from respaldo.format.content import HOLE
from respaldo.format.pack import parse_footer
from respaldo.format.snapshot import Manifest, Marker, Verdict
from respaldo.store.chunks import ChunkSink
from respaldo.store.epochs import is_retiring, newest_listed
from respaldo.store.repo import Listing, Repo

CHECKPOINT_NS = 30 * 10**9
"""A run that is cut off has to read again no more than it read in about this time."""
MARKER_NS = 3600 * 10**9
_ROUNDS = 20
_GONE = (ChunkMissing, ObjectMissing, Corruption)
"""What says that content is not to be had; a storage that fails says nothing about that."""


class ContentGoneError(Exception):
    """Says that content that was relied on is gone from storage; the run must read the source again."""


class Session:
    """Writes one snapshot. A context manager: leaving it without `commit` leaves no snapshot."""

    def __init__(self, repo: Repo, progress: Progress) -> None:
        self._repo = repo
        self._progress = progress
        self.id = SessionId(repo.random(RANDOM_ID_BYTES))
        self._markers: list[str] = []
        self._marks = 0
        self._marked_ns = 0
        self._checkpoint_ns = repo.clock.monotonic_ns()
        self._among_condemned = False
        """Whether condemned packs were there at the beginning."""
        self._root_lost = False
        self._whole = False
        """Whether every chunk is to be looked up (W4): what the writer relies on by itself is not all."""
        self.sink = ChunkSink.into(repo, self.id)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sink.close()
        with contextlib.suppress(StorageError):
            self._drop_markers(self._markers)
        if self._repo.runs is not None:
            self._repo.runs.end()

    def begin(self) -> Catalogue:
        """Puts the marker, lists snapshots, *then* brings the index up to date (W1); returns the snapshots.

        In this order: of a condemnation that comes after this, any of these snapshots was there before it. Raises
        `KeyRotated` where the epoch of this client is retiring: it would leave packs that nobody can open. Whoever
        destroys its key, and has not seen the marker, has put the sign before.
        """
        if self._repo.runs is not None:
            self._repo.runs.begin(self.id, self._repo.backend)
        self._mark()
        if is_retiring(self._repo.backend, self._repo.epoch):
            raise KeyRotated(newest_listed(self._repo.backend))
        if self._repo.runs is None:
            sweep_if_due(self._repo)
        catalogue = load(self._repo)
        listing = self._repo.synchronise(self._progress)
        self._among_condemned = not listing.condemned.isdisjoint(listing.packs)
        if not self._repo.telling.trusted:  # an owner in the area of a client, whose packs may not be what they say
            self._repo.index.usable.clear()
        return catalogue

    def _mark(self) -> None:
        """Puts a fresh marker, then removes the one before it."""
        before, self._markers = self._markers, [f"sessions/{self.id.hex()}.{self._marks}"]
        self._marks += 1
        name = self._markers[0]
        marker = Marker(session=self.id, time_ns=self._repo.clock.now_ns())
        self._repo.backend.put(name, [self._repo.vault.seal_record("marker", name, marker.encode())])
        self._marked_ns = self._repo.clock.monotonic_ns()
        self._drop_markers(before)

    def _drop_markers(self, names: list[str]) -> None:
        for name in names:
            with contextlib.suppress(StorageError):
                self._repo.backend.delete(name)

    def due(self) -> bool:
        """Whether it is time to make durable what was read so far."""
        return self._repo.clock.monotonic_ns() - self._checkpoint_ns >= CHECKPOINT_NS

    def save_if_due(self) -> bool:
        """Saves if it is time; returns whether it was."""
        due = self.due()
        if due:
            self.save()
        return due

    def save(self) -> None:
        """Makes everything that was put durable and listed (W2), and renews the marker when it gets old."""
        self.sink.flush()
        self._repo.put_segments(self.id, self.sink.unlisted)
        self.sink.unlisted.clear()
        now = self._repo.clock.monotonic_ns()
        if now - self._marked_ns >= MARKER_NS:
            self._mark()
        self._checkpoint_ns = now

    def commit(
        self,
        manifest: Manifest,
        relied: set[SnapshotId],
        before: Callable[[SnapshotId], object] = lambda _: None,
    ) -> SnapshotId:
        """Commits a snapshot (W2 to W5).

        ``relied``: snapshots that subtrees were taken over from. ``before``: called just before W5, and may raise.
        Raises `ContentGoneError` where a chunk is gone from packs, after the pending snapshot was aborted.
        """
        self.save()
        self._root_lost = manifest.root_lost
        runs = self._repo.runs
        # What a client writes that cannot read opens by the id of its session, and by nothing else.
        snapshot = SnapshotId(self._repo.random(RANDOM_ID_BYTES) if runs is None else self.id)
        pending_hash = put_pending(self._repo, snapshot, manifest)
        try:
            rounds = 0
            while self._mend(manifest.root, whole=self._looks_at_all(relied)):
                rounds += 1
                if rounds == _ROUNDS:  # storage that does not list what was put would be filled for ever
                    raise StorageFailed("packs", "what is stored is not there afterwards", retryable=True)
                self.save()
        except ContentGoneError:
            self._give_up(snapshot, pending_hash)
            raise
        before(snapshot)
        if decide(self._repo, snapshot, Verdict.COMMIT, pending_hash) is not Verdict.COMMIT:
            if runs is not None:
                raise Refused(
                    "the repository's owner gave up on this snapshot while it was being made: it does not count",
                    hint="run the command again; after a long pause, a run counts as dead",
                )
            raise ContentGoneError
        # So that the next run reads neither of the two that this one wrote.
        with contextlib.suppress(StorageError):  # a full disk under the cache undoes no snapshot
            keep(self._repo.index, {snapshot: commit_of(manifest.encode(), pending_hash, pending_name(snapshot))})
        return snapshot

    def _give_up(self, snapshot: SnapshotId, pending_hash: bytes) -> None:
        """Says that a snapshot will never be: by an outcome, or where that takes another's key, by deleting it."""
        if self._repo.runs is None:
            with contextlib.suppress(Corruption):  # somebody else was about to, and died
                decide(self._repo, snapshot, Verdict.ABORT, pending_hash)
            return
        with contextlib.suppress(StorageError):  # storage that only grows: it stays undecided, and expires
            self._repo.backend.discard([pending_name(snapshot)])

    def tidy(self, before: Catalogue) -> None:
        """Merges small segments and catalogues where there are many, after `commit`; ``before``: as loaded before it.

        The snapshot is whole without this: what storage or damage prevents, another session does.
        """
        if self._repo.runs is not None:
            return
        try:
            self._repo.segments.merge(self.id)
            roll_up(self._repo, before)
        except (StorageError, Corruption) as error:
            self._progress.note(1, f"small objects were not merged: {error}")

    @property
    def can_take_over(self) -> bool:
        """Whether subtrees may be taken over unread: W4 may have to read them then, which not everybody can."""
        return self._repo.runs is None or not self._among_condemned

    def _looks_at_all(self, relied: set[SnapshotId]) -> bool:
        """Whether subtrees that were taken over must be looked up, now or because of an earlier round.

        The snapshot they came from must still be there; looked for anew in every round: while a tree was nowhere but in
        this process, collectors could not see what lies below it, and who forgot that snapshot meanwhile left nobody
        who can. And no collector may have been at work when the run began: its two listings could miss this snapshot,
        the one it came from, and the one that came from, if each was forgotten as soon as the next was there.
        """
        if relied and not self._whole:
            self._whole = self._among_condemned or bool(relied - list_pending(self._repo))
        return self._whole

    def _mend(self, root: ChunkId, *, whole: bool) -> bool:
        """Lists condemnations, then packs (W4); stores again what is relied on and not safe. Returns whether it did."""
        repo, sink = self._repo, self.sink
        listing = repo.list_packs()
        self._follow(listing)
        unsafe = (sink.relied.packs | sink.own_packs) - repo.index.usable
        if not unsafe and not whole:
            return False
        relied = sink.relied.chunks_in(unsafe & sink.relied.packs)
        wanted = {chunk_id: kind for kind, chunk_id in relied}
        for number in unsafe & sink.own_packs:
            encoded = repo.index.footer(number)
            if not encoded:  # a run that shares the index has taken it out: nobody knows any more what was in it
                whole = self._whole = True
                continue
            footer = parse_footer(encoded, "own pack")
            for block, first in zip(footer.blocks, footer.first_rows, strict=False):
                for row in range(first, first + block.chunks):
                    wanted[footer.chunk_id(row)] = Kind(block.kind)
        spared = self._collect(root, wanted) if whole else {}
        sink.relied.packs -= unsafe
        sink.own_packs -= unsafe
        stored = False
        for chunk_id, kind in wanted.items():
            if not sink.knows(kind, chunk_id):  # where it is known, it is relied on, and looked up in the next round
                self._store_again(kind, chunk_id)
                stored = True
        for chunk_id, kind in spared.items():
            with contextlib.suppress(ContentGoneError):
                if not sink.knows(kind, chunk_id):
                    self._store_again(kind, chunk_id)
                    stored = True
        return stored

    def _follow(self, listing: Listing) -> None:
        """Restricts what may be relied on to packs that exist, whole, and are not condemned."""
        self._repo.index.use(listing.packs, listing.condemned)

    def _store_again(self, kind: Kind, chunk_id: ChunkId) -> None:
        try:
            raw = self._repo.source.get(kind, chunk_id)
        except _GONE:
            raise ContentGoneError from None
        self.sink.put(kind, raw)

    def _collect(self, root: ChunkId, wanted: dict[ChunkId, Kind]) -> dict[ChunkId, Kind]:
        """Adds every chunk below a tree that no usable pack holds: a snapshot that subtrees came from is gone.

        Returns those below what is marked as lost, which may be missing: looked at last, so that nothing hides there.
        """
        spared: dict[ChunkId, Kind] = {}
        later: list[ChunkId] = [root] if self._root_lost else []
        if not self._root_lost:
            self._gather([root], wanted, spared, later)
        self._gather(later, spared, spared, [])
        return spared

    def _gather(
        self, stack: list[ChunkId], wanted: dict[ChunkId, Kind], spared: dict[ChunkId, Kind], later: list[ChunkId]
    ) -> None:
        """Adds what is below trees, of what is marked as lost to ``spared``, its directories to ``later``.

        Where both are the same, all of it is marked so.
        """
        lenient = wanted is spared
        trees = TreeReader(self._repo.source)
        seen: set[ChunkId] = set()
        while stack:
            tree = stack.pop()
            if tree in seen:
                continue
            seen.add(tree)
            self._want(Kind.TREE, tree, wanted)
            try:
                for run in trees.run_ids(tree):
                    self._want(Kind.TREE, run, wanted)
                for entry in trees.entries(tree):
                    lost = entry.mark is Mark.LOST and not lenient
                    if entry.is_dir:
                        (later if lost else stack).extend(entry.content)
                        continue
                    with contextlib.suppress(*_GONE) if lost or lenient else contextlib.nullcontext():
                        for level, chunk_id in trees.nodes(entry.content):
                            if chunk_id != HOLE:
                                self._want(Kind.LIST if level else Kind.DATA, chunk_id, spared if lost else wanted)
            except _GONE:
                if not lenient:
                    raise ContentGoneError from None

    def _want(self, kind: Kind, chunk_id: ChunkId, wanted: dict[ChunkId, Kind]) -> None:
        if self._repo.index.find(chunk_id, usable_only=True) is None:
            wanted[chunk_id] = kind
