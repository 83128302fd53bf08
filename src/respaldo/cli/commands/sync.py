"""`respaldo sync`: brings everything that another repository lacks."""

from __future__ import annotations

from typing import Any

import click

from respaldo.cli import copying, show
from respaldo.cli.pages import page
from respaldo.cli.progress import watching
from respaldo.cli.settings import Settings
from respaldo.cli.signals import cancelling
from respaldo.cli.values import SPAN
from respaldo.core.errors import UsageError


@page(
    "sync",
    statuses=(4,),
    examples=(
        ("Everything onto a second disk, nightly:", "respaldo sync --to /mnt/second/backup -q"),
        (
            "And forget there what was forgotten here; for a month it can be undone:",
            "respaldo sync --to /mnt/second/backup --delete --grace 30d",
        ),
        ("What a client has stored in its area:", "respaldo sync --client web-1 --to /mnt/second/backup"),
        ("What that would do:", "respaldo sync --to /mnt/second/backup --delete --dry-run"),
    ),
    notes=copying.NOTES + "; extra, deleted, pinned: ids in the target; refused: "
    "why nothing was forgotten there, or null.",
)
@copying.copy_options
@click.option(
    "--delete",
    is_flag=True,
    help="Forget in the target what came from the source and is not there any more, but what is pinned in the target.",
)
@click.option(
    "--grace", type=SPAN, default=0, metavar="SPAN", help="With --delete: so long, undo brings it back (30d)."
)
def command(
    settings: Settings,
    *,
    delete: bool,
    grace: int,
    dry_run: bool,
    no_pins: bool,
    **given: Any,  # noqa: ANN401 - click's values
) -> int:
    """Copy all snapshots that another repository lacks, and say what it has that is not here any more.

    Works as "copy" does. What is extra in the target stays there unless --delete says otherwise: then it is forgotten
    as "forget" does it, never a pinned one, and nothing at all where the source is damaged, empty, or could not be
    copied whole. Snapshots that were made in the target, or came from elsewhere, are never touched.
    """
    from respaldo.api import sync  # start-up time

    if grace and not delete:
        raise UsageError("--grace says for how long --delete can be undone; it needs --delete")
    with (
        copying.both(settings, given, writes=not dry_run) as (source, target),
        cancelling() as cancel,
        watching(settings.level, display=settings.display) as progress,
    ):
        result = sync(
            source,
            target,
            pins=not no_pins,
            delete=delete,
            grace_ns=grace,
            dry_run=dry_run,
            progress=progress,
            cancel=cancel,
        )
        clients = source.clients.present()
    fields = copying.fields(result.copy, dry_run=dry_run)
    fields |= {
        "extra": [item.hex for item in result.extra],
        "deleted": [item.hex for item in result.deleted],
        "pinned": [item.hex for item in result.pinned],
        "refused": str(result.refused) if result.refused else None,
    }
    lines = [copying.text(result.copy, dry_run=dry_run)]
    if result.deleted:
        ids = ", ".join(item.hex[:8] for item in result.deleted)
        lines.append(
            f"{'would forget' if dry_run else 'forgot'} {show.count(len(result.deleted), 'extra snapshot')}: {ids}"
        )
    staying = [item for item in result.extra if item not in result.deleted]
    if staying:
        ids = ", ".join(item.hex[:8] for item in staying)
        why = "pinned there" if result.pinned else "they stay" if result.refused else "--delete forgets them"
        lines.append(f"extra in the target: {ids} ({why})")
    settings.report(fields, "\n".join(lines))
    if clients and settings.level >= 0:
        show.err(
            f"note: what clients stored in areas of their own ({', '.join(clients)}) is copied apart: "
            "respaldo sync --client NAME"
        )
    if result.refused is None:
        return copying.status(result.copy)
    show.err(f"error: {result.refused}\nhint: {result.refused.hint}")
    return copying.status(result.copy) or result.refused.exit_status
