"""What `copy` and `sync` have in common: the two repositories, and how what came of it is told."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import click

from respaldo.cli import show
from respaldo.cli.other import open_other, other_options
from respaldo.cli.settings import Settings
from respaldo.cli.values import RATE
from respaldo.core.errors import UsageError

if TYPE_CHECKING:
    from respaldo.api import Copied, CopyResult, Repository

F = TypeVar("F", bound=Callable[..., Any])
NOTES = (
    "alike (whether both name content alike, and blocks go over as they are), dry_run, copied: a list of source and "
    "copy (ids; copy is null in a dry run), label, time, sources, new_bytes (exact, also in a dry run), chunks_new, "
    "stored_bytes (as far as it is known), read_bytes, blocks_kept, errors, lost (paths); present: ids that were "
    "there; failed: a list of source and reason"
)


def copy_options(function: F) -> F:
    """Adds the options that name the second repository, and those that both commands take."""
    for option in (
        click.option(
            "--limit", type=RATE, default=0, metavar="RATE", help="Write to the repository at most so fast (20MiB/s)."
        ),
        click.option("--no-pins", is_flag=True, help="Do not pin copies of pinned snapshots."),
        click.option("--dry-run", "-n", is_flag=True, help="Say what would be copied, in exact bytes; change nothing."),
        other_options,
        click.option(
            "--from",
            "from_repo",
            default="",
            metavar="DIRECTORY",
            type=click.Path(path_type=str),
            help="Copy from this repository into the one of --repo.",
        ),
        click.option(
            "--to",
            "to_repo",
            default="",
            metavar="DIRECTORY",
            type=click.Path(path_type=str),
            help="Copy from the repository of --repo into this one.",
        ),
    ):
        function = option(function)
    return function


@contextlib.contextmanager
def both(settings: Settings, given: dict[str, Any], *, writes: bool) -> Iterator[tuple[Repository, Repository]]:
    """Opens both repositories; gives source and target. The source is never written to."""
    from respaldo.api import repository_id  # start-up time

    to_repo, from_repo = given["to_repo"], given["from_repo"]
    if bool(to_repo) == bool(from_repo):
        raise UsageError("name the second repository with --to or with --from")
    location = settings.location()
    if repository_id(location) == repository_id(to_repo or from_repo):  # two caches of one name cannot be open at once
        if settings.client:
            raise UsageError(
                "the area of a client and the repository above it cannot be copied into one another",
                hint="name another repository; respaldo init makes one",
            )
        raise UsageError(
            "both are the same repository, or one is a copy of the other's files",
            hint="name another repository; respaldo init makes one",
        )
    secret = settings.secret()
    limit = given["limit"]  # only the target is written to
    with (
        settings.open(
            writes=writes and bool(from_repo), secret=secret, limit_bytes_per_s=limit if from_repo else 0
        ) as own,
        open_other(
            settings,
            to_repo or from_repo,
            given,
            secret,
            writes=writes and bool(to_repo),
            limit_bytes_per_s=limit if to_repo else 0,
        ) as other,
    ):
        yield (own, other) if to_repo else (other, own)


def fields(result: CopyResult, *, dry_run: bool) -> dict[str, object]:
    """Returns what a program wants to know."""
    return {
        "alike": result.alike,
        "dry_run": dry_run,
        "copied": [
            {
                "source": item.source.hex,
                "copy": item.copy.hex() if item.copy is not None else None,
                "label": item.source.manifest.label,
                "time": show.iso_time(item.source.time_ns),
                "sources": [show.path_fields(path) for path in item.source.manifest.sources],
                "new_bytes": item.new_bytes,
                "chunks_new": item.chunks_new,
                "stored_bytes": item.stored_bytes,
                "read_bytes": item.read_bytes,
                "blocks_kept": item.blocks_kept,
                "errors": item.errors,
                "lost": [show.path_fields(path) for path in item.lost],
            }
            for item in result.copied
        ],
        "present": [item.hex for item in result.present],
        "failed": [{"source": item.hex, "reason": reason} for item, reason in result.failed]
        + [{"source": item.hex(), "reason": reason} for item, reason in result.unreadable],
    }


def text(result: CopyResult, *, dry_run: bool) -> str:
    """Returns what a person wants to know."""
    lines = [_line(item, dry_run=dry_run) for item in result.copied]
    new = sum(item.new_bytes for item in result.copied)
    verb = "would copy" if dry_run else "copied"
    lines.append(
        f"{verb} {show.count(len(result.copied), 'snapshot')}, {show.size(new)} new; "
        f"{show.count(len(result.present))} there already"
    )
    if result.copied and not result.alike:
        lines.append(
            "the two repositories cut content differently, so that all of it was cut anew; one that is made with "
            "respaldo init --like takes it as it is"
        )
    failed = [item.id for item, _ in result.failed] + [item for item, _ in result.unreadable]
    if failed:
        lines.append(
            f"not copied: {', '.join(item.hex()[:8] for item in failed)}; in the source, respaldo verify says what is "
            "damaged, and respaldo repair mends what can be mended"
        )
    errors = sum(item.errors for item in result.copied)
    if errors:
        lines.append(f"incomplete: {show.count(errors, 'path')} lost content in the source, see above")
    return "\n".join(lines)


def _line(item: Copied, *, dry_run: bool) -> str:
    manifest = item.source.manifest
    became = "" if dry_run or item.copy is None else f" -> {item.copy.hex()[:8]}"
    label = f" {show.shown(manifest.label)}" if manifest.label else ""
    return (
        f"{item.source.hex[:8]}{became}  {show.local_time(manifest.time_ns)}{label}  {show.some(manifest.sources)}  "
        f"{show.size(item.new_bytes)} new"
    )


def status(result: CopyResult) -> int:
    """Returns the exit status: damage in the source is damage."""
    return 0 if result.complete else 4
