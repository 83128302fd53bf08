"""`respaldo import`: makes snapshots of tar archives."""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from respaldo import __version__
from respaldo.cli import show
from respaldo.cli.calling import KINDS
from respaldo.cli.pages import page
from respaldo.cli.progress import watching
from respaldo.cli.settings import Settings
from respaldo.cli.signals import cancelling
from respaldo.cli.values import LOCAL_ZONE, MOMENT, RATE
from respaldo.core.errors import RespaldoError, SourceError, UsageError

if TYPE_CHECKING:
    from respaldo.api import ImportOptions, ImportResult, Repository
    from respaldo.cli.streams import DescriptorStream
    from respaldo.core.seams import Cancel


@page(
    "import",
    statuses=(3,),
    examples=(
        (
            "Years of nightly archives, each named by its day, the oldest first:",
            "respaldo import /old/home-*.tar.gz --time-from-name 'home-%Y-%m-%d' --host laptop --as /home/ana",
        ),
        ("An archive of another machine, as it comes:", "ssh web tar -C / -c srv | respaldo import - --host web"),
        ("What that would make, and how big:", "respaldo import backup.tar.zst --dry-run"),
        (
            "Back from an export, with label, tags and time:",
            "respaldo import laptop_snapshot_20261120_1800_1f2e.tar.zst",
        ),
    ),
    notes=(
        "A list, one item an archive: archive, snapshot (id; null in a dry run), dry_run, present (whether it was "
        "there already), time, host, sources, parent, members, files, directories, others, bytes, new_bytes, "
        "stored_bytes, errors, failed: a list of path and reason; or error, where no snapshot was made of it."
    ),
)
@click.argument(
    "archives", metavar="TAR...", nargs=-1, required=True, type=click.Path(allow_dash=True, path_type=bytes)
)
@click.option(
    "--as",
    "base",
    default=None,
    metavar="PATH",
    type=click.Path(path_type=bytes),
    help="The directory that names in the archive are relative to: an absolute path; / by default.",
)
@click.option(
    "--time",
    "time_ns",
    type=MOMENT,
    default=0,
    metavar="TIME",
    help="When the archive was made. By default what its name says with --time-from-name, what an export says of "
    "itself, or the newest time of change in it that is not later than its own.",
)
@click.option(
    "--time-from-name",
    "pattern",
    default="",
    metavar="PATTERN",
    help="The time stands in the archive's name: '%Y-%m-%d', '%Y%m%d_%H%M' (as date prints it; local time).",
)
@click.option("--host", default="", metavar="HOST", help="The machine it is of; this one by default.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="Tag the snapshots (repeatable).")
@click.option("--label", default="", metavar="TEXT", help="Give the snapshot a name that it answers to.")
@click.option("--reason", default="", metavar="TEXT", help="Record why it was made.")
@click.option("--kind", type=click.Choice(KINDS), default=None, help="Its kind; without it, as for snapshot.")
@click.option("--dry-run", "-n", is_flag=True, help="Read and count, store nothing.")
@click.option(
    "--limit", type=RATE, default=0, metavar="RATE", help="Write to the repository at most so fast (20MiB/s)."
)
def command(settings: Settings, *, archives: tuple[bytes, ...], **given: Any) -> int:  # noqa: ANN401 - click's values
    """Make snapshots of tar archives: one an archive, with the time at which it was made. "-" is standard input.

    Archives may be packed with gzip, bzip2, xz or zstd, and made by GNU tar, bsdtar, star or pax: times, owners, modes,
    links, holes, devices, extended attributes and ACLs are taken over as far as the archive has them. Nothing is
    unpacked to disk. What the archives of a series have in common is stored once.

    Members are taken as tar would unpack them, one after another into an empty directory: the last of one name wins.
    Names are never absolute and never lead upwards. What cannot be taken over, and where an archive is damaged or cut
    off, is named; the rest becomes a snapshot, and the status is 3. What is no tar archive at all makes none: status 1.
    """
    _check(archives, given)
    failed: list[RespaldoError] = []
    incomplete = False
    values: list[dict[str, object]] = []
    with (
        settings.open(writes=not given["dry_run"], limit_bytes_per_s=given["limit"]) as repository,
        cancelling() as cancel,
    ):
        for archive in archives:
            try:
                with watching(settings.level, display=settings.display) as progress:
                    result = _one(repository, archive, given, progress, cancel)
            except SourceError as error:
                failed.append(error)
                values.append({**show.path_fields(archive, "archive"), "error": str(error)})
                show.err(f"error: {show.shown(str(error))}")
                if error.hint:
                    show.err(f"hint: {error.hint}")
                continue
            incomplete = incomplete or not result.complete
            values.append(_fields(archive, result))
            if not settings.json:
                settings.report({}, _text(archive, result))
    if settings.json:
        settings.report(values, "")
    return 1 if failed else 3 if incomplete else 0


def _check(archives: tuple[bytes, ...], given: dict[str, Any]) -> None:
    from respaldo.api import is_reserved  # start-up time

    base: bytes | None = given["base"]
    if base is not None and not base.startswith(b"/"):
        raise UsageError("--as needs an absolute path")
    if given["time_ns"] and (given["pattern"] or len(archives) > 1):
        raise UsageError("--time is the time of one archive", hint="of several, use --time-from-name")
    label = given["label"]
    if label == "latest" or ":/" in label or is_reserved(label):
        raise UsageError(f"a snapshot cannot be labelled {label!r}", hint="such names mean something by themselves")
    if label and len(archives) > 1:
        raise UsageError("a label is the name of one snapshot", hint="of several archives, use --tag")
    if given["pattern"] and b"-" in archives:
        raise UsageError("standard input has no name that a time could stand in", hint="use --time")


def _one(repository: Repository, archive: bytes, given: dict[str, Any], progress: Any, cancel: Cancel) -> ImportResult:  # noqa: ANN401 - notes
    from respaldo.api import import_archive  # start-up time

    with _opened(archive, cancel) as (stream, before_ns):
        options = _options(archive, given, before_ns)
        return import_archive(repository, archive, stream, options, progress=progress, cancel=cancel)


def _options(archive: bytes, given: dict[str, Any], before_ns: int) -> ImportOptions:
    from respaldo.api import ImportOptions, plain_path, time_from_name  # start-up time

    time_ns = given["time_ns"]
    if given["pattern"]:
        time_ns = time_from_name(os.path.basename(os.fsdecode(archive)), given["pattern"])
    uid = os.getuid()
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = ""
    return ImportOptions(
        base=plain_path(os.fsdecode(given["base"])) if given["base"] is not None else b"",
        time_ns=time_ns,
        before_ns=before_ns,
        dry_run=given["dry_run"],
        host=given["host"],
        default_host=os.uname().nodename,
        user=user,
        uid=uid,
        kind=given["kind"] or "",
        label=given["label"],
        reason=given["reason"],
        tags=tuple(dict.fromkeys(given["tags"])),
        zone=LOCAL_ZONE,
        program=f"respaldo {__version__}",
    )


@contextlib.contextmanager
def _opened(archive: bytes, cancel: Cancel) -> Iterator[tuple[DescriptorStream, int]]:
    """Opens an archive; gives it with its time of change, 0 for a stream."""
    from respaldo.cli.streams import DescriptorStream, standard_input  # start-up time

    if archive == b"-":
        with standard_input(cancel) as stream:
            yield stream, 0
        return
    try:
        fd = os.open(archive, os.O_RDONLY | os.O_CLOEXEC)
        before_ns = os.fstat(fd).st_mtime_ns
    except OSError as error:
        raise SourceError(archive, error.strerror or str(error)) from None
    try:
        yield DescriptorStream(fd, os.fsdecode(archive), cancel), before_ns
    finally:
        os.close(fd)


def _fields(archive: bytes, result: ImportResult) -> dict[str, object]:
    manifest, figures = result.manifest, result.manifest.figures
    return {
        **show.path_fields(archive, "archive"),
        "snapshot": result.snapshot.hex() if result.snapshot is not None else None,
        "dry_run": result.snapshot is None,
        "present": result.present,
        "time": show.iso_time(manifest.time_ns),
        "host": manifest.host,
        "sources": [show.path_fields(source) for source in manifest.sources],
        "parent": manifest.parent.hex() or None,
        "members": result.members,
        "files": figures.files,
        "directories": figures.directories,
        "others": figures.others,
        "bytes": figures.length_bytes,
        "new_bytes": figures.chunk_bytes_new,
        "stored_bytes": figures.stored_bytes,
        "errors": figures.errors,
        "failed": [{**show.path_fields(path), "reason": reason} for path, reason in manifest.failed],
    }


def _text(archive: bytes, result: ImportResult) -> str:
    manifest, figures = result.manifest, result.manifest.figures
    if result.snapshot is None:
        head = "would make a snapshot"
    elif result.present:
        head = f"snapshot {result.snapshot.hex()[:8]} holds it already"
    else:
        head = f"snapshot {result.snapshot.hex()[:8]}"
    text = (
        f"{show.shown(archive)}: {head}, {show.local_time(manifest.time_ns)}, {show.some(manifest.sources)}: "
        f"{show.count(figures.files)} files, {show.size(figures.length_bytes)}, "
        f"{show.size(figures.chunk_bytes_new)} new"
    )
    if figures.errors:
        text += f"\nincomplete: {show.count(figures.errors)} times something could not be taken over, see above"
    return text
