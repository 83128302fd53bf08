"""`respaldo unpin`: lets policies take snapshots again."""

from __future__ import annotations

import click

from respaldo.cli import show
from respaldo.cli.names import SNAPSHOT
from respaldo.cli.pages import page
from respaldo.cli.settings import Settings


@page(
    "unpin",
    examples=(
        ("By the beginning of its id:", "respaldo unpin 3f358ae3"),
        ("And forget it:", "respaldo unpin 3f358ae3 && respaldo forget 3f358ae3"),
        ("For a program:", "respaldo unpin 3f358ae3 --json"),
    ),
    notes="unpinned: ids of those that were pinned. snapshots: all ids that were named.",
)
@click.argument("names", metavar="SNAPSHOT...", nargs=-1, required=True, type=SNAPSHOT)
def command(settings: Settings, *, names: tuple[str, ...]) -> int:
    """Take away the protection of snapshots: the next policy decides about them."""
    with settings.open(writes=True) as repository:
        named, had = repository.unpin(names)
    value = {"unpinned": [item.hex for item in had], "snapshots": [item.hex for item in named]}
    lines = [
        f"unpinned {item.hex[:8]} of {show.local_time(item.manifest.time_ns)}"
        + ("" if item in had else " (it was not pinned)")
        for item in named
    ]
    settings.report(value, "\n".join(lines))
    return 0
