"""Figures of a whole repository: what its snapshots stand for, what was left after deduplication, what is stored.

Everything comes from manifests, listings and the local index; no pack is read.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from respaldo.catalog.snapshots import Catalogue
from respaldo.core.ids import Kind, pack_object
from respaldo.core.seams import Progress
from respaldo.format.pack import Footer, parse_footer
from respaldo.store.repo import Repo


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """Counts a repository. Lengths in bytes.

    ``raw_bytes``: what all snapshots together would restore to. ``deduplicated_bytes``: chunks as they were, each once
    (a copy that a collector has not cleared away yet counts again). ``stored_bytes``: packs and segments with seals and
    padding. ``index_bytes``, ``cached_bytes``: the local index, and the footers and manifests cached beside it.
    ``histogram``: number of data chunks by the power of two that is not above their length.
    """

    snapshots: int
    undecided: int
    packs: int
    segments: int
    raw_bytes: int
    deduplicated_bytes: int
    tree_bytes: int
    compressed_bytes: int
    stored_bytes: int
    index_bytes: int
    cached_bytes: int
    chunks: int
    blocks: int
    histogram: tuple[tuple[int, int], ...]
    space: tuple[int, int] | None


def measure(repo: Repo, catalogue: Catalogue, progress: Progress) -> Stats:
    """Brings the index up to date and counts."""
    listing = repo.synchronise(progress, lenient=True)
    sizes: Counter[int] = Counter()
    data_bytes = tree_bytes = sealed_bytes = chunks = blocks = 0
    for pack in list(repo.index.packs()):
        entry = repo.index.entry(pack.number)
        if entry is None:  # a run that shares the index has taken it out meanwhile
            continue
        footer = parse_footer(entry[1], pack_object(pack.name))
        blocks += len(footer.blocks)
        chunks += len(footer.lengths)
        sealed_bytes += footer.body_length
        data = _count(footer, sizes)
        data_bytes += data
        tree_bytes += sum(footer.lengths) - data
    segments = repo.backend.list("segments")
    index_bytes, cached_bytes = repo.index.length_bytes()
    return Stats(
        snapshots=len(catalogue.snapshots),
        undecided=len(catalogue.undecided),
        packs=len(listing.packs),
        segments=len(segments),
        raw_bytes=sum(item.manifest.figures.length_bytes for item in catalogue.snapshots),
        deduplicated_bytes=data_bytes,
        tree_bytes=tree_bytes,
        compressed_bytes=sealed_bytes,
        stored_bytes=sum(listing.packs.values()) + sum(length for _, length in segments),
        index_bytes=index_bytes,
        cached_bytes=cached_bytes,
        chunks=chunks,
        blocks=blocks,
        histogram=tuple(sorted(sizes.items())),
        space=repo.backend.space(),
    )


def _count(footer: Footer, sizes: Counter[int]) -> int:
    """Counts the data chunks of a pack by size; returns their bytes."""
    total = row = 0
    for block in footer.blocks:
        if block.kind == Kind.DATA:
            lengths = footer.lengths[row : row + block.chunks]
            total += sum(lengths)
            sizes.update(1 << max(length.bit_length() - 1, 0) for length in lengths)
        row += block.chunks
    return total
