"""Speeds: a measurement as JSON, as tables with bars, and beside an earlier one.

Invariant: an earlier measurement is a file like any other: nothing of it is taken but numbers under names known here.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from respaldo import __version__
from respaldo.cli import show
from respaldo.core.errors import UsageError

if TYPE_CHECKING:
    from respaldo.api import Bench, BenchOptions, Timing

FILE_BYTES_MAX = 1 << 20
_NUMBER_MAX = 1e18
_BAR = 20
_EIGHTHS = " ▏▎▍▌▋▊▉"
_GROUPS = ("disk", "restoring", "storing", "runs")
_SAME = ("respaldo", "cpus", "size_bytes", "sample_bytes", "snapshot", "place", "place_beside")
"""What should be the same for two measurements to say something about speed."""
Value = dict[str, object]


def as_json(bench: Bench, options: BenchOptions, opening_ns: int) -> Value:
    """Returns a measurement as `respaldo bench --json` prints it, and as `--compare` reads it."""
    reads, writes, beside = _rates(bench)
    waits = bench.first_byte_ns
    return {
        "respaldo": __version__,
        "cpus": os.cpu_count(),
        "machine": f"{platform.system()} {platform.release()} {platform.machine()}",
        "snapshot": bench.snapshot or None,
        "place": bench.place,
        "place_beside": bench.place_beside,
        "size_bytes": options.size_bytes,
        "sample_bytes": bench.sample_bytes,
        "own_data": bench.own_data,
        "disk": [_fields(item) for item in bench.disk],
        "restoring": _stages(bench.restoring, reads, writes),
        "storing": _stages(bench.storing, beside, beside),
        "runs": [_run(item, reads, writes, beside) for item in bench.runs],
        "opening_s": opening_ns / 1e9,
        "first_byte": {
            "files": len(waits),
            "median_s": waits[len(waits) // 2] / 1e9,
            "worst_s": waits[-1] / 1e9,
        }
        if waits
        else None,
        "damaged": bench.damaged,
        "skipped": bench.skipped or None,
    }


def _rates(bench: Bench) -> tuple[float, float, float]:
    """Returns the disk's rates: reading packs, writing at the scratch place, writing beside the repository."""
    rates = {item.name: item.length_bytes * 1e9 / max(item.duration_ns, 1) for item in bench.disk}
    return rates.get("read", 0.0), rates["write"], rates.get("write beside", rates["write"])


def _fields(item: Timing) -> Value:
    return {
        "name": item.name,
        "bytes": item.length_bytes,
        "duration_s": item.duration_ns / 1e9,
        "bytes_per_s": show.per_second(item.length_bytes, item.duration_ns),
    }


def _stages(items: Sequence[Timing], first_rate: float, write_rate: float) -> list[Value]:
    together_ns = max(sum(item.duration_ns for item in items), 1)
    return [
        {
            **_fields(item),
            "share": round(item.duration_ns / together_ns, 4),
            "of_disk": _ratio(item, write_rate if item.name == "write" else first_rate),
        }
        for item in items
    ]


def _run(item: Timing, reads: float, writes: float, beside: float) -> Value:
    stores = item.name.startswith("snapshot")
    disk = beside if stores else reads if item.name == "verify" else min(reads, writes)
    return {**_fields(item), "files": item.files, "cpu_s": item.cpu_ns / 1e9, "of_disk": _ratio(item, disk)}


def _ratio(item: Timing, disk: float) -> float | None:
    return round(item.length_bytes * 1e9 / max(item.duration_ns, 1) / disk, 3) if disk else None


# --- for people ------------------------------------------------------------------------------------------------------


def as_text(bench: Bench, value: Value) -> str:
    """Returns tables: disk, stages with their shares as bars, runs beside the disk, waiting."""
    whose = "of this repository" if bench.own_data else "made up, because the repository is empty"
    parts = [
        "disk, in sequence (what is written counts until it is on the disk)",
        show.table(("DISK", "SPEED", "WHERE"), list(_disk_rows(bench)), right=(1,)),
    ]
    for heading, items, rows in (
        ("restoring", bench.restoring, value["restoring"]),
        ("storing", bench.storing, value["storing"]),
    ):
        if items:
            parts += [
                f"\n{heading}: each stage alone, on one thread, {show.size(bench.sample_bytes)} {whose}",
                _stage_table(items, _maps(rows)),
            ]
    if bench.runs:
        rows = _maps(value["runs"])
        cells = [_run_cells(item, row) for item, row in zip(bench.runs, rows, strict=True)]
        headings = ("RUN", "SPEED", "× DISK", "BYTES", "FILES", "TIME", "CPU", "")
        parts += ["\nwhole runs, as many threads as they take", show.table(headings, cells, right=range(1, 7))]
    if bench.skipped:
        parts.append(f"\nnothing of a snapshot was restored or verified: {bench.skipped}")
    parts.append(f"\nopening the repository took {_seconds(_number(value['opening_s']))}")
    if bench.first_byte_ns:
        waits = bench.first_byte_ns
        parts.append(
            f"first byte of a file: {_seconds(waits[len(waits) // 2] / 1e9)}, at worst {_seconds(waits[-1] / 1e9)} "
            f"({show.count(len(waits), 'file')})"
        )
    return "\n".join(parts)


