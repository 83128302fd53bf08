"""Previews of restores, for people: a tree with sizes, what changes in front of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from respaldo.cli import show

if TYPE_CHECKING:
    from respaldo.api import Preview, PreviewRow, What

_ORDER = ("added", "overwritten", "metadata", "deleted", "kept", "unchanged", "failed")
_WORDS = {"metadata": "with other attributes only"}
_WHAT_WIDTH = 11
_SIZES_WIDTH = 23
_FILES = {"f": "│   ", "l": "    ", "m": "├── ", "e": "└── "}


def text(preview: Preview, target: bytes) -> Iterator[str]:
    """Yields the lines of a preview."""
    rows = preview.rows
    last = _last_of_each(rows)
    open_levels: list[bool] = []
    for number, row in enumerate(rows):
        depth = row.depth
        if depth < 0:
            branch, name = "", show.shown(target)
        else:
            del open_levels[depth:]
            branch = "".join(_FILES["f" if goes_on else "l"] for goes_on in open_levels)
            branch += _FILES["e" if number in last else "m"]
            open_levels.append(number not in last)
            name = show.shown(os.path.basename(row.path))
        if row.is_dir and not name.endswith("/"):
            name += "/"
        what = "" if row.what == "unchanged" else row.what.value
        line = f"{what:<{_WHAT_WIDTH}}  {_sizes(row):>{_SIZES_WIDTH}}  {branch}{name}"
        note = show.shown(row.reason) or (_counts(row.counts) if row.is_dir else "")
        yield line + (f"  [{note}]" if note else "")
    if preview.cut:
        yield f"and {show.count(preview.cut)} more that would change, in the directories above or after them"
    yield (
        f"would write {show.size(preview.write_bytes)} and delete {show.size(preview.delete_bytes)} "
        f"in {show.shown(target)}: {_counts(preview.counts) or 'nothing'}"
    )


def _last_of_each(rows: Sequence[PreviewRow]) -> set[int]:
    """Returns the rows after which no other one of the same directory comes."""
    last: set[int] = set()
    seen: set[int] = set()
    for number in range(len(rows) - 1, -1, -1):
        depth = rows[number].depth
        if depth not in seen:
            last.add(number)
        seen = {other for other in seen if other < depth} | {depth}
    return last


def _sizes(row: PreviewRow) -> str:
    if row.is_dir:
        return show.size(row.size if row.what != "deleted" else row.size_before or 0)
    before = "" if row.size_before is None else show.size(row.size_before)
    if row.what in {"deleted", "kept"}:
        return before
    after = "" if row.what == "failed" else show.size(row.size)
    return " -> ".join(dict.fromkeys(part for part in (before, after) if part))


def _counts(counts: Mapping[What, int]) -> str:
    named = {what.value: number for what, number in counts.items()}
    return ", ".join(f"{named[what]:,} {_WORDS.get(what, what)}" for what in _ORDER if named.get(what))


def fields(preview: Preview) -> dict[str, object]:
    """Returns what JSON says of a preview."""
    return {
        "counts": dict.fromkeys(_ORDER, 0) | {what.value: number for what, number in preview.counts.items()},
        "write_bytes": preview.write_bytes,
        "delete_bytes": preview.delete_bytes,
        "cut": preview.cut,
        "entries": [_entry(row) for row in preview.rows],
    }


def _entry(row: PreviewRow) -> dict[str, object]:
    value: dict[str, object] = {
        "what": row.what.value,
        **show.path_fields(row.path),
        "directory": row.is_dir,
        "size": row.size,
        "size_before": row.size_before,
    }
    if row.is_dir:
        value["counts"] = {what.value: number for what, number in row.counts.items()}
    return value | ({"reason": row.reason} if row.reason else {})
