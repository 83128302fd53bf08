"""`respaldo checksums`: the SHA-256 of every file of a snapshot, as a list that `sha256sum -c` checks."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from respaldo.cli import show
from respaldo.cli.names import SNAPSHOT, host_option
from respaldo.cli.pages import page
from respaldo.cli.progress import watching
from respaldo.cli.settings import Settings
from respaldo.cli.signals import cancelling
from respaldo.core.errors import ChunkMissing, Corruption

if TYPE_CHECKING:
    from respaldo.api import Checksum, Found

_FAILURES_KEPT = 1000


@page(
    "checksums",
    statuses=(3,),
    examples=(
        (
            "Whether a restored tree is what was backed up:",
            "respaldo checksums latest:/srv/www | (cd /tmp/back && sha256sum --quiet -c)",
        ),
        (
            "A list for the safe, with its own SHA-256:",
            "respaldo checksums latest | tee all.sha256 | sha256sum",
        ),
        (
            "Computed from the content, whatever was computed before:",
            "respaldo checksums latest --read-data > all.sha256",
        ),
        (
            "Equal files, by a program:",
            "respaldo checksums latest --json | jq '.files | group_by(.sha256) | map(select(length > 1))'",
        ),
    ),
    notes=(
        "snapshot, path, files: a list of path (relative to the path), size, sha256; count, bytes, sha256 (of the "
        "whole list as it is printed without --json), failures (path, reason), verified (time and how, or null)."
    ),
)
@click.argument("name", metavar="SNAPSHOT[:PATH]", type=SNAPSHOT)
@click.option("--read-data", is_flag=True, help="Read every file, also those whose checksum is known already.")
@host_option
def command(settings: Settings, *, name: str, read_data: bool, host: str) -> int:
    """Print the SHA-256 of every file, as sha256sum does, with names relative to PATH.

    A restore of the same SNAPSHOT[:PATH] lays the files out so that "sha256sum -c" finds them below its target. What
    was computed before, by this command, by "export" or by "verify --read-data", is kept in the repository, sealed,
    and needs no reading; --read-data reads all the same, and a whole snapshot that is read so counts as
    verified. A file without content in the snapshot is named and left out: status 3; damage: status 4.
    """
    hasher = hashlib.sha256()
    failures: list[dict[str, object]] = []
    damaged = False
    count = length = 0

    def failed(path: bytes, error: object) -> None:
        nonlocal damaged
        damaged = damaged or isinstance(error, Corruption | ChunkMissing)
        if len(failures) < _FAILURES_KEPT:
            failures.append({**show.path_fields(path), "reason": str(error)})
        show.err(f"warning: {show.shown(path)}: {show.shown(str(error))}")

    def counted(sums: Iterator[Checksum]) -> Iterator[Checksum]:
        nonlocal count, length
        for item in sums:
            count += 1
            length += item.size
            hasher.update(item.line())
            yield item

    with settings.open(writes=True) as repository, cancelling() as cancel:
        found = repository.find(name, host=host)
        checked = repository.verified([found.snapshot]).get(found.snapshot.id)
        with watching(settings.level, display=settings.display and not sys.stdout.isatty()) as progress:
            figures = found.snapshot.manifest.figures
            if found.path == b"/":
                progress.total(files=figures.files, length_bytes=figures.length_bytes)
            sums = repository.looking.checksums(found, anew=read_data, progress=progress, cancel=cancel, failed=failed)
            if settings.json:
                show.long_document(
                    "files",
                    map(_fields, counted(sums)),
                    lambda: {
                        **_head(found),
                        "count": count,
                        "bytes": length,
                        "sha256": hasher.hexdigest(),
                        "failures": failures,
                        "verified": None
                        if checked is None
                        else {"time": show.iso_time(checked.time_ns), "how": checked.how.value},
                    },
                )
            else:
                show.flush()
                for item in counted(sums):
                    if sys.stdout.isatty():  # names as `sha256sum -c` reads them are nothing for a terminal
                        show.out(show.shown(item.line().rstrip(b"\n")))
                    else:
                        show.out_bytes(item.line())
                show.flush()
    if damaged:
        return 4
    return 3 if failures else 0


def _head(found: Found) -> dict[str, object]:
    return {"snapshot": found.snapshot.hex, **show.path_fields(found.path)}


def _fields(item: Checksum) -> dict[str, object]:
    return {**show.path_fields(item.path), "size": item.size, "sha256": item.digest.hex()}
