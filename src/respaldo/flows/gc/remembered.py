"""What a collector clears away of what verification remembers: snapshots that are gone, checksums of nothing that is.

Checksums are rewritten before the records that they stood in are deleted. Whoever reads meanwhile misses at most what
it can compute. Implements docs/format.md, "Verified" and "Sums".
"""

from __future__ import annotations

from respaldo.catalog.sums import FOLDER, put_sums, read_sums
from respaldo.catalog.verification import note_verified
from respaldo.core.errors import Corruption, ObjectMissing, StorageFull
from respaldo.core.ids import CHUNK_ID_BYTES, ChunkId
from respaldo.format.verification import ROWS_MAX, rows_of
from respaldo.store.bitmaps import Bitmaps
from respaldo.store.repo import Repo

MANY = 16
"""So many small records are merged."""


def sweep_verified(repo: Repo) -> int:
    """Leaves one record, without snapshots that are gone; returns how many records are gone by that."""
    before = len(repo.backend.names("verified"))
    if not before:
        return 0
    try:
        note_verified(repo, ())
    except StorageFull:
        return 0
    return max(0, before - len(repo.backend.names("verified")))


def sweep_sums(repo: Repo, live: Bitmaps, *, deleted: bool) -> int:
    """Takes away the checksums of contents that are gone, and merges small records; returns how many records went.

    ``deleted``: whether this run deleted any packs; where not, nothing has died, and only many records are a reason.
    """
    names = repo.backend.names(FOLDER)
    if not names or not (deleted or len(names) >= MANY):
        return 0
    worn: list[str] = []
    small: list[str] = []
    for name in names:
        rows = _rows(repo, name)
        alive = sum(_is_live(repo, live, key) for key, _ in rows)
        if 2 * alive < len(rows):
            worn.append(name)
        elif 2 * alive < ROWS_MAX:
            small.append(name)
    old = [*worn, *(small if len(small) >= MANY else ())]
    pool: dict[bytes, bytes] = {}
    try:
        for name in old:
            pool.update((key, digest) for key, digest in _rows(repo, name) if _is_live(repo, live, key))
            if len(pool) >= ROWS_MAX:
                put_sums(repo, pool)
                pool = {}
        if pool:
            put_sums(repo, pool)
    except StorageFull:
        return 0
    return repo.backend.discard(old)


def _rows(repo: Repo, name: str) -> list[tuple[bytes, bytes]]:
    """Returns the rows of a record, none where it is gone or damaged."""
    try:
        return rows_of(read_sums(repo, name))
    except (ObjectMissing, Corruption):
        return []


def _is_live(repo: Repo, live: Bitmaps, key: bytes) -> bool:
    chunk_id = ChunkId(key[:CHUNK_ID_BYTES])
    found = repo.index.find(chunk_id, usable_only=True) or repo.index.find(chunk_id, usable_only=False)
    return found is not None and found in live
