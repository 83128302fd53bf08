"""`respaldo dump`: prints a file of a snapshot, or a directory as a tar archive."""

from __future__ import annotations

import sys

import click

from respaldo.cli import show
from respaldo.cli.names import SNAPSHOT, host_option
from respaldo.cli.pages import page
from respaldo.cli.progress import watching
from respaldo.cli.settings import Settings
from respaldo.core.errors import UsageError


@page(
    "dump",
    statuses=(3, 4),
    examples=(
        ("A file as it was, on the screen:", "respaldo dump latest:/etc/fstab"),
        ("What changed in it since:", "respaldo dump 4f1c09ab:/etc/fstab | diff - /etc/fstab"),
        ("A database that was backed up with --stdin:", "respaldo dump latest /shop.dump | pg_restore -d shop"),
        (
            "A directory, unpacked elsewhere with all attributes:",
            "respaldo dump latest:/srv/www | ssh web tar -xp --xattrs --xattrs-include='*' --acls -C /srv/www",
        ),
    ),
    notes=(
        "On standard error, since standard output holds the content: snapshot, path, type (file or tar), bytes, sha256 "
        "(of what was printed), files, left_out, damaged (left out for damage)."
    ),
)
@click.argument("name", metavar="SNAPSHOT[:PATH]", type=SNAPSHOT)
@click.argument("path", metavar="[PATH]", default="")
@host_option
def command(settings: Settings, *, name: str, path: str, host: str) -> int:
    """Print the content of a file to standard output, of a directory a tar archive.

    Every piece is checked before it is printed; damage ends it with status 4. In an archive, what is damaged is named
    and left out, unless it is in the middle of a long file. The archive is in pax format, with
    names relative to the directory, times to the nanosecond, hard links, holes, extended attributes and ACLs. Sockets,
    and files whose content could not be read, are named and left out: status 3.
    """
    name = join(name, path)
    with settings.open() as repository:
        found = repository.find(name, host=host)
        if found.entry.is_dir and sys.stdout.isatty():
            raise UsageError("a tar archive is nothing for a terminal", hint="write it to a file with: > FILE")
        show.flush()
        # No progress display: whatever reads us may be drawing on the same terminal.
        with watching(settings.level, display=False) as notes:
            done = repository.looking.dump(found, show.out_bytes, progress=notes)
        show.flush()
    if settings.json:
        value = {
            "snapshot": found.snapshot.hex,
            **show.path_fields(found.path),
            "type": "tar" if found.entry.is_dir else "file",
            "bytes": done.length_bytes,
            "sha256": done.sha256,
            "files": done.files,
            "left_out": done.left_out,
            "damaged": done.damaged,
        }
        show.err(show.document(value))
    return done.exit_status


def join(name: str, path: str) -> str:
    """Returns ``SNAPSHOT:/PATH`` for what may be given as two words."""
    if not path:
        return name
    if ":/" in name:
        raise UsageError("the path is named twice; write SNAPSHOT:/PATH or SNAPSHOT PATH")
    return f"{name}:/{path.lstrip('/')}"
