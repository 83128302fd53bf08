"""Measures looking into many snapshots: find, history, diff, dump and export, beside a restore and restic's find.

Makes snapshots of the Linux source (or of ``--tree``), in each of which some hundred files, drawn from all directories,
are a line longer. The first `find` is measured on the client that made the snapshots, with what they noted for it;
`find` and `history` then with nothing remembered of names (what else a client keeps is there), then again. Each step is
one command from its start to its end, the passphrase included; the median of the runs. The restore and the export of
one out of a hundred stand beside those from a repository that holds the same snapshot alone.

A hundred snapshots take minutes to make: with ``--keep`` they stay in a directory, and the next run takes those.

python -m benches.looking [--tree DIR] [--snapshots 100] [--changes 300] [--runs 3] [--tools respaldo,restic]
    [--keep DIR] [--only find,history] [--quick]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benches.data import Linux
from benches.main import MEMORY
from benches.measure import Command, CommandFailed, Usage, run
from benches.tools import Respaldo, Restic, Tool, Unavailable

RARE, COMMON = "main.c", "Makefile"


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """Is one step by one tool, the medians of its runs."""

    step: str
    tool: str
    wall_s: float
    cpu_s: float
    anonymous_bytes: int
    resident_bytes: int


class Scene:
    """Is a tree, and the tools that back it up each time it has changed."""

    def __init__(self, tree: Path, tools: Sequence[Tool], changes: int) -> None:
        self.tree = tree
        self.tools = tools
        self._files = sorted(path for path in tree.rglob("*") if path.is_file() and not path.is_symlink())
        self._changes = min(changes, len(self._files))
        self._random = random.Random(1)

    def fill(self, snapshots: int) -> None:
        """Makes the snapshots."""
        for tool in self.tools:
            tool.folder.mkdir(parents=True)
            run(tool.init())
        for number in range(snapshots):
            for path in self._random.sample(self._files, self._changes) if number else ():
                with path.open("a", encoding="ascii") as file:
                    file.write(f"/* {number} */\n")
            for tool in self.tools:
                run(tool.backup(self.tree, number))
            if number % 10 == 9 or number + 1 == snapshots:
                print(f"  {number + 1} of {snapshots} snapshots", flush=True)

    def one_file(self) -> Path:
        """Returns the file of which the history is asked: the one in the middle of the deepest."""
        depth = max(len(path.parts) for path in self._files)
        deep = [path for path in self._files if len(path.parts) >= depth - 2]
        return deep[len(deep) // 2]


def steps(scene: Scene, tool: Respaldo, scratch: Path) -> Iterator[tuple[str, Command, Callable[[], None]]]:
    """Yields each step, its command, and what is to be done before it."""

    def nothing() -> None: ...

    def forget_names() -> None:
        for register in tool.folder.glob("cache/respaldo/*/register"):
            shutil.rmtree(register)

    # What the snapshots left of caches, before anything was asked; a kept scene was asked before.
    caches, left = tool.folder / "cache", scratch / "caches"
    if not left.exists():
        shutil.copytree(caches, left)

    def as_snapshots_left_it() -> None:
        forget_all()
        shutil.copytree(left, caches)

    def forget_all() -> None:
        shutil.rmtree(caches, ignore_errors=True)

    def forget_target() -> None:
        shutil.rmtree(scratch / "target", ignore_errors=True)

    program = Path(sys.executable).with_name("respaldo")
    one = scene.one_file()
    listed = subprocess.run(
        [program, "snapshots", "--json"],
        env=os.environ | tool.environment,
        capture_output=True,
        check=True,
        text=True,
    )
    first = json.loads(listed.stdout)["snapshots"][0]["id"]
    yield "snapshots (opening, listing)", tool.command(program, "snapshots", "-q"), nothing
    label = f"find {RARE}, the first on the client that made them"
    yield label, tool.command(program, "find", RARE), as_snapshots_left_it
    yield f"find {RARE}, a client that never saw them", tool.command(program, "find", RARE), forget_all
    yield "history, names not remembered", tool.command(program, "history", one), forget_names
    yield f"find {RARE}, names not remembered", tool.command(program, "find", RARE), forget_names
    yield f"find {RARE}", tool.command(program, "find", RARE), nothing
    yield f"find {COMMON}", tool.command(program, "find", COMMON), nothing
    yield "find '*.c'", tool.command(program, "find", "*.c"), nothing
    yield "find '*.c' --json", tool.command(program, "find", "*.c", "--json"), nothing
    yield "find '*'", tool.command(program, "find", "*"), nothing
    yield "history", tool.command(program, "history", one), nothing
    yield "diff, first and last", tool.command(program, "diff", first, "latest"), nothing
    yield "ls -R, all of the newest", tool.command(program, "ls", "-R", "latest"), nothing
    yield "stats", tool.command(program, "stats"), nothing
    yield "dump of a file", tool.command(program, "dump", f"latest:{one}"), nothing
    whole = f"latest:{scene.tree}"
    yield "export to tar", tool.command(program, "export", whole, "-f", "tar", "-o", "-"), nothing
    yield "export to tar.zst", tool.command(program, "export", whole, "-f", "tar.zst", "-o", "-"), nothing
    yield "restore", tool.command(program, "restore", "-q", whole, scratch / "target"), forget_target


def steps_alone(scene: Scene, alone: Respaldo, scratch: Path) -> Iterator[tuple[str, Command, Callable[[], None]]]:
    """Yields what is measured of a repository with the newest snapshot alone, and makes it when it is needed."""

    def stored() -> None:
        if not alone.folder.exists():
            alone.folder.mkdir(parents=True)
            run(alone.init())
            run(alone.backup(scene.tree, 0))

    def stored_and_nothing_restored() -> None:
        stored()
        shutil.rmtree(scratch / "target", ignore_errors=True)

    program = Path(sys.executable).with_name("respaldo")
    export = ("export", f"latest:{scene.tree}", "-f", "tar", "-o", "-")
    yield "export to tar, where there is no other snapshot", alone.command(program, *export), stored
    command = alone.restore(scene.tree, 0, scratch / "target")
    yield "restore, where there is no other snapshot", command, stored_and_nothing_restored


def restic_steps(tool: Restic) -> Iterator[tuple[str, Command, Callable[[], None]]]:
    """Yields restic's."""
    for pattern in (RARE, COMMON):
        yield f"find {pattern}", tool.find(pattern), lambda: None


