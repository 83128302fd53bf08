"""`respaldo snapshots`: lists what was backed up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from respaldo.cli import show
from respaldo.cli.pages import page
from respaldo.cli.settings import Settings

if TYPE_CHECKING:
    from respaldo.api import Snapshot


@page(
    "snapshots",
    statuses=(4,),
    examples=(
        ("All of them:", "respaldo snapshots -r /mnt/disk/backup"),
        ("The last three of this machine:", "respaldo snapshots --host $(hostname) --last 3"),
        ("Those that hold a file, by the sources they cover:", "respaldo snapshots --path /home/ana/thesis.tex"),
        ("The id of the newest one, for a script:", "respaldo snapshots --last 1 --json | jq -r '.snapshots[0].id'"),
    ),
    notes=(
        "snapshots: a list of id, time, host, user, sources, kind, label, reason, tags, files, directories, bytes, "
        "read_bytes, new_bytes, stored_bytes, errors, duration_s, parent. undecided: ids of snapshots under way or "
        "interrupted. damaged: names of records that cannot be read."
    ),
)
@click.option("--host", default="", metavar="HOST", help="Only those of a machine.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="Only those with this tag (with all of them).")
@click.option("--path", default="", metavar="PATH", help="Only those with a source that is this path or lies above it.")
@click.option("--last", type=click.IntRange(min=1), metavar="N", help="Only the newest N.")
def command(settings: Settings, *, host: str, tags: tuple[str, ...], path: str, last: int | None) -> int:
    """List the snapshots, oldest first.

    ADDED is what a snapshot took in the repository: its new content, compressed. SIZE is what it would restore to.
    """
    from respaldo.api import covers, plain_path  # start-up time

    with settings.open() as repository:
        catalogue = repository.snapshots()
    wanted = plain_path(path) if path else b""
    chosen = [
        item
        for item in catalogue.snapshots
        if (not host or item.manifest.host == host)
        and set(tags) <= set(item.manifest.tags)
        and (not wanted or covers(item, wanted))
    ]
    if last:
        chosen = chosen[-last:]
    value = {
        "snapshots": [_fields(item) for item in chosen],
        "undecided": [item.hex() for item in catalogue.undecided],
        "damaged": [error.name for error in catalogue.damaged],
    }
    settings.report(value, _table(chosen))
    for error in catalogue.damaged:
        show.err(f"warning: {show.shown(str(error))}")
    return 4 if catalogue.damaged else 0


def _table(chosen: list[Snapshot]) -> str:
    rows = [_row(item) for item in chosen]
    headings = ["ID", "TIME", "HOST", "SOURCES", "KIND", "LABEL", "TAGS", "FILES", "SIZE", "ADDED"]
    optional = {4, 5, 6}
    kept = [column for column in range(len(headings)) if column not in optional or any(row[column] for row in rows)]
    right = [place for place, column in enumerate(kept) if column >= 7]
    lines = [[row[column] for column in kept] for row in rows]
    return show.table([headings[column] for column in kept], lines, right=right) if rows else "no snapshots"


def _row(item: Snapshot) -> list[str]:
    manifest = item.manifest
    return [
        item.hex[:8],
        show.local_time(manifest.time_ns),
        show.shown(manifest.host),
        show.some(manifest.sources),
        show.shown(manifest.kind),
        show.shown(manifest.label),
        ", ".join(map(show.shown, manifest.tags)),
        show.count(manifest.figures.files) + ("*" if manifest.figures.errors else ""),
        show.size(manifest.figures.length_bytes),
        show.size(manifest.figures.stored_bytes),
    ]


def _fields(item: Snapshot) -> dict[str, object]:
    manifest, figures = item.manifest, item.manifest.figures
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
        "read_bytes": figures.read_bytes,
        "new_bytes": figures.chunk_bytes_new,
        "stored_bytes": figures.stored_bytes,
        "errors": figures.errors,
        "duration_s": figures.duration_ns / 1e9,
        "parent": manifest.parent.hex(),
    }
