"""`respaldo ls`: lists what a snapshot holds."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import click

from respaldo.cli import show
from respaldo.cli.kinds import type_of
from respaldo.cli.names import SNAPSHOT, host_option
from respaldo.cli.pages import page
from respaldo.cli.settings import Settings

if TYPE_CHECKING:
    from respaldo.core.errors import RespaldoError
    from respaldo.core.model import Entry

_UNREAD_KEPT = 1000


@page(
    "ls",
    statuses=(3,),
    examples=(
        ("What the newest snapshot holds of a directory:", "respaldo ls latest:/home/ana/Documents"),
        ("All of a snapshot, with sizes and times:", "respaldo ls -lR 4f1c09ab"),
        ("One file, as it was under a label:", "respaldo ls -l before-upgrade:/etc/fstab"),
        ("The biggest files, by a program:", "respaldo ls -R latest --json | jq '.entries | sort_by(-.size) | .[:10]'"),
    ),
    notes=(
        "snapshot, path, entries: a list of path (path_b64 beside it, its bytes in base64, where it is not UTF-8), "
        "type, mode, uid, gid, user, group, size, mtime_ns, target (of a symlink), mark (why something is missing); "
        "unread: a list of path, reason, lost (whether a repair has given it up) of directories that could not be read."
    ),
)
@click.argument("name", metavar="SNAPSHOT[:PATH]", type=SNAPSHOT)
@click.option("--long", "-l", "long", is_flag=True, help="Modes, owners, sizes and times too.")
@click.option("--recursive", "-R", is_flag=True, help="Everything below, not only what is directly in it.")
@host_option
def command(settings: Settings, *, name: str, long: bool, recursive: bool, host: str) -> int:
    """List a directory of a snapshot, or one file. Paths are absolute, as they were backed up.

    A directory that is damaged is named, and the rest is listed: status 4; 3 where a repair has given it up.
    """
    unread: list[dict[str, object]] = []
    status = 0

    def failed(path: bytes, error: RespaldoError, lost: bool) -> None:
        nonlocal status
        status = max(status, 3 if lost else 4)
        if settings.json and len(unread) < _UNREAD_KEPT:
            unread.append({**show.path_fields(path), "reason": str(error), "lost": lost})
        where = f"of {show.shown(path or b'/')}, entries may be missing"
        show.err(f"warning: {where}: {show.shown(str(error))}")

    with settings.open() as repository:
        found = repository.find(name, host=host)
        entries = repository.ls(found, recursive=recursive, failed=failed)
        if settings.json:
            about = {"snapshot": found.snapshot.hex, **show.path_fields(found.path)}
            rows = (_fields(path, entry) for path, entry in entries)
            show.long_document("entries", rows, lambda: about | {"unread": unread})
            return status
        show.out_each(
            _long(path, entry) if long else show.shown(path) + ("/" if entry.is_dir else "") for path, entry in entries
        )
    return status


def _long(path: bytes, entry: Entry) -> str:
    owner = show.shown(entry.user) or str(entry.uid)
    group = show.shown(entry.group) or str(entry.gid)
    name = show.shown(path)
    if entry.is_symlink:
        name += f" -> {show.shown(entry.target)}"
    if entry.mark:
        name += f"  [{entry.mark.name.lower()}]"
    length = f"{entry.rdev >> 32}, {entry.rdev & 0xFFFFFFFF}" if entry.rdev else f"{entry.size:,}"
    when = show.local_time(entry.mtime_ns)
    return f"{stat.filemode(entry.mode)} {owner:<8} {group:<8} {length:>15} {when} {name}"


def _fields(path: bytes, entry: Entry) -> dict[str, object]:
    fields: dict[str, object] = {
        **show.path_fields(path),
        "type": type_of(entry),
        "mode": f"{stat.S_IMODE(entry.mode):04o}",
        "uid": entry.uid,
        "gid": entry.gid,
        "user": entry.user,
        "group": entry.group,
        "size": entry.size,
        "mtime_ns": entry.mtime_ns,
    }
    if entry.is_symlink:
        fields |= show.path_fields(entry.target, "target")
    if entry.mark:
        fields["mark"] = entry.mark.name.lower()
    return fields
