"""`respaldo forget`: takes snapshots away, by name or by a policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from respaldo.cli import policy as policies
from respaldo.cli import show
from respaldo.cli.names import SNAPSHOT
from respaldo.cli.pages import page
from respaldo.cli.progress import watching
from respaldo.cli.settings import Settings
from respaldo.cli.signals import cancelling
from respaldo.core.errors import ChunkMissing, Corruption, UsageError

if TYPE_CHECKING:
    from respaldo.api import Repository, Shares, Snapshot
    from respaldo.core.ids import SnapshotId
    from respaldo.core.seams import Cancel, Progress


@page(
    "forget",
    statuses=(4,),
    examples=(
        ("Two snapshots, for good:", "respaldo forget 3f358ae3 before-the-move"),
        ("What a policy would keep, and why:", "respaldo forget --policy standard --dry-run"),
        (
            "By rules of one's own; for a week it can be undone:",
            "respaldo forget --keep-last 3 --keep-daily 14 --keep-within-weekly 1y --keep-tag milestone --grace 7d",
        ),
        ("By a policy of a file:", "respaldo forget --policy ~/.config/respaldo/policies.toml:laptop"),
        (
            "The ids that would go, for a script:",
            "respaldo forget --policy standard --dry-run --json | jq -r '.forgotten[]'",
        ),
    ),
    notes=(
        "By name: forgotten (ids), trash (whether they can be undone), dry_run; of a dry run also frees_bytes "
        f"(together) and alone_bytes (by id). By policy: {policies.NOTES}"
    ),
)
@click.argument("names", metavar="[SNAPSHOT...]", nargs=-1, type=SNAPSHOT)
@policies.keep_options
@click.option("--dry-run", "-n", is_flag=True, help="Say what would be forgotten and what that frees; do nothing.")
def command(settings: Settings, *, names: tuple[str, ...], dry_run: bool, **given: Any) -> int:  # noqa: ANN401 - click's values
    """Forget snapshots: those that are named, or all that a policy does not keep.

    A forgotten snapshot is gone; the space that only it used is freed by the next prune. A pinned one is never
    forgotten. In every group the newest one stays, whatever the policy says, and while that one is incomplete, the
    newest complete one, too. A policy that would keep nothing is refused. With --grace, snapshots go into the trash
    first, where "snapshots" does not show them and "undo" brings them back from.

    A snapshot is kept when any rule keeps it. N hours, days, weeks, months or years are the newest N in which there is
    a snapshot; spans are counted back from the newest snapshot, not from today.
    """
    policy = policies.policy_of(given)
    if bool(names) == bool(policy):
        raise UsageError("name snapshots, or say what to keep (--policy, --keep-…); one of the two")
    grace_ns = given["grace"] or 0
    with (
        settings.open(writes=not dry_run) as repository,
        cancelling() as cancel,
        watching(settings.level, display=settings.display) as progress,
    ):
        run = None
        if policy:
            run = policies.run_policy(repository, policy, given, dry_run=dry_run, cancel=cancel)
        gone = run.gone if run is not None else ()
        if run is None:
            named = repository.meant(names)
            for item in named:
                if item.selector is not None and settings.level >= 0:
                    show.err(f"note: {show.shown(item.name)} is {_described(item.snapshot)}")
            gone = repository.forget(
                [item.snapshot.hex for item in named], grace_ns=grace_ns, dry_run=dry_run, cancel=cancel
            )
        shares = _measured(repository, [item.id for item in gone], progress, cancel) if dry_run else None
    status = 4 if (dry_run and shares is None) or (run is not None and run.plan.damaged) else 0
    if run is not None:
        settings.report(policies.fields(run, shares), policies.text(run, shares))
        return status
    value: dict[str, object] = {"forgotten": [item.hex for item in gone], "trash": bool(grace_ns), "dry_run": dry_run}
    lines = [
        f"{'would forget' if dry_run else 'forgot'} {item.hex[:8]} of {show.local_time(item.manifest.time_ns)}"
        + (f", which frees {show.size(shares.alone.get(item.id, 0))}" if shares is not None else "")
        for item in gone
    ]
    if dry_run:
        value["frees_bytes"] = None if shares is None else shares.together
        value["alone_bytes"] = None if shares is None else {item.hex: shares.alone.get(item.id, 0) for item in gone}
    if shares is not None and len(gone) > 1:
        lines.append(f"together that frees {show.size(shares.together)}")
    settings.report(value, "\n".join(lines))
    return status


def _described(snapshot: Snapshot) -> str:
    manifest = snapshot.manifest
    where = f"{show.shown(manifest.host)}:{show.some(manifest.sources)}"
    return f"{snapshot.hex[:8]} of {show.local_time(manifest.time_ns)}, {where}"


def _measured(repository: Repository, going: list[SnapshotId], progress: Progress, cancel: Cancel) -> Shares | None:
    """Returns what snapshots hold, None where damage keeps that from being known."""
    try:
        return repository.pruning.shares(going=going, progress=progress, cancel=cancel)
    except (Corruption, ChunkMissing) as error:
        show.err(f"warning: nobody can say what that would free: {show.shown(str(error))}; see: respaldo verify")
        return None
