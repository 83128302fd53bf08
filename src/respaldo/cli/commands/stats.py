"""`respaldo stats`: counts snapshots, chunks and bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from respaldo.cli import show
from respaldo.cli.pages import page
from respaldo.cli.progress import watching
from respaldo.cli.settings import Settings

if TYPE_CHECKING:
    from respaldo.api import Stats

_BAR_WIDTH = 40


@page(
    "stats",
    statuses=(4,),
    examples=(
        ("What deduplication and compression saved:", "respaldo stats -r /mnt/disk/backup"),
        ("The space it takes, for a monitor:", "respaldo stats --json | jq .stored_bytes"),
        ("Whether the disk is filling up:", "respaldo stats --json | jq '.free_bytes / .total_bytes'"),
    ),
    notes=(
        "snapshots, undecided, packs, segments, blocks, chunks, raw_bytes, deduplicated_bytes, tree_bytes, "
        "compressed_bytes, stored_bytes, index_bytes, cached_bytes (footers and manifests beside the local index), "
        "free_bytes, total_bytes, deduplication_ratio, compression_ratio, "
        "histogram: a list of from_bytes and chunks."
    ),
)
def command(settings: Settings) -> int:
    """Count what the repository holds, from its lists and the local index; no content is read."""
    with settings.open() as repository:
        with watching(settings.level, display=settings.display) as progress:
            stats = repository.stats(progress)
        damaged = repository.damaged
    settings.report(_fields(stats), _text(stats))
    for error in damaged:
        show.err(f"warning: {show.shown(str(error))}")
    return 4 if damaged else 0


def _fields(stats: Stats) -> dict[str, object]:
    free, total = stats.space or (None, None)
    whole = stats.deduplicated_bytes + stats.tree_bytes
    return {
        "snapshots": stats.snapshots,
        "undecided": stats.undecided,
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


def _text(stats: Stats) -> str:
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
