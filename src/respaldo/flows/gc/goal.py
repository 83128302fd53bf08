"""Goals: how few of the snapshots that may go have to go, the oldest first, so that so much space is free afterwards.

Space is what packs and segments take. What a number of snapshots would free is what the collector's own choice of packs
would free if they were forgotten, not what they hold: packs that stay give nothing back. Copies are taken for as long
as they can become, so that a plan does not promise what its run does not give. Nothing is written.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Sequence
from dataclasses import replace

from respaldo.core.ids import SnapshotId
from respaldo.core.seams import Cancel, Progress
from respaldo.flows.gc.look import plan_after
from respaldo.flows.gc.options import Goal, PruneOptions, PrunePlan, SpacePlan
from respaldo.flows.gc.shares import Account
from respaldo.store.repo import Repo


def plan_space(
    repo: Repo,
    goal: Goal,
    expendable: Sequence[SnapshotId],
    options: PruneOptions,
    *,
    progress: Progress,
    cancel: Cancel,
    without: Collection[SnapshotId] = frozenset(),
) -> SpacePlan:
    """Finds how many of the snapshots that may go have to, in their order; ``without``: those that go in any case."""
    account = Account(repo, expendable, progress=progress, cancel=cancel, without=without)
    alive = account.look()
    stored = sum(account.listing.packs.values()) + sum(length for _, length in repo.backend.list("segments"))
    wanted = goal.missing_bytes(stored)
    options = replace(options, enough_bytes=wanted)
    plans: dict[int, PrunePlan] = {}

    def plan(count: int) -> PrunePlan:
        if count not in plans:
            cancel.check()
            plans[count] = plan_after(repo, account, count, options, alive)
        return plans[count]

    count = bisect_left(range(len(expendable)), wanted, key=lambda count: plan(count).sure_bytes) if wanted else 0
    found = plan(count)
    shares = account.measure()
    going = tuple(snapshot for snapshot in expendable[:count] if snapshot in account.numbers)
    return SpacePlan(
        stored_bytes=stored,
        wanted_bytes=wanted,
        going=going,
        freed_bytes=max(found.sure_bytes, 0),
        without_forgetting_bytes=max(plan(0).sure_bytes, 0),
        copied_bytes=found.copied_bytes,
        options=options,
        shares=replace(shares, steps={snapshot: shares.steps[snapshot] for snapshot in going}),
    )
