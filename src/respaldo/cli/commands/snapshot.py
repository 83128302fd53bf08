"""`respaldo snapshot`: backs up files and directories, standard input, or what a command prints."""

from __future__ import annotations

import os
import pwd
from typing import TYPE_CHECKING, Any

import click

from respaldo import __version__
from respaldo.cli import show
from respaldo.cli.afterwards import Afterwards, prune_afterwards, source_policy
from respaldo.cli.calling import called_as, calling_options, changes_fields
from respaldo.cli.pages import page, pattern_options, patterns
from respaldo.cli.progress import on_terminal, watching
from respaldo.cli.settings import Settings
from respaldo.cli.signals import cancelling
from respaldo.cli.sources import find_sources, rules_for_itself, stream_path
from respaldo.cli.values import LOCAL_ZONE, MOMENT, RATE, SHARE, SIZE
from respaldo.core.errors import UsageError

if TYPE_CHECKING:
    from respaldo.api import BackupOptions, BackupResult, Repository
    from respaldo.cli.progress import Notes
    from respaldo.core.seams import Cancel


@page(
    "snapshot",
    statuses=(3,),
    examples=(
        (
            "A home directory, without caches and builds; first, what would be read, and why:",
            "respaldo snapshot ~ --exclude-caches --exclude node_modules/ --dry-run -v",
        ),
        (
            "A database; if the dump fails, there is no snapshot:",
            "respaldo snapshot --command 'pg_dump -Fc shop' --stdin shop.dump --reason nightly",
        ),
        (
            "Before something big: a full one that keep-tag can keep, and the next minor version:",
            "respaldo snapshot ~/thesis --minor --milestone 'handed in' --reason 'before the review'",
        ),
        (
            "A mounted LVM or btrfs snapshot, recorded as what it is a picture of:",
            "respaldo snapshot /mnt/home-snap --as /home",
        ),
        ("From a timer, with a policy that runs afterwards:", "respaldo snapshot /home --prune --policy standard -q"),
    ),
    notes=(
        "snapshot (id, null for a dry run), kind, label, tags, complete, healed_chunks (damaged before, and stored "
        "again), sources, time, parent, root (hash of all that is in it), changes: added, changed, removed since the "
        "parent (null where its trees cannot be read), figures: files, directories, others, "
        "bytes, files_new, files_changed (read again), files_unchanged, read_bytes, new_bytes (after deduplication), "
        "stored_bytes (after compression), chunks_new, chunks_known, errors, duration_s, bytes_per_s; reread: files, "
        "bytes; rotten: a list of path (content that changed while times did not); failed: a list of path and reason; "
        "dry_run. "
        "With --prune also prune, whose keys are those of prune --json, with error where it failed."
    ),
)
@click.argument("paths", metavar="PATH...", nargs=-1, type=click.Path(path_type=bytes))
@pattern_options
@click.option("--exclude-caches", is_flag=True, help="Leave out what is in directories with a CACHEDIR.TAG.")
@click.option(
    "--exclude-larger-than", type=SIZE, default=0, metavar="SIZE", help="Leave out files above a size (20MiB)."
)
@click.option("--one-file-system", "-x", is_flag=True, help="Stay on the file system of each source.")
@click.option(
    "--files-from",
    multiple=True,
    metavar="FILE",
    type=click.Path(),
    help="Read paths from a file, one a line; - is standard input.",
)
@click.option(
    "--files-from0", multiple=True, metavar="FILE", type=click.Path(), help="The same, with NUL after each path."
)
@click.option("--stdin", "stdin_name", default="", metavar="NAME", help="Store standard input as a file of this name.")
@click.option(
    "--command",
    "command_text",
    default="",
    metavar="COMMAND",
    help="Run a command (words as in a shell, but no shell) and store what it prints, as --stdin NAME or under its "
    "own name.",
)
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="Tag the snapshot (repeatable).")
@click.option("--reason", default="", metavar="TEXT", help="Record why it was made.")
@calling_options
@click.option("--host", default="", metavar="HOST", help="Record another machine's name than this one's.")
@click.option("--time", "time_ns", type=MOMENT, default=0, metavar="TIME", help="Record another time than now.")
@click.option(
    "--as",
    "recorded_as",
    default=None,
    metavar="PATH",
    type=click.Path(path_type=bytes),
    help="Record the source under this path.",
)
@click.option("--dry-run", "-n", is_flag=True, help="Read and count, store nothing.")
@click.option(
    "--ignore-ctime", is_flag=True, help="A file whose size, mtime and inode are as before counts as unchanged."
)
@click.option("--trust-times", is_flag=True, help="Size and mtime suffice, also without the local cache.")
@click.option(
    "--paranoid",
    type=SHARE,
    default=0.0,
    metavar="SHARE",
    help="Read a share (5%) of the files that count as unchanged again, in as many runs as it takes all of them, and "
    "name those whose content changed while times and size did not. What is stored of them stays.",
)
@click.option(
    "--limit", type=RATE, default=0, metavar="RATE", help="Write to the repository at most so fast (20MiB/s)."
)
@click.option(
    "--prune", is_flag=True, help="Then forget what the policy of the source does not keep of it, and free the space."
)
@click.option(
    "--policy",
    "policy_name",
    default="",
    metavar="NAME",
    help="The policy for --prune, as prune takes it: standard, one of yours, FILE or FILE:NAME. Without it, the one "
    "of ~/.config/respaldo/policies.toml (or RESPALDO_POLICIES) whose sources hold these paths.",
)
@click.pass_context
def command(ctx: click.Context, /, settings: Settings, **given: Any) -> int:  # noqa: ANN401 - click's values
    """Back up PATHs: files, and directories with all that is in them.

    Every snapshot is complete; only content that the repository does not hold yet is stored. Files whose size, times
    and inode are as last time are not read. A file that cannot be read is named, the rest is backed up, and the exit
    status is 3. Interrupted (Ctrl-C), there is no snapshot; what was stored is found again by the next run.

    With --paranoid, a file whose content changed although its times, size and inode did not (a failing disk) is named,
    and the exit status is 3. The snapshot keeps the content that was read when its times were true, so that nothing
    good is lost to retention; touch the file to have it stored as it is, or restore it with --overwrite always.

    Every snapshot is of a kind and has a label: the first of its source in a week is a snapshot, the first of any other
    day full, all others incremental; the label is the next version, and the time. The counts of what changed are those
    of everything but directories; only its time may have. All are complete, whatever their kind.

    With --prune, the policy decides about the snapshots of the same host and paths, no others. While the newest is
    incomplete, the newest complete one stays, too. Where that fails, the snapshot stands, and the status says so.

    Patterns are those of a .gitignore, relative to each source; options count in the order in which they stand.
    """
    sources = find_sources(given)
    policy = source_policy(given, [given["recorded_as"]] if given["recorded_as"] else sources or [stream_path(given)])
    if policy is not None and settings.is_client():
        raise UsageError("--prune is for the repository's owner: this client cannot take anything away")
    itself = rules_for_itself(settings, sources)
    options = _options(ctx, given, itself, estimate=settings.display and on_terminal())
    writes = not options.dry_run
    with settings.open(writes=writes, limit_bytes_per_s=given["limit"]) as repository, cancelling() as cancel:
        with watching(settings.level, display=settings.display) as progress:
            result = _run(repository, sources, options, given, progress, cancel)
        fields, after = _fields(result) | {"dry_run": options.dry_run}, Afterwards()
        if not settings.json:  # whatever follows, it is made
            settings.report(fields, _text(result, dry_run=options.dry_run))
        if policy is not None and result.snapshot is not None:
            with watching(settings.level, display=settings.display) as progress:
                after = prune_afterwards(repository, policy, result.snapshot, progress=progress, cancel=cancel)
            fields["prune"] = after.fields
            if not settings.json:
                settings.report(after.fields, after.text)
    if settings.json:
        settings.report(fields, "")
    if after.error is not None:
        show.err(f"error: the snapshot is made; what was to follow failed: {show.shown(str(after.error))}")
        if after.error.hint:
            show.err(f"hint: {show.shown(after.error.hint)}")
    return after.status or (0 if result.complete else 3)


