"""Looking ahead of a collection: what it would do, what each snapshot holds, how many must go. Changes nothing."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from respaldo.core.ids import SnapshotId
from respaldo.core.seams import Cancel, Progress
from respaldo.flows.gc.goal import plan_space
from respaldo.flows.gc.look import look_ahead
from respaldo.flows.gc.options import Goal, PruneOptions, PrunePlan, Shares, SpacePlan
from respaldo.flows.gc.shares import measure_shares
from respaldo.store.repo import Repo


class Pruning:
    """Plans collections of one repository."""

    def __init__(self, repo: Repo) -> None:
        self._repo = repo

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
