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
    from respaldo.core.model import Entry


@page(
    "ls",
    examples=(
        ("What the newest snapshot holds of a directory:", "respaldo ls latest:/home/ana/Documents"),
        ("All of a snapshot, with sizes and times:", "respaldo ls -lR 4f1c09ab"),
        ("One file, as it was under a label:", "respaldo ls -l before-upgrade:/etc/fstab"),
        ("The biggest files, by a program:", "respaldo ls -R latest --json | jq '.entries | sort_by(-.size) | .[:10]'"),
    ),
    notes=(
        "snapshot, path, entries: a list of path (path_b64 beside it, its bytes in base64, where it is not UTF-8), "
        "type, mode, uid, gid, user, group, size, mtime_ns, target (of a symlink), mark (why something is missing)."
    ),
)
@click.argument("name", metavar="SNAPSHOT[:PATH]", type=SNAPSHOT)
@click.option("--long", "-l", "long", is_flag=True, help="Modes, owners, sizes and times too.")
@click.option("--recursive", "-R", is_flag=True, help="Everything below, not only what is directly in it.")
@host_option
def command(settings: Settings, *, name: str, long: bool, recursive: bool, host: str) -> int:
    """List a directory of a snapshot, or one file. Paths are absolute, as they were backed up."""
    with settings.open() as repository:
        found = repository.find(name, host=host)
        entries = repository.ls(found, recursive=recursive)
        if settings.json:
            value = {
                "snapshot": found.snapshot.hex,
                **show.path_fields(found.path),
                "entries": [_fields(path, entry) for path, entry in entries],
            }
            show.out(show.document(value))
            return 0
        for path, entry in entries:
            show.out(_long(path, entry) if long else show.shown(path) + ("/" if entry.is_dir else ""))
    return 0


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
