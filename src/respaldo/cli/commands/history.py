"""`respaldo history`: lists every version of a file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from respaldo.cli import show
from respaldo.cli.kinds import type_of
from respaldo.cli.names import of_snapshots, say_damaged
from respaldo.cli.pages import page
from respaldo.cli.settings import Settings
from respaldo.core.errors import NoSuchSnapshot, UsageError

if TYPE_CHECKING:
    from respaldo.api import Snapshot, State


@page(
    "history",
    statuses=(3, 4),
    examples=(
        ("Every version of a file:", "respaldo history ~/thesis.tex"),
        ("When a directory changed:", "respaldo history /etc/nginx"),
        ("Of one machine's only:", "respaldo history /etc/fstab --host server"),
        ("The third version back:", "respaldo history ~/a.txt --json | jq -r '.versions[2] | .first + \":\" + .path'"),
    ),
    notes=(
        "path; snapshots: how many cover the path; versions, oldest first: a list of path, first and last (those in a "
        "row that hold it), first_time, last_time, count, present; where it is present also type, size, mtime_ns, and "
        "changed: what differs from the version before (content, mode, owner, mtime, …; of a directory entries); where "
        "a directory on the way could not be read, unread (why) and lost (whether a repair has given it up); "
        "damaged: names of records of snapshots that could not be read."
    ),
)
@click.argument("path", metavar="PATH")
@of_snapshots
def command(settings: Settings, *, path: str, host: str, tags: tuple[str, ...], kind: str) -> int:
    """List every version of a file or directory: since when, until when, its size, and what changed it.

    PATH is as it was backed up; one that does not begin with a slash is taken from where you are. Snapshots whose
    sources do not cover it are passed over; where one that does has it not, it says so.
    """
    from respaldo.api import plain_path  # start-up time

    wanted = plain_path(os.path.abspath(path))
    if wanted == b"/":
        raise UsageError("the root has no history; name a path below it")
    with settings.open() as repository:
        snapshots = repository.looking.snapshots(host=host, tags=tags, kind=kind, covering=wanted)
        steps = list(repository.looking.history(snapshots, wanted)) if snapshots else []
        damaged = repository.looking.damaged
    status = say_damaged(damaged)
    while steps and steps[0].entry is None and not steps[0].unread:
        del steps[0]
    if not steps:
        shown = os.fsdecode(wanted)
        raise NoSuchSnapshot(shown, "no snapshot holds" if snapshots else "no snapshot has a source that covers")
    value = {
        **show.path_fields(wanted),
        "snapshots": len(snapshots),
        "versions": [_fields(step, snapshots, wanted) for step in steps],
        "damaged": [error.name for error in damaged],
    }
    settings.report(value, _table(steps, snapshots))
    unread = [step for step in steps if step.unread]
    for step in unread:
        span = f"{snapshots[step.first].hex[:8]} … {snapshots[step.last].hex[:8]}"
        show.err(f"warning: it could not be looked at in {span}: {show.shown(step.unread)}")
    return max((status, *(3 if step.lost else 4 for step in unread)))


def _table(steps: Sequence[State], snapshots: Sequence[Snapshot]) -> str:
    rows = []
    for number, step in enumerate(steps):
        first, last, entry = snapshots[step.first], snapshots[step.last], step.entry
        what = (
            "not readable"
            if step.unread
            else "gone"
            if entry is None
            else ", ".join(step.fields) or ("first" if number == 0 else "came back")
        )
        size = "–" if entry is None else show.size(entry.size) if entry.is_regular else type_of(entry)
        modified = show.local_time(entry.mtime_ns) if entry else "–"
        span = [show.local_time(first.time_ns), first.hex[:8], last.hex[:8], f"{step.last - step.first + 1:,}"]
        rows.append([*span, size, modified, what])
    return show.table(("SINCE", "FIRST", "LAST", "SNAPSHOTS", "SIZE", "MODIFIED", "CHANGED"), rows, right=(3, 4))


def _fields(step: State, snapshots: Sequence[Snapshot], path: bytes) -> dict[str, object]:
    first, last, entry = snapshots[step.first], snapshots[step.last], step.entry
    fields: dict[str, object] = {
        **show.path_fields(path),
        "first": first.hex,
        "last": last.hex,
        "first_time": show.iso_time(first.time_ns),
        "last_time": show.iso_time(last.time_ns),
        "count": step.last - step.first + 1,
        "present": entry is not None,
    }
    if step.unread:
        fields |= {"unread": step.unread, "lost": step.lost}
    if entry is not None:
        fields |= {"type": type_of(entry), "size": entry.size, "mtime_ns": entry.mtime_ns, "changed": list(step.fields)}
    return fields
