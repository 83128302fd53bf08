"""Runs the fuzzers, each for so long, several at once, and shows what came of it.

    python -m tests.fuzz --each SECONDS | --all SECONDS  [--jobs N] [--seed N] [--only TARGET] [--grow] [--atheris]

The kernel's, in C, run under the sanitizers (`kernel.sh`). Each target is a process of its own, unless all have so
little time together that starting it would take most of that. What is found lies in tests/fuzz/found/: it is to be
moved to tests/fuzz/regressions/ under a name that says what it is, where the tests take it up.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
KERNEL = "kernel"
_SAID_MAX = 4000
_TOGETHER_S = 5
"""Below so many seconds for a target, all of them share a process."""
Row = dict[str, object]


def names() -> list[str]:
    """Returns the targets, in an order of their own; asked in a process that may have no probes."""
    code = "from tests.fuzz.targets import TARGETS; print(*TARGETS)"
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()


def run_targets(targets: Sequence[str], seconds: float, options: Sequence[str]) -> list[Row]:
    """Fuzzes some targets in one process; a row says what came of each."""
    command = [sys.executable, "-m", "tests.fuzz.loop", "--seconds", str(seconds), *options, *targets]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    rows: list[Row] = [json.loads(line) for line in done.stdout.splitlines()]
    if done.returncode not in {0, 1} or len(rows) < len(targets):
        died = targets[len(rows)] if len(rows) < len(targets) else targets[-1]
        rows.append({"name": died, "findings": {f"the process ended with status {done.returncode}": ""}})
    return rows


def run_guided(target: str, seconds: float, seed: int) -> list[Row]:
    """Fuzzes a target under atheris."""
    command = [sys.executable, "-m", "tests.fuzz.guided", "--seconds", str(seconds), "--seed", str(seed), target]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    said = dict(line.split(":")[-2:] for line in done.stderr.splitlines() if line.startswith("stat::"))
    row: Row = {"name": target, "executions": int(said.get("number_of_executed_units", 0)), "seconds": seconds}
    row["corpus"] = int(said.get("new_units_added", 0))
    row["findings"] = {f"atheris ended with status {done.returncode}": ""} if done.returncode else {}
    if done.returncode:
        print(done.stderr[-_SAID_MAX:], file=sys.stderr)
    return [row]


def run_kernel(seconds: float) -> list[Row]:
    """Fuzzes the kernel."""
    started = time.monotonic()
    done = subprocess.run(
        ["bash", str(HERE / "kernel.sh"), str(max(2, round(seconds)))], check=False, stdout=subprocess.PIPE, text=True
    )
    tried = sum(int(line.split()[0]) for line in done.stdout.splitlines() if " inputs from seed " in line)
    findings = {f"kernel.sh ended with status {done.returncode}": ""} if done.returncode else {}
    return [{"name": KERNEL, "executions": tried, "seconds": time.monotonic() - started, "findings": findings}]


def table(rows: Sequence[Row]) -> str:
    """Returns what came of all targets, for people."""
    lines = [("TARGET", "INPUTS", "PER SECOND", "BRANCHES", "CORPUS", "FINDINGS")]
    for row in rows:
        tried, seconds = int(str(row.get("executions", 0))), float(str(row.get("seconds", 0)))
        findings = row["findings"]
        lines.append(
            (
                str(row["name"]),
                f"{tried:,}",
                f"{tried / seconds:,.0f}" if seconds else "",
                str(row.get("branches", "")),
                str(row.get("corpus", "")),
                "; ".join(findings) if isinstance(findings, dict) and findings else "0",
            )
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            [
                line[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(line[1:-1], widths[1:-1], strict=True)),
                line[-1],
            ]
        )
        for line in lines
    )


def main() -> int:
    """Fuzzes; 1 where something was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--each", type=float, metavar="SECONDS")
    parser.add_argument("--all", type=float, metavar="SECONDS")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", action="append", metavar="TARGET")
    parser.add_argument("--grow", action="store_true", help="add what gets further to the corpus")
    parser.add_argument("--atheris", action="store_true", help="with the engine of that name, one process a target")
    asked = parser.parse_args()
    targets = names()
    chosen = asked.only or [*targets, KERNEL]
    if wrong := set(chosen) - {*targets, KERNEL}:
        parser.error(f"there is no target {', '.join(sorted(wrong))}; there are: {', '.join(targets)}, {KERNEL}")
    if (asked.each is None) == (asked.all is None):
        parser.error("say either --each or --all")
    each = asked.each if asked.each is not None else asked.all / len(chosen)
    options = ["--seed", str(asked.seed), *(["--grow"] if asked.grow else [])]
    rows: list[Row] = []
    python = [name for name in chosen if name != KERNEL]
    with ThreadPoolExecutor(max(1, asked.jobs)) as pool:
        share = max(1, asked.jobs) if each < _TOGETHER_S else len(python)
        parts = [[name] for name in python] if asked.atheris else [python[at::share] for at in range(share)]
        waiting = [pool.submit(run_kernel, each)] if KERNEL in chosen else []
        for part in filter(None, parts):
            if asked.atheris:
                waiting.append(pool.submit(run_guided, part[0], each, asked.seed))
            else:
                waiting.append(pool.submit(run_targets, part, each * len(part), options))
        for future in waiting:
            rows += future.result()
            if len(parts) == len(python):
                print(table(rows[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
    order = {name: number for number, name in enumerate([*targets, KERNEL])}
    rows.sort(key=lambda row: order[str(row["name"])])
    print(table(rows))
    found = [name for row in rows if isinstance(row["findings"], dict) for name in row["findings"]]
    print(f"{sum(int(str(row.get('executions', 0))) for row in rows):,} inputs, {len(found)} findings")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
