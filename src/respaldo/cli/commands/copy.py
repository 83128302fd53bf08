"""`respaldo copy`: copies snapshots into another repository."""

from __future__ import annotations

from typing import Any

import click

from respaldo.cli import copying
from respaldo.cli.names import SNAPSHOT
from respaldo.cli.pages import page
from respaldo.cli.progress import watching
from respaldo.cli.settings import Settings
from respaldo.cli.signals import cancelling


@page(
    "copy",
    statuses=(4,),
    examples=(
        ("The newest snapshot onto a second disk:", "respaldo copy latest --to /mnt/second/backup"),
        (
            "A second repository, made so that copies go over as they are:",
            "respaldo init -r /mnt/second/backup --like /mnt/disk/backup",
        ),
        ("What everything would take there:", "respaldo copy --to /mnt/second/backup --dry-run"),
        (
            "Back from it, each with a passphrase of its own:",
            "respaldo copy 3f358ae3 --from /mnt/second/backup --other-password-file ~/.second",
        ),
    ),
    notes=copying.NOTES + ".",
)
@click.argument("names", metavar="[SNAPSHOT...]", nargs=-1, type=SNAPSHOT)
@copying.copy_options
def command(settings: Settings, *, names: tuple[str, ...], dry_run: bool, no_pins: bool, **given: Any) -> int:  # noqa: ANN401 - click's values
    """Copy SNAPSHOTs, or all there are, into another repository: what that one lacks of them, no more.

    A copy keeps paths, times, label, tags, kind, host, user, reason and pin. It has an id of its own and remembers
    whose copy it is: a second run copies nothing. Interrupted, the next run goes on where it was.

    Where the target was made with "init --like" of the source, blocks go over as they are. Otherwise all content is
    read and cut anew, once. Nothing is written in the source.

    What the source has lost to damage is named and marked in the copy, the rest is copied, and the status is 4; so are
    snapshots whose records cannot be read, and all others are copied. Mend the source first where you can: respaldo
    repair.
    """
    from respaldo.api import copy  # start-up time

    with (
        copying.both(settings, given, writes=not dry_run) as (source, target),
        cancelling() as cancel,
        watching(settings.level, display=settings.display) as progress,
    ):
        result = copy(source, target, names, pins=not no_pins, dry_run=dry_run, progress=progress, cancel=cancel)
    settings.report(copying.fields(result, dry_run=dry_run), copying.text(result, dry_run=dry_run))
    return copying.status(result)
