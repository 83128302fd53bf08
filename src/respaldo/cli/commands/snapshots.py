"""`respaldo snapshots`: lists what was backed up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from respaldo.cli import show
from respaldo.cli.areas import NOTE, all_clients_option, for_all
from respaldo.cli.calling import KINDS, changes_fields
from respaldo.cli.pages import page
from respaldo.cli.settings import Settings
from respaldo.cli.values import ZONE
from respaldo.core.errors import UsageError
from respaldo.core.ids import SnapshotId

if TYPE_CHECKING:
    from respaldo.api import InTrash, Snapshot, WasWhole

_CALENDAR = {"hourly": "HOUR", "daily": "DAY", "weekly": "WEEK", "monthly": "MONTH", "yearly": "YEAR"}
_VIEWS = (*KINDS, *_CALENDAR)


@page(
    "snapshots",
    statuses=(4,),
    examples=(
        ("All of them:", "respaldo snapshots -r /mnt/disk/backup"),
        ("Those that hold a file, by the sources they cover:", "respaldo snapshots --path /home/ana/thesis.tex"),
        ("The newest of each week, as it is kept by --keep-weekly:", "respaldo snapshots --view weekly"),
        ("What each of a day's later ones changed since the one before:", "respaldo snapshots --view incremental"),
        ("All that is known of the last one:", "respaldo snapshots --last 1 --long"),
        ("The id of the newest one, for a script:", "respaldo snapshots --last 1 --json | jq -r '.snapshots[0].id'"),
    ),
    notes=(
        "snapshots: a list of id, time, host, user, session, sources, kind, label, reason, tags, root (hash of all "
        "that is in it), changes: added, changed, removed since the parent (null where nobody knows), files, "
        "directories, bytes, files_new, files_changed, files_unchanged (what had to be read), read_bytes, new_bytes, "
        "stored_bytes, errors, duration_s, parent, rewrites (what it was rewritten from, or null), pinned, verified "
        "(time and how, when all of it was last read and found whole, or null); with a view by the calendar also "
        "bucket; with --trash also forgotten and until. "
        "undecided: ids of snapshots under way or interrupted. damaged: names of records that cannot be read. clients: "
        f"names of those that have areas of their own. {NOTE}"
    ),
)
@click.option("--host", default="", metavar="HOST", help="Only those of a machine.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="Only those with this tag (with all of them).")
@click.option("--path", default="", metavar="PATH", help="Only those with a source that is this path or lies above it.")
@click.option("--last", type=click.IntRange(min=1), metavar="N", help="Only the newest N.")
@click.option(
    "--view",
    type=click.Choice(_VIEWS),
    default=None,
    metavar="VIEW",
    help="Only those of a kind: snapshot, full (with what each holds), incremental (with what each changed); or the "
    "newest of each by the calendar, by host and paths: hourly, daily, weekly, monthly, yearly.",
)
@click.option("--long", "-l", is_flag=True, help="Say all that is known of each.")
@click.option("--time-zone", type=ZONE, default="local", metavar="ZONE", help="Whose days and weeks: local, UTC, …")
@all_clients_option
@click.option("--trash", "in_trash", is_flag=True, help="Those that were forgotten and can still be brought back.")
def command(settings: Settings, *, all_clients: bool, **given: Any) -> int:  # noqa: ANN401 - click's values
    """List the snapshots, oldest first.

    ADDED is what a snapshot took in the repository: its new content, compressed. SIZE is what it would restore to.
    Every snapshot is complete, whatever its kind, and the same one may be the day's, the week's and the year's. NEW,
    CHANGED and REMOVED count all but directories against the snapshot before; - is not known. A pin is marked with !
    behind the id. Where two clients gave the same label at the same time, the beginning of the id is behind it.

    Those of clients that cannot read are in areas of their own: --client NAME, or --all-clients.
    """
    if given["in_trash"] and given["view"]:
        raise UsageError("--trash and --view exclude each other")
    run = partial(_list, settings, **given)
    return for_all(settings, run) if all_clients else run()


def _list(
    settings: Settings,
    *,
    host: str,
    tags: tuple[str, ...],
    path: str,
    last: int | None,
    view: str | None,
    long: bool,
    time_zone: tzinfo,
    in_trash: bool,
) -> int:
    from respaldo import api  # start-up time

    with settings.open() as repository:
        catalogue = repository.snapshots()
        pins = repository.pins()
        verified = repository.verified((*catalogue.snapshots, *catalogue.trash))
        trash = {item.snapshot.id: item for item in repository.trash()} if in_trash else {}
        clients = repository.clients.names()
    wanted = api.plain_path(path) if path else b""
    chosen = [
        item
        for item in (catalogue.trash if in_trash else catalogue.snapshots)
        if (not host or item.manifest.host == host)
        and set(tags) <= set(item.manifest.tags)
        and (not wanted or api.covers(item, wanted))
        and (not in_trash or item.id in trash)
        and (view not in KINDS or _kind(item) == view)
    ]
    buckets: dict[SnapshotId, str] = {}
    if view in _CALENDAR:
        seen = api.view(chosen, view, time_zone)
        chosen = [item for item, _ in seen]
        buckets = {item.id: bucket for item, bucket in seen}
    if last:
        chosen = chosen[-last:]
    labels = api.shown_labels(chosen, (*catalogue.trash, *catalogue.snapshots))
    about = _About(pins=pins, buckets=buckets, trash=trash, labels=labels, verified=verified)
    value = {
        "snapshots": [_fields(item, about) for item in chosen],
        "undecided": [item.hex() for item in catalogue.undecided],
        "damaged": [error.name for error in catalogue.damaged],
        "clients": clients,
    }
    text = "\n\n".join(_block(item, about) for item in chosen) if long else _table(chosen, _columns(view or "", about))
    settings.report(value, text or "no snapshots")
    if clients and settings.gathered is None and settings.level >= 0 and not settings.json:
        show.err(f"note: {show.count(len(clients), 'client')} that cannot read: list theirs with --all-clients")
    for error in catalogue.damaged:
        show.err(f"warning: {show.shown(str(error))}")
    return 4 if catalogue.damaged else 0


_Column = tuple[str, "Callable[[Snapshot], str]"]
_RIGHT = frozenset({"FILES", "DIRS", "SIZE", "NEW", "CHANGED", "REMOVED", "READ", "ADDED"})
_OPTIONAL = frozenset({"LABEL", "TAGS", "VERIFIED"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _About:
    """Is what is known of snapshots beside their manifests."""

    pins: frozenset[SnapshotId]
    buckets: Mapping[SnapshotId, str]
    trash: Mapping[SnapshotId, InTrash]
    labels: Mapping[SnapshotId, str]
    verified: Mapping[SnapshotId, WasWhole]


def _kind(item: Snapshot) -> str:
    from respaldo.api import kind_of  # start-up time

    return kind_of(item.manifest.kind, item.manifest.parent)


def _verified(item: Snapshot, about: _About) -> str:
    """Returns when all of a snapshot was last read and found whole, and by what; empty where it was not."""
    checked = about.verified.get(item.id)
    return f"{show.local_time(checked.time_ns)}, by {checked.how.value}" if checked is not None else ""


def _columns(view: str, about: _About) -> list[_Column]:
    columns: list[_Column] = [
        ("ID", lambda item: item.hex[:8] + ("!" if item.id in about.pins else "")),
        ("TIME", lambda item: show.local_time(item.manifest.time_ns)),
        ("HOST", lambda item: show.shown(item.manifest.host)),
        ("SOURCES", lambda item: show.some(item.manifest.sources)),
        ("KIND", lambda item: show.shown(_kind(item))),
        ("LABEL", lambda item: show.shown(about.labels[item.id])),
        ("TAGS", lambda item: ", ".join(map(show.shown, item.manifest.tags))),
        ("VERIFIED", lambda item: _verified(item, about)[:10]),
    ]
    if about.buckets:
        columns.insert(0, (_CALENDAR[view], lambda item: about.buckets[item.id]))
    if about.trash:
        columns.insert(2, ("UNTIL", lambda item: show.local_time(about.trash[item.id].record.until_ns)))
    if view == "incremental":
        return [
            *columns,
            ("AFTER", lambda item: item.manifest.parent.hex()[:8] or "–"),
            ("NEW", lambda item: _count(item, "added")),
            ("CHANGED", lambda item: _count(item, "changed")),
            ("REMOVED", lambda item: _count(item, "removed")),
            ("READ", lambda item: show.size(item.manifest.figures.read_bytes)),
            ("ADDED", lambda item: show.size(item.manifest.figures.stored_bytes)),
        ]
    columns.append(("FILES", lambda item: show.count(item.manifest.figures.files) + _star(item)))
    if view == "full":
        columns.append(("DIRS", lambda item: show.count(item.manifest.figures.directories)))
    columns.append(("SIZE", lambda item: show.size(item.manifest.figures.length_bytes)))
    if view != "full":
        columns.append(("ADDED", lambda item: show.size(item.manifest.figures.stored_bytes)))
    return columns


def _count(item: Snapshot, what: str) -> str:
    fields = changes_fields(item.manifest.changes)
    return "-" if fields is None else show.count(fields[what])


def _star(item: Snapshot) -> str:
    return "*" if item.manifest.figures.errors else ""


def _table(chosen: Sequence[Snapshot], columns: Sequence[_Column]) -> str:
    kept = [column for column in columns if column[0] not in _OPTIONAL or any(map(column[1], chosen))]
    headings = [heading for heading, _ in kept]
    right = [place for place, heading in enumerate(headings) if heading in _RIGHT]
    rows = [[cell(item) for _, cell in kept] for item in chosen]
    return show.table(headings, rows, right=right) if rows else ""


def _block(item: Snapshot, about: _About) -> str:
    """Returns all that is known of a snapshot, for people."""
    manifest, figures = item.manifest, item.manifest.figures
    head = f"snapshot {item.hex}" + (" (pinned)" if item.id in about.pins else "")
    changes = show.changes(manifest.changes)
    holds = f"{show.count(figures.files, 'file')}, {show.count(figures.directories, 'directory', 'directories')}"
    rows = [
        ("label", show.shown(about.labels[item.id])),
        ("kind", show.shown(_kind(item))),
        ("stands for", about.buckets.get(item.id, "")),
        ("time", f"{show.local_time(manifest.time_ns)}, took {show.duration(figures.duration_ns)}"),
        ("host, user", f"{show.shown(manifest.host)}, {show.shown(manifest.user) or manifest.uid}"),
        ("sources", show.some(manifest.sources)),
        ("tags", ", ".join(map(show.shown, manifest.tags))),
        ("reason", show.shown(manifest.reason)),
        ("changes", f"{changes} since {manifest.parent.hex()[:8]}" if manifest.parent else changes),
        ("holds", f"{holds}, {show.count(figures.others, 'other')}: {show.size(figures.length_bytes)}"),
        ("added", f"{show.size(figures.chunk_bytes_new)}, {show.size(figures.stored_bytes)} compressed"),
        ("errors", show.count(figures.errors) if figures.errors else ""),
        ("verified", _verified(item, about)),
        ("root", manifest.root.hex()),
        ("session", manifest.session.hex()),
        ("program", show.shown(manifest.program)),
    ]
    if about.trash:
        rows.append(("in the trash until", show.local_time(about.trash[item.id].record.until_ns)))
    return f"{head}\n{show.figures([row for row in rows if row[1]])}"


def _fields(item: Snapshot, about: _About) -> dict[str, object]:
    manifest, figures = item.manifest, item.manifest.figures
    checked = about.verified.get(item.id)
    more: dict[str, object] = {"bucket": about.buckets[item.id]} if about.buckets else {}
    if about.trash:
        record = about.trash[item.id].record
        more |= {"forgotten": show.iso_time(record.time_ns), "until": show.iso_time(record.until_ns)}
    return {
        "id": item.hex,
        "time": show.iso_time(manifest.time_ns),
        "host": manifest.host,
        "user": manifest.user,
        "session": manifest.session.hex(),
        "sources": [show.path_fields(source) for source in manifest.sources],
        "kind": _kind(item),
        "label": about.labels[item.id],
        "reason": manifest.reason,
        "tags": list(manifest.tags),
        "root": manifest.root.hex(),
        "changes": changes_fields(manifest.changes),
        "files": figures.files,
        "directories": figures.directories,
        "bytes": figures.length_bytes,
        "files_new": figures.files_new,
        "files_changed": figures.files_changed,
        "files_unchanged": figures.files_unchanged,
        "read_bytes": figures.read_bytes,
        "new_bytes": figures.chunk_bytes_new,
        "stored_bytes": figures.stored_bytes,
        "errors": figures.errors,
        "duration_s": figures.duration_ns / 1e9,
        "parent": manifest.parent.hex(),
        "rewrites": manifest.rewrites.hex() or None,
        "pinned": item.id in about.pins,
        "verified": None if checked is None else {"time": show.iso_time(checked.time_ns), "how": checked.how.value},
        **more,
    }
