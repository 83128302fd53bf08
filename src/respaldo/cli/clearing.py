"""Forgetting by a policy and collecting in one run, as `prune` and `snapshot --prune` do it.

The order matters: all that the collection needs is looked at before anything is forgotten, so that what is missing is
found out while every snapshot still stands. How far a run got that an error ended can be reported all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from respaldo.cli import policy as policies

if TYPE_CHECKING:
    from respaldo.api import Policy, PruneOptions, PruneResult, Repository
    from respaldo.core.ids import SnapshotId
    from respaldo.core.seams import Cancel, Progress


class Clearing:
    """Is one such run: what a policy forgot and what left the trash, as far as it got."""

    def __init__(self) -> None:
        self.run: policies.PolicyRun | None = None
        self.fields: dict[str, object] = {}
        """The same for programs: retention, emptied; without what was not come to."""

    def carry_out(
        self,
        repository: Repository,
        policy: Policy | None,
        options: PruneOptions,
        given: Mapping[str, Any],
        *,
        only_like: SnapshotId | None = None,
        progress: Progress,
        cancel: Cancel,
    ) -> PruneResult:
        """Plans, looks, forgets, empties the trash, and collects; without a policy no snapshot is forgotten."""
        plan = policies.make_plan(repository, policy, given, only_like=only_like) if policy else None
        prepared = repository.pruning.prepare(options, plan, progress=progress, cancel=cancel)
        if plan is not None:
            self.run = policies.apply(repository, plan, cancel=cancel)
            self.fields["retention"] = policies.fields(self.run)
        self.fields["emptied"] = [item.hex() for item in repository.empty_trash()]
        return prepared.run()
