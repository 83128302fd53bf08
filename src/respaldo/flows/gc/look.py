"""The look ahead: what a collector would do, and what each snapshot holds, from one walk through the trees.

Says of packs what `plan_prune` says, and of snapshots what `measure_shares` does; writes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from respaldo.core.ids import SnapshotId
from respaldo.core.seams import Cancel, Progress
from respaldo.flows.gc.choose import choose, settle_duplicates
from respaldo.flows.gc.options import PruneOptions, PrunePlan, Shares
from respaldo.flows.gc.shares import Account
from respaldo.store.repo import Repo


def look_ahead(
    repo: Repo,
    options: PruneOptions,
    going: Sequence[SnapshotId],
    *,
    forgotten: bool,
    progress: Progress,
    cancel: Cancel,
    without: Collection[SnapshotId] = frozenset(),
) -> tuple[PrunePlan, Shares]:
    """Returns the plan and the shares, once the snapshots ``without`` are gone; raises as `Mark.update` does.

    ``forgotten``: whether those that are ``going`` are gone for the collector as well, or only for the shares.
    """
    account = Account(repo, going, progress=progress, cancel=cancel, without=without)
    alive = account.label()
    plan = plan_after(repo, account, len(going) if forgotten else 0, options, alive)
    account.settle()
    return plan, account.measure()


def plan_after(repo: Repo, account: Account, count: int, options: PruneOptions, alive: frozenset[bytes]) -> PrunePlan:
    """Returns what a collector would do once the first ``count`` of what goes by an account are forgotten.

    ``alive``: the sessions whose packs stay.
    """
    live = account.live_after(count)
    settle_duplicates(repo, live)
    roots, expiring = account.roots, account.expiring
    return choose(repo, live, account.listing, alive, options).plan(
        snapshots=len(account.numbers) - account.there(count),
        undecided=len(roots.undecided) + len(roots.unreadable) - len(expiring),
        expire=expiring,
    )
