"""The collector: plan, then execute. Order is everything here, docs/format.md, "Prune", says why.

Invariant: nothing is condemned before everything that roots need was found; no pack is deleted before roots and
condemnations were listed again after its condemnation, and before what they need had a copy elsewhere. What needs no
copy is freed first, so that a full disk has room for the copies. A run that ends anywhere leaves garbage, which the
next one finds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence

from respaldo.catalog.snapshots import list_pending
from respaldo.core.errors import Corruption, ObjectMissing, StorageFailed, StorageFull
from respaldo.core.ids import RANDOM_ID_BYTES, PackName, SnapshotId, pack_object
from respaldo.core.seams import Cancel, Progress
from respaldo.flows.gc.choose import choose, settle_duplicates
from respaldo.flows.gc.copy import Copier
from respaldo.flows.gc.mark import Mark
from respaldo.flows.gc.options import PackPlan, PruneOptions, PrunePlan, PruneResult
from respaldo.flows.gc.roots import Roots, expirable, expire
from respaldo.flows.gc.sound import needed_after_all
from respaldo.flows.gc.tidy import tidy
from respaldo.format.pack import parse_footer
from respaldo.store.authority import PRUNE
from respaldo.store.ballast import keep_ballast, with_ballast
from respaldo.store.census import packs_under
from respaldo.store.markers import read_markers
from respaldo.store.packs import Finished
from respaldo.store.repo import Repo
from respaldo.store.sidecars import catch_up
from respaldo.store.sweep import Sentence

BATCH_BYTES = 1 << 30
"""So much is copied before what it was copied from is deleted: the space that a run takes in between."""
_TRIES = 20


def plan_prune(
    repo: Repo,
    options: PruneOptions,
    *,
    progress: Progress,
    cancel: Cancel,
    without: Collection[SnapshotId] = frozenset(),
) -> PrunePlan:
    """Returns what `run_prune` would do, once the snapshots ``without`` were forgotten; writes nothing."""
    return Collector(repo, options, progress=progress, cancel=cancel, without=without).plan()


def run_prune(repo: Repo, options: PruneOptions, *, progress: Progress, cancel: Cancel) -> PruneResult:
    """Frees what no snapshot needs. Raises, before anything is condemned, where a snapshot needs what is not there."""
    collector = Collector(repo, options, progress=progress, cancel=cancel)
    return collector.execute(collector.plan())


class Collector:
    """Collects once. ``without``: snapshots that are to be forgotten after the plan is made, and before it is executed.

    So what cannot be collected is known before anything is forgotten.
    """

    def __init__(
        self,
        repo: Repo,
        options: PruneOptions,
        *,
        progress: Progress,
        cancel: Cancel,
        without: Collection[SnapshotId] = frozenset(),
    ) -> None:
        self._repo = repo
        self._options = options
        self._progress = progress
        self._cancel = cancel
        self._id = repo.random(RANDOM_ID_BYTES)
        self._mark = Mark(repo, progress=progress, cancel=cancel, without=without)
        self._damages: list[Corruption] = []
        self._deleted_packs = self._deleted_bytes = 0
        self._new_packs = self._new_bytes = 0
        self._blocks = self._chunks = 0
        self._made: set[int] = set()
        """Numbers of the packs that this run has made."""
        self._stay: set[int] = set()
        """Packs that cannot go, because copies elsewhere are damaged."""
        self._later: set[int] = set()
        """Packs whose turn has not come."""
        self._anew = 0
        self._moved: list[Finished] = []
        """What was copied and nobody was told of yet."""

    # --- planning --------------------------------------------------------------------------------------------------

    def plan(self) -> PrunePlan:
        """Marks what is live (G1) and decides about every pack."""
        repo, mark = self._repo, self._mark
        alive = read_markers(repo).alive
        expiring: tuple[SnapshotId, ...] = ()

        def leaving_out(roots: Roots) -> Collection[SnapshotId]:
            nonlocal alive, expiring
            alive |= read_markers(repo).alive  # after the roots: who began meanwhile has a marker by now
            expiring = expirable(roots, alive)
            return expiring

        mark.update(leaving_out)
        settle_duplicates(repo, mark.live)
        choice = choose(repo, mark.live, mark.listing, alive, self._options, self._of_earlier_epochs())
        return choice.plan(
            snapshots=len(mark.roots.committed.keys() - set(mark.without)),
            undecided=len(mark.roots.undecided) + len(mark.roots.unreadable) - len(expiring),
            expire=expiring,
        )

    def _of_earlier_epochs(self) -> set[PackName]:
        repo = self._repo
        old = repo.epoch.in_use if self._options.renew else []
        return packs_under(old, repo.backend, repo.vault, self._mark.listing.packs, {}) if old else set()

    # --- executing -------------------------------------------------------------------------------------------------

    def execute(self, plan: PrunePlan) -> PruneResult:
        """Does what the plan says, as far as the repository still is as it was."""
        repo = self._repo
        plan = self._once_forgotten(plan)
        roots = self._mark.roots
        if not repo.telling.trusted:
            repo.announce(PRUNE)  # whatever is done: that an owner was here, and what there was
        expired = sum(expire(repo, snapshot, roots) for snapshot in plan.expire)
        self._progress.total(
            files=len(plan.dead) + len(plan.repack),
            length_bytes=sum(pack.length_bytes for pack in (*plan.dead, *plan.repack)),
        )
        going = [pack.number for pack in (*plan.dead, *plan.repack)]
        self._later = set(going)
        self._anew = self._mark.anew
        self._spare(going)
        full = False
        self._round(plan.dead)
        try:
            for batch in self._batches([pack for pack in plan.repack if pack.number not in self._stay]):
                self._round(batch)
        except _NoRoomError:
            full = True
            self._give_back()
        with contextlib.suppress(StorageFull):  # it saves the client uploads, and can wait
            repo.telling.of_moves(self._moved)
        swept = tidy(repo, self._mark.live, deleted=self._deleted_packs > 0)
        parity = catch_up(repo.backend, repo.config.parity, self._cancel.check)
        return PruneResult(
            plan=plan,
            expired=expired,
            deleted_packs=self._deleted_packs,
            deleted_bytes=self._deleted_bytes,
            new_packs=self._new_packs,
            new_bytes=self._new_bytes,
            copied_blocks=self._blocks,
            copied_chunks=self._chunks,
            swept=swept,
            full=full,
            parity=parity,
            ballast=keep_ballast(repo.backend, repo.random),
            damages=tuple(self._damages),
        )

    def _once_forgotten(self, plan: PrunePlan) -> PrunePlan:
        """Returns the plan, or a new one where it was made without a snapshot that has not gone: that one is a root."""
        stay = set(self._mark.without) & list_pending(self._repo) if self._mark.without else ()
        self._mark.without = frozenset()
        return self.plan() if stay else plan

    def _batches(self, packs: Sequence[PackPlan]) -> Iterator[list[PackPlan]]:
        """Deals packs out so that the copies of each batch fit beside what they are copied from; at least one each."""
        batch: list[PackPlan] = []
        copied = 0
        limit = self._batch_bytes()
        for pack in packs:
            if batch and copied + pack.live_bytes > limit:
                yield batch
                batch, copied = [], 0
                limit = self._batch_bytes()
            batch.append(pack)
            copied += pack.live_bytes
        if batch:
            yield batch

    def _batch_bytes(self) -> int:
        space = self._repo.backend.space()
        return BATCH_BYTES if space is None else min(BATCH_BYTES, space[0] // 2)

    def _round(self, packs: Sequence[PackPlan]) -> None:
        """Copies what is live out of some packs (G2), condemns them (G3), looks again (G5), deletes them (G6)."""
        self._cancel.check()
        self._later -= {pack.number for pack in packs}
        packs = self._copied([pack for pack in packs if pack.number not in self._stay])
        if not packs:
            return
        moved, self._moved = self._moved, []
        sentence = Sentence.pass_on(self._repo, self._id, [pack.name for pack in packs], moved)
        spared = self._look_again({pack.number for pack in packs})
        numbers = {pack.number for pack in packs}
        self._mark.live.drop(numbers - spared)
        self._deleted_packs += sentence.carry_out(self._repo, {p.name for p in packs if p.number in spared})
        gone = [pack for pack in packs if pack.number not in spared]
        self._deleted_bytes += sum(pack.length_bytes for pack in gone)
        self._progress.advance(files=len(gone), length_bytes=sum(pack.length_bytes for pack in gone))

    def _copied(self, packs: Sequence[PackPlan]) -> list[PackPlan]:
        """Copies what is live in packs (G2); leaves out those that are gone, and those whose content is damaged."""
        self._repo.index.usable -= {pack.number for pack in packs}
        done = [pack for pack in packs if not pack.live_bytes]
        wanted = [pack for pack in packs if pack.live_bytes]
        if not wanted:
            return done
        try:
            with self._copier() as copier:
                for pack in wanted:
                    self._progress.note(2, f"copying what is live of pack {pack.name.hex()[:12]}")
                    try:
                        copier.pack(pack.number)
                    except Corruption as error:
                        self._damages.append(error)
                    except ObjectMissing:
                        continue
                    else:
                        done.append(pack)
                copier.finish()
                self._count(copier)
        except StorageFull as error:
            raise _NoRoomError from error
        return done

    def _copier(self) -> Copier:
        return Copier(self._repo, self._id, self._mark.live, self._cancel)

    def _count(self, copier: Copier) -> None:
        self._moved += copier.made
        numbers = (self._repo.index.number_of(item.name) for item in copier.made)
        self._made.update(number for number in numbers if number is not None)
        self._new_packs += len(copier.made)
        self._new_bytes += sum(item.length_bytes for item in copier.made)
        self._blocks += copier.blocks
        self._chunks += copier.chunks

    def _look_again(self, own: set[int]) -> set[int]:
        """Lists roots and condemnations again, copies out what would be lost (G5).

        Returns the packs that cannot go, because what a root needs of them is damaged.
        """
        for _ in range(_TRIES):
            self._mark.update()
            try:
                doubtful = self._doubtful(own)
                return with_ballast(self._repo.backend, lambda: self._save(own)) | doubtful
            except ObjectMissing:
                self._repo.source.forget_positions()  # another collector was faster: what was in it is elsewhere
        raise StorageFailed("packs", "what is needed moved again and again while it was copied", retryable=True)

    def _spare(self, going: Collection[int]) -> None:
        """Finds out which packs cannot go."""
        live, sound = self._mark.live, self._made
        stay, damages = needed_after_all(self._repo, live, going, self._cancel, known_sound=sound)
        self._damages += damages
        self._stay |= stay

    def _doubtful(self, own: set[int]) -> set[int]:
        """Returns which of some packs cannot go, because what a root needs was found in others that nobody has read.

        Where it was marked anew, another copy may be the live one than the one that was read; and in an area, where any
        copy may be a lie, that of a root that was not there before. Packs that are planned to go later stay, too.
        """
        if self._repo.telling.trusted and self._mark.anew == self._anew:
            return set()
        if self._mark.anew != self._anew:
            self._anew = self._mark.anew
            settle_duplicates(self._repo, self._mark.live)
        self._spare(own | self._later)
        return self._stay & own

    def _save(self, own: set[int]) -> set[int]:
        """Copies whatever a root needs and that has no copy outside condemned packs, whoever condemned them."""
        repo, listing = self._repo, self._mark.listing
        found = (repo.index.number_of(name) for name in listing.condemned & listing.packs.keys())
        condemned = {number for number in found if number is not None}
        spared: set[int] = set()
        with self._copier() as copier:
            for number in sorted(condemned & self._mark.live.rows.keys()):
                try:
                    copier.pack(number)
                except Corruption as error:
                    self._damages.append(error)
                    spared.add(number)
            copier.finish()
            self._count(copier)
        return spared & own

    def _give_back(self) -> None:
        """Condemns and deletes what was copied in vain when the disk was full."""
        repo = self._repo
        self._mark.update()
        vain: list[PackPlan] = []
        for pack in list(repo.index.packs()):
            entry = repo.index.entry(pack.number)
            if entry is None or self._mark.live.number(pack.number):
                continue
            if parse_footer(entry[1], pack_object(pack.name)).session == self._id:
                vain.append(PackPlan(name=pack.name, number=pack.number, length_bytes=pack.length_bytes))
        self._new_packs += len(vain)
        self._new_bytes += sum(pack.length_bytes for pack in vain)
        self._round(vain)


class _NoRoomError(Exception):
    """Says that storage takes no more copies."""
