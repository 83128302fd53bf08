"""`respaldo parity`: switches parity on and off, says how it stands, mends with it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from respaldo.cli import pages, show
from respaldo.cli.areas import NOTE, all_clients_option, for_all_keyless
from respaldo.cli.pages import page
from respaldo.cli.progress import watching
from respaldo.cli.settings import Settings
from respaldo.cli.signals import cancelling

if TYPE_CHECKING:
    from respaldo.api import Mended, MendResult, ParityStatus


@pages.group("parity")
def command() -> None:
    """Keep Reed-Solomon parity of all that is stored, and mend damaged sectors with it.

    With a share of 5%, of each object any sectors of 4 KiB up to 5% of it, in whatever pattern, can be lost and are
    mended without any source. It costs that share of space, and a little more for small objects. It helps against bad
    sectors and flipped bits, not against a disk or a file that is gone: only a second copy does.

    Restores and all other commands that meet damage use it by themselves, in memory, and say so; "parity mend" puts the
    repository right. It needs a library: pip install 'respaldo[parity]'.
    """


@page(
    "on",
    statuses=(4,),
    examples=(
        ("Of the usual share, 5%:", "respaldo parity on"),
        ("Twice as much; what is there is made anew:", "respaldo parity on 10%"),
        ("For a program:", "respaldo parity on 5% --json"),
    ),
    notes="share, made, made_bytes, unsound: names of damaged objects, of which none can be made.",
)
@click.argument("share", default="5%")
def on(settings: Settings, *, share: str) -> int:
    """Keep parity from now on, SHARE of all that is stored, and make it for what is there already.

    All of what is stored is read. Interrupted, it goes on where it was when it is run again; until then, what has none
    is as good as it was.
    """
    from respaldo import api  # start-up time

    wanted = api.parse_share(share)
    with (
        settings.open(writes=True) as repository,
        cancelling() as cancel,
        watching(settings.level, display=settings.display) as progress,
    ):
        done = repository.parity.switch_on(wanted, progress=progress, cancel=cancel)
    value = {"share": done.share / 1000, "made": done.made, "made_bytes": done.made_bytes, "unsound": done.unsound}
    settings.report(
        value,
        f"parity is on: {api.show_share(done.share)}; made {show.size(done.made_bytes)} "
        f"for {show.count(done.made, 'object')}",
    )
    for name in done.unsound:
        show.err(f"error: {show.shown(name)} is damaged: no parity can be made of it. Run: respaldo verify --read-data")
    return done.exit_status


@page(
    "off",
    examples=(
        ("Keep none, and free its space:", "respaldo parity off"),
        ("Of a repository elsewhere:", "respaldo parity off -r /mnt/disk/backup"),
        ("For a program:", "respaldo parity off --json"),
    ),
    notes="share (0), removed: how many objects of parity were deleted.",
)
def off(settings: Settings) -> int:
    """Keep no parity any more, and delete what there is."""
    with settings.open(writes=True) as repository:
        done = repository.parity.switch_off()
    settings.report({"share": 0, "removed": done.removed}, f"parity is off; deleted {done.removed} objects of it")
    return 0


@page(
    "status",
    examples=(
        ("How much there is, and what has none:", "respaldo parity status"),
        ("Of a repository elsewhere:", "respaldo parity status -r /mnt/disk/backup"),
        ("Is anything without:", "respaldo parity status --json | jq '.missing'"),
    ),
    notes=(
        "share (0 where parity is off), library (whether it is installed), objects, object_bytes, sidecars, "
        "sidecar_bytes, missing, missing_bytes, orphans."
    ),
)
def status(settings: Settings) -> int:
    """Say how much parity there is. Nothing is read but listings."""
    with settings.open() as repository:
        found = repository.parity.status()
    settings.report(_status_fields(found), _status_text(found))
    return 0


def _status_fields(found: ParityStatus) -> dict[str, object]:
    return {
        "share": found.share / 1000,
        "library": found.able,
        "objects": found.objects,
        "object_bytes": found.object_bytes,
        "sidecars": found.sidecars,
        "sidecar_bytes": found.sidecar_bytes,
        "missing": found.missing,
        "missing_bytes": found.missing_bytes,
        "orphans": found.orphans,
    }


def _status_text(found: ParityStatus) -> str:
    from respaldo import api  # start-up time

    more = f" ({found.sidecar_bytes * 100 / found.object_bytes:.1f} %)" if found.object_bytes else ""
    rows = [
        ("parity", api.show_share(found.share) if found.share else "off"),
        ("objects", f"{show.count(found.objects)}, {show.size(found.object_bytes)}"),
        ("parity takes", f"{show.size(found.sidecar_bytes)}{more}"),
    ]
    if found.missing:
        rows.append(("without", f"{show.count(found.missing, 'object')}, {show.size(found.missing_bytes)}"))
    if found.orphans:
        rows.append(("left over", f"{show.count(found.orphans, 'object')} of parity; the next prune deletes them"))
    if not found.able:
        rows.append(("library", "missing; install it with: pip install 'respaldo[parity]'"))
    return show.figures(rows)


@page(
    "mend",
    statuses=(4,),
    examples=(
        ("Look first:", "respaldo parity mend --dry-run"),
        ("Mend what can be mended:", "respaldo parity mend"),
        ("On the machine that stores it, without any passphrase:", "respaldo parity mend -r /srv/backup --all-clients"),
    ),
    notes=(
        "ok, dry_run, objects, read_bytes, duration_s, damaged: a list of name, reason, mended, aside (the name of the "
        f"copy of what was damaged). {NOTE}"
    ),
)
@click.option("--dry-run", "-n", is_flag=True, help="Say what is damaged and could be mended; change nothing.")
@all_clients_option
def mend(settings: Settings, *, dry_run: bool, all_clients: bool) -> int:
    """Compare every object with its hash, and replace what is damaged by what its parity gives.

    No passphrase is needed. What was damaged is copied into lost+found first; what is sound is never touched. The exit
    status is 4 where damage is left (with --dry-run: where there is any).

    The areas of clients have parity of their own: with --all-clients they are mended, too, each called by its client's
    id.
    """
    run = partial(_mend, settings, dry_run)
    return for_all_keyless(settings, run) if all_clients else run(settings.location())


def _mend(settings: Settings, dry_run: bool, location: str) -> int:
    from respaldo import api  # start-up time

    with cancelling() as cancel, watching(-2, display=settings.display) as progress:
        done = api.mend_objects(location, dry_run=dry_run, progress=progress, cancel=cancel)
        duration_ns = progress.elapsed_ns()
    settings.report(_mend_fields(done, duration_ns), _mend_text(done, duration_ns))
    if settings.quiet and not settings.json:
        for item in done.damaged:
            show.err(_line(item, dry_run=dry_run))
    return done.exit_status


def _mend_fields(done: MendResult, duration_ns: int) -> dict[str, object]:
    return {
        "ok": not done.exit_status,
        "dry_run": done.dry_run,
        "objects": done.objects,
        "read_bytes": done.read_bytes,
        "duration_s": duration_ns / 1e9,
        "damaged": [
            {"name": item.name, "reason": item.reason, "mended": item.mended, "aside": item.aside or None}
            for item in done.damaged
        ],
    }


def _mend_text(done: MendResult, duration_ns: int) -> str:
    rows = [
        ("objects", f"{show.count(done.objects)}, {show.size(done.read_bytes)}"),
        ("time", f"{show.duration(duration_ns)}, {show.rate(done.read_bytes, duration_ns)}"),
    ]
    lines = [show.figures(rows)]
    if not done.damaged:
        lines.append("no damage found")
    lines += [_line(item, dry_run=done.dry_run) for item in done.damaged]
    if done.left:
        lines.append("see what is affected with: respaldo verify --read-data")
    return "\n".join(lines)


def _line(item: Mended, *, dry_run: bool) -> str:
    name = show.shown(item.name)
    if not item.mended:
        return f"left: {name}: {item.reason}"
    aside = f"; the damaged one is in {item.aside}" if item.aside else ""
    return f"{'would mend' if dry_run else 'mended'}: {name}: {item.reason}{aside}"


for _command in (on, off, status, mend):
    command.add_command(_command)