def measure(
    found: Sequence[tuple[str, Command, Callable[[], None]]], tool: str, runs: int, troubles: list[str]
) -> list[Looked]:
    """Runs every step so many times."""
    looked = []
    for step, command, prepare in found:
        usages: list[Usage] = []
        for _ in range(runs):
            prepare()
            try:
                usages.append(run(command))
            except CommandFailed as error:
                troubles.append(f"{tool}, {step}: {error}")
                break
        if usages:
            looked.append(
                Looked(
                    step=step,
                    tool=tool,
                    wall_s=statistics.median(usage.wall_s for usage in usages),
                    cpu_s=statistics.median(usage.cpu_s for usage in usages),
                    anonymous_bytes=max(usage.anonymous_bytes or 0 for usage in usages),
                    resident_bytes=max(usage.resident_bytes or 0 for usage in usages),
                )
            )
            print(f"  {tool}: {step}: {looked[-1].wall_s:.2f} s, {looked[-1].cpu_s:.2f} CPU s", flush=True)
    return looked


def show(console: Console, looked: Sequence[Looked], title: str) -> None:
    """Prints a table."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for name in ("step", "tool"):
        table.add_column(name, no_wrap=True)
    for name in ("wall s", "CPU s", "anon MB", "RSS MB"):
        table.add_column(name, justify="right")
    for step in dict.fromkeys(item.step for item in looked):
        for item in (item for item in looked if item.step == step):
            memory = (f"{item.anonymous_bytes / 1e6:.1f}", f"{item.resident_bytes / 1e6:.1f}")
            table.add_row(step, item.tool, f"{item.wall_s:.2f}", f"{item.cpu_s:.2f}", *memory)
    console.print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; returns the exit status."""
    options = parse(arguments)
    console = Console(width=None if sys.stdout.isatty() else 120)
    troubles: list[str] = []
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(_place(options.keep))
        respaldo, restic = Respaldo(scratch / "respaldo"), Restic(scratch / "restic")
        tools: list[Tool] = [respaldo]
        if "restic" in options.tools:
            try:
                restic.version()
                tools.append(restic)
            except Unavailable as error:
                console.print(f"[red]restic: {error}[/red]")
        try:
            scene = made(scratch, tools, options)
        except Unavailable as error:
            console.print(f"[red]{error}[/red]")
            return 1
        every = [*steps(scene, respaldo, scratch), *steps_alone(scene, Respaldo(scratch / "alone"), scratch)]
        chosen = [step for step in every if step[0].startswith(options.only)]
        looked = measure(chosen, respaldo.name, options.runs, troubles)
        if restic in tools:
            looked += measure(list(restic_steps(restic)), restic.name, options.runs, troubles)
    show(console, looked, f"{options.snapshots} snapshots, {options.changes} files changed in each")
    document = {"snapshots": options.snapshots, "changes": options.changes, "looked": [asdict(item) for item in looked]}
    options.json.write_text(json.dumps({**document, "troubles": troubles}, indent=1) + "\n", "utf-8")
    for trouble in troubles:
        console.print(f"[red]{trouble}[/red]")
    console.print(f"written: {options.json}")
    return bool(troubles)


