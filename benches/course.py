"""The course that every tool goes through on every set of data, beside the physical limits, run by run.

Before each step its limit is measured anew, then the tools, in another order each time: what else the machine does
meanwhile hits all alike. What fails is kept as a failure and said at the end; the others go on.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benches.data import DataSet
from benches.measure import CommandFailed, Usage, pipeline, run
from benches.tools import Tool, Unavailable

STEPS = ("fresh", "again", "next", "restore", "one file", "verify")
COMPRESS, RSYNC, COPY = "zstd -3 -T2", "rsync -a, nothing to do", "cp -a"
LIMITS = {"fresh": COMPRESS, "again": RSYNC, "next": COMPRESS, "restore": COPY, "verify": COMPRESS}
"""What each step is held against; nothing comparable takes one file out of a store."""

# A tool may distrust times so near to its own run that they could be those of a change that comes after it.
_SETTLE_S = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Is one run of one step by one tool, or by the step's limit. Sizes are those of the repository after it."""

    data: str
    step: str
    tool: str
    run: int
    usage: Usage
    stored_bytes: int = 0
    is_limit: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Is something that was not measured, or not as it should have been, and why."""

    data: str
    tool: str
    step: str
    reason: str


@dataclass(slots=True, kw_only=True)
class Results:
    """Collects samples and troubles."""

    samples: list[Sample] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)


class Course:
    """Takes some tools over one set of data, step by step."""

    def __init__(self, data: DataSet, scratch: Path, results: Results) -> None:
        self._data = data
        self._scratch = scratch
        self._results = results
        self._one = data.one_file()
        self._number = 0
        self._broken: set[str] = set()

    def go(self, tools: Sequence[Tool], number: int, steps: Sequence[str] = STEPS) -> None:
        """Runs the whole course once with all these tools side by side, and removes their repositories."""
        self._broken = set()
        self._number = number
        self._data.show(0)
        try:
            for tool in tools:
                self._prepare(tool)
            for position, step in enumerate(steps):
                if step == "next":
                    self._data.show(1)
                self._step(step, rotated(tools, number + position))
        finally:
            for tool in tools:
                shutil.rmtree(tool.folder, ignore_errors=True)

    def _prepare(self, tool: Tool) -> None:
        shutil.rmtree(tool.folder, ignore_errors=True)
        tool.folder.mkdir(parents=True)
        try:
            run(tool.init())
        except CommandFailed as error:
            self._failed(tool, "init", str(error))
            self._broken.add(tool.name)

    def _step(self, step: str, tools: Sequence[Tool]) -> None:
        time.sleep(_SETTLE_S)
        if step in LIMITS:
            self._limit(step)
        for tool in tools:
            if tool.name in self._broken:
                self._failed(tool, step, "left out, because an earlier step failed")
                continue
            try:
                if step in {"restore", "one file"}:
                    usage = self._restore(step, tool)
                else:
                    number = STEPS.index(step)
                    usage = run(tool.verify() if step == "verify" else tool.backup(self._data.live, number))
            except CommandFailed as error:
                self._failed(tool, step, str(error))
                if step in {"fresh", "again", "next"}:
                    self._broken.add(tool.name)
                continue
            self._add(step, tool.name, usage, size_of(tool.repository))

    def _limit(self, step: str) -> None:
        name = LIMITS[step]
        live, out, copy = self._data.live, self._scratch / "limit.zst", self._scratch / "limit"
        try:
            if name == COMPRESS:
                usage = run(pipeline(f"{self._data.fresh_limit} > '{out}'", live))
            elif name == COPY:
                usage = run(pipeline(f"cp -a '{live}' '{copy}'"))
            else:
                subprocess.run(["cp", "-a", live, copy], check=True)
                usage = run(pipeline(f"rsync -a '{live}/' '{copy}/'"))
            self._add(step, name, usage, out.stat().st_size if out.exists() else 0, is_limit=True)
        finally:
            shutil.rmtree(copy, ignore_errors=True)
            out.unlink(missing_ok=True)

    def _restore(self, step: str, tool: Tool) -> Usage:
        """Restores the latest snapshot, and holds what came back against what was backed up, outside the timing."""
        target = self._scratch / "restored"
        latest = STEPS.index("next")
        try:
            if step == "restore":
                usage = run(tool.restore(self._data.live, latest, target))
                differences = compare(f"{self._data.live}/", f"{tool.landed(self._data.live, target)}/")
            else:
                target.mkdir()
                usage = run(tool.one(self._data.live, latest, self._one, target))
                found = [path for path in target.rglob(self._one.name) if path.is_file()]
                differences = "it is not there" if len(found) != 1 else compare(self._data.live / self._one, found[0])
        finally:
            shutil.rmtree(target, ignore_errors=True)
        if differences:
            self._failed(tool, step, f"what came back differs: {differences}")
        return usage

    def _add(self, step: str, tool: str, usage: Usage, stored_bytes: int, *, is_limit: bool = False) -> None:
        print(f"  run {self._number + 1}  {step:<9} {tool:<24} {usage.wall_s:8.2f} s", flush=True)
        self._results.samples.append(
            Sample(
                data=self._data.name,
                step=step,
                tool=tool,
                run=self._number,
                usage=usage,
                stored_bytes=stored_bytes,
                is_limit=is_limit,
            )
        )

    def _failed(self, tool: Tool, step: str, reason: str) -> None:
        print(f"  run {self._number + 1}  {step:<9} {tool.name:<24} FAILED: {reason}", flush=True)
        self._results.troubles.append(Trouble(data=self._data.name, tool=tool.name, step=step, reason=reason))


def measure_set(data: DataSet, tools: Sequence[Tool], scratch: Path, runs: int, results: Results) -> tuple[int, int]:
    """Makes a set, measures everything on it and removes it; returns how many files and bytes it had."""
    print(f"\n{data.name}: making it", flush=True)
    try:
        try:
            data.make()
        except (Unavailable, OSError, subprocess.CalledProcessError) as error:
            results.troubles.append(Trouble(data=data.name, tool="all", step="all", reason=str(error)))
            return 0, 0
        sizes = [size for _, size in data.files()]
        print(f"{data.name}: {len(sizes):,} files, {sum(sizes) / 1e6:,.1f} MB", flush=True)
        course = Course(data, scratch, results)
        for number in range(runs):
            for group in groups(tools, sum(sizes), scratch):
                course.go(group, number)
        return len(sizes), sum(sizes)
    finally:
        data.remove()


def groups(tools: Sequence[Tool], length_bytes: int, scratch: Path) -> Iterator[Sequence[Tool]]:
    """Yields all tools at once, or one by one where their repositories would not fit beside one another."""
    # Each repository as large as the data and a tenth more, what is restored, and as much again to spare.
    if (1.1 * len(tools) + 2) * length_bytes < free_bytes(scratch):
        yield tools
        return
    print("  too little memory for all repositories at once: one tool after the other", flush=True)
    for tool in tools:
        yield [tool]


def free_bytes(folder: Path) -> int:
    """Returns how much can be written there; memory that a file system of memory would take counts once."""
    free = shutil.disk_usage(folder).free
    for line in Path("/proc/meminfo").read_text("ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return min(free, int(line.split()[1]) << 10)
    return free


def rotated(tools: Sequence[Tool], by: int) -> Sequence[Tool]:
    """Returns the tools beginning with another one."""
    at = by % len(tools)
    return [*tools[at:], *tools[:at]]


def compare(source: Path | str, copy: Path | str) -> str:
    """Returns what rsync finds different in content, owner, mode, times, links, ACLs and attributes; "" for nothing."""
    words = ["rsync", "-naHAXi", "--checksum", "--delete", source, copy]
    done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
    lines = (done.stdout + done.stderr).splitlines()
    if done.returncode and not lines:
        lines = [f"rsync ended with status {done.returncode}"]
    return f"{len(lines)} lines of rsync, such as {lines[0]!r}" if lines else ""


def size_of(folder: Path) -> int:
    """Returns the bytes of all files below a directory."""
    return sum(os.lstat(os.path.join(top, name)).st_size for top, _, names in os.walk(folder) for name in names)
