"""`respaldo undo`: brings back what was forgotten and is still in the trash."""

from __future__ import annotations

import click

from respaldo.cli import show
from respaldo.cli.names import SNAPSHOT
from respaldo.cli.pages import page
from respaldo.cli.settings import Settings
from respaldo.core.errors import UsageError


@page(
    "undo",
    examples=(
        ("What can be brought back:", "respaldo snapshots --trash"),
        ("One of them:", "respaldo undo 3f358ae3"),
        ("All:", "respaldo undo --all"),
    ),
    notes="restored: ids.",
)
@click.argument("names", metavar="[SNAPSHOT...]", nargs=-1, type=SNAPSHOT)
@click.option("--all", "everything", is_flag=True, help="Bring back all that is in the trash.")
def command(settings: Settings, *, names: tuple[str, ...], everything: bool) -> int:
    """Bring back snapshots that were forgotten with a time of grace, while it lasts.

    The next policy decides about them anew: pin what is to stay.
    """
    if bool(names) == everything:
        raise UsageError("name snapshots, or use --all", hint="list what there is with: respaldo snapshots --trash")
    with settings.open(writes=True) as repository:
        if everything:
            names = tuple(item.snapshot.hex for item in repository.trash())
        back = repository.undo(names)
    lines = [f"brought back {item.hex[:8]} of {show.local_time(item.manifest.time_ns)}" for item in back]
    settings.report({"restored": [item.hex for item in back]}, "\n".join(lines) or "the trash is empty")
    return 0
