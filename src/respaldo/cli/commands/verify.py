"""`respaldo verify`: checks structure, or everything."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import click

from respaldo.cli import show
from respaldo.cli.areas import NOTE, all_clients_option, for_all, for_all_keyless
from respaldo.cli.pages import page
from respaldo.cli.progress import watching
from respaldo.cli.settings import Settings
from respaldo.cli.signals import cancelling
from respaldo.core.errors import UsageError

if TYPE_CHECKING:
    from respaldo.api import Affected, Damage, KeylessResult, VerifyOptions, VerifyResult

_NEXT = (
    "what to do: a new snapshot of the same sources stores again what they still hold; then respaldo repair mends the "
    "rest, and marks what is lost"
)
_PATHS_SHOWN = 20
_DAMAGES_ARE_IN_THE_REPORT = -2


@page(
    "verify",
    examples=(
        ("Is every piece of every snapshot there (seconds; reads trees, no content):", "respaldo verify"),
        ("Read and check everything, in the areas of all clients too:", "respaldo verify --read-data --all-clients"),
        ("Every night half an hour of it, what was checked longest ago first:", "respaldo verify --subset 30m"),
        ("Everything, and the SHA-256 of really every file:", "respaldo verify --read-data --checksums"),
        ("A seventh every day of the week:", "respaldo verify --subset $(date +%u)/7"),
        ("On the machine that stores it, without any passphrase:", "respaldo verify --keyless -r /srv/backup"),
    ),
    notes=(
        "ok, snapshots, segments, packs, pack_bytes, trees, references, packs_read, read_bytes, chunks, duration_s, "
        "bytes_per_s, notes, damages: a list of name, reason, needed, chunks_lost, chunks_spared, mendable, "
        "affected_count, affected (snapshot, path, below: everything in it); lost_count and lost (the same): what a "
        "repair has marked as lost, and that has not come back; whole: ids of the snapshots of which all was read and "
        "found whole; checksums and checksums_left: of how many contents the SHA-256 was computed, and of how many it "
        "was not. With --keyless: ok, objects, read_bytes, duration_s, "
        f"bytes_per_s, damages. {NOTE}"
    ),
)
@click.option("--read-data", is_flag=True, help="Read all packs, and check every byte and every chunk in them.")
@click.option(
    "--subset",
    default="",
    metavar="PART",
    help="Read a part: 5% of the bytes, 2/7 (the second of seven parts), 10GiB, or 30m (also s, h). What was checked "
    "longest ago comes first.",
)
@click.option(
    "--checksums/--no-checksums",
    default=None,
    help="With --read-data, the SHA-256 of each file that has none yet is computed on the way, for: respaldo "
    "checksums. --checksums: also of the few big files that have to be read once more for it, however many these are; "
    "--no-checksums: of none.",
)
@click.option(
    "--no-record", is_flag=True, help="Do not remember in the repository which snapshots were read and found whole."
)
@all_clients_option
@click.option("--keyless", is_flag=True, help="Check every object's bytes against its hash; needs no passphrase.")
def command(
    settings: Settings,
    *,
    read_data: bool,
    subset: str,
    checksums: bool | None,
    no_record: bool,
    keyless: bool,
    all_clients: bool,
) -> int:
    """Check the repository, and say which files of which snapshots are affected where something is damaged.

    Without options, all that snapshots refer to must be there, and every tree must open. Nothing in the repository is
    changed, but that after --read-data it remembers which snapshots were read and found whole: "snapshots" shows it,
    and "latest:verified" names the newest of them; and the SHA-256 of files, for "checksums". The exit status is 4
    where damage was found.
    """
    from respaldo import api  # start-up time

    if keyless and (read_data or subset):
        raise UsageError("--keyless reads every object; leave out --read-data and --subset")
    if keyless and settings.client:
        raise UsageError(
            "--keyless knows no names of clients", hint="name the area itself, -r …/clients/ID, or take --all-clients"
        )
    if checksums and not read_data:
        raise UsageError("--checksums reads everything: it goes with --read-data")
    if keyless:
        look = partial(_keyless, settings)
        return for_all_keyless(settings, look) if all_clients else look(settings.location())
    options = api.VerifyOptions(
        read_data=read_data,
        subset=api.parse_subset(subset) if subset else None,
        remember=read_data and not no_record,
        checksums=read_data and not no_record and checksums is not False,
        all_checksums=bool(checksums),
    )
    run = partial(_verify, settings, options)
    return for_all(settings, run) if all_clients else run()


def _keyless(settings: Settings, location: str) -> int:
    from respaldo import api  # start-up time

    level = settings.level if settings.verbose else _DAMAGES_ARE_IN_THE_REPORT
    with cancelling() as cancel, watching(level, display=settings.display) as progress:
        checked = api.verify_keyless(location, progress=progress, cancel=cancel)
        duration_ns = progress.elapsed_ns()
    settings.report(_keyless_fields(checked, duration_ns), _keyless_text(checked, duration_ns))
    return checked.exit_status


def _verify(settings: Settings, options: VerifyOptions) -> int:
    level = settings.level if settings.verbose else _DAMAGES_ARE_IN_THE_REPORT
    with (
        settings.open(writes=options.remember or options.all_checksums, reports=True) as repository,
        cancelling() as cancel,
        watching(level, display=settings.display) as progress,
    ):
        result = repository.verify(options, progress=progress, cancel=cancel)
        duration_ns = progress.elapsed_ns()
        repository.snapshots()  # says which of them are gone
        history = repository.history.findings
    settings.report(
        _fields(result, duration_ns) | {"history": list(history)},
        "\n".join((_text(result, duration_ns, complete=options.reads_data), *map(_changed, history))),
    )
    if settings.quiet and not settings.json and result.damages:
        for line in _damages(result.damages):
            show.err(line)
    if history and settings.quiet and not settings.json:
        for finding in history:
            show.err(_changed(finding))
    return 4 if history and not settings.accept_rollback else result.exit_status


def _changed(finding: str) -> str:
    return f"the history is not what it was: {show.shown(finding)}"


def _text(result: VerifyResult, duration_ns: int, *, complete: bool) -> str:
    rows = [
        ("snapshots", f"{show.count(result.snapshots)}, {show.count(result.trees, 'tree')}"),
        ("packs", f"{show.count(result.packs)}, {show.size(result.pack_bytes)}"),
    ]
    if complete:
        part = f"{result.read_bytes * 100 / result.pack_bytes:.1f} %" if result.pack_bytes else "all"
        speed = show.rate(result.read_bytes, duration_ns)
        rows.append(("read", f"{show.size(result.read_bytes)} ({part}), {show.count(result.chunks, 'chunk')}, {speed}"))
    if result.checksums or result.checksums_left:
        left = f", {show.count(result.checksums_left)} left (all: --checksums)" if result.checksums_left else ""
        rows.append(("checksums", f"{show.count(result.checksums)} computed{left}"))
    rows.append(("time", show.duration(duration_ns)))
    lines = [
        show.figures(rows),
        *(f"note: {show.shown(str(note))}" for note in result.notes),
        *_lost(result),
        *_damages(result.damages),
    ]
    return "\n".join(lines)


def _lost(result: VerifyResult) -> list[str]:
    if not result.lost_count:
        return []
    lines = [f"known to be lost, and marked so by a repair: {show.count(result.lost_count, 'path')}"]
    lines += [f"    {_path(item)}" for item in result.lost[:_PATHS_SHOWN]]
    if result.lost_count > _PATHS_SHOWN:
        lines.append(f"    and {show.count(result.lost_count - _PATHS_SHOWN)} more (all of them: --json)")
    return lines


def _damages(damages: Sequence[Damage]) -> list[str]:
    if not damages:
        return ["no damage found"]
    lines = [f"damage found in {show.count(len(damages), 'object')}:"]
    for damage in damages:
        lines.append(f"  {show.shown(str(damage))}")
        lines += [f"    {_path(item)}" for item in damage.affected[:_PATHS_SHOWN]]
        if damage.affected_count > _PATHS_SHOWN:
            lines.append(f"    and {show.count(damage.affected_count - _PATHS_SHOWN)} more (all of them: --json)")
    if any(damage.mendable for damage in damages):
        lines.append("what parity mends is put right by: respaldo parity mend")
    if not all(damage.mendable for damage in damages):
        lines.append(_NEXT)
    return lines


def _path(item: Affected) -> str:
    below = " and everything in it" if item.below else ""
    return f"{item.snapshot.hex()[:8]}:{show.shown(item.path)}{below}"


def _fields(result: VerifyResult, duration_ns: int) -> dict[str, object]:
    return {
        "ok": not result.damages,
        "snapshots": result.snapshots,
        "segments": result.segments,
        "packs": result.packs,
        "pack_bytes": result.pack_bytes,
        "trees": result.trees,
        "references": result.references,
        "packs_read": result.packs_read,
        "read_bytes": result.read_bytes,
        "chunks": result.chunks,
        "duration_s": duration_ns / 1e9,
        "bytes_per_s": show.per_second(result.read_bytes, duration_ns),
        "notes": [{"name": note.name, "text": note.text} for note in result.notes],
        "damages": [_damage_fields(damage) for damage in result.damages],
        "lost_count": result.lost_count,
        "lost": [_affected_fields(item) for item in result.lost],
        "checksums": result.checksums,
        "checksums_left": result.checksums_left,
        "whole": [snapshot.hex() for snapshot, _ in result.whole],
    }


def _affected_fields(item: Affected) -> dict[str, object]:
    return {"snapshot": item.snapshot.hex(), **show.path_fields(item.path), "below": item.below}


def _damage_fields(damage: Damage) -> dict[str, object]:
    return {
        "name": damage.name,
        "reason": damage.reason,
        "needed": damage.needed,
        "chunks_lost": damage.chunks_lost,
        "chunks_spared": damage.chunks_spared,
        "mendable": damage.mendable,
        "affected_count": damage.affected_count,
        "affected": [_affected_fields(item) for item in damage.affected],
    }


def _keyless_text(result: KeylessResult, duration_ns: int) -> str:
    rows = [
        ("objects", f"{show.count(result.objects)}, {show.size(result.read_bytes)}"),
        ("time", f"{show.duration(duration_ns)}, {show.rate(result.read_bytes, duration_ns)}"),
    ]
    return "\n".join((show.figures(rows), *_damages(result.damages)))


def _keyless_fields(result: KeylessResult, duration_ns: int) -> dict[str, object]:
    return {
        "ok": not result.damages,
        "objects": result.objects,
        "read_bytes": result.read_bytes,
        "duration_s": duration_ns / 1e9,
        "bytes_per_s": show.per_second(result.read_bytes, duration_ns),
        "damages": [_damage_fields(damage) for damage in result.damages],
    }
