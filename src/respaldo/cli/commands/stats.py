"""`respaldo stats`: counts the repository, says what snapshots cost and what grew, and shows where the space lies."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from respaldo.cli import show
from respaldo.cli.names import SNAPSHOT, host_option
from respaldo.cli.pages import page
from respaldo.cli.progress import watching
from respaldo.cli.settings import Settings
from respaldo.cli.signals import cancelling
from respaldo.core.errors import UsageError

if TYPE_CHECKING:
    from respaldo.api import Cost, Costing, Found, Grew, Repository, Snapshot, Stats, Used
    from respaldo.core.ids import ChunkId
    from respaldo.core.seams import Cancel, Progress

_CLIENTS_SHOWN = 5
_BAR_WIDTH = 40
_SHOWN = 20
_GREW_SHOWN = 10


@page(
    "stats",
    statuses=(4,),
    examples=(
        ("What deduplication and compression saved, and what each snapshot costs:", "respaldo stats"),
        ("What one snapshot costs, and what grew since the one before:", "respaldo stats 3f358ae3"),
        ("Where the space lies, to walk through:", "respaldo stats --browse latest:/home/ana"),
        ("The space it takes, for a monitor:", "respaldo stats --brief --json | jq .stored_bytes"),
        (
            "The snapshots that would free most:",
            "respaldo stats --json | jq -r '.by_snapshot | sort_by(-.frees_bytes)[:3][].id'",
        ),
    ),
    notes=(
        "snapshots, undecided, packs, segments, blocks, chunks, raw_bytes, deduplicated_bytes, tree_bytes, "
        "compressed_bytes, stored_bytes, index_bytes, cached_bytes (footers and manifests beside the local index), "
        "free_bytes, total_bytes, deduplication_ratio, compression_ratio, histogram: a list of from_bytes and chunks; "
        "without --brief also by_snapshot: a list of id, time, label, bytes (as restored), data_bytes and tree_bytes "
        "(what it refers to, each chunk once), stored_bytes (that, compressed and sealed), own_bytes (what of it no "
        "other snapshot holds), frees_bytes (that as stored: what forgetting it frees), deduplication_ratio, "
        "compression_ratio; missing_chunks; grew (the newest snapshot's, or those that were named): a list of "
        "snapshot, before (null: there is none), grown_bytes, came_bytes, went_bytes, failed, directories: a list of "
        "path, grown_bytes (with what is below), rest_bytes (without directories below it that are listed, too), "
        "came_bytes, went_bytes. With names only by_snapshot, missing_chunks and grew. With --browse: snapshot, path, "
        "entries: a list of name, type, bytes, stored_bytes, unique_bytes, files, missing."
    ),
)
@click.argument("names", metavar="[SNAPSHOT...]", nargs=-1, type=SNAPSHOT)
@click.option("--brief", is_flag=True, help="Count the repository as a whole only: no tree is read.")
@click.option(
    "--browse", is_flag=True, help="Walk through a snapshot (latest, or SNAPSHOT:/PATH) in the terminal, as with ncdu."
)
@host_option
def command(settings: Settings, *, names: tuple[str, ...], brief: bool, browse: bool, host: str) -> int:
    """Say what the repository holds, what each snapshot costs alone, and what grew since the one before.

    What a snapshot frees is the stored content that no other snapshot holds, not even one in the trash; packs give it
    back when prune deletes or copies them. Two snapshots together may free more than the sum. Everything comes from
    trees, lists and the local index; no content is read.

    In --browse, size is what files restore to; stored, what their content takes, compressed, each piece once, where it
    is met first; unique, what of it no other snapshot holds. Keys are shown with "?".
    """
    if brief and (names or browse):
        raise UsageError("--brief counts the whole repository; leave the names and --browse out")
    if browse and len(names) > 1:
        raise UsageError("--browse walks through one snapshot")
    if browse and not settings.json and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("--browse needs a terminal", hint="or --json, for what is in one directory")
    with settings.open() as repository, cancelling() as cancel:
        if browse:
            return _browse(settings, repository, names[0] if names else "latest", host, cancel)
        with watching(settings.level, display=settings.display) as progress:
            stats = None if names else repository.stats(progress)
            clients = repository.clients.names()
            fields, text = ({}, "") if stats is None else (_fields(stats, clients), _text(stats, clients))
            missing = 0
            if not brief:
                more, more_text, missing = _costs(repository, names, progress, cancel)
                fields |= more
                text = f"{text}\n\n{more_text}".strip("\n") if more_text else text
        damaged = repository.damaged
    settings.report(fields, text)
    for error in damaged:
        show.err(f"warning: {show.shown(str(error))}")
    if missing:
        show.err(f"warning: {show.count(missing, 'chunk')} could not be found or read: see respaldo verify")
    return 4 if damaged or missing else 0


# --- snapshots -----------------------------------------------------------------------------------------------------


def _costs(
    repository: Repository, names: tuple[str, ...], progress: Progress, cancel: Cancel
) -> tuple[dict[str, object], str, int]:
    """Returns what snapshots cost and what grew, for JSON and as text, and how many chunks are missing."""
    from respaldo.api import Cost  # start-up time

    catalogue = repository.snapshots()
    items = list(dict.fromkeys(catalogue.find(name) for name in names)) if names else list(catalogue.snapshots)
    costing = repository.looking.costing(progress=progress, cancel=cancel)
    costs = costing.costs()
    rows = [(item, costs.snapshots.get(item.id, Cost())) for item in items]
    grew = [costing.grew(catalogue.snapshots, item) for item in (items if names else items[-1:])]
    failed = sum(each.growth.failed for each in grew)
    fields = {
        "by_snapshot": [_cost_fields(item, cost) for item, cost in rows],
        "missing_chunks": costs.missing,
        "grew": [_grew_fields(each) for each in grew],
    }
    parts = [_cost_text(rows, whole=not names), *map(_grew_text, grew)]
    return fields, "\n\n".join(part for part in parts if part), costs.missing or failed


def _ratio(whole: int, part: int) -> float | None:
    return round(whole / part, 3) if part else None


def _cost_fields(item: Snapshot, cost: Cost) -> dict[str, object]:
    length = item.manifest.figures.length_bytes
    return {
        "id": item.hex,
        "time": show.iso_time(item.time_ns),
        "label": item.manifest.label,
        "bytes": length,
        "data_bytes": cost.data_bytes,
        "tree_bytes": cost.tree_bytes,
        "stored_bytes": cost.stored_bytes,
        "own_bytes": cost.own_data_bytes + cost.own_tree_bytes,
        "frees_bytes": cost.frees_bytes,
        "deduplication_ratio": _ratio(length, cost.data_bytes),
        "compression_ratio": _ratio(cost.data_bytes + cost.tree_bytes, cost.stored_bytes),
    }


def _cost_text(rows: list[tuple[Snapshot, Cost]], *, whole: bool) -> str:
    shown = rows[-_SHOWN:] if whole else rows
    if not shown:
        return ""
    table = show.table(
        ("ID", "TIME", "SIZE", "DEDUPLICATED", "STORED", "ALONE", "FREES"),
        [
            (
                item.hex[:8],
                show.local_time(item.time_ns),
                show.size(item.manifest.figures.length_bytes),
                f"{show.size(cost.data_bytes)} {show.ratio(item.manifest.figures.length_bytes, cost.data_bytes):>9}",
                f"{show.size(cost.stored_bytes)} {show.ratio(cost.data_bytes + cost.tree_bytes, cost.stored_bytes):>9}",
                show.size(cost.own_data_bytes + cost.own_tree_bytes),
                show.size(cost.frees_bytes),
            )
            for item, cost in shown
        ],
        right=(2, 3, 4, 5, 6),
    )
    more = len(rows) - len(shown)
    return table + (f"\nand {more:,} older ones: name them, or use --json" if more else "")


def _grew_fields(grew: Grew) -> dict[str, object]:
    growth = grew.growth
    return {
        "snapshot": grew.snapshot.hex,
        "before": None if grew.before is None else grew.before.hex,
        "grown_bytes": growth.grown_bytes,
        "came_bytes": growth.came_bytes,
        "went_bytes": growth.went_bytes,
        "failed": growth.failed,
        "directories": [
            {
                **show.path_fields(item.path),
                "grown_bytes": item.grown_bytes,
                "rest_bytes": item.rest_bytes,
                "came_bytes": item.came_bytes,
                "went_bytes": item.went_bytes,
            }
            for item in growth.directories
        ],
    }


def _grew_text(grew: Grew) -> str:
    growth = grew.growth
    since = f"since {grew.before.hex[:8]}" if grew.before is not None else "from nothing"
    sizes = f"{show.size(growth.came_bytes)} came, {show.size(growth.went_bytes)} went"
    lines = [f"grew most in {grew.snapshot.hex[:8]} {since} ({sizes}):"]
    lines += [
        f"  {'+' + show.size(item.rest_bytes):>11}  {show.shown(item.path)}"
        for item in growth.directories[:_GREW_SHOWN]
    ]
    return "\n".join(lines) if growth.directories else f"{lines[0].removesuffix(':')}: nothing grew"


# --- browsing ------------------------------------------------------------------------------------------------------


def _browse(settings: Settings, repository: Repository, name: str, host: str, cancel: Cancel) -> int:
    from respaldo.api import directory_of  # start-up time

    found = repository.find(name, host=host)
    tree = directory_of(found)
    with watching(settings.level, display=settings.display) as progress:
        costing: Costing = repository.looking.costing(progress=progress, cancel=cancel)
        usage = costing.usage(found.snapshot.id)
        items = list(usage.entries(tree))
    if settings.json:
        settings.report(_usage_fields(found, items), "")
        return 4 if any(item.missing for item in items) else 0
    from respaldo.cli import browse  # start-up time

    first = {tree: items}

    def load(which: ChunkId) -> list[Used]:
        return first.get(which) or list(usage.entries(which))

    label = show.shown(found.snapshot.manifest.label)
    title = f"respaldo  {found.snapshot.hex[:8]}  {show.local_time(found.snapshot.time_ns)}  {label}"
    browser = browse.Browser(title, load)
    browser.open(found.path, tree)
    browse.run(browser, lambda: cancel.requested)
    cancel.check()
    return 0


def _usage_fields(found: Found, items: list[Used]) -> dict[str, object]:
    from respaldo.cli.kinds import type_of  # start-up time

    return {
        "snapshot": found.snapshot.hex,
        **show.path_fields(found.path),
        "entries": [
            {
                **show.path_fields(item.entry.name, "name"),
                "type": type_of(item.entry),
                "bytes": item.size_bytes,
                "stored_bytes": item.stored_bytes,
                "unique_bytes": item.unique_bytes,
                "files": item.files,
                "missing": item.missing,
            }
            for item in items
        ],
    }


# --- the whole repository ------------------------------------------------------------------------------------------


def _fields(stats: Stats, clients: list[str]) -> dict[str, object]:
    free, total = stats.space or (None, None)
    whole = stats.deduplicated_bytes + stats.tree_bytes
    return {
        "snapshots": stats.snapshots,
        "undecided": stats.undecided,
        "clients": clients,
        "packs": stats.packs,
        "segments": stats.segments,
        "blocks": stats.blocks,
        "chunks": stats.chunks,
        "raw_bytes": stats.raw_bytes,
        "deduplicated_bytes": stats.deduplicated_bytes,
        "tree_bytes": stats.tree_bytes,
        "compressed_bytes": stats.compressed_bytes,
        "stored_bytes": stats.stored_bytes,
        "index_bytes": stats.index_bytes,
        "cached_bytes": stats.cached_bytes,
        "free_bytes": free,
        "total_bytes": total,
        "deduplication_ratio": round(stats.raw_bytes / stats.deduplicated_bytes, 3)
        if stats.deduplicated_bytes
        else None,
        "compression_ratio": round(whole / stats.compressed_bytes, 3) if stats.compressed_bytes else None,
        "histogram": [{"from_bytes": low, "chunks": number} for low, number in stats.histogram],
    }


def _text(stats: Stats, clients: list[str]) -> str:
    whole = stats.deduplicated_bytes + stats.tree_bytes
    rows = [
        ("snapshots", show.count(stats.snapshots) + (f" ({stats.undecided} undecided)" if stats.undecided else "")),
        ("as restored", show.size(stats.raw_bytes)),
        (
            "deduplicated",
            (
                f"{show.size(stats.deduplicated_bytes)} ({show.ratio(stats.raw_bytes, stats.deduplicated_bytes)}), "
                f"and {show.size(stats.tree_bytes)} of trees"
            ),
        ),
        ("compressed", f"{show.size(stats.compressed_bytes)} ({show.ratio(whole, stats.compressed_bytes)})"),
        ("stored", f"{show.size(stats.stored_bytes)} in {show.count(stats.packs, 'pack')}"),
        ("chunks", f"{show.count(stats.chunks)} in {show.count(stats.blocks, 'block')}"),
        ("local index", f"{show.size(stats.index_bytes)}, and {show.size(stats.cached_bytes)} of cached footers"),
    ]
    if clients:
        some = ", ".join(map(show.shown, clients[:_CLIENTS_SHOWN])) + (", …" if len(clients) > _CLIENTS_SHOWN else "")
        rows.append(("clients", f"{show.count(len(clients))} apart: {some}; see --client"))
    if stats.space:
        free, total = stats.space
        rows.append(("disk", f"{show.size(free)} free of {show.size(total)}"))
    lines = [show.figures(rows)]
    if stats.histogram:
        most = max(number for _, number in stats.histogram)
        bars = [
            (f"from {show.size(low)}", f"{number:>10,}", "▇" * max(1, number * _BAR_WIDTH // most))
            for low, number in stats.histogram
        ]
        lines += ["", show.table(("data chunks", "number", ""), bars, right=(1,))]
    return "\n".join(lines)
