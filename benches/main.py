"""Measures Respaldo, other backup tools and the physical limits side by side, in memory, in one run.

Prints a table for each set of data, writes all samples as JSON and the first set as a chart. docs/performance.md says
what the figures mean. Ends with status 1 where something failed or came back different; what could not be had is said.

python -m benches.main [--quick] [--only linux,big,postgres] [--tools respaldo,borg,restic] [--runs N]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from benches import table
from benches.chart import draw
from benches.course import Results, Trouble, measure_set
from benches.data import Big, DataSet, Linux, Postgres
from benches.figures import as_document, figures
from benches.tools import TOOLS, Tool, Unavailable

SETS: tuple[type[DataSet], ...] = (Linux, Big, Postgres)
MEMORY = Path("/dev/shm")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; returns the exit status."""
    options = parse(arguments)
    started_s = time.monotonic()
    results = Results()
    with tempfile.TemporaryDirectory(
        prefix="respaldo-bench-", dir=MEMORY if MEMORY.is_dir() else None, ignore_cleanup_errors=True
    ) as name:
        scratch = Path(name)
        # PostgreSQL's own user has to get through.
        scratch.chmod(0o711)
        tools, versions = available(options.tools, scratch, results)
        titles = {}
        for kind in SETS:
            if kind.name in options.only:
                data = made(kind, scratch, options)
                files, length_bytes = measure_set(data, tools, scratch, options.runs, results)
                titles[data.name] = f"{data.name}: {files:,} files, {length_bytes / 1e6:,.0f} MB"
    found = figures(results)
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}"
    told = ", ".join(f"{tool} {version}" for tool, version in versions.items())
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(f"\n{told}; {machine}; {options.runs} runs, medians; {time.monotonic() - started_s:.0f} s in all\n")
    table.show(console, found, results, titles)
    document = {
        "versions": versions,
        "machine": machine,
        "runs": options.runs,
        "quick": options.quick,
        "titles": titles,
        "figures": as_document(found),
        "samples": [asdict(sample) for sample in results.samples],
        "troubles": [asdict(trouble) for trouble in results.troubles],
    }
    options.json.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    console.print(f"written: {options.json}", end="")
    if found:
        first = found[0].data
        options.chart.write_text(draw(found, first, titles[first]), "utf-8")
        console.print(f", {options.chart}", end="")
    console.print()
    return any(trouble.step not in {"all", "installing"} for trouble in results.troubles)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Returns the options; ends the program where they make no sense."""
    parser = argparse.ArgumentParser(
        prog="benches.main", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sets, tools = [kind.name for kind in SETS], [kind.name for kind in TOOLS]
    parser.add_argument("--only", default=sets, type=_list(sets), help=f"sets of data, of {','.join(sets)}")
    parser.add_argument("--tools", default=tools, type=_list(tools), help=f"tools, of {','.join(tools)}")
    parser.add_argument("--runs", default=3, type=int, help="how often everything is measured (3); medians count")
    parser.add_argument("--quick", action="store_true", help="smaller sets, one run: a few minutes")
    parser.add_argument("--tree", type=Path, help="a tree to take instead of the Linux source (needs --next)")
    parser.add_argument("--next", type=Path, help="the tree's next version")
    parser.add_argument("--json", type=Path, default=Path("bench.json"), help="where the samples go (bench.json)")
    parser.add_argument("--chart", type=Path, default=Path("bench.svg"), help="where the chart goes (bench.svg)")
    options = parser.parse_args(arguments)
    if (options.tree is None) != (options.next is None):
        parser.error("--tree and --next come together")
    if options.runs < 1:
        parser.error("--runs takes a number from 1")
    if options.quick:
        options.runs = 1
    return options


def _list(known: Sequence[str]):
    def split(text: str) -> list[str]:
        words = text.split(",")
        unknown = [word for word in words if word not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(known)}")
        return words

    return split


def available(names: Sequence[str], scratch: Path, results: Results) -> tuple[list[Tool], dict[str, str]]:
    """Returns the tools that can be had, and their versions."""
    tools: list[Tool] = []
    versions: dict[str, str] = {}
    for kind in TOOLS:
        if kind.name not in names:
            continue
        tool = kind(scratch / "tools" / kind.name)
        try:
            versions[tool.name] = tool.version()
        except Unavailable as error:
            print(f"{tool.name}: {error}", file=sys.stderr)
            results.troubles.append(Trouble(data="all", tool=tool.name, step="installing", reason=str(error)))
            continue
        tools.append(tool)
    if not tools:
        sys.exit("none of the tools can be had")
    return tools, versions


def made(kind: type[DataSet], scratch: Path, options: argparse.Namespace) -> DataSet:
    """Returns a set of data that is not made yet."""
    if kind is Linux and options.tree is not None:
        return Linux(scratch, quick=options.quick, trees=(options.tree.resolve(), options.next.resolve()))
    return kind(scratch, quick=options.quick)


if __name__ == "__main__":
    # Gigabytes of memory would stay taken: a kill, too, has to leave through the context managers.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    sys.exit(main())