def _run(
    repository: Repository,
    sources: list[bytes],
    options: BackupOptions,
    given: dict[str, Any],
    progress: Notes,
    cancel: Cancel,
) -> BackupResult:
    if sources:
        return repository.backup(sources, options, progress=progress, cancel=cancel)
    from respaldo.cli import streams  # start-up time

    path = stream_path(given)
    if not given["command_text"]:
        with streams.standard_input(cancel) as stream:
            return repository.backup_stream(
                path, stream, options, finish=cancel.check, progress=progress, cancel=cancel
            )
    words = streams.split_command(given["command_text"])
    with streams.CommandOutput(words, cancel) as output:
        return repository.backup_stream(path, output, options, finish=output.finish, progress=progress, cancel=cancel)


def _options(ctx: click.Context, given: dict[str, Any], itself: list[str], *, estimate: bool) -> BackupOptions:
    from respaldo.api import BackupOptions  # start-up time

    called = called_as(given)
    uid = os.getuid()
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = ""
    recorded_as: bytes | None = given["recorded_as"]
    if recorded_as is not None and not recorded_as.startswith(b"/"):
        raise UsageError("--as needs an absolute path")
    return BackupOptions(
        exclude=(*itself, *patterns(ctx)),
        exclude_caches=given["exclude_caches"],
        exclude_larger_bytes=given["exclude_larger_than"],
        one_file_system=given["one_file_system"],
        recorded_as=recorded_as or b"",
        ignore_ctime=given["ignore_ctime"],
        trust_times=given["trust_times"],
        paranoid=given["paranoid"],
        dry_run=given["dry_run"],
        estimate=estimate,
        host=given["host"] or os.uname().nodename,
        user=user,
        uid=uid,
        gid=os.getgid(),
        kind=called.kind,
        label=called.label,
        bump=called.bump,
        zone=LOCAL_ZONE,
        reason=given["reason"],
        tags=tuple(dict.fromkeys((*given["tags"], *called.tags))),
        time_ns=given["time_ns"],
        program=f"respaldo {__version__}",
    )


