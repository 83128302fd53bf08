"""`respaldo prune`: forgets by a policy or for space, where that is asked for, then frees what no snapshot needs."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from respaldo.cli import collection, goal
from respaldo.cli import policy as policies
from respaldo.cli.areas import NOTE, all_clients_option, for_all
from respaldo.cli.clearing import Clearing
from respaldo.cli.pages import page
from respaldo.cli.progress import watching
from respaldo.cli.settings import Settings
from respaldo.cli.signals import cancelling
from respaldo.cli.values import SHARE, SIZE
from respaldo.core.errors import UsageError

if TYPE_CHECKING:
    from respaldo.api import Policy, PruneOptions


@page(
    "prune",
    examples=(
        ("Free what no snapshot needs any more:", "respaldo prune"),
        (
            "Forget what a policy does not keep, in the areas of all clients too, and free its space:",
            "respaldo prune --policy standard --all-clients",
        ),
        (
            "By rules of one's own; look first, and see what each snapshot frees:",
            "respaldo prune --keep-last 3 --keep-daily 14 --keep-monthly 12 --dry-run",
        ),
        ("Make 10 GiB of room, whatever it takes but the last month:", "respaldo prune --free 10GiB --keep-within 30d"),
        ("Never more than 500 GiB, from a timer:", "respaldo prune --max-size 500GiB --keep-last 7 --yes"),
        ("On a full disk, where nothing else works any more:", "respaldo prune --max-repack 0"),
    ),
    notes=(
        f"dry_run; {collection.NOTES} emptied: ids that left the trash for good. With a policy or a goal, and with "
        f"--dry-run, also retention, whose keys are: {policies.NOTES} With a goal also goal: {goal.NOTES} "
        f"The dry run of a goal has dry_run, goal, retention and emptied. {NOTE}"
    ),
)
@policies.keep_options
@goal.goal_options
@click.option("--dry-run", "-n", is_flag=True, help="Print what would be deleted and copied; change nothing.")
@click.option(
    "--repack-below",
    type=SHARE,
    metavar="SHARE",
    help="Copy what is still needed out of packs of which less than this share is, and delete them. "
    "[default: 50%; with --free and --max-size 90%, as far as it takes]",
)
@click.option(
    "--max-repack",
    type=SIZE,
    metavar="SIZE",
    help="Copy at most so much; what frees most for what is copied comes first. Without it, as much as there is.",
)
@all_clients_option
def command(settings: Settings, *, all_clients: bool, dry_run: bool, **given: Any) -> int:  # noqa: ANN401 - click's values
    """Free the space that no snapshot needs. Without a policy or a goal, no snapshot is forgotten.

    With a policy (--policy, --keep-…), snapshots that it does not keep are forgotten first, as by "forget"; with
    --grace they go into the trash, and their space is freed when the time is over. What has been in the trash for its
    time goes for good.

    With a goal (--free, --max-size), as few snapshots are forgotten as it takes, the oldest first: none that is pinned,
    none that a policy keeps where one is given, and of every group never the newest. What would go is said before it
    goes, on a terminal you are asked, and what cannot be reached is refused.

    --dry-run says of every snapshot what forgetting it, and no other, would free: the stored bytes of all content that
    no other snapshot holds. Packs give that back when they are deleted or repacked.

    Snapshots and restores may go on meanwhile, here and elsewhere, and so may another prune: nothing is locked, and
    nothing is deleted that a snapshot needs, one that is just being made included. What a snapshot in progress has
    stored stays. Interrupted, it loses nothing, and the next one finishes. Where a snapshot needs something that is
    not there, nothing is forgotten, and nothing deleted: that is found out first.

    Works on a full disk: a megabyte is kept in reserve for it, and what needs no copy is freed first.

    In the area of a client (--client), which may have been stolen, snapshots count in the order of its log, and those
    whose times cannot be are kept and do not count; what it says of its own data is read before it is relied on.
    """
    if not all_clients:
        return _prune(settings, given, dry_run=dry_run)
    if given["free"] is not None or given["max_size"] is not None:
        raise UsageError("a goal is for one: --free and --max-size go with --client, not with --all-clients")
    return for_all(settings, partial(_prune, settings, given, dry_run=dry_run))


def _prune(settings: Settings, given: dict[str, Any], *, dry_run: bool) -> int:
    from respaldo import api  # start-up time

    wanted = goal.goal_of(given)
    usual = api.REPACK_BELOW if wanted is None else api.FREE_REPACK_BELOW
    below: float | None = given["repack_below"]
    options = api.PruneOptions(repack_below=usual if below is None else below, max_repack_bytes=given["max_repack"])
    policy = policies.policy_of(given)
    if wanted is not None:
        return goal.reach(settings, wanted, policy, options, given, dry_run=dry_run)
    if dry_run:
        return _look(settings, policy, options, given)
    with (
        settings.open(writes=True) as repository,
        cancelling() as cancel,
        watching(settings.level, display=settings.display) as progress,
    ):
        clearing = Clearing()
        result = clearing.carry_out(repository, policy, options, given, progress=progress, cancel=cancel)
        duration_ns = progress.elapsed_ns()
    lines = [collection.text(result, duration_ns)]
    if clearing.run is not None:
        lines.insert(0, policies.text(clearing.run) + "\n")
    settings.report(collection.fields(result, duration_ns) | clearing.fields, "\n".join(lines))
    collection.warn(result)
    return result.exit_status


def _look(settings: Settings, policy: Policy | None, options: PruneOptions, given: dict[str, Any]) -> int:
    with (
        settings.open() as repository,
        cancelling() as cancel,
        watching(settings.level, display=settings.display) as progress,
    ):
        run = policies.run_policy(repository, policy, given, dry_run=True, cancel=cancel)
        emptied = repository.empty_trash(dry_run=True)
        plan, shares = repository.pruning.plan(
            options,
            going=[item.id for item in run.gone],
            forgotten=not run.plan.policy.grace_ns,
            without=set(emptied),
            progress=progress,
            cancel=cancel,
        )
    lines = [policies.text(run, shares) + "\n"]
    lines += (
        (*collection.pack_lines(plan), collection.plan_text(plan))
        if settings.verbose
        else (collection.plan_text(plan),)
    )
    more = {"emptied": [item.hex() for item in emptied], "retention": policies.fields(run, shares)}
    settings.report(collection.plan_fields(plan) | {"dry_run": True} | more, "\n".join(lines))
    return 0
