"""Measures how cost grows: with files, bytes, chunks and snapshots, at 1, 4 and 16 times as many; cold; far away.

Growth counts CPU seconds and the peak of anonymous memory, of the whole command, which opens the repository with a
key; memory may grow by a fifth from 1 to 16 times, else the status is 1 (with ``--quick`` it is shown and not judged:
so little data does not fill the buffers). ``cold`` measures on a disk whose pages were dropped, ``latency`` counts the
calls to a storage that answers each after 20 ms.

python -m benches.growth [--quick] [--only files,bytes,chunks,snapshots,cold,latency] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benches.course import compare
from benches.main import MEMORY
from benches.measure import CommandFailed, run
from benches.slow import measure_cold, measure_latency
from benches.tools import PASSPHRASE, Respaldo
from respaldo import api
from respaldo.core.seams import Cancel, Silent

FACTORS = (1, 4, 16)
STEPS = ("fresh", "again", "restore")
MEMORY_GROWTH = 1.2
KEY = bytes(range(32))
MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Grown:
    """Is one step at one size of one axis."""

    axis: str
    count: int
    factor: int
    step: str
    cpu_s: float
    wall_s: float
    anonymous_bytes: int
    resident_bytes: int


def fill_files(folder: Path, count: int, seed: int) -> None:
    """Makes files of 4 KiB, 50 in a directory, each of other bytes."""
    source = random.Random(seed)
    for number in range(count):
        parent = folder / f"{number // 5000:03}" / f"{number // 50:06}"
        if number % 50 == 0:
            parent.mkdir(parents=True, exist_ok=True)
        (parent / f"{number:07}").write_bytes(source.randbytes(4096))


def fill_bytes(folder: Path, count: int, seed: int) -> None:
    """Makes one file of so many MiB that do not compress."""
    source = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "big").open("wb") as file:
        for _ in range(count):
            file.write(source.randbytes(MIB))


class Axis:
    """Measures a backup, the same again and a restore, at several sizes of one thing while the rest stays the same."""

    def __init__(self, name: str, base: int, scratch: Path) -> None:
        self.name = name
        self.base = base
        self._scratch = scratch

    def measure(self) -> Iterator[Grown]:
        for factor in FACTORS:
            folder = self._scratch / f"{self.name}-{factor}"
            try:
                yield from self._one(folder, factor)
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def _one(self, folder: Path, factor: int) -> Iterator[Grown]:
        source, target = folder / "source", folder / "target"
        tool = Respaldo(folder / "tool")
        tool.folder.mkdir(parents=True)
        open_by_key(tool)
        count = self.base * factor
        if self.name == "bytes":
            fill_bytes(source, count, 1)
        else:
            fill_files(source, count if self.name == "files" else 2000, 1)
        if self.name == "chunks":
            fill_files(folder / "before", count, 2)
            run(tool.backup(folder / "before", 0))
            shutil.rmtree(folder / "before")
        elif self.name == "snapshots":
            many_snapshots(tool, folder / "small", count)
        # Files whose times are those of the run itself are read again the next time.
        time.sleep(3)
        for step in STEPS:
            command = tool.restore(source, 0, target) if step == "restore" else tool.backup(source, 0)
            usage = run(command)
            yield Grown(
                axis=self.name,
                count=count,
                factor=factor,
                step=step,
                cpu_s=usage.cpu_s,
                wall_s=usage.wall_s,
                anonymous_bytes=usage.anonymous_bytes or 0,
                resident_bytes=usage.resident_bytes or 0,
            )
        differences = compare(f"{source}/", f"{target}/")
        if differences:
            raise CommandFailed(f"{self.name} × {factor}: what came back differs: {differences}")


def open_by_key(tool: Respaldo) -> None:
    """Makes a repository that opens with a key: the 64 MiB that a passphrase takes would hide what the rest takes."""
    key = tool.folder / "key"
    run(tool.init())
    places = places_of(tool)
    passphrase = api.Secret(passphrase=PASSPHRASE.encode())
    with api.open_repository(str(tool.repository), passphrase, places=places, writes=True) as repository:
        repository.slots.add(api.Secret(key=KEY))
    key.write_bytes(KEY)
    key.chmod(0o600)
    del tool.environment["RESPALDO_PASSWORD"]
    tool.environment["RESPALDO_KEY_FILE"] = str(key)


def places_of(tool: Respaldo) -> api.Places:
    """Returns where the command line of this tool keeps its caches and pins."""
    return api.Places(
        cache_dir=Path(tool.environment["XDG_CACHE_HOME"]) / "respaldo",
        state_dir=Path(tool.environment["XDG_STATE_HOME"]) / "respaldo",
    )


def many_snapshots(tool: Respaldo, source: Path, count: int) -> None:
    """Makes snapshots of a directory in which one small file is another each time."""
    source.mkdir()
    places = places_of(tool)
    secret = api.Secret(key=KEY)
    with api.open_repository(str(tool.repository), secret, places=places, writes=True) as repository:
        for number in range(count):
            (source / "file").write_text(f"{number}\n")
            repository.backup([os.fsencode(source)], api.BackupOptions(), progress=Silent(), cancel=Cancel())


def show(console: Console, grown: Sequence[Grown]) -> list[str]:
    """Prints a table, a row for each step; returns where memory grew by more than it may."""
    table = Table(title="growth at 1, 4 and 16 ×", title_justify="left", title_style="bold")
    for name in ("of", "step"):
        table.add_column(name)
    for factor in FACTORS:
        table.add_column(f"CPU s {factor} ×", justify="right")
    for factor in FACTORS:
        table.add_column(f"anon MB {factor} ×", justify="right")
    table.add_column("memory ×", justify="right")
    too_much = []
    for axis in dict.fromkeys(item.axis for item in grown):
        for step in STEPS:
            row = [item for item in grown if item.axis == axis and item.step == step]
            if len(row) < len(FACTORS):
                continue
            growth = row[-1].anonymous_bytes / max(row[0].anonymous_bytes, 1)
            if growth > MEMORY_GROWTH:
                too_much.append(f"{axis}, {step}: memory grew {growth:.2f} ×")
            table.add_row(
                f"{row[0].count:,} {axis}{' (MiB)' if axis == 'bytes' else ''}" if step == STEPS[0] else "",
                step,
                *(f"{item.cpu_s:.2f}" for item in row),
                *(f"{item.anonymous_bytes / 1e6:.1f}" for item in row),
                f"{growth:.2f}",
                end_section=step == STEPS[-1],
            )
    console.print(table)
    return too_much


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; returns the exit status."""
    bases = {"files": 5000, "bytes": 96, "chunks": 20_000, "snapshots": 25}
    quick_bases = {"files": 1000, "bytes": 24, "chunks": 2000, "snapshots": 5}
    parser = argparse.ArgumentParser(
        prog="benches.growth", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join([*bases, "cold", "latency"]))
    parser.add_argument("--quick", action="store_true", help="a fifth of everything: shows that it works, no more")
    parser.add_argument("--disk", type=Path, help="a directory on a disk, for the cold cache (the user's cache)")
    parser.add_argument("--json", type=Path, default=Path("growth.json"))
    options = parser.parse_args(arguments)
    wanted = options.only.split(",")
    if unknown := set(wanted) - {*bases, "cold", "latency"}:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    console = Console(width=None if sys.stdout.isatty() else 120)
    grown: list[Grown] = []
    troubles: list[str] = []
    document: dict[str, object] = {}
    with tempfile.TemporaryDirectory(prefix="respaldo-growth-", dir=MEMORY if MEMORY.is_dir() else None) as name:
        for axis, base in (quick_bases if options.quick else bases).items():
            if axis in wanted:
                troubles += attempt(axis, lambda a=axis, b=base: grown.extend(Axis(a, b, Path(name)).measure()))
        if grown:
            too_much = show(console, grown)
            troubles += [] if options.quick else too_much
        document["growth"] = [asdict(item) for item in grown]
        files = 2000 if options.quick else 20_000
        if "latency" in wanted:
            troubles += attempt(
                "latency",
                lambda: document.update(
                    latency=measure_latency(console, Path(name), lambda at: fill_files(at, files, 3))
                ),
            )
    if "cold" in wanted:
        troubles += attempt(
            "cold",
            lambda: document.update(cold=measure_cold(console, options.disk, lambda at: fill_files(at, files, 4))),
        )
    document["troubles"] = troubles
    options.json.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    for trouble in troubles:
        console.print(f"[red]{trouble}[/red]")
    console.print(f"written: {options.json}")
    return bool(troubles)


def attempt(name: str, work: Callable[[], None]) -> list[str]:
    """Does one part; returns what went wrong in it, so that the others are measured all the same."""
    print(f"{name} …", flush=True)
    try:
        work()
    except (CommandFailed, OSError) as error:
        return [f"{name}: {error}"]
    return []


if __name__ == "__main__":
    # Gigabytes of memory would stay taken: a kill, too, has to leave through the context managers.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    sys.exit(main())