def _text(result: BackupResult, *, dry_run: bool) -> str:
    manifest, figures = result.manifest, result.figures
    took = f"{show.duration(figures.duration_ns)}, {show.rate(figures.length_bytes, figures.duration_ns)}"
    changes = show.changes(manifest.changes)
    rows = [
        ("label", f"{show.shown(manifest.label)}, {manifest.kind}"),
        ("changes", f"{changes} since {manifest.parent.hex()[:8]}" if manifest.parent else changes),
        (
            "files",
            (
                f"{show.count(figures.files)} in {show.count(figures.directories, 'directory', 'directories')}: "
                f"{show.count(figures.files_new)} new, {show.count(figures.files_changed)} read again, "
                f"{show.count(figures.files_unchanged)} as before"
            ),
        ),
        ("size", show.size(figures.length_bytes)),
        ("read", show.size(figures.read_bytes)),
        ("new", f"{show.size(figures.chunk_bytes_new)} after deduplication"),
    ]
    if result.reread_files:
        what = f"{show.count(len(result.rotten))} with other content than stored" if result.rotten else "all as stored"
        again = f"{show.count(result.reread_files, 'unchanged file')}, {show.size(result.reread_bytes)}: {what}"
        rows.append(("sample", again))
    if not dry_run:
        rows.append(("stored", f"{show.size(figures.stored_bytes)} after compression"))
    rows.append(("time", took))
    sources = show.some(manifest.sources)
    head = f"snapshot {result.snapshot.hex()[:8]} of {sources}" if result.snapshot else f"would back up {sources}"
    if result.healed:
        head += f"\nhealed {show.count(result.healed, 'chunk')} that {'was' if result.healed == 1 else 'were'} damaged"
    if figures.errors:
        head += f"\nincomplete: {show.count(figures.errors, 'path')} could not be read as they should, see above"
    return f"{head}\n{show.figures(rows)}"


def _fields(result: BackupResult) -> dict[str, object]:
    manifest, figures = result.manifest, result.figures
    return {
        "snapshot": result.snapshot.hex() if result.snapshot else None,
        "kind": manifest.kind,
        "label": manifest.label,
        "tags": list(manifest.tags),
        "complete": result.complete,
        "healed_chunks": result.healed,
        "sources": [show.path_fields(source) for source in manifest.sources],
        "time": show.iso_time(manifest.time_ns),
        "parent": manifest.parent.hex() or None,
        "root": manifest.root.hex(),
        "changes": changes_fields(manifest.changes),
        "figures": {
            "files": figures.files,
            "directories": figures.directories,
            "others": figures.others,
            "bytes": figures.length_bytes,
            "files_new": figures.files_new,
            "files_changed": figures.files_changed,
            "files_unchanged": figures.files_unchanged,
            "read_bytes": figures.read_bytes,
            "new_bytes": figures.chunk_bytes_new,
            "stored_bytes": figures.stored_bytes,
            "chunks_new": figures.chunks_new,
            "chunks_known": figures.chunks_known,
            "errors": figures.errors,
            "duration_s": figures.duration_ns / 1e9,
            "bytes_per_s": show.per_second(figures.length_bytes, figures.duration_ns),
        },
        "reread": {"files": result.reread_files, "bytes": result.reread_bytes},
        "rotten": [show.path_fields(path) for path in result.rotten],
        "failed": [{**show.path_fields(path), "reason": reason} for path, reason in manifest.failed],
    }
