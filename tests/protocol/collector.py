"""A collector, a forgetter and an expirer, as short as docs/format.md lets them be: G1 to G6, and nothing clever.

They are the writer's adversaries in the tests of the protocol: they heed no marker, wait for nobody, and condemn packs
of which every chunk is needed. What the real collector leaves out for the sake of speed, it must not rely on.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable

from respaldo.backend.base import Backend
from respaldo.catalog.snapshots import decide, list_pending, load, outcome_name, pending_name
from respaldo.catalog.trees import TreeReader
from respaldo.core.errors import ChunkMissing, ObjectMissing
from respaldo.core.ids import RANDOM_ID_BYTES, ChunkId, Kind, PackName, SnapshotId, pack_object
from respaldo.format.content import HOLE
from respaldo.format.pack import parse_footer
from respaldo.format.snapshot import Condemnation, Verdict, parse_manifest
from respaldo.store.chunks import ChunkSink
from respaldo.store.repo import Listing, Repo

Live = dict[ChunkId, Kind]


class Collector:
    """Collects once. The steps are methods, so that a test can leave one out."""

    def __init__(self, repo: Repo, rng: random.Random) -> None:
        self.repo = repo
        self.rng = rng
        self.id = repo.random(RANDOM_ID_BYTES)
        self.victims: dict[PackName, int] = {}
        self.name = ""
        self.copied = 0
        self.vanished = False
        self._below: dict[ChunkId, tuple[list[ChunkId], Live]] = {}

    def run(self) -> None:
        """Runs G1 to G6, then takes away condemnations whose packs are gone."""
        live, listing = self.mark()
        self.choose(listing, live)
        if not self.victims:
            return
        self.save(live, listing)
        self.condemn()
        self.save_what_roots_need()
        self.delete()
        self.clear_condemnations()

    # --- G1 --------------------------------------------------------------------------------------------------------

    def roots(self) -> dict[SnapshotId, bool]:
        """Lists committed and undecided snapshots; says which are committed.

        Twice, one after the other, and takes both together: a listing may miss what is put and what is deleted while it
        goes on, and so it could miss a new snapshot as well as the forgotten one that it took subtrees over from.
        """
        found: dict[SnapshotId, bool] = {}
        for _ in range(2):
            found.update(self.list_roots())
        return found

    def list_roots(self) -> dict[SnapshotId, bool]:
        """Lists roots, and notes whether a manifest went away that may have been dropped for it."""
        before = list_pending(self.repo)
        found = self.list_roots_once()
        self.vanished |= not before <= list_pending(self.repo)
        return found

    def list_roots_once(self) -> dict[SnapshotId, bool]:
        """Lists roots with one listing of manifests."""
        catalogue = load(self.repo)
        assert not catalogue.damaged, catalogue.damaged
        return {
            **dict.fromkeys(catalogue.undecided, False),
            **dict.fromkeys((item.id for item in catalogue.snapshots), True),
        }

    def mark(self) -> tuple[Live, Listing]:
        """Lists roots, then all condemnations, then packs; returns every chunk that a root needs, and the listing.

        Begins again where a root was forgotten before all of it was read: a new snapshot may have taken subtrees over
        from it since roots were listed, and that one is in the next listing.
        """
        while True:
            self.vanished = False
            live: Live = {}
            roots = self.roots()
            listing = self.repo.synchronise()
            for snapshot, committed in roots.items():
                live.update(self._reach(snapshot, committed=committed))
            if not self.vanished:
                return live, listing

    def _reach(self, snapshot: SnapshotId, *, committed: bool) -> Live:
        repo = self.repo
        name = pending_name(snapshot)
        found: Live = {}
        try:
            manifest = parse_manifest(repo.vault.open_record("manifest", name, repo.backend.get(name)), name)
        except ObjectMissing:
            self.vanished = True
            return {}
        stack = [manifest.root]
        while stack:
            tree = stack.pop()
            if tree in found:
                continue
            found[tree] = Kind.TREE
            try:
                if tree not in self._below:
                    self._below[tree] = self._look_again(tree)
            except (ChunkMissing, ObjectMissing):
                self._excuse(snapshot, committed=committed)
                continue
            directories, others = self._below[tree]
            stack += directories
            found.update(others)
        return found

    def _look_again(self, tree: ChunkId) -> tuple[list[ChunkId], Live]:
        """Reads a tree; where it is not to be found, lists packs again: another collector may just have moved it."""
        for _ in range(5):
            try:
                return self._read(tree)
            except (ChunkMissing, ObjectMissing):
                self.repo.synchronise()
        return self._read(tree)

    def _read(self, tree: ChunkId) -> tuple[list[ChunkId], Live]:
        """Returns the trees of a directory's subdirectories, and all else that it refers to."""
        trees = TreeReader(self.repo.source)
        directories: list[ChunkId] = []
        others: Live = dict.fromkeys(trees.run_ids(tree), Kind.TREE)
        for entry in trees.entries(tree):
            if entry.is_dir:
                directories += list(entry.content)
                continue
            for level, chunk_id in trees.nodes(entry.content):
                if chunk_id != HOLE:
                    others[chunk_id] = Kind.LIST if level else Kind.DATA
        return directories, others

    def _excuse(self, snapshot: SnapshotId, *, committed: bool) -> None:
        """Lets an undecided snapshot lack what its writer will store again, and one that was forgotten, anything."""
        if snapshot not in list_pending(self.repo):
            self.vanished = True
        elif committed:
            raise LostError(snapshot)

    # --- G2 and G5: copying ----------------------------------------------------------------------------------------

    def choose(self, listing: Listing, live: Live) -> None:
        """Condemns what holds anything dead, as a rule, and what is all live, now and then."""
        for pack in self.repo.index.packs():
            footer = parse_footer(self.repo.index.footer(pack.number), "pack")
            rows = len(footer.ids) // 32
            dead = sum(footer.chunk_id(row) not in live for row in range(rows))
            if pack.name in listing.packs and self.rng.random() < (0.8 if dead else 0.4):
                self.victims[pack.name] = pack.number

    def save(self, live: Live, listing: Listing) -> None:
        """Copies what is live and has no copy in a pack that stays: packs, then their segment."""
        repo = self.repo
        repo.index.usable = {
            pack.number
            for pack in repo.index.packs()
            if listing.packs.get(pack.name) == pack.length_bytes
            and pack.name not in listing.condemned
            and pack.name not in self.victims
        }
        sink = ChunkSink(
            backend=repo.backend,
            vault=repo.vault,
            index=repo.index,
            id_keys=repo.ring.id_keys,
            session=self.id,
            block_bytes=repo.config.block_bytes,
            pack_bytes=repo.config.pack_bytes,
        )
        try:
            for chunk_id, kind in live.items():
                if repo.index.find(chunk_id, usable_only=True) is None:
                    usable = repo.index.usable
                    try:
                        raw = repo.source.get(kind, chunk_id)
                    except (ChunkMissing, ObjectMissing):
                        continue  # of a root that was forgotten, or whose writer stores it again
                    finally:
                        repo.index.usable = usable
                    sink.put(kind, raw)
                    self.copied += 1
            sink.flush()
            repo.put_segments(self.id, sink.unlisted)
        finally:
            sink.close()

    # --- G3, G5, G6 ------------------------------------------------------------------------------------------------

    def condemn(self) -> None:
        """Puts the condemnation (G3)."""
        repo = self.repo
        self.name = "condemned/" + repo.random(RANDOM_ID_BYTES).hex()
        record = Condemnation(collector=self.id, time_ns=repo.clock.now_ns(), packs=tuple(self.victims))
        repo.backend.put(self.name, [repo.vault.seal_record("condemnation", self.name, record.encode())])

    def save_what_roots_need(self) -> None:
        """Lists roots and condemnations again; copies what would be lost (G5)."""
        self.save(*self.mark())

    def delete(self) -> None:
        """Deletes what this collector condemned (G6); the index forgets it first."""
        repo = self.repo
        repo.index.forget_packs([pack for pack in repo.index.packs() if pack.name in self.victims])
        repo.source.forget_positions()
        for name in self.victims:
            try:
                repo.backend.delete(pack_object(name))
            except ObjectMissing:
                continue

    def clear_condemnations(self) -> None:
        """Deletes condemnations, anybody's, none of whose packs is there any more."""
        repo = self.repo
        names = [name for name, _ in repo.backend.list("condemned")]
        there = repo.list_packs().packs
        for name in names:
            record = repo.read_condemnation(name)
            if record is not None and not set(record.packs) & there.keys():
                try:
                    repo.backend.delete(name)
                except ObjectMissing:
                    continue


class LostError(AssertionError):
    """Says that a committed snapshot lacks chunks."""


def forget(backend: Backend, snapshot: SnapshotId) -> None:
    """Forgets a snapshot: the manifest, then the outcome."""
    for name in (pending_name(snapshot), outcome_name(snapshot)):
        try:
            backend.delete(name)
        except ObjectMissing:
            continue


def expire(repo: Repo, snapshot: SnapshotId, then: Callable[[], None] = lambda: None) -> Verdict:
    """Aborts a snapshot that is undecided, and takes its manifest away where that was still possible."""
    verdict = decide(repo, snapshot, Verdict.ABORT, bytes(32))
    then()
    if verdict is Verdict.ABORT and snapshot not in {item.id for item in load(repo).snapshots}:
        with contextlib.suppress(ObjectMissing):
            repo.backend.delete(pending_name(snapshot))
    return verdict
