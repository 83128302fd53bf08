"""`respaldo restore`: writes a snapshot, or a part of it, back."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from respaldo.cli import preview as previews
from respaldo.cli import safety as safe
from respaldo.cli import show
from respaldo.cli.names import SNAPSHOT, host_option
from respaldo.cli.pages import page
from respaldo.cli.progress import watching
from respaldo.cli.settings import Settings
from respaldo.cli.signals import cancelling
from respaldo.core.errors import UsageError

if TYPE_CHECKING:
    from respaldo.api import Found, RestoreOptions, RestorePlan, RestoreResult

_POLICIES = ("always", "if-changed", "if-newer", "never")


@page(
    "restore",
    statuses=(3,),
    examples=(
        (
            "A directory as it was last, beside the one of today:",
            "respaldo restore latest:/home/ana/Documents /tmp/back",
        ),
        ("A whole snapshot, as on a new disk:", "respaldo restore 4f1c09ab /mnt/newdisk"),
        ("One file, over the one that was broken:", "respaldo restore before-upgrade:/etc/fstab /etc/fstab"),
        (
            "A directory made equal to the snapshot; look first, then do it:",
            "respaldo restore latest:/srv/app /srv/app --delete --preview",
        ),
        (
            "Pictures only, read back and compared afterwards:",
            "respaldo restore latest /tmp/p --include '*.jpg' --verify",
        ),
    ),
    notes=(
        "snapshot, path, target, dry_run (also of a preview), complete, directories, created, overwritten, "
        "attributes, unchanged, kept, deleted, "
        "failed, damaged, written_bytes, duration_s, bytes_per_s, failures (path, reason), missed (what, count, "
        "example: what could not be set), notes, safety (snapshot, path, command: what was put away first, and what "
        "brings it back). With --dry-run: write_bytes, delete_bytes and actions (verb, path, size) instead. With "
        "--preview: counts (added, overwritten, metadata, deleted, kept, unchanged, failed), write_bytes, "
        "delete_bytes, entries in the order of a tree (what, path relative to the target, directory, size, "
        "size_before, counts of what is below, reason), cut (how many that change are not listed), safety (whether "
        "something would be put away)."
    ),
)
@click.argument("name", metavar="SNAPSHOT[:PATH]", type=SNAPSHOT)
@click.argument("target", metavar="TARGET", type=click.Path(path_type=bytes))
@click.option(
    "--include", multiple=True, metavar="PATTERN", help="Only what matches, as in a .gitignore, below what is restored."
)
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Leave out what matches.")
@click.option(
    "--overwrite",
    type=click.Choice(_POLICIES),
    default="if-changed",
    show_default=True,
    help="What happens to files that are there: always compares all content; if-changed takes equal size and time for "
    "equal content; if-newer replaces only what is older than in the snapshot; never leaves all as it is.",
)
@click.option(
    "--delete",
    is_flag=True,
    help="Delete what the snapshot does not have, but for what it left out itself, and nothing in what is mounted "
    "below TARGET, nor the repository itself.",
)
@click.option(
    "--dry-run", "-n", is_flag=True, help="Print what would be created, overwritten, deleted; change nothing."
)
@click.option(
    "--preview",
    is_flag=True,
    help="Show the target as a tree, with sizes, and what would become of each name; change nothing.",
)
@click.option(
    "--safety/--no-safety",
    default=None,
    help="Take a snapshot of what is there first, and say how to get back. Without either option: where something "
    "would be overwritten or deleted and lies under a source of the repository. If it fails, nothing is touched.",
)
@click.option("--verify", is_flag=True, help="Read everything back from the disk and compare it.")
@click.option("--no-owner", is_flag=True, help="Leave owners and groups as the system gives them.")
@click.option("--numeric-ids", is_flag=True, help="Set owners by number, not by name.")
@click.option("--sparse", is_flag=True, help="Make holes of zeros, besides the holes that were there.")
@click.option(
    "--in-place",
    is_flag=True,
    help="Rewrite only what differs in long files. While that lasts, they are neither old nor new.",
)
@click.option("--no-space-check", is_flag=True, help="Begin although the target seems too small.")
@host_option
def command(
    settings: Settings,
    *,
    name: str,
    target: bytes,
    host: str,
    dry_run: bool,
    preview: bool,
    safety: bool | None,
    **given: Any,  # noqa: ANN401
) -> int:
    """Write a snapshot back. What is in a directory lands directly in TARGET; a file becomes TARGET, or lands in it.

    Every file is whole under its name or not there (but for --in-place), and run again, a restore goes on where it was
    interrupted. Each chunk is checked against what was backed up: a file that is damaged is named and left out, the
    rest is restored, and the exit status is 4; 3 where a file could not be written. Symbolic links in TARGET are never
    followed.

    Where something would be overwritten or deleted in a directory that is backed up here, its present state is put away
    first, as a snapshot with the tag "safety", and the command that gets back is printed. Such snapshots are never the
    "latest" ones. Where the repository cannot be written to, or something there cannot be read, nothing is touched; see
    --no-safety.
    """
    if preview and dry_run:
        raise UsageError("--preview and --dry-run are two forms of the same; use one of them")
    options = _options(given)
    looks_only = dry_run or preview
    careful = safety is not False and not looks_only and os.path.lexists(target)
    put_away: list[dict[str, object]] = []
    with (
        settings.open(writes=careful) as repository,
        cancelling() as cancel,
        watching(settings.level, display=settings.display) as progress,
    ):
        found = repository.find(name, host=host)
        restoring = repository.restoring(found, target, options)
        if preview:
            tree = restoring.preview(cancel=cancel)
            endangered = safety is not False and restoring.endangered(everywhere=bool(safety), cancel=cancel)
        elif dry_run:
            plan = repository.plan_restore(found, target, options, progress=progress, cancel=cancel)
        else:
            if careful:
                put_away = safe.put_away(
                    settings,
                    restoring,
                    found,
                    target,
                    options,
                    everywhere=bool(safety),
                    progress=progress,
                    cancel=cancel,
                )
            result = repository.restore(found, target, options, progress=progress, cancel=cancel)
    head = {
        "snapshot": found.snapshot.hex,
        **show.path_fields(found.path),
        **show.path_fields(target, "target"),
        "dry_run": looks_only,
    }
    if preview:
        lines = [*previews.text(tree, _around(found, target) or b".")]
        if endangered:
            lines.append("what is there would be put away first, as a snapshot with the tag safety")
        settings.report(head | previews.fields(tree) | {"safety": bool(endangered)}, "\n".join(lines))
        return tree.exit_status
    if dry_run:
        settings.report(head | _plan_fields(plan), _plan_text(plan, found, target))
        return plan.exit_status
    settings.report(head | _fields(result) | {"safety": put_away}, _text(result, found, target))
    for missed in result.missed:
        example = show.shown(missed.example)
        count = show.count(missed.count, "entry", "entries")
        show.err(f"warning: {show.shown(missed.what)} of {count} could not be set, {example} first")
    return result.exit_status


def _options(given: dict[str, Any]) -> RestoreOptions:
    from respaldo.api import Overwrite, RestoreOptions  # start-up time

    return RestoreOptions(
        include=given["include"],
        exclude=given["exclude"],
        overwrite=Overwrite(given["overwrite"]),
        delete=given["delete"],
        verify=given["verify"],
        owners=not given["no_owner"],
        numeric_ids=given["numeric_ids"],
        sparse=given["sparse"],
        in_place=given["in_place"],
        check_space=not given["no_space_check"],
    )


def _counted(done: RestorePlan | RestoreResult) -> str:
    counts = (
        (done.created, "created"),
        (done.overwritten, "overwritten"),
        (done.attributes, "with other attributes"),
        (done.unchanged, "unchanged"),
        (done.kept, "kept"),
        (done.deleted, "deleted"),
        (done.failed, "failed"),
    )
    return ", ".join(f"{number:,} {what}" for number, what in counts if number) or "nothing"


def _text(result: RestoreResult, found: Found, target: bytes) -> str:
    head = f"restored {found.snapshot.hex[:8]}:{show.shown(found.path)} to {show.shown(target)}"
    if not result.complete:
        head += f"\nincomplete: {show.count(result.failed, 'path')} could not be restored, see above"
    below = f", {show.count(result.directories, 'directory', 'directories')}" if found.entry.is_dir else ""
    rows = [
        ("files", f"{_counted(result)}{below}"),
        ("written", show.size(result.written_bytes)),
        ("time", f"{show.duration(result.duration_ns)}, {show.rate(result.written_bytes, result.duration_ns)}"),
    ]
    notes = [f"note: {show.shown(note)}" for note in result.notes]
    return "\n".join((head, show.figures(rows), *notes))


def _below(path: bytes, found: Found, target: bytes) -> bytes:
    """Returns where in the target an entry of the snapshot lands: what a person is asked to agree to."""
    if not found.entry.is_dir:
        return os.path.join(_around(found, target), path.rpartition(b"/")[2])
    relative = path.removeprefix(found.path).lstrip(b"/")
    return os.path.join(target, relative) if relative else target


def _around(found: Found, target: bytes) -> bytes:
    """Returns the directory that a restore writes into: of a single file, the one that it will stand in."""
    place, _, name = target.rpartition(b"/")
    if found.entry.is_dir or os.path.isdir(target) or name in (b"", b".", b".."):
        return target
    return place or (b"/" if target.startswith(b"/") else b"")


def _plan_text(plan: RestorePlan, found: Found, target: bytes) -> str:
    lines = [
        f"{action.verb.value:<10}  {show.size(action.size):>10}  {show.shown(_below(action.path, found, target))}"
        for action in plan.actions
    ]
    changes = plan.created + plan.overwritten + plan.attributes + plan.deleted
    if changes > len(plan.actions):
        lines.append(f"and {show.count(changes - len(plan.actions))} more, in the directories listed or after them")
    lines.append(
        f"would write {show.size(plan.write_bytes)} and delete {show.size(plan.delete_bytes)} "
        f"in {show.shown(target)}: {_counted(plan)}"
    )
    return "\n".join(lines)


def _counts(done: RestorePlan | RestoreResult) -> dict[str, object]:
    return {
        "directories": done.directories,
        "created": done.created,
        "overwritten": done.overwritten,
        "attributes": done.attributes,
        "unchanged": done.unchanged,
        "kept": done.kept,
        "deleted": done.deleted,
        "failed": done.failed,
        "failures": [{**show.path_fields(path), "reason": reason} for path, reason in done.failures],
    }


def _fields(result: RestoreResult) -> dict[str, object]:
    return {
        "complete": result.complete,
        **_counts(result),
        "damaged": result.damaged,
        "written_bytes": result.written_bytes,
        "duration_s": result.duration_ns / 1e9,
        "bytes_per_s": show.per_second(result.written_bytes, result.duration_ns),
        "missed": [
            {"what": item.what, "count": item.count, **show.path_fields(item.example, "example")}
            for item in result.missed
        ],
        "notes": list(result.notes),
    }


def _plan_fields(plan: RestorePlan) -> dict[str, object]:
    return {
        **_counts(plan),
        "write_bytes": plan.write_bytes,
        "delete_bytes": plan.delete_bytes,
        "actions": [
            {"verb": action.verb.value, **show.path_fields(action.path), "size": action.size} for action in plan.actions
        ],
    }
