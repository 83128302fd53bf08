"""Looking ahead of a collection: what it would do, what each snapshot holds, how many must go.

Changes nothing before a collection that was prepared is run.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from respaldo.api.retention import RetentionPlan
from respaldo.catalog.protection import empty_trash
from respaldo.core.ids import SnapshotId
from respaldo.core.seams import Cancel, Progress
from respaldo.flows.gc.goal import plan_space
from respaldo.flows.gc.look import look_ahead
from respaldo.flows.gc.options import Goal, PruneOptions, PrunePlan, PruneResult, Shares, SpacePlan
from respaldo.flows.gc.run import Collector
from respaldo.flows.gc.shares import measure_shares
from respaldo.store.repo import Repo


class PreparedPrune:
    """Is a collection that has looked at everything, without snapshots that are to be forgotten before it is run."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._plan = collector.plan()

    def run(self) -> PruneResult:
        """Frees what no snapshot needs; those that were to go and have not count as all others."""
        return self._collector.execute(self._plan)


class Pruning:
    """Plans collections of one repository."""

    def __init__(self, repo: Repo) -> None:
        self._repo = repo

    def prepare(
        self, options: PruneOptions, plan: RetentionPlan | None, *, progress: Progress, cancel: Cancel
    ) -> PreparedPrune:
        """Looks at all that a collection needs once a plan is applied and the trash emptied; raises what it would.

        So that is known before anything is forgotten.
        """
        without = set(empty_trash(self._repo, dry_run=True))
        if plan is not None and not plan.policy.grace_ns:
            without |= {item.id for item in plan.forgotten}
        return PreparedPrune(Collector(self._repo, options, progress=progress, cancel=cancel, without=without))

    def plan(
        self,
        options: PruneOptions,
        *,
        progress: Progress,
        cancel: Cancel,
        going: Sequence[SnapshotId] = (),
        forgotten: bool = True,
        without: Collection[SnapshotId] = frozenset(),
    ) -> tuple[PrunePlan, Shares]:
        """Returns what `prune` would do once the snapshots ``without`` were forgotten, and `shares`.

        ``forgotten``: those that are ``going``, too, and not only put into the trash. Changes nothing.
        """
        return look_ahead(
            self._repo, options, going, forgotten=forgotten, progress=progress, cancel=cancel, without=without
        )

    def shares(
        self,
        *,
        progress: Progress,
        cancel: Cancel,
        going: Sequence[SnapshotId] = (),
        without: Collection[SnapshotId] = frozenset(),
    ) -> Shares:
        """Returns what each snapshot holds alone, and what those that are ``going`` hold together; changes nothing."""
        return measure_shares(self._repo, progress=progress, cancel=cancel, going=going, without=without)

    def space(
        self,
        goal: Goal,
        expendable: Sequence[SnapshotId],
        options: PruneOptions,
        *,
        progress: Progress,
        cancel: Cancel,
        without: Collection[SnapshotId] = frozenset(),
    ) -> SpacePlan:
        """Returns how many of the ``expendable``, the first ones first, must go for so much space; changes nothing."""
        return plan_space(self._repo, goal, expendable, options, progress=progress, cancel=cancel, without=without)
