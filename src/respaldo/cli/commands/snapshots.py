"""`respaldo snapshots`: lists what was backed up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import tzinfo
from typing import TYPE_CHECKING

import click

from respaldo.cli import show
from respaldo.cli.pages import page
from respaldo.cli.settings import Settings
from respaldo.cli.values import ZONE
from respaldo.core.errors import UsageError
from respaldo.core.ids import SnapshotId

if TYPE_CHECKING:
    from respaldo.api import InTrash, Snapshot

_CALENDAR = {"hourly": "HOUR", "daily": "DAY", "weekly": "WEEK", "monthly": "MONTH", "yearly": "YEAR"}
_VIEWS = ("snapshot", "full", "incremental", *_CALENDAR)


@page(
    "snapshots",
    statuses=(4,),
    examples=(
        ("All of them:", "respaldo snapshots -r /mnt/disk/backup"),
        ("The last three of this machine:", "respaldo snapshots --host $(hostname) --last 3"),
        ("Those that hold a file, by the sources they cover:", "respaldo snapshots --path /home/ana/thesis.tex"),
        ("The newest of each week, as it is kept by --keep-weekly:", "respaldo snapshots --view weekly"),
        ("What each one added to the one before:", "respaldo snapshots --view incremental"),
        ("The id of the newest one, for a script:", "respaldo snapshots --last 1 --json | jq -r '.snapshots[0].id'"),
    ),
    notes=(
        "snapshots: a list of id, time, host, user, sources, kind, label, reason, tags, files, directories, bytes, "
        "files_new, files_changed, files_unchanged, read_bytes, new_bytes, stored_bytes, errors, duration_s, parent, "
        "pinned; with a view by the calendar also bucket; with --trash also forgotten and until. undecided: ids of "
        "snapshots under way or interrupted. damaged: names of records that cannot be read."
    ),
)
@click.option("--host", default="", metavar="HOST", help="Only those of a machine.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="Only those with this tag (with all of them).")
@click.option("--path", default="", metavar="PATH", help="Only those with a source that is this path or lies above it.")
@click.option("--last", type=click.IntRange(min=1), metavar="N", help="Only the newest N.")
@click.option(
    "--view",
    type=click.Choice(_VIEWS),
    default="snapshot",
    metavar="VIEW",
    help="Look at them as: snapshot (the default), full (what each holds), incremental (what each changed), or hourly, "
    "daily, weekly, monthly, yearly (the newest of each, by host and paths).",
)
@click.option("--time-zone", type=ZONE, default="local", metavar="ZONE", help="Whose days and weeks: local, UTC, …")
@click.option("--trash", "in_trash", is_flag=True, help="Those that were forgotten and can still be brought back.")
def command(
    settings: Settings,
    *,
    host: str,
    tags: tuple[str, ...],
    path: str,
    last: int | None,
    view: str,
    time_zone: tzinfo,
    in_trash: bool,
) -> int:
    """List the snapshots, oldest first.

    ADDED is what a snapshot took in the repository: its new content, compressed. SIZE is what it would restore to.
    Every snapshot is complete, and each can be looked at in several ways: the same one may be the day's, the week's and
    the year's. A pin is marked with ! behind the id.
    """
    from respaldo import api  # start-up time

    if in_trash and view != "snapshot":
        raise UsageError("--trash and --view exclude each other")
    with settings.open() as repository:
        catalogue = repository.snapshots()
        pins = repository.pins()
        trash = {item.snapshot.id: item for item in repository.trash()} if in_trash else {}
    wanted = api.plain_path(path) if path else b""
    chosen = [
        item
        for item in (catalogue.trash if in_trash else catalogue.snapshots)
        if (not host or item.manifest.host == host)
        and set(tags) <= set(item.manifest.tags)
        and (not wanted or api.covers(item, wanted))
        and (not in_trash or item.id in trash)
    ]
    buckets: dict[SnapshotId, str] = {}
    if view in _CALENDAR:
        seen = api.view(chosen, view, time_zone)
        chosen = [item for item, _ in seen]
        buckets = {item.id: bucket for item, bucket in seen}
    if last:
        chosen = chosen[-last:]
    value = {
        "snapshots": [_fields(item, pins, buckets, trash) for item in chosen],
        "undecided": [item.hex() for item in catalogue.undecided],
        "damaged": [error.name for error in catalogue.damaged],
    }
    settings.report(value, _table(chosen, _columns(view, pins, buckets, trash)))
    for error in catalogue.damaged:
        show.err(f"warning: {show.shown(str(error))}")
    return 4 if catalogue.damaged else 0


_Column = tuple[str, "Callable[[Snapshot], str]"]
_RIGHT = frozenset({"FILES", "DIRS", "SIZE", "NEW", "CHANGED", "UNCHANGED", "READ", "ADDED"})
_OPTIONAL = frozenset({"KIND", "LABEL", "TAGS"})


def _columns(
    view: str, pins: frozenset[SnapshotId], buckets: Mapping[SnapshotId, str], trash: Mapping[SnapshotId, InTrash]
) -> list[_Column]:
    columns: list[_Column] = [
        ("ID", lambda item: item.hex[:8] + ("!" if item.id in pins else "")),
        ("TIME", lambda item: show.local_time(item.manifest.time_ns)),
        ("HOST", lambda item: show.shown(item.manifest.host)),
        ("SOURCES", lambda item: show.some(item.manifest.sources)),
        ("KIND", lambda item: show.shown(item.manifest.kind)),
        ("LABEL", lambda item: show.shown(item.manifest.label)),
        ("TAGS", lambda item: ", ".join(map(show.shown, item.manifest.tags))),
    ]
    if buckets:
        columns.insert(0, (_CALENDAR[view], lambda item: buckets[item.id]))
    if trash:
        columns.insert(2, ("UNTIL", lambda item: show.local_time(trash[item.id].record.until_ns)))
    if view == "incremental":
        return [
            *columns,
            ("AFTER", lambda item: item.manifest.parent.hex()[:8] or "–"),
            ("NEW", lambda item: show.count(item.manifest.figures.files_new)),
            ("CHANGED", lambda item: show.count(item.manifest.figures.files_changed)),
            ("UNCHANGED", lambda item: show.count(item.manifest.figures.files_unchanged)),
            ("READ", lambda item: show.size(item.manifest.figures.read_bytes)),
            ("ADDED", lambda item: show.size(item.manifest.figures.stored_bytes)),
        ]
    columns.append(("FILES", lambda item: show.count(item.manifest.figures.files) + _star(item)))
    if view == "full":
        columns.append(("DIRS", lambda item: show.count(item.manifest.figures.directories)))
    columns.append(("SIZE", lambda item: show.size(item.manifest.figures.length_bytes)))
    if view != "full":
        columns.append(("ADDED", lambda item: show.size(item.manifest.figures.stored_bytes)))
    return columns


def _star(item: Snapshot) -> str:
    return "*" if item.manifest.figures.errors else ""


def _table(chosen: Sequence[Snapshot], columns: Sequence[_Column]) -> str:
    kept = [column for column in columns if column[0] not in _OPTIONAL or any(map(column[1], chosen))]
    headings = [heading for heading, _ in kept]
    right = [place for place, heading in enumerate(headings) if heading in _RIGHT]
    rows = [[cell(item) for _, cell in kept] for item in chosen]
    return show.table(headings, rows, right=right) if rows else "no snapshots"


def _fields(
    item: Snapshot, pins: frozenset[SnapshotId], buckets: Mapping[SnapshotId, str], trash: Mapping[SnapshotId, InTrash]
) -> dict[str, object]:
    manifest, figures = item.manifest, item.manifest.figures
    more: dict[str, object] = {"bucket": buckets[item.id]} if buckets else {}
    if trash:
        record = trash[item.id].record
        more |= {"forgotten": show.iso_time(record.time_ns), "until": show.iso_time(record.until_ns)}
    return {
        "id": item.hex,
        "time": show.iso_time(manifest.time_ns),
        "host": manifest.host,
        "user": manifest.user,
        "sources": [show.path_fields(source) for source in manifest.sources],
        "kind": manifest.kind,
        "label": manifest.label,
        "reason": manifest.reason,
        "tags": list(manifest.tags),
        "files": figures.files,
        "directories": figures.directories,
        "bytes": figures.length_bytes,
        "files_new": figures.files_new,
        "files_changed": figures.files_changed,
        "files_unchanged": figures.files_unchanged,
        "read_bytes": figures.read_bytes,
        "new_bytes": figures.chunk_bytes_new,
        "stored_bytes": figures.stored_bytes,
        "errors": figures.errors,
        "duration_s": figures.duration_ns / 1e9,
        "parent": manifest.parent.hex(),
        "pinned": item.id in pins,
        **more,
    }