@contextlib.contextmanager
def _place(kept: Path | None) -> Iterator[Path]:
    """Gives the directory to work in: one that stays, or one in memory that does not."""
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="respaldo-looking-", dir=MEMORY if MEMORY.is_dir() else None) as name:
        yield Path(name)


def made(scratch: Path, tools: Sequence[Tool], options: argparse.Namespace) -> Scene:
    """Returns a scene with its snapshots: the one that was kept there, or a new one; raises `Unavailable`."""
    about = [options.snapshots, options.changes, options.quick, sorted(tool.name for tool in tools)]
    note = scratch / "made.json"
    data = Linux(scratch, quick=options.quick, trees=(options.tree, options.tree) if options.tree else ())
    if note.exists():
        if json.loads(note.read_text("utf-8")) != about:
            raise Unavailable(f"{scratch} holds other snapshots than these; name another directory, or remove it")
        return Scene(data.live, tools, options.changes)
    if any(scratch.iterdir()):
        raise Unavailable(f"{scratch} is neither empty nor what a run before has finished making; remove it")
    data.make()
    shutil.rmtree(data.other, ignore_errors=True)
    scene = Scene(data.live, tools, options.changes)
    scene.fill(options.snapshots)
    note.write_text(json.dumps(about), "utf-8")
    return scene


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Returns the options."""
    parser = argparse.ArgumentParser(
        prog="benches.looking", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tree", type=Path, help="a tree to take instead of the Linux source; it is copied")
    parser.add_argument("--snapshots", type=int, default=100)
    parser.add_argument("--changes", type=int, default=300, help="how many files are changed between two snapshots")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--tools", default="respaldo,restic", type=lambda text: text.split(","))
    parser.add_argument("--quick", action="store_true", help="a part of the source, ten snapshots, once")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="make them there, or take those that are there")
    parser.add_argument(
        "--only",
        default=("",),
        type=lambda text: tuple(text.split(",")),
        help="steps whose names begin with one of these",
    )
    parser.add_argument("--json", type=Path, default=Path("looking.json"))
    options = parser.parse_args(arguments)
    if options.quick:
        options.snapshots, options.runs = min(options.snapshots, 10), 1
    return options


if __name__ == "__main__":
    # Gigabytes of memory would stay taken: a kill, too, has to leave through the context managers.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    sys.exit(main())