def _disk_rows(bench: Bench) -> Iterator[tuple[str, str, str]]:
    where = {"read": "the repository's packs", "write": bench.place, "write beside": bench.place_beside}
    for item in bench.disk:
        yield item.name, show.rate(item.length_bytes, item.duration_ns), show.shown(where[item.name])


def _stage_table(items: Sequence[Timing], rows: Sequence[Mapping[str, object]]) -> str:
    cells = [
        (
            item.name,
            show.rate(item.length_bytes, item.duration_ns),
            _times(row["of_disk"]),
            f"{_number(row['share']) * 100:.0f} %",
            bar(_number(row["share"])),
        )
        for item, row in zip(items, rows, strict=True)
    ]
    together_ns = sum(item.duration_ns for item in items)
    length = max(item.length_bytes for item in items)
    cells.append(("together", show.rate(length, together_ns), "", "", ""))
    return show.table(("STAGE", "SPEED", "× DISK", "SHARE", ""), cells, right=(1, 2, 3))


def _run_cells(item: Timing, row: Mapping[str, object]) -> tuple[str, ...]:
    of_disk = row["of_disk"]
    return (
        item.name,
        show.rate(item.length_bytes, item.duration_ns),
        _times(of_disk),
        show.size(item.length_bytes),
        show.count(item.files) if item.files else "–",
        show.duration(item.duration_ns),
        show.duration(item.cpu_ns),
        bar(min(_number(of_disk), 1.0)),
    )


def bar(share: float) -> str:
    """Returns a bar, by eighths of a letter, that is full at 1."""
    eighths = round(share * _BAR * 8)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def _times(value: object) -> str:
    return "–" if value is None else f"{_number(value):.2f}"


def _seconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else show.duration(int(seconds * 1e9))


def _number(value: object) -> float:
    """Returns a figure of a measurement; 0 for what is no number, or one that nobody measured."""
    return float(value) if isinstance(value, int | float) and abs(value) < _NUMBER_MAX else 0.0


def _maps(value: object) -> list[Mapping[str, object]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


# --- beside an earlier one -------------------------------------------------------------------------------------------


def read_earlier(path: str) -> Value:
    """Reads what `respaldo bench --json` printed; raises `UsageError` for anything else."""
    hint = "make one with: respaldo bench --json > FILE"
    try:
        with open(path, "rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
        if len(data) > FILE_BYTES_MAX:
            raise ValueError("it is too long")
        found = json.loads(data)
    except OSError as error:
        raise UsageError(f"cannot read {show.shown(path)}: {error.strerror or error}", hint=hint) from None
    except (ValueError, RecursionError):
        raise UsageError(f"{show.shown(path)} is no measurement of respaldo", hint=hint) from None
    if not isinstance(found, dict) or not _speeds(found):
        raise UsageError(f"{show.shown(path)} is no measurement of respaldo", hint=hint)
    return found


def compare(earlier: Value, value: Value) -> list[Value]:
    """Returns what both measured: bytes a second (seconds for waiting) then and now; ``faster``: how many times."""
    then, now = _speeds(earlier), _speeds(value)
    rows: list[Value] = [
        {"name": name, "then": then[name], "now": now[name], "faster": round(now[name] / then[name], 3)}
        for name in now
        if name in then
    ]
    before, after = _waits(earlier), _waits(value)
    rows += [
        {"name": name, "then_s": before[name], "now_s": after[name], "faster": round(before[name] / after[name], 3)}
        for name in after
        if name in before
    ]
    return rows


def unlike(earlier: Value, value: Value) -> list[str]:
    """Returns what was otherwise then, so that speeds tell less than they seem to."""
    return [name for name in _SAME if earlier.get(name) != value.get(name)]


def _speeds(value: Value) -> dict[str, float]:
    found = {}
    for group in _GROUPS:
        for item in _maps(value.get(group)):
            speed = _number(item.get("bytes_per_s"))
            if speed > 0:
                found[f"{group}: {item.get('name')}"] = speed
    return found


def _waits(value: Value) -> dict[str, float]:
    waits = value.get("first_byte")
    found = {"opening": _number(value.get("opening_s"))}
    if isinstance(waits, dict):
        found["first byte"] = _number(waits.get("median_s"))
        found["first byte, at worst"] = _number(waits.get("worst_s"))
    return {name: wait for name, wait in found.items() if wait > 0}


def compared_text(rows: Sequence[Value], differs: Sequence[str]) -> str:
    """Returns a table of what both measured."""
    cells = []
    for row in rows:
        waits = "then_s" in row
        then, now = (_number(row[f"{name}_s" if waits else name]) for name in ("then", "now"))
        word = _seconds if waits else _speed
        cells.append((show.shown(str(row["name"])), word(then), word(now), f"{_number(row['faster']):.2f} ×"))
    lines = ["\nbeside the earlier measurement", show.table(("", "THEN", "NOW", "FASTER"), cells, right=(1, 2, 3))]
    if differs:
        lines.append(f"not the same then, so take it with care: {', '.join(map(show.shown, differs))}")
    return "\n".join(lines)


def _speed(bytes_per_s: float) -> str:
    return f"{show.size(bytes_per_s)}/s"
