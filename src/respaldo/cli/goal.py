"""Goals on the command line: forgets as few snapshots as it takes for so much space, and says which before it does.

The order matters: nothing is written before the whole plan was shown, and, on a terminal, confirmed; where the goal
cannot be reached nothing is written at all.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from respaldo.cli import collection, show
from respaldo.cli import policy as policies
from respaldo.cli.progress import watching
from respaldo.cli.settings import Settings
from respaldo.cli.signals import cancelling
from respaldo.cli.values import SIZE
from respaldo.core.errors import Refused, UsageError

if TYPE_CHECKING:
    from respaldo.api import Goal, Policy, PruneOptions, Repository, SpacePlan
    from respaldo.core.ids import SnapshotId

F = TypeVar("F", bound=Callable[..., Any])
NOTES = (
    "stored_bytes (packs and their segments now), wanted_bytes (what of it has to go), freed_bytes (what goes at "
    "least), without_forgetting_bytes (what would go if nothing were forgotten), copied_bytes."
)
"""The keys of a goal."""


def goal_options(function: F) -> F:
    """Adds the options that ask for space."""
    for option in (
        click.option(
            "--yes", "-y", is_flag=True, help="Do not ask before snapshots are forgotten for --free, --max-size."
        ),
        click.option(
            "--max-size",
            type=SIZE,
            metavar="SIZE",
            help="Forget the oldest snapshots that may go until the repository takes no more than SIZE (500GiB).",
        ),
        click.option(
            "--free",
            type=SIZE,
            metavar="SIZE",
            help="Forget the oldest snapshots that may go until SIZE (10GiB) is free that was not before.",
        ),
    ):
        function = option(function)
    return function


def goal_of(given: Mapping[str, Any]) -> Goal | None:
    """Returns the goal that options name, None where they name none."""
    from respaldo.api import Goal  # start-up time

    free, size = given["free"], given["max_size"]
    if free is not None and size is not None:
        raise UsageError("--free and --max-size exclude each other")
    if free is None and size is None:
        if given["yes"]:
            raise UsageError("--yes goes with --free or --max-size")
        return None
    return Goal(free_bytes=free, size_bytes=size)


def reach(
    settings: Settings,
    goal: Goal,
    policy: Policy | None,
    options: PruneOptions,
    given: Mapping[str, Any],
    *,
    dry_run: bool,
) -> int:
    """Plans, says what it takes, asks, forgets, collects; returns the exit status."""
    from respaldo.api import Policy  # start-up time

    policy = policy or Policy(keep={"last": 1}, grace_ns=given["grace"] or 0)
    if policy.grace_ns:
        raise UsageError("what goes into the trash frees nothing", hint="add --grace 0d, or leave out the goal")
    with settings.open(writes=not dry_run) as repository:
        with cancelling() as cancel, watching(settings.level, display=settings.display) as progress:
            plan = policies.make_plan(repository, policy, given)
            emptied = repository.empty_trash(dry_run=True)
            space = repository.pruning.space(
                goal,
                [item.id for item in plan.forgotten],
                options,
                progress=progress,
                cancel=cancel,
                without=set(emptied),
            )
        if not space.reached:
            raise _refusal(repository, goal, space)
        plan = plan.taking_only(space.going)
        run = policies.PolicyRun(plan=plan, gone=plan.forgotten, dry_run=True)
        told = f"{policies.text(run, space.shares)}\n{_text(space)}"
        if dry_run:
            settings.report({"dry_run": True} | _fields(space, run, emptied), told)
            return 0
        if not settings.json:
            settings.report({}, told)
        # Outside of what heeds a signal when it can: an answer is waited for as long as it takes.
        if run.gone and not given["yes"] and not _confirmed(settings, len(run.gone)):
            show.err("nothing was forgotten, and nothing deleted")
            return 1
        with cancelling() as cancel, watching(settings.level, display=settings.display) as progress:
            gone = repository.apply_retention(plan, cancel=cancel)
            emptied = repository.empty_trash()
            result = repository.prune(space.options, progress=progress, cancel=cancel)
            duration_ns = progress.elapsed_ns()
    run = policies.PolicyRun(plan=plan, gone=gone, dry_run=False)
    settings.report(
        collection.fields(result, duration_ns) | _fields(space, run, emptied),
        f"\nforgot {show.count(len(gone), 'snapshot')}\n{collection.text(result, duration_ns)}",
    )
    collection.warn(result)
    short = space.wanted_bytes - result.freed_bytes
    if short > 0:
        show.err(f"error: {show.size(short)} less was freed than was asked for; run prune again for the rest")
    return result.exit_status or int(short > 0)


def _refusal(repository: Repository, goal: Goal, space: SpacePlan) -> Refused:
    """Returns an error that says how far one gets."""
    what = f"{show.size(space.wanted_bytes)} cannot be freed"
    if goal.size_bytes is not None:
        now, then = show.size(space.stored_bytes), show.size(goal.size_bytes)
        what = f"the repository takes {now} and cannot be brought to {then}"
    going = show.count(len(space.going), "snapshot")
    how = f"to forget all that may go ({going}) frees" if space.going else "no snapshot may go, and without that, it is"
    held = repository.trash()
    trash = f"; {show.count(len(held), 'snapshot')} in the trash hold space until their time is over" if held else ""
    less = f"take less (--free {space.freed_bytes}), or " if space.freed_bytes else ""
    return Refused(
        f"{what}: {how} {show.size(space.freed_bytes)}",
        hint=f"pinned ones stay, the newest of each group, and what a policy keeps{trash}; {less}"
        "have fuller packs copied, too: --repack-below 100%",
    )


def _confirmed(settings: Settings, count: int) -> bool:
    """Asks, where there is somebody to answer: at a terminal that is typed at and seen, whatever else is redirected."""
    streams = (sys.stderr,) if settings.json else (sys.stderr, sys.stdout)  # a document stays one
    seen = next((stream for stream in streams if stream and stream.isatty()), None)
    if seen is None or not (sys.stdin and sys.stdin.isatty()):
        return True
    seen.write(f"forget {show.count(count, 'snapshot')} for good? [y/N] ")
    seen.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _text(space: SpacePlan) -> str:
    rows = [
        ("stored now", show.size(space.stored_bytes)),
        ("wanted", f"{show.size(space.wanted_bytes)} less"),
        (
            "would free",
            f"at least {show.size(space.freed_bytes)} ({show.size(space.without_forgetting_bytes)} without forgetting)",
        ),
        ("would copy", show.size(space.copied_bytes)),
    ]
    return show.figures(rows)


def _fields(space: SpacePlan, run: policies.PolicyRun, emptied: Iterable[SnapshotId]) -> dict[str, object]:
    return {
        "goal": {
            "stored_bytes": space.stored_bytes,
            "wanted_bytes": space.wanted_bytes,
            "freed_bytes": space.freed_bytes,
            "without_forgetting_bytes": space.without_forgetting_bytes,
            "copied_bytes": space.copied_bytes,
        },
        "retention": policies.fields(run, space.shares),
        "emptied": [item.hex() for item in emptied],
    }
