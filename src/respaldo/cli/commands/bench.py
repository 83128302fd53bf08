"""`respaldo bench`: measures a repository on this machine."""

from __future__ import annotations

import os
import tempfile
import time
from typing import TYPE_CHECKING

import click

from respaldo.cli import show
from respaldo.cli.names import SNAPSHOT, host_option
from respaldo.cli.pages import page
from respaldo.cli.progress import watching
from respaldo.cli.settings import Settings
from respaldo.cli.signals import cancelling
from respaldo.cli.values import SIZE
from respaldo.core.errors import UsageError

if TYPE_CHECKING:
    from respaldo.api import Bench

_QUICK = {"size_bytes": 32 << 20, "sample_bytes": 16 << 20, "files": 8}
_LASTING = "/var/tmp"  # noqa: S108 - a disk, where /tmp is memory; a directory of our own is made in it
_DAMAGED = 4


@page(
    "bench",
    examples=(
        ("How fast are backup, restore and verification here, in a minute or two:", "respaldo bench"),
        ("Some seconds:", "respaldo bench --quick"),
        ("Restoring to the disk that counts, a part that counts:", "respaldo bench latest:/srv --directory /mnt/new"),
        (
            "Before and after a change of the machine:",
            "respaldo bench --json > before.json   # and then: respaldo bench --compare before.json",
        ),
        ("A picture for a report:", "respaldo bench --chart bench.svg"),
        (
            "The speed of a restore, for a monitor:",
            "respaldo bench --quick --json | jq '.runs[] | select(.name == \"restore\").bytes_per_s'",
        ),
    ),
    notes=(
        "respaldo, cpus, machine, snapshot, place and place_beside (where was written), size_bytes, sample_bytes, "
        "own_data (false where the sample is made up). disk, restoring, storing, runs: lists of name, bytes, "
        "duration_s, bytes_per_s; stages have share and of_disk beside it, runs files, cpu_s and of_disk. opening_s, "
        "first_byte (files, median_s, worst_s), damaged, skipped (why no snapshot was restored). With --compare: "
        "compared, a list of name, then, now (waits: then_s, now_s) and faster, and unlike, what was not the same then."
    ),
)
@click.argument("name", metavar="[SNAPSHOT[:PATH]]", type=SNAPSHOT, default="latest")
@click.option("--quick", is_flag=True, help="Measure less: 32 MiB instead of 256, 8 files instead of 32.")
@click.option("--size", type=SIZE, metavar="SIZE", help="Restore, verify and back up at most so much (256MiB).")
@click.option("--sample", type=SIZE, metavar="SIZE", help="So much of the repository goes through each stage (64MiB).")
@click.option(
    "--directory",
    metavar="DIRECTORY",
    type=click.Path(exists=True, file_okay=False),
    help="Restore to a directory below this one, which is removed again (else where temporary files lie).",
)
@click.option("--no-runs", is_flag=True, help="Measure the disk and the stages only.")
@click.option(
    "--compare",
    "earlier",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="Show the speeds beside those of an earlier --json.",
)
@click.option("--chart", metavar="FILE", type=click.Path(dir_okay=False), help="Draw a chart into a new file, as SVG.")
@host_option
def command(
    settings: Settings,
    *,
    name: str,
    quick: bool,
    size: int | None,
    sample: int | None,
    directory: str | None,
    no_runs: bool,
    earlier: str | None,
    chart: str | None,
    host: str,
) -> int:
    """Measure how fast this repository is on this machine: disk, stages, whole runs, the wait for a first byte.

    The disk in sequence; each stage of restoring and storing alone, with the repository's own content; then whole runs:
    files one by one, a snapshot or so much of it as --size allows, a verification, and made-up data backed up twice
    into a scratch repository beside this one, on the same disk where that can be. Packs are read from the disk, not
    from memory, and what is written counts until it is on the disk.

    Nothing is written to the repository. Room is looked for first; scratch directories are removed whatever happens.
    """
    from respaldo.api import BenchOptions  # start-up time
    from respaldo.cli import speeds  # start-up time

    before = speeds.read_earlier(earlier) if earlier else None
    if chart is not None:
        _check_chart(chart)
    chosen = dict(_QUICK) if quick else {}
    chosen |= {key: value for key, value in (("size_bytes", size), ("sample_bytes", sample)) if value is not None}
    options = BenchOptions(
        name=name,
        host=host,
        places=(os.path.abspath(directory),) if directory else (tempfile.gettempdir(), _LASTING),
        runs=not no_runs,
        **chosen,
    )
    secret = settings.secret()  # nobody's typing is measured
    started_ns = time.monotonic_ns()
    with settings.open(secret=secret) as repository:
        repository.snapshots()
        opening_ns = time.monotonic_ns() - started_ns
        with cancelling() as cancel, watching(settings.level, display=settings.display) as progress:
            bench = repository.bench(options, progress=progress, cancel=cancel)
    value = speeds.as_json(bench, options, opening_ns)
    text = speeds.as_text(bench, value)
    if before is not None:
        compared, differs = speeds.compare(before, value), speeds.unlike(before, value)
        text += "\n" + speeds.compared_text(compared, differs)
        value |= {"compared": compared, "unlike": differs}
    if chart is not None:
        _draw(chart, bench)
    settings.report(value, text)
    if bench.damaged:
        show.err(f"warning: {show.count(bench.damaged, 'thing')} turned out damaged; see: respaldo verify --read-data")
        return _DAMAGED
    return 0


def _check_chart(path: str) -> None:
    """Raises `UsageError` where no new file can be made: before minutes are spent on what is to be drawn."""
    if os.path.lexists(path):
        raise UsageError(f"{show.shown(path)} exists already", hint="name a new file for the chart")
    folder = os.path.dirname(os.path.abspath(path))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"no file can be made in {show.shown(folder)}", hint="name another directory for the chart")


def _draw(path: str, bench: Bench) -> None:
    from respaldo.cli.chart import draw  # start-up time

    title = f"respaldo bench: {show.size(bench.sample_bytes)} through each stage"
    with open(path, "x", encoding="utf-8") as file:
        file.write(draw(bench, title))
