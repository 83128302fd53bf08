"""`respaldo export`: writes a snapshot as an archive."""

from __future__ import annotations

import os
import sys
from datetime import tzinfo

import click

from respaldo.cli import show
from respaldo.cli.names import SNAPSHOT, host_option
from respaldo.cli.pages import page
from respaldo.cli.progress import watching
from respaldo.cli.settings import Settings
from respaldo.cli.values import ZONE
from respaldo.core.errors import UsageError

_FORMATS = ("tar", "tar.gz", "tar.zst", "zip")


@page(
    "export",
    statuses=(3, 4),
    examples=(
        ("The newest snapshot into this directory:", "respaldo export latest"),
        (
            "A directory of it, for somebody without respaldo:",
            "respaldo export latest:/home/ana/Photos --format zip -o photos.zip",
        ),
        (
            "One a month, named by host and day:",
            "respaldo export latest -o /mnt/cold --name-template '{host}_{time:%Y-%m-%d}'",
        ),
        ("Straight to another machine:", "respaldo export latest --format tar.zst -o - | ssh cold 'cat > ana.tar.zst'"),
        (
            "Unpack one, with all attributes:",
            "tar -xpf FILE --xattrs --xattrs-include='*' --acls -C DIRECTORY  # made by: respaldo export",
        ),
    ),
    notes=(
        "snapshot, path, format, file (empty for -), bytes, sha256, members, left_out, damaged (left out for "
        "damage); with -o - on standard error."
    ),
)
@click.argument("name", metavar="SNAPSHOT[:PATH]", type=SNAPSHOT)
@click.option("--format", "-f", "form", type=click.Choice(_FORMATS), default="tar.zst", help="tar.zst is the default.")
@click.option(
    "--output",
    "-o",
    default=".",
    metavar="PATH",
    help="A file, a directory in which it gets a name, or - for standard output. Default: the directory you are in.",
)
@click.option(
    "--name-template",
    default="{prefix}_{kind}_{time:%Y%m%d_%H%M}_{checksum:.8}",
    metavar="TEMPLATE",
    help="The name in a directory, without its ending. Fields: prefix, host, user, kind, label, id, time (as in "
    "{time:%Y%m%d}), checksum (the SHA-256, {checksum:.8} its beginning).",
)
@click.option("--prefix", default="", metavar="TEXT", help="What {prefix} stands for; the host by default.")
@click.option("--time-zone", type=ZONE, default="local", metavar="ZONE", help="Whose time {time} is: local, UTC, …")
@click.option("--force", is_flag=True, help="Replace a file that exists.")
@host_option
def command(
    settings: Settings,
    *,
    name: str,
    form: str,
    output: str,
    name_template: str,
    prefix: str,
    time_zone: tzinfo,
    force: bool,
    host: str,
) -> int:
    """Write a snapshot, or a part of it, as an archive; print its SHA-256, and write it beside the file.

    The same snapshot gives the same bytes, whenever and wherever it is exported. Tar holds everything but sockets and
    inode flags; zip holds files, directories and links with modes, owners and times to the second. What is left out is
    named: status 3. So is what is damaged: status 4. Damage in the middle of a long file ends it with status 4, and no
    file is there then. The SHA-256 of every file is remembered in the repository, for "checksums", and that a whole
    snapshot was read.
    """
    from respaldo.api import Exported  # start-up time

    with settings.open(writes=not settings.is_client()) as repository:
        found = repository.find(name, host=host)
        if output == "-":
            if sys.stdout.isatty():
                raise UsageError("an archive is nothing for a terminal", hint="name a file with: -o FILE")
            show.flush()
            with watching(settings.level, display=False) as notes:
                dumped = repository.looking.export(found, form, show.out_bytes, progress=notes)
            show.flush()
            done = Exported(
                path=b"",
                sha256=dumped.sha256,
                length_bytes=dumped.length_bytes,
                members=dumped.files,
                left_out=dumped.left_out,
                damaged=dumped.damaged,
            )
        else:
            with watching(settings.level, display=settings.display) as notes:
                done = repository.looking.export_to(
                    found,
                    form,
                    os.fsencode(output),
                    template=name_template,
                    prefix=prefix,
                    zone=time_zone,
                    force=force,
                    progress=notes,
                )
    value = {
        "snapshot": found.snapshot.hex,
        **show.path_fields(found.path),
        "format": form,
        **show.path_fields(done.path, "file"),
        "bytes": done.length_bytes,
        "sha256": done.sha256,
        "members": done.members,
        "left_out": done.left_out,
        "damaged": done.damaged,
    }
    say = show.err if output == "-" else show.out
    if settings.json:
        say(show.document(value))
    elif not settings.quiet:
        say(f"{done.sha256}  {show.shown(done.path) or '-'}")
    return done.exit_status
