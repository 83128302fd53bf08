"""Measures mounts: `find` over a mounted tree beside the same on the file system, a long file beside its restore.

A tree and a file that does not compress are backed up; then each tool that can mounts its repository, and the tree is
listed twice, the file read in sequence, against a restore of it. Counted are wall-clock time, and CPU seconds of who
asks and of who serves together: on a busy machine those say more. Medians.

python -m benches.mounting TREE [--file-mib N] [--runs N] [--tools respaldo,restic] [--folder DIR] [--json FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benches.measure import CommandFailed, run
from benches.tools import TOOLS, Respaldo, Tool, Unavailable

MIB = 1 << 20
_TICKS = os.sysconf("SC_CLK_TCK")
_MOUNTED_WITHIN_S = 120
_SEARCH = ("-type", "f", "-name", "no such file")


class Taken(NamedTuple):
    """Is what one step took."""

    wall_s: float
    cpu_s: float


class Mount(NamedTuple):
    """Is a mounted repository: the newest snapshot's root, and the process that serves it."""

    top: Path
    pid: int


def cpu_of(pid: int) -> float:
    """Returns the CPU seconds that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def anonymous_bytes(pid: int) -> int:
    """Returns how much memory of its own a process has."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("RssAnon"))) << 10


def timed(words: Sequence[str | Path], pid: int = 0) -> Taken:
    """Runs a command; counts the CPU of a process that serves it, too."""
    served = cpu_of(pid) if pid else 0.0
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(list(map(str, words)), check=True, stdout=subprocess.DEVNULL)
    wall_s, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    served = cpu_of(pid) - served if pid else 0.0
    return Taken(wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime + served)


@contextlib.contextmanager
def mounted(tool: Tool, where: Path) -> Iterator[Mount]:
    """Mounts a tool's repository."""
    where.mkdir(exist_ok=True)
    environment = os.environ | tool.environment
    words = ["mount", "--foreground"] if isinstance(tool, Respaldo) else ["mount"]
    program = Path(sys.executable).with_name("respaldo") if isinstance(tool, Respaldo) else tool.name
    quiet = subprocess.DEVNULL
    process = subprocess.Popen([program, *words, where], env=environment, stdout=quiet, stderr=quiet)
    top = where / "latest" if isinstance(tool, Respaldo) else where / "snapshots" / "latest"
    try:
        until = time.monotonic() + _MOUNTED_WITHIN_S
        while not top.exists():
            if process.poll() is not None or time.monotonic() > until:
                raise CommandFailed(f"{tool.name} mount did not come up")
            time.sleep(0.05)
        yield Mount(top, process.pid)
    finally:
        subprocess.run(["umount", where], check=False, capture_output=True)
        process.terminate()
        process.wait()


def measure(tool: Tool, tree: Path, long: Path, folder: Path, runs: int) -> dict[str, list[Taken] | int]:
    """Backs both up, and takes the figures of one tool."""
    found: dict[str, list[Taken]] = {"find": [], "find again": [], "read": [], "restore": []}
    held = 0
    run(tool.init())
    run(tool.backup(tree, 1))
    with mounted(tool, folder / "mount") as mount:
        subprocess.run(["ls", mount.top], check=True, stdout=subprocess.DEVNULL)
    for _ in range(runs):
        with mounted(tool, folder / "mount") as mount:
            words = ("find", mount.top / str(tree)[1:], *_SEARCH)
            found["find"].append(timed(words, mount.pid))
            found["find again"].append(timed(words, mount.pid))
            held = max(held, anonymous_bytes(mount.pid))
    run(tool.backup(long.parent, 2))
    for number in range(runs):
        with mounted(tool, folder / "mount") as mount:
            words = ("dd", f"if={mount.top / str(long)[1:]}", "of=/dev/null", "bs=1M", "status=none")
            found["read"].append(timed(words, mount.pid))
            held = max(held, anonymous_bytes(mount.pid))
        command = tool.restore(long.parent, 2, folder / f"restored{number}")
        (folder / f"restored{number}").mkdir()
        usage = run(command)
        found["restore"].append(Taken(usage.wall_s, usage.cpu_s))
        subprocess.run(["rm", "-rf", folder / f"restored{number}"], check=True)
    return {**found, "held": held}


def median(taken: Sequence[Taken]) -> Taken:
    """Returns the medians of both figures."""
    return Taken(statistics.median(one.wall_s for one in taken), statistics.median(one.cpu_s for one in taken))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tree", type=Path)
    parser.add_argument("--file-mib", type=int, default=512)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--tools", default="respaldo,restic")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    document: dict[str, object] = {}
    with tempfile.TemporaryDirectory(prefix="respaldo-mounting-", dir=options.folder) as name:
        folder, tree = Path(name), options.tree.absolute()
        long = folder / "long" / "file"
        long.parent.mkdir()
        with long.open("wb") as file:
            for _ in range(options.file_mib):
                file.write(os.urandom(MIB))
        timed(("find", tree, *_SEARCH))
        native = [timed(("find", tree, *_SEARCH)) for _ in range(options.runs)]
        base = median(native)
        document["native"] = {"find": [one._asdict() for one in native]}
        print(f"{'native':10} find        {base.wall_s:7.2f} s {base.cpu_s:7.2f} CPU s")
        for tool_name in options.tools.split(","):
            tool = next(kind for kind in TOOLS if kind.name == tool_name)(folder / tool_name)
            tool.folder.mkdir()
            try:
                print(f"{tool_name}: {tool.version()}")
                found = measure(tool, tree, long, folder, options.runs)
            except (Unavailable, CommandFailed) as error:
                print(f"{tool_name}: {error}")
                continue
            held = found.pop("held")
            document[tool_name] = {step: [one._asdict() for one in taken] for step, taken in found.items()}
            for step, taken in found.items():
                one = median(taken)
                beside = f" {one.cpu_s / base.cpu_s:5.1f} x the CPU of native" if step.startswith("find") else ""
                if not beside:
                    beside = f" {options.file_mib / one.wall_s:5.0f} MiB/s"
                print(f"{tool_name:10} {step:11} {one.wall_s:7.2f} s {one.cpu_s:7.2f} CPU s{beside}")
            print(f"{tool_name:10} {held / MIB:.0f} MiB of memory of its own")
    if options.json:
        options.json.write_text(json.dumps(document, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
