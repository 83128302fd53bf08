"""`respaldo repair`: mends what can be mended, sets the rest aside, and marks what is lost."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from respaldo.cli import show
from respaldo.cli.pages import page
from respaldo.cli.progress import watching
from respaldo.cli.settings import Settings
from respaldo.cli.signals import cancelling
from respaldo.core.errors import UsageError

if TYPE_CHECKING:
    from respaldo.api import RepairPlan, RepairResult, Step


_DAMAGED = 4


@page(
    "repair",
    examples=(
        ("What would be done about what verify has found:", "respaldo repair --dry-run"),
        ("Do it, after a look at the plan:", "respaldo repair"),
        ("Read every byte first, and mend what that shows; ask nothing:", "respaldo repair --read-data --yes"),
        ("Back up what is still there on the machine: lost files that it has are whole again:", "respaldo snapshot ~"),
        ("When entries of the log are lost, and you know why:", "respaldo repair --accept-rollback"),
        ("When nobody else is at work, and something only they could explain is left:", "respaldo repair --alone"),
    ),
    notes=(
        "dry_run, faults (objects that are damaged), plan: a list of verb, name, text. Without --dry-run also done and "
        "left (the same), aside (names in lost+found), renamed (a list of old and new: ids of snapshots), "
        "rescued_chunks, lost_chunks, lost_entries, duration_s."
    ),
)
@click.option("--dry-run", "-n", is_flag=True, help="Print what would be done; change nothing.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask whether to go on.")
@click.option("--read-data", is_flag=True, help="Read all packs first; else those alone whose damage is known.")
@click.option(
    "--alone",
    is_flag=True,
    help="No other client is at work, no prune above all: what only they could explain may be set aside.",
)
def command(settings: Settings, *, dry_run: bool, yes: bool, read_data: bool, alone: bool) -> int:
    """Mend a damaged repository: as "verify" finds it, without taking anything away for good.

    What has parity is mended from that. Lists of packs are written again from the packs; of a damaged pack, what is
    sound goes into new packs. A manifest that is damaged is taken from what repeats it. A snapshot that has lost
    something stays, under another id and with the same time, label, tags and pin: its lost files are listed by "ls" and
    "verify" and named by "restore", which restores all others and ends with status 3. They are whole again as soon as a
    snapshot stores the same content again. What was damaged is moved to lost+found in the repository, which is never
    read again, and can be deleted.

    Entries of the log that are damaged or gone are put again where another object repeats them or this machine has kept
    them. Where they are lost for good, --accept-rollback says so in the log, for all clients.

    Others may use the repository meanwhile. Interrupted, a repair leaves nothing worse than it was; run it again. The
    exit status is 4 where damage is left that it cannot mend.
    """
    from respaldo import api  # start-up time

    options = api.RepairOptions(read_data=read_data, alone=alone, accept_lost=settings.accept_rollback)
    with settings.open(writes=not dry_run, reports=True, accepts=False) as repository:
        for finding in repository.history.findings:
            show.err(f"warning: {show.shown(finding)}")
        with cancelling() as cancel, watching(settings.level, display=settings.display) as progress:
            repair = repository.prepare_repair(options, progress=progress, cancel=cancel)
            duration_ns = progress.elapsed_ns()
        plan = repair.plan
        if dry_run:
            settings.report(_plan_fields(plan) | {"dry_run": True}, _plan_text(plan))
            return plan.exit_status
        if not (plan.empty or yes or _agreed(settings, plan)):
            return _DAMAGED
        with cancelling() as cancel, watching(settings.level, display=settings.display) as progress:
            result = repair.carry_out(progress=progress, cancel=cancel)
            duration_ns += progress.elapsed_ns()
        unexplained = repository.history.findings and repository.history.found_again()
    settings.report(_fields(result, duration_ns), _text(result))
    if settings.quiet and not settings.json:
        for step in result.left:
            show.err(f"error: {show.shown(str(step))}")
    return max(result.exit_status, _DAMAGED if unexplained else 0)


def _agreed(settings: Settings, plan: RepairPlan) -> bool:
    """Shows the plan and asks whether to go on; raises `UsageError` where there is nobody to ask."""
    if settings.json or not (sys.stdin and sys.stdin.isatty()):
        raise UsageError("there is nobody to ask", hint="look with --dry-run, then run it with --yes")
    show.err(_plan_text(plan))
    return click.confirm("Go on?", err=True)


def _steps(steps: Sequence[Step]) -> list[str]:
    return [f"  {step.verb.value:<14} {show.shown(step.name)}: {show.shown(step.text)}" for step in steps]


def _plan_text(plan: RepairPlan) -> str:
    if not plan.steps:
        return "nothing to repair"
    return "\n".join((f"{show.count(plan.faults, 'damaged object')}; to be done:", *_steps(plan.steps)))


def _text(result: RepairResult) -> str:
    if not result.plan.steps:
        return "nothing to repair"
    lines = []
    if result.done:
        lines += [f"done: {show.count(len(result.done), 'step')}", *_steps(result.done)]
    rows = [
        ("rescued", show.count(result.rescued, "chunk")),
        ("lost", f"{show.count(result.lost_chunks, 'chunk')}, {show.count(result.lost_files, 'entry', 'entries')}"),
        ("set aside", f"{show.count(len(result.aside), 'object')} in lost+found"),
    ]
    lines.append(show.figures(rows))
    lines += [f"snapshot {old.hex()[:8]} is now {new.hex()[:8]}" for old, new in result.renamed]
    if result.left:
        lines += [f"left as it is: {show.count(len(result.left), 'object')}", *_steps(result.left)]
    return "\n".join(lines)


def _step_fields(steps: Sequence[Step]) -> list[dict[str, str]]:
    return [{"verb": step.verb.value, "name": step.name, "text": step.text} for step in steps]


def _plan_fields(plan: RepairPlan) -> dict[str, object]:
    return {"dry_run": False, "faults": plan.faults, "plan": _step_fields(plan.steps)}


def _fields(result: RepairResult, duration_ns: int) -> dict[str, object]:
    return _plan_fields(result.plan) | {
        "done": _step_fields(result.done),
        "left": _step_fields(result.left),
        "aside": list(result.aside),
        "renamed": [{"old": old.hex(), "new": new.hex()} for old, new in result.renamed],
        "rescued_chunks": result.rescued,
        "lost_chunks": result.lost_chunks,
        "lost_entries": result.lost_files,
        "duration_s": duration_ns / 1e9,
    }
