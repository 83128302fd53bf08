"""`respaldo find`: finds files in all snapshots."""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from respaldo.cli import show
from respaldo.cli.kinds import type_in
from respaldo.cli.names import of_snapshots, say_damaged
from respaldo.cli.pages import page
from respaldo.cli.settings import Settings
from respaldo.cli.values import MOMENT, SIZE

if TYPE_CHECKING:
    from respaldo.api import Snapshot, Unread, Version

_KINDS = {
    "f": (stat.S_IFREG,),
    "d": (stat.S_IFDIR,),
    "l": (stat.S_IFLNK,),
    "s": (stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFBLK, stat.S_IFCHR),
}


@page(
    "find",
    statuses=(3, 4),
    examples=(
        ("Every version of a thesis, wherever it was:", "respaldo find thesis.tex"),
        ("What big films there ever were:", "respaldo find -i '*.mkv' --min-size 1GiB"),
        ("Configuration that changed in November:", "respaldo find '/etc/**' --newer 2026-11-01 --older 2026-12-01"),
        ("Directories of that name, in this machine's snapshots:", "respaldo find node_modules/ --host $(hostname)"),
        ("Scans by their number, in one directory:", "respaldo find --regex '^scan-[0-9]+[.]pdf$' --under ~/Papers"),
        ("The newest version back:", "respaldo find notes.txt --json | jq -r '.found[-1] | .last + \":\" + .path'"),
    ),
    notes=(
        "snapshots: how many were looked through; found: a list of path, type, size, mtime_ns, mode, first and last "
        "(snapshots that hold this version), first_time, last_time, count (of those that hold it); failed: how many "
        "directories could not be looked into; unread: a list of them with path, first, last, reason, lost (whether a "
        "repair has given them up); damaged: names of records of snapshots that could not be read. What this machine's "
        "snapshots hold is known to it; the first search looks through all others and remembers the names, later ones "
        "only through what is new."
    ),
)
@click.argument("pattern", metavar="PATTERN")
@click.option("-i", "--ignore-case", is_flag=True, help="Whatever the case of the letters.")
@click.option("--regex", "-E", is_flag=True, help="PATTERN is a regular expression, found anywhere in a name or path.")
@click.option("--under", default="", metavar="PATH", help="Only this directory and what is below it.")
@click.option(
    "--type",
    "-t",
    "kinds",
    multiple=True,
    type=click.Choice(list(_KINDS)),
    help="f files, d directories, l links, s special files.",
)
@click.option("--min-size", type=SIZE, metavar="SIZE", help="Files of at least this size.")
@click.option("--max-size", type=SIZE, metavar="SIZE", help="Files of at most this size.")
@click.option("--newer", type=MOMENT, metavar="TIME", help="Modified at this time or later.")
@click.option("--older", type=MOMENT, metavar="TIME", help="Modified at this time or before.")
@of_snapshots
def command(
    settings: Settings,
    *,
    pattern: str,
    ignore_case: bool,
    regex: bool,
    under: str,
    kinds: tuple[str, ...],
    min_size: int | None,
    max_size: int | None,
    newer: int | None,
    older: int | None,
    host: str,
    tags: tuple[str, ...],
    kind: str,
) -> int:
    """Find files, directories and links in all snapshots, and each version of them with its first and last snapshot.

    PATTERN is a name with *, ? and [...]; with a slash in it a path, in which ** stands for any number of directories;
    with a slash at its beginning a path from the root, at its end a directory.
    """
    from respaldo.api import Criteria, plain_path  # start-up time

    criteria = Criteria(
        pattern=pattern,
        ignore_case=ignore_case,
        regex=regex,
        under=plain_path(os.path.abspath(under)) if under else b"",
        size_min=min_size,
        size_max=max_size,
        newer_ns=newer,
        older_ns=older,
        types=frozenset(number for kind in kinds for number in _KINDS[kind]),
    )
    with settings.open() as repository:
        snapshots = repository.looking.snapshots(host=host, tags=tags, kind=kind)
        finding = repository.looking.find(snapshots, criteria)
        found = finding.run()
        if settings.json:
            show.long_document(
                "found",
                (_fields(version, snapshots) for version in found),
                lambda: {
                    "snapshots": len(snapshots),
                    "failed": len(finding.unread),
                    "unread": [_unread_fields(item, snapshots) for item in finding.unread],
                    "damaged": [error.name for error in repository.looking.damaged],
                },
            )
        elif settings.quiet:
            deque(found, maxlen=0)
        else:
            shown = [snapshot.hex[:8] for snapshot in snapshots]
            show.out_each(_line(version, shown) for version in found)
        for item in finding.unread:
            show.err(f"warning: {_unread(item, snapshots)}")
        damaged = say_damaged(repository.looking.damaged)
    return max((damaged, *(3 if item.lost else 4 for item in finding.unread)))


def _unread(item: Unread, snapshots: Sequence[Snapshot]) -> str:
    held = snapshots[item.first].hex[:8] + (f" … {snapshots[item.last].hex[:8]}" if item.first != item.last else "")
    return f"{show.shown(item.path or b'/')} could not be looked into ({held}): {show.shown(item.reason)}"


def _unread_fields(item: Unread, snapshots: Sequence[Snapshot]) -> dict[str, object]:
    return {
        **show.path_fields(item.path or b"/"),
        "first": snapshots[item.first].hex,
        "last": snapshots[item.last].hex,
        "reason": item.reason,
        "lost": item.lost,
    }


def _line(version: Version, snapshots: Sequence[str]) -> str:
    """Returns what is shown of a version. ``snapshots``: the beginnings of their ids."""
    first, last = version.first, version.last
    held = snapshots[first] if first == last else f"{snapshots[first]} … {snapshots[last]}"
    mode, length, mtime_ns = version.brief
    size = show.size(length) if stat.S_ISREG(mode) else type_in(mode)
    name = show.shown(version.path) + ("/" if stat.S_ISDIR(mode) else "")
    return f"{held:<19}  {size:>10}  {show.local_time(mtime_ns)}  {name}"


def _fields(version: Version, snapshots: Sequence[Snapshot]) -> dict[str, object]:
    first, last = snapshots[version.first], snapshots[version.last]
    mode, length, mtime_ns = version.brief
    return {
        **show.path_fields(version.path),
        "type": type_in(mode),
        "size": length,
        "mtime_ns": mtime_ns,
        "mode": f"{stat.S_IMODE(mode):04o}",
        "first": first.hex,
        "last": last.hex,
        "first_time": show.iso_time(first.time_ns),
        "last_time": show.iso_time(last.time_ns),
        "count": version.held.bit_count(),
    }
