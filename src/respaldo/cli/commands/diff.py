"""`respaldo diff`: says what changed between two snapshots, or between one and what is there now."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from respaldo.cli import show
from respaldo.cli.kinds import type_of
from respaldo.cli.names import SNAPSHOT, host_option
from respaldo.cli.pages import page
from respaldo.cli.progress import watching
from respaldo.cli.settings import Settings
from respaldo.core.errors import UsageError

if TYPE_CHECKING:
    from respaldo.api import Change, Comparison, Found
    from respaldo.core.model import Entry

_LETTERS = {"added": "A", "removed": "D", "modified": "M", "type": "T", "metadata": "m", "renamed": "R"}
_WORDS = {**{verb: verb for verb in _LETTERS}, "type": "of another type", "metadata": "with other attributes only"}


@page(
    "diff",
    statuses=(3, 4),
    examples=(
        ("What the last week changed:", "respaldo diff 4f1c09ab latest"),
        ("In one directory, between two labels:", "respaldo diff v1.0:/srv/www v1.1"),
        ("What has changed since the last snapshot:", "respaldo diff latest:/home/ana --live"),
        ("Whether a copy elsewhere is equal, byte by byte:", "respaldo diff latest:/home/ana /mnt/copy --checksum"),
        (
            "The files that were deleted:",
            "respaldo diff 4f1c09ab latest --json | jq '.changes[] | select(.size_before and (.size | not))'",
        ),
    ),
    notes=(
        "before, after: snapshot and path (after.live: whether it is a path of this machine); changes: a list of "
        "change (added, removed, modified, type, metadata, renamed), path, was (of what was renamed), fields (what "
        "differs), type, size, type_before, size_before; counts: how many of each; added_bytes, removed_bytes; failed: "
        "how much of this machine's could not be looked at; unread: a list of directories of snapshots that could not "
        "be read, with path, reason, lost (whether a repair has given it up)."
    ),
)
@click.argument("before", metavar="SNAPSHOT[:PATH]", type=SNAPSHOT)
@click.argument("after", metavar="[SNAPSHOT[:PATH] | PATH]", default="")
@click.option("--live", is_flag=True, help="Compare with what is at the same path now.")
@click.option("--checksum", is_flag=True, help="With a path of this machine: read every file, whatever its times say.")
@host_option
def command(settings: Settings, *, before: str, after: str, live: bool, checksum: bool, host: str) -> int:
    """Say what differs between two snapshots, or between a snapshot and a path of this machine.

    The second is a snapshot, or a path of this machine if it begins with "/", "./" or "../"; of a snapshot without a
    path, the same path as of the first is meant. A added, D deleted, M modified, T of another type, m other attributes
    only, R renamed (found by equal content). Times of directories are passed over. Two snapshots are compared by ids:
    no content is read. Of files of this machine, only those are whose time changed and size did not.
    """
    path = _path(before, after, live=live)
    if checksum and path is None:
        raise UsageError("--checksum needs a path of this machine, or --live")
    counts: Counter[str] = Counter()
    with settings.open() as repository, watching(settings.level, display=settings.display) as notes:
        found = repository.find(before, host=host)
        tops = [found] if path is not None else []
        if live and found.path == b"/":
            tops = [
                repository.find(f"{found.snapshot.hex}:{os.fsdecode(source)}")
                for source in found.snapshot.manifest.sources
            ]
        other: dict[str, object]
        if path is None:
            second = repository.find(_second(after, found), host=host)
            compared = [repository.looking.diff(found, second)]
            other = {"snapshot": second.snapshot.hex, **show.path_fields(second.path), "live": False}
        else:
            looking = repository.looking
            compared = [looking.diff_live(top, path or top.path, checksum=checksum, progress=notes) for top in tops]
            other = {**show.path_fields(path or found.path), "live": True}
        changes = _counted((change for one in compared for change in one.changes), counts)
        if settings.json:
            head = {"before": {"snapshot": found.snapshot.hex, **show.path_fields(found.path)}, "after": other}
            show.long_document(
                "changes", map(_fields, changes), lambda: {**head, **_totals(counts), **_not_compared(compared)}
            )
        else:
            for change in changes:
                if not settings.quiet:
                    show.out(_line(change))
    if not settings.json and not settings.quiet:
        show.out(_summary(counts))
    gaps = [gap for one in compared for gap in one.gaps()]
    for gap in gaps:
        show.err(f"warning: {show.shown(gap.path)} could not be compared: {show.shown(gap.reason)}")
    if any(not gap.lost for gap in gaps):
        return 4
    return 3 if gaps or any(one.failed() for one in compared) else 0


def _not_compared(compared: Sequence[Comparison]) -> dict[str, object]:
    gaps = [gap for one in compared for gap in one.gaps()]
    return {
        "failed": sum(one.failed() for one in compared),
        "unread": [{**show.path_fields(gap.path), "reason": gap.reason, "lost": gap.lost} for gap in gaps],
    }


def _path(before: str, after: str, *, live: bool) -> bytes | None:
    """Returns the path of this machine that is meant, empty for that of the first name, None where it is a snapshot."""
    if live:
        if after:
            raise UsageError("--live compares with the same path; leave the second name out")
        return b""
    if not after:
        raise UsageError(f"{before} with what? Name a second snapshot, a path, or --live")
    if after.startswith(("/", "./", "../")) or after in {".", ".."}:
        return os.path.abspath(os.fsencode(after))
    return None


def _second(after: str, found: Found) -> str:
    """Returns the second name with the path of the first where it has none."""
    if ":/" in after or found.path == b"/":
        return after
    return f"{after}:{os.fsdecode(found.path)}"


def _counted(changes: Iterator[Change], counts: Counter[str]) -> Iterator[Change]:
    for change in changes:
        counts[change.verb.value] += 1
        if change.verb in {"added", "modified"} and change.after is not None:
            counts["added_bytes"] += change.after.size
        if change.verb in {"removed", "modified"} and change.before is not None:
            counts["removed_bytes"] += change.before.size
        yield change


def _totals(counts: Counter[str]) -> dict[str, object]:
    return {
        "counts": {verb: counts[verb] for verb in _LETTERS},
        "added_bytes": counts["added_bytes"],
        "removed_bytes": counts["removed_bytes"],
    }


def _summary(counts: Counter[str]) -> str:
    parts = [f"{counts[verb]:,} {_WORDS[verb]}" for verb in _LETTERS if counts[verb]]
    if not parts:
        return "no difference"
    sizes = f"{show.size(counts['added_bytes'])} came, {show.size(counts['removed_bytes'])} went"
    return f"{', '.join(parts)}; {sizes}"


def _line(change: Change) -> str:
    path = show.shown(change.path) + ("/" if change.after and change.after.is_dir else "")
    text = f"{_LETTERS[change.verb.value]}  {_sizes(change):>23}  "
    text += f"{show.shown(change.was)} -> {path}" if change.was else path
    if change.verb == "type" and change.before and change.after:
        text += f"  [{type_of(change.before)} -> {type_of(change.after)}]"
    elif change.fields:
        text += f"  [{', '.join(change.fields)}]"
    return text


def _sizes(change: Change) -> str:
    sizes = [
        show.size(entry.size)
        for entry in (change.before, change.after)
        if entry is not None and stat.S_ISREG(entry.mode)
    ]
    return " -> ".join(dict.fromkeys(sizes))


def _fields(change: Change) -> dict[str, object]:
    fields: dict[str, object] = {"change": change.verb.value, **show.path_fields(change.path)}
    if change.was:
        fields |= show.path_fields(change.was, "was")
    if change.fields:
        fields["fields"] = list(change.fields)
    return fields | _end(change.after, "") | _end(change.before, "_before")


def _end(entry: Entry | None, suffix: str) -> dict[str, object]:
    return {} if entry is None else {f"type{suffix}": type_of(entry), f"size{suffix}": entry.size}
