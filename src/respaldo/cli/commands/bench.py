"""`respaldo bench`: measures a repository on this machine."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from respaldo.cli import show
from respaldo.cli.pages import page
from respaldo.cli.progress import watching
from respaldo.cli.settings import Settings
from respaldo.cli.signals import cancelling
from respaldo.cli.values import SIZE

if TYPE_CHECKING:
    from respaldo.api import Bench, Found, Repository, Stage

_IN_MEMORY = "/dev/shm"  # noqa: S108 - asked for: a disk's speed is not what is measured
_MARGIN = 3
"""Room is needed for what is restored and for a repository of it; and nobody likes a full memory."""


@page(
    "bench",
    examples=(
        ("How fast are backup, restore and verification here:", "respaldo bench -r /mnt/disk/backup"),
        ("Restoring to the disk that counts:", "respaldo bench --directory /mnt/newdisk"),
        ("The stages alone, with a bigger sample:", "respaldo bench --no-runs --sample 512MiB"),
        (
            "The speed of a restore, for a report:",
            "respaldo bench --json | jq '.runs[] | select(.name == \"restore\")'",
        ),
    ),
    notes=(
        "sample_bytes, own_data (false where the repository is empty and the sample is made up), stages and runs: "
        "lists of name, bytes, duration_s, bytes_per_s. skipped: why there are no runs."
    ),
)
@click.option("--sample", type=SIZE, default="64MiB", show_default=True, metavar="SIZE", help="Size of the sample.")
@click.option(
    "--directory",
    metavar="DIRECTORY",
    type=click.Path(exists=True, file_okay=False),
    help="Restore to a directory below this one (else in memory, where there is room). It is removed again.",
)
@click.option("--no-runs", is_flag=True, help="Measure stages only.")
def command(settings: Settings, *, sample: int, directory: str | None, no_runs: bool) -> int:
    """Measure each stage alone, on one thread, with the repository's own content; then whole runs.

    Runs: a part of the repository is verified; the newest snapshot is restored; what was restored is backed up twice
    into a repository that is thrown away. Caches of the system are as they are: read the second result.
    """
    from respaldo import api  # start-up time

    runs: list[Stage] = []
    skipped = "not asked for" if no_runs else ""
    with (
        settings.open() as repository,
        cancelling() as cancel,
        watching(settings.level, display=settings.display) as progress,
    ):
        bench = repository.bench(sample_bytes=sample, cancel=cancel)
        found, place = None, None
        if not no_runs:
            found, place, skipped = _prepare(repository, directory)
        if found is not None and place is not None:
            runs.append(api.try_verify(repository, length_bytes=sample, progress=progress, cancel=cancel))
            with tempfile.TemporaryDirectory(prefix="respaldo-bench-", dir=place) as folder:
                runs += api.try_runs(repository, found, Path(folder), progress=progress, cancel=cancel)
                _make_removable(folder)
    value = {
        "sample_bytes": bench.sample_bytes,
        "own_data": bench.own_data,
        "stages": [_fields(stage) for stage in bench.stages],
        "runs": [_fields(stage) for stage in runs],
        "skipped": skipped or None,
    }
    settings.report(value, _text(bench, runs, skipped))
    return 0


def _prepare(repository: Repository, directory: str | None) -> tuple[Found | None, str | None, str]:
    """Returns what to restore and where; or why not."""
    if not repository.snapshots().snapshots:
        return None, None, "there is no snapshot yet"
    found = repository.find("latest")
    need = found.snapshot.manifest.figures.length_bytes * _MARGIN
    for place in [directory] if directory else [_IN_MEMORY, tempfile.gettempdir()]:
        if os.path.isdir(place) and os.access(place, os.W_OK) and shutil.disk_usage(place).free > need:
            return found, place, ""
    return None, None, f"no place with {show.size(need)} free; name one with --directory"


def _make_removable(folder: str) -> None:
    """Opens up directories whose restored modes would keep them from being removed."""
    for top, _, _ in os.walk(folder):
        os.chmod(top, 0o700)


def _fields(stage: Stage) -> dict[str, object]:
    return {
        "name": stage.name,
        "bytes": stage.length_bytes,
        "duration_s": stage.duration_ns / 1e9,
        "bytes_per_s": show.per_second(stage.length_bytes, stage.duration_ns),
    }


def _rows(stages: Sequence[Stage]) -> list[tuple[str, str, str, str]]:
    return [
        (
            stage.name,
            show.rate(stage.length_bytes, stage.duration_ns),
            show.size(stage.length_bytes),
            show.duration(stage.duration_ns),
        )
        for stage in stages
    ]


def _text(bench: Bench, runs: Sequence[Stage], skipped: str) -> str:
    whose = "of this repository" if bench.own_data else "made up, because the repository is empty"
    right = (1, 2, 3)
    lines = [
        f"stages, one thread, {show.size(bench.sample_bytes)} {whose}",
        show.table(("STAGE", "SPEED", "BYTES", "TIME"), _rows(bench.stages), right=right),
        "",
    ]
    if runs:
        lines.append(show.table(("RUN", "SPEED", "BYTES", "TIME"), _rows(runs), right=right))
    else:
        lines.append(f"no runs: {skipped}")
    return "\n".join(lines)
