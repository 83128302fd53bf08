"""The repair: does what the plan says, in its order, looking at each thing again before it is touched.

Invariant: what is new is durable before what it stands for is taken away, and a copy of that lies in ``lost+found``
before it is; packs are condemned before they are deleted, and what they hold is looked after in between (as in
docs/format.md, "Prune", G3 to G6). A run that ends anywhere leaves a repository that is no worse than it was, and the
next one goes on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from respaldo.catalog.losses import Rewriter
from respaldo.catalog.snapshots import list_pending, load
from respaldo.core.errors import Corruption, ObjectMissing, RespaldoError, StorageError, StorageFull
from respaldo.core.ids import RANDOM_ID_BYTES, PackName, SegmentName, SnapshotId, pack_object, parse_hash_leaf
from respaldo.core.seams import Cancel, Progress, Silent
from respaldo.flows.repair.again import put_again, retire
from respaldo.flows.repair.cases import decide_case, known_packs
from respaldo.flows.repair.logs import mend_log
from respaldo.flows.repair.options import Diagnosis, RepairOptions, RepairPlan, RepairResult, Step, Verb
from respaldo.flows.repair.plan import Planner
from respaldo.flows.repair.salvage import Salvage
from respaldo.format.snapshot import Manifest, Marker
from respaldo.store.aside import set_aside
from respaldo.store.ballast import BALLAST, keep_ballast
from respaldo.store.repo import Repo
from respaldo.store.sweep import Sentence

BATCH_BYTES = 1 << 30
"""So much of packs is copied before they are taken away."""


class Repair:
    """Repairs once. One thread."""

    def __init__(self, repo: Repo, diagnosis: Diagnosis, options: RepairOptions, *, cancel: Cancel) -> None:
        self._repo = repo
        self._options = options
        self._progress: Progress = Silent()
        self._cancel = cancel
        self._planner = Planner(repo, diagnosis, options, cancel)
        self._session = repo.random(RANDOM_ID_BYTES)
        self._marker = f"sessions/{self._session.hex()}.0"
        self._done: list[Step] = []
        self._left: list[Step] = []
        self._aside: list[str] = []
        self._renamed: list[tuple[SnapshotId, SnapshotId]] = []

    def plan(self) -> RepairPlan:
        """Decides about everything that was found."""
        return self._planner.plan()

    def execute(self, plan: RepairPlan, *, progress: Progress, cancel: Cancel) -> RepairResult:
        """Does what the plan says, as far as things still are as they were.

        Raises `Interrupted` and errors of the storage as a whole; the repository is none the worse for it.
        """
        self._progress, self._cancel = progress, cancel
        if plan.empty:
            return RepairResult(plan=plan, left=plan.left)
        self._put_marker()
        try:
            with Salvage(self._repo, self._session, self._planner.footers, self._cancel) as salvage:
                rewriter = Rewriter(self._repo, salvage.sink, salvage.doubtful, self._cancel)
                self._all(plan, salvage, rewriter)
        finally:
            with contextlib.suppress(StorageError):
                self._repo.backend.discard([self._marker])
        for number in salvage.doubtful:
            pack = self._repo.index.pack(number)
            if pack is not None:
                text = "copies in it turned out damaged, too: run repair again"
                self._left.append(Step(verb=Verb.LEAVE, name=pack_object(pack.name), text=text))
        return RepairResult(
            plan=plan,
            done=tuple(self._done),
            left=tuple(self._left),
            aside=tuple(self._aside),
            renamed=tuple(self._renamed),
            rescued=salvage.rescued,
            lost_chunks=rewriter.lost_chunks,
            lost_files=rewriter.lost_files,
        )

    def _put_marker(self) -> None:
        marker = Marker(session=self._session, time_ns=self._repo.clock.now_ns())
        self._repo.backend.put(self._marker, [self._repo.vault.seal_record("marker", self._marker, marker.encode())])

    def _all(self, plan: RepairPlan, salvage: Salvage, rewriter: Rewriter) -> None:
        steps = [step for step in plan.steps if step.verb is not Verb.RESCUE]
        rescues = [step for step in plan.steps if step.verb is Verb.RESCUE]
        for step in steps:
            if rescues and step.verb is not Verb.CONDEMN and not step.name.startswith("condemned/"):
                self._rescue(rescues, salvage)
                rescues = []
                rewriter.forget()
            self._one(step, salvage, rewriter)
        self._rescue(rescues, salvage)

    def _one(self, step: Step, salvage: Salvage, rewriter: Rewriter) -> None:
        self._cancel.check()
        self._progress.note(1, str(step))
        try:
            text = self._do(step, salvage, rewriter)
        except ObjectMissing:
            text = "it is gone: another was faster"
        except StorageFull:
            raise
        except Corruption as error:
            self._left.append(Step(verb=Verb.LEAVE, name=step.name, text=str(error)))
            return
        if step.verb is Verb.LEAVE:
            self._left.append(step)
        else:
            self._done.append(Step(verb=step.verb, name=step.name, text=text or step.text))

    def _do(self, step: Step, salvage: Salvage, rewriter: Rewriter) -> str:
        if step.verb is Verb.ASIDE and not step.name.startswith("pending/"):
            self._take_away(step.name)
        elif step.verb is Verb.CONDEMN:
            Sentence.pass_on(self._repo, self._session, known_packs(self._repo, step.name) or ())
            self._take_away(step.name)
        elif step.verb is Verb.LIST:
            return f"{self._list_again()} packs that no segment listed are listed again"
        elif step.verb in {Verb.AGAIN, Verb.GIVE_UP}:
            return mend_log(self._repo, step)
        elif step.verb is not Verb.LEAVE:
            return self._snapshot(step, salvage, rewriter)
        return ""

    def _take_away(self, name: str) -> None:
        """Sets an object aside and deletes it."""
        self._aside.append(set_aside(self._repo.backend, name))
        self._repo.backend.delete(name)
        folder, _, leaf = name.partition("/")
        if folder == "segments":
            parsed = parse_hash_leaf(leaf)
            self._repo.index.note_segments((), [SegmentName(parsed)] if parsed else ())
        elif name == BALLAST:
            keep_ballast(self._repo.backend, self._repo.random)

    def _set_aside(self, name: str) -> bool:
        """Sets an object aside; returns whether it was there: another repair may have been faster."""
        with contextlib.suppress(ObjectMissing):
            self._aside.append(set_aside(self._repo.backend, name))
            return True
        return False

    # --- packs -----------------------------------------------------------------------------------------------------

    def _rescue(self, steps: Sequence[Step], salvage: Salvage) -> None:
        """Copies what is sound (G2), sets the packs aside, condemns (G3), looks again (G5), deletes (G6)."""
        damaged = self._planner.damaged_packs() if steps else []
        for batch in self._batches(steps):
            self._cancel.check()
            for step in batch:
                self._progress.note(1, str(step))
            salvage.look_again(damaged)
            packs = self._rescued(batch, salvage)
            packs = [pack for pack in packs if self._set_aside(pack_object(pack[0]))]
            if not packs:
                continue
            sentence = Sentence.pass_on(self._repo, self._session, [name for name, _ in packs])
            salvage.look_again(damaged)
            for name, length in packs:
                salvage.rescue(name, length)
            salvage.finish()
            sentence.carry_out(self._repo)
            self._done += batch

    def _rescued(self, batch: Sequence[Step], salvage: Salvage) -> list[tuple[PackName, int]]:
        found = []
        for step in batch:
            name = _pack_name(step)
            length = self._repo.backend.exists(step.name)
            if length is not None and not salvage.is_sound(name, length):
                salvage.rescue(name, length)
                found.append((name, length))
        salvage.finish()
        return found

    def _batches(self, steps: Sequence[Step]) -> Iterator[list[Step]]:
        batch: list[Step] = []
        length = 0
        for step in steps:
            batch.append(step)
            length += self._repo.backend.exists(step.name) or 0
            if length >= BATCH_BYTES:
                yield batch
                batch, length = [], 0
        if batch:
            yield batch

    def _list_again(self) -> int:
        """Lists in a segment what no sound one lists."""
        found = self._planner.unlisted(self._repo.synchronise())
        self._repo.put_segments(self._session, found)
        return len(found)

    # --- snapshots ---------------------------------------------------------------------------------------------------

    def _snapshot(self, step: Step, salvage: Salvage, rewriter: Rewriter) -> str:
        repo = self._repo
        snapshot = SnapshotId(bytes.fromhex(step.name.partition("/")[2]))
        manifest: Manifest | None = None
        decided = True
        if step.verb is Verb.MARK:
            manifest = next((item.manifest for item in load(repo).snapshots if item.id == snapshot), None)
            if manifest is None:
                return "it was forgotten meanwhile"
        elif step.verb is not Verb.RETIRE:
            case = decide_case(repo, snapshot, self._planner.markers, alone=self._options.alone)
            if case is None or case.step.verb is not step.verb:
                return "it is as it should be now"
            manifest, decided = case.manifest, case.decided
        if manifest is not None:
            lost = rewriter.lost_files
            result = rewriter.rewrite(manifest.root)
            if step.verb is Verb.MARK and result.id == manifest.root and not result.gone:
                return "nothing of it is lost"
            fresh = put_again(repo, self._session, salvage, rewriter, snapshot, manifest)
            if fresh is None:
                return "it was forgotten meanwhile"
            self._renamed.append((snapshot, fresh))
            text = f"it is now {fresh.hex()[:8]}" + (
                f"; {rewriter.lost_files - lost} more entries are marked as lost" if rewriter.lost_files > lost else ""
            )
        else:
            text = ""
        if snapshot in list_pending(repo):
            self._aside += retire(repo, snapshot, decided=decided)
        return text


def _pack_name(step: Step) -> PackName:
    parsed = parse_hash_leaf(step.name.partition("/")[2])
    if parsed is None:
        raise RespaldoError(step.name)
    return PackName(parsed)
