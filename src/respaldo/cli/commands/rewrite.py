"""`respaldo rewrite`: makes new snapshots from old ones, without what is to be left out, or with other words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from respaldo import __version__
from respaldo.cli import show
from respaldo.cli.calling import KINDS
from respaldo.cli.names import SNAPSHOT
from respaldo.cli.pages import page, pattern_options, patterns
from respaldo.cli.progress import watching
from respaldo.cli.settings import Settings
from respaldo.cli.signals import cancelling
from respaldo.cli.values import MOMENT, SIZE
from respaldo.core.errors import UsageError

if TYPE_CHECKING:
    from respaldo.api import RewriteOptions, RewriteResult, Rewritten

_WORDS = ("host", "user", "kind", "label", "reason", "tags", "time_ns")


@page(
    "rewrite",
    statuses=(4,),
    examples=(
        (
            "A password file out of all that is left of a machine, for good:",
            "respaldo rewrite $(respaldo snapshots --json | jq -r '.snapshots[].id') --exclude /.secrets --forget",
        ),
        ("What it would leave out:", "respaldo rewrite latest --exclude 'node_modules/' --exclude '*.iso' --dry-run"),
        ("Everything in a cache but one file:", "respaldo rewrite 3f358ae3 --exclude '.cache/**' --include keep.db"),
        ("The machine has another name now:", "respaldo rewrite 3f358ae3 4f1c09ab --host new-name --forget"),
        ("A milestone, found out later:", "respaldo rewrite 3f358ae3 --label v1.0 --tag milestone --untag nightly"),
    ),
    notes=(
        "dry_run; rewritten: a list of old (id), new (id; null of a dry run, and where nothing changes), changed, "
        "forgotten_meanwhile, files, directories, others, bytes (what is left), excluded: files, directories, others "
        "and bytes, words (which metadata differs), lost: a list of path (directories that could not be read); "
        "forgotten (ids); pinned (ids that were to be forgotten and were pinned meanwhile)."
    ),
)
@click.argument("names", metavar="SNAPSHOT...", nargs=-1, required=True, type=SNAPSHOT)
@pattern_options
@click.option("--exclude-larger-than", type=SIZE, default=0, metavar="SIZE", help="Leave out files above a size.")
@click.option("--host", default=None, metavar="HOST", help="Record another machine.")
@click.option("--user", default=None, metavar="USER", help="Record another user.")
@click.option("--kind", default=None, type=click.Choice(KINDS), help="Record another kind.")
@click.option("--label", default=None, metavar="TEXT", help="Record another label; '' takes it away.")
@click.option("--reason", default=None, metavar="TEXT", help="Record another reason.")
@click.option("--tag", "add_tags", multiple=True, metavar="TAG", help="Add a tag (repeatable).")
@click.option("--untag", "remove_tags", multiple=True, metavar="TAG", help="Take a tag away (repeatable).")
@click.option("--time", "time_ns", type=MOMENT, default=None, metavar="TIME", help="Record another time.")
@click.option("--forget", is_flag=True, help="Then forget the old ones, each of which has a new one by then.")
@click.option("--dry-run", "-n", is_flag=True, help="Say what would be left out and changed; do nothing.")
@click.pass_context
def command(ctx: click.Context, /, settings: Settings, **given: Any) -> int:  # noqa: ANN401 - click's values
    """Make new snapshots from old ones: without some paths, or with other words. The sources are not read.

    A pattern is one of a .gitignore, relative to each source, as snapshot takes them. The new snapshot keeps the time
    and everything else of the old one, and says which one it was made from; the old one stays until it is forgotten
    (--forget, or later). What was left out is gone for good once no snapshot holds it and prune has run; copies of the
    repository know nothing of it. A pinned snapshot is not forgotten: with --forget that is refused.

    Directories that are damaged cannot be looked into: they are named, kept as they are, marked as lost, and the exit
    status is 4.
    """
    options = _options(ctx, given)
    if not options.leaves_out and all(getattr(options, name) is None for name in ("host", "user", "kind")):
        rest = (options.label, options.reason, options.time_ns)
        if not options.add_tags and not options.remove_tags and all(value is None for value in rest):
            raise UsageError("say what to leave out (--exclude PATTERN) or to change (--host, --label, --tag, …)")
    with (
        settings.open(writes=not options.dry_run) as repository,
        cancelling() as cancel,
        watching(settings.level, display=settings.display) as progress,
    ):
        result = repository.rewrite(
            given["names"],
            options,
            forget=given["forget"] and not options.dry_run,
            progress=progress,
            cancel=cancel,
        )
    settings.report(_fields(result, dry_run=options.dry_run), _text(result, dry_run=options.dry_run))
    for snapshot in result.pinned:
        show.err(f"warning: snapshot {snapshot.hex()[:8]} was pinned meanwhile, and stays")
    return 4 if result.lost else 1 if any(item.forgotten for item in result.items) else 0


def _options(ctx: click.Context, given: dict[str, Any]) -> RewriteOptions:
    from respaldo.api import RewriteOptions, is_reserved  # start-up time

    label = given["label"]
    if label and is_reserved(label):
        raise UsageError(f"a snapshot cannot be labelled {label!r}", hint="such labels are given by rule")
    if label is not None and (label == "latest" or ":/" in label):
        raise UsageError(f"a snapshot cannot be labelled {label!r}", hint='":/" and "latest" mean something in names')
    both = sorted(set(given["add_tags"]) & set(given["remove_tags"]))
    if both:
        raise UsageError(f"the tag {both[0]!r} is to be added and to be taken away; which?")
    return RewriteOptions(
        exclude=tuple(patterns(ctx)),
        exclude_larger_bytes=given["exclude_larger_than"],
        host=given["host"],
        user=given["user"],
        kind=given["kind"],
        label=label,
        reason=given["reason"],
        add_tags=tuple(dict.fromkeys(given["add_tags"])),
        remove_tags=given["remove_tags"],
        time_ns=given["time_ns"],
        program=f"respaldo {__version__}",
        dry_run=given["dry_run"],
    )


def _words(item: Rewritten) -> list[str]:
    """Returns which metadata differs."""
    if item.manifest is None or item.before is None:
        return []
    before, after = item.before, item.manifest
    return [name.removesuffix("_ns") for name in _WORDS if getattr(before, name) != getattr(after, name)]


def _fields(result: RewriteResult, *, dry_run: bool) -> dict[str, object]:
    return {
        "dry_run": dry_run,
        "rewritten": [_item_fields(item) for item in result.items],
        "forgotten": [snapshot.hex() for snapshot in result.forgotten],
        "pinned": [snapshot.hex() for snapshot in result.pinned],
    }


def _item_fields(item: Rewritten) -> dict[str, object]:
    fields: dict[str, object] = {
        "old": item.old.hex(),
        "new": item.snapshot.hex() if item.snapshot else None,
        "changed": item.changed,
        "forgotten_meanwhile": item.forgotten,
    }
    if item.manifest is not None:
        figures = item.manifest.figures
        fields |= {
            "files": figures.files,
            "directories": figures.directories,
            "others": figures.others,
            "bytes": figures.length_bytes,
            "excluded": {
                "files": item.less("files"),
                "directories": item.less("directories"),
                "others": item.less("others"),
                "bytes": item.less("length_bytes"),
            },
            "words": _words(item),
            "lost": [show.path_fields(path) for path in item.lost],
        }
    return fields


def _text(result: RewriteResult, *, dry_run: bool) -> str:
    gone = set(result.forgotten)
    lines = []
    for item in result.items:
        old = item.old.hex()[:8]
        if item.forgotten:
            lines.append(f"snapshot {old} was forgotten meanwhile")
        elif not item.changed:
            lines.append(f"snapshot {old} holds nothing of that: it stays as it is")
        else:
            verb = "would become another one" if dry_run or item.snapshot is None else f"-> {item.snapshot.hex()[:8]}"
            left = ", the old one is forgotten" if item.old in gone else ""
            lines.append(f"snapshot {old} {verb}{left}{_what(item)}")
    if any(item.changed for item in result.items) and not dry_run:
        lines.append(
            "what was left out goes with the next prune, unless another snapshot holds it"
            if gone
            else "the old ones stay until they are forgotten"
        )
    return "\n".join(lines)


def _what(item: Rewritten) -> str:
    parts = []
    if item.manifest is not None and item.before is not None and item.manifest.root != item.before.root:
        parts.append(
            f"without {show.count(item.less('files'), 'file')}, "
            f"{show.count(item.less('directories'), 'directory', 'directories')}, "
            f"{show.size(item.less('length_bytes'))}"
        )
    words = _words(item)
    if words:
        parts.append(f"with another {', '.join(words)}")
    return f": {'; '.join(parts)}" if parts else ""
