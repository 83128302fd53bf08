"""`respaldo history`: lists every version of a file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from respaldo.cli import show
from respaldo.cli.kinds import type_of
from respaldo.cli.pages import page
from respaldo.cli.settings import Settings
from respaldo.core.errors import NoSuchSnapshot, UsageError

if TYPE_CHECKING:
    from respaldo.api import Snapshot, State


@page(
    "history",
    examples=(
        ("Every version of a file:", "respaldo history ~/thesis.tex"),
        ("When a directory changed:", "respaldo history /etc/nginx"),
        ("Of one machine's only:", "respaldo history /etc/fstab --host server"),
        ("The third version back:", "respaldo history ~/a.txt --json | jq -r '.versions[2] | .first + \":\" + .path'"),
    ),
    notes=(
        "path; snapshots: how many cover the path; versions, oldest first: a list of path, first and last (those in a "
        "row that hold it), first_time, last_time, count, present; where it is present also type, size, mtime_ns, and "
        "changed: what differs from the version before (content, mode, owner, mtime, …; of a directory entries)."
    ),
)
@click.argument("path", metavar="PATH")
@click.option("--host", default="", metavar="HOST", help="Only in the snapshots of a machine.")
def command(settings: Settings, *, path: str, host: str) -> int:
    """List every version of a file or directory: since when, until when, its size, and what changed it.

    PATH is as it was backed up; one that does not begin with a slash is taken from where you are. Snapshots whose
    sources do not cover it are passed over; where one that does has it not, it says so.
    """
    from respaldo.api import covers, plain_path  # start-up time

    wanted = plain_path(os.path.abspath(path))
    if wanted == b"/":
        raise UsageError("the root has no history; name a path below it")
    with settings.open() as repository:
        snapshots = [
            item
            for item in repository.snapshots().snapshots
            if (not host or item.manifest.host == host) and covers(item, wanted)
        ]
        steps = list(repository.looking.history(snapshots, wanted)) if snapshots else []
    while steps and steps[0].entry is None:
        del steps[0]
    if not steps:
        shown = os.fsdecode(wanted)
        raise NoSuchSnapshot(shown, "no snapshot holds" if snapshots else "no snapshot has a source that covers")
    value = {
        **show.path_fields(wanted),
        "snapshots": len(snapshots),
        "versions": [_fields(step, snapshots, wanted) for step in steps],
    }
    settings.report(value, _table(steps, snapshots))
    return 0


def _table(steps: Sequence[State], snapshots: Sequence[Snapshot]) -> str:
    rows = []
    for number, step in enumerate(steps):
        first, last, entry = snapshots[step.first], snapshots[step.last], step.entry
        what = "gone" if entry is None else ", ".join(step.fields) or ("first" if number == 0 else "came back")
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
    if entry is not None:
        fields |= {"type": type_of(entry), "size": entry.size, "mtime_ns": entry.mtime_ns, "changed": list(step.fields)}
    return fields
