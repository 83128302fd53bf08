"""`respaldo pin`: protects snapshots from every policy."""

from __future__ import annotations

import click

from respaldo.cli import show
from respaldo.cli.names import SNAPSHOT
from respaldo.cli.pages import page
from respaldo.cli.settings import Settings


@page(
    "pin",
    examples=(
        ("The newest one:", "respaldo pin latest --reason 'before the upgrade'"),
        ("Several:", "respaldo pin 3f358ae3 d2997cec"),
        ("Which ones are pinned:", "respaldo snapshots --json | jq -r '.snapshots[] | select(.pinned) | .id'"),
    ),
    notes="pinned: ids of those that were not pinned before. snapshots: all ids that were named.",
)
@click.argument("names", metavar="SNAPSHOT...", nargs=-1, required=True, type=SNAPSHOT)
@click.option("--reason", default="", metavar="TEXT", help="Record why.")
def command(settings: Settings, *, names: tuple[str, ...], reason: str) -> int:
    """Protect snapshots: no policy takes them, and forget refuses to, until they are unpinned."""
    with settings.open(writes=True) as repository:
        named, fresh = repository.pin(names, reason)
    value = {"pinned": [item.hex for item in fresh], "snapshots": [item.hex for item in named]}
    lines = [
        f"pinned {item.hex[:8]} of {show.local_time(item.manifest.time_ns)}"
        + ("" if item in fresh else " (it was already)")
        for item in named
    ]
    settings.report(value, "\n".join(lines))
    return 0
