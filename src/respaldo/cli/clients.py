"""`respaldo key client`: adds, renews, lists and removes clients that write and cannot read."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING

import click

from respaldo.cli import pages, show
from respaldo.cli.known import CLIENT_LEFT
from respaldo.cli.pages import F, page
from respaldo.cli.settings import Settings
from respaldo.core.errors import UsageError

if TYPE_CHECKING:
    from respaldo.api import ClientInfo

_FIELDS = (
    "id, name, rights (list and restore, or none), added, keys (since when it has those that it has), "
    "renewed (how often), removed (null where it was not)"
)
_RESERVED_BYTES = 4096
"""More than a credential has."""


def _out_option(what: str) -> Callable[[F], F]:
    return click.option(
        "-o",
        "--out",
        "--output",
        "out",
        required=True,
        metavar="FILE",
        type=click.Path(path_type=str),
        help=f"Write {what} here; the file must not exist.",
    )


@pages.group("client")
def group() -> None:
    """Add, renew, list or remove clients that can write and cannot read.

    Such a client has no passphrase and no key of the repository, but a credential: a file that lets it add snapshots
    to an area of its own, and find again what it has stored itself. It reads nothing, neither what others stored nor
    its own past, and takes nothing away.
    """


@page(
    "add",
    examples=(
        ("On the machine that may read; the file goes to the other one:", "respaldo key client add web-1 --out web-1"),
        ("There:", "respaldo snapshot /srv -r /mnt/backup --client-file /etc/respaldo/web-1"),
        ("One that may restore its own files:", "respaldo key client add ana --restore --list --out ana.client"),
    ),
    notes=f"client ({_FIELDS}), area (where it lies), file.",
)
@click.option("--write-only", is_flag=True, help="It may write and read nothing, as without --list and --restore.")
@click.option("--list", "lists", is_flag=True, help="It may see what it has stored: names, sizes, times.")
@click.option("--restore", is_flag=True, help="It may read what it has stored.")
@_out_option("the credential")
@click.argument("name")
def add(settings: Settings, *, name: str, out: str, write_only: bool, lists: bool, restore: bool) -> int:
    """Add a client NAME that can write and not read, and write its credential to a file.

    Nobody can make the file again: a client that has lost it is renewed. Whoever has it can write as this client, and
    with --list or --restore read what that wrote: --list is for snapshots, ls, find, diff, history and stats, --restore
    for restore, dump, export, checksums and mount, too.
    """
    if write_only and (lists or restore):
        raise UsageError("--write-only and --list or --restore exclude each other")
    rights = (*(("list",) if lists or restore else ()), *(("restore",) if restore else ()))
    with settings.open(writes=True, secret=settings.secret()) as repository, _new_file(out) as file:
        added = repository.clients.add(name, rights)
        file.write(added.credential)
    area = added.location.removeprefix("file:")
    value = {"client": _fields(added.client), "area": area, "file": out}
    lines = [
        f"added client {added.client.name} ({_rights(added.client)}); its credential is in {show.shown(out)}",
        f"its area is {show.shown(area)}: all of the repository that its machine needs to reach",
    ]
    settings.report(value, "\n".join(lines))
    return 0


@page(
    "renew",
    examples=(
        ("After somebody was shut out by key rotate --without:", "respaldo key client renew web-1 --out web-1.new"),
        ("A machine that was set up anew, without its credential:", "respaldo key client renew web-1 --out web-1"),
        ("What it would do:", "respaldo key client renew web-1 --out web-1.new --dry-run"),
    ),
    notes=f"client ({_FIELDS}), area (where it lies), file, dry_run.",
)
@_out_option("the new credential")
@click.option("-n", "--dry-run", is_flag=True, help="Say which client it would be; change nothing.")
@click.argument("name", type=CLIENT_LEFT)
def renew(settings: Settings, *, name: str, out: str, dry_run: bool) -> int:
    """Give a client and its area other keys, and write its new credential to a file.

    Put that file in the place of the old one on the client's machine: until then, its snapshots fail, with an error
    that says so. What it stores under the new credential opens under none of the old keys. Its snapshots stay, and
    nothing is uploaded anew; whoever had the old keys of the area can still read what was stored before, if he gets it.

    Where the client may list or restore, add the new file to the old one instead (cat NEW >> OLD): the old line opens
    what was stored before.
    """
    with settings.open(writes=not dry_run, secret=settings.secret()) as repository:
        client = repository.clients.find_renewable(name)
        if dry_run:
            value = {"client": _fields(client), "area": None, "file": out, "dry_run": True}
            settings.report(value, f"would renew client {client.name} ({client.id[:8]})")
            return 0
        with _new_file(out) as file:
            renewed = repository.clients.renew(name)
            file.write(renewed.credential)
    client, area = renewed.client, renewed.location.removeprefix("file:")
    lines = [
        f"renewed client {client.name} ({_rights(client)}); its new credential is in {show.shown(out)}",
        "its snapshots fail until that file is in the place of the old one on its machine",
    ]
    if client.rights:
        lines.append("to read there what was stored before, add the file to the old one instead: cat NEW >> OLD")
    settings.report({"client": _fields(client), "area": area, "file": out, "dry_run": False}, "\n".join(lines))
    return 0


@page(
    "list",
    statuses=(4,),
    examples=(
        ("All clients:", "respaldo key client list -r /mnt/disk/backup"),
        ("Their names:", "respaldo key client list --json | jq -r '.clients[].name'"),
    ),
    notes=f"clients: a list of {_FIELDS}. damaged: names.",
)
def list_(settings: Settings) -> int:
    """List the clients that can write and not read, those that were removed included."""
    with settings.open() as repository:
        clients, damaged = repository.clients.listed()
    rows = [
        (
            item.name,
            item.id[:8],
            _rights(item),
            show.local_time(item.added_ns),
            "–" if not item.epoch else show.local_time(item.keys_ns),
            "–" if item.removed_ns is None else show.local_time(item.removed_ns),
        )
        for item in clients
    ]
    value = {"clients": [_fields(item) for item in clients], "damaged": [error.name for error in damaged]}
    text = show.table(("NAME", "ID", "MAY", "ADDED", "RENEWED", "REMOVED"), rows) if rows else "no clients"
    settings.report(value, text)
    for error in damaged:
        show.err(f"warning: {show.shown(str(error))}")
    return 4 if damaged else 0


@page(
    "remove",
    examples=(
        ("A machine that was stolen:", "respaldo key client remove web-1"),
        ("Whether it is the right one:", "respaldo key client remove web-1 --dry-run"),
    ),
    notes=f"removed ({_FIELDS}), dry_run.",
)
@click.option("-n", "--dry-run", is_flag=True, help="Say which one it would be; remove nothing.")
@click.argument("name", type=CLIENT_LEFT)
def remove(settings: Settings, *, name: str, dry_run: bool) -> int:
    """Remove a client, named by its name or the beginning of its id.

    Nothing that it begins to write from now on counts for anybody who reads, whatever the time it claims. What it wrote
    before stays, and so does a snapshot that is under way. The next one fails there with status 12, and says why,
    unless somebody hides that from it. Its credential still lets it write to storage that lets it: take that away, too.

    The log says it, so that it counts also where its record is gone: then key client list and verify name that, and to
    remove the client once more puts it again.
    """
    with settings.open(writes=not dry_run, secret=settings.secret()) as repository:
        client = repository.clients.find(name) if dry_run else repository.clients.remove(name)
    value = {"removed": _fields(client), "dry_run": dry_run}
    settings.report(value, f"{'would remove' if dry_run else 'removed'} client {client.name} ({client.id[:8]})")
    return 0


@contextlib.contextmanager
def _new_file(path: str) -> Iterator[IO[bytes]]:
    """Makes a file that only its owner can read, durable in the end; takes it away where what it is for fails.

    It has its space from the beginning: what is written to it exists nowhere else, and what it opens is there by then.
    """
    from respaldo.cli.passphrase import make_private  # start-up time

    fd = make_private(path, "file")
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(b"\n" * _RESERVED_BYTES)
            file.flush()
            os.fsync(fd)
            file.seek(0)
            yield file
            file.truncate()
            file.flush()
            os.fsync(fd)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(path)
        if isinstance(error, OSError):
            error.filename = error.filename or path
        raise


def _rights(client: ClientInfo) -> str:
    return ", ".join(("write", *client.rights))


def _fields(client: ClientInfo) -> dict[str, object]:
    return {
        "id": client.id,
        "name": client.name,
        "rights": list(client.rights),
        "added": show.iso_time(client.added_ns),
        "keys": show.iso_time(client.keys_ns),
        "renewed": client.epoch,
        "removed": None if client.removed_ns is None else show.iso_time(client.removed_ns),
    }


for _command in (add, renew, list_, remove):
    group.add_command(_command)
