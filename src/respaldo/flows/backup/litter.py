"""Litter: what killed runs left in a repository, cleared away when a session begins, at most once a day per client.

Temporaries go by the storage's own clock, since clients' may be wrong: it is the time at which this session's marker
arrived. Markers of dead sessions go by their own times, and only where this client's clock agrees with the storage's.
Never stops or fails a backup. Implements docs/format.md, "Markers" (what may be deleted).
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from respaldo.core.errors import Corruption, StorageError
from respaldo.store.markers import DAY_NS, read_markers
from respaldo.store.repo import Repo

CLOCKS_AGREE_NS = 3600 * 10**9
_STAMP = "swept"


def sweep_if_due(repo: Repo, marker: str) -> None:
    """Clears away, unless this client did so within a day. ``marker``: the name of the marker that it has just put."""
    now_ns = repo.clock.now_ns()
    stamp = repo.cache_dir / _STAMP
    if abs(now_ns - _read(stamp)) < DAY_NS:
        return
    with contextlib.suppress(OSError):
        stamp.write_text(str(now_ns), "ascii")
    with contextlib.suppress(StorageError, Corruption):
        storage_now_ns = repo.backend.arrivals("sessions").get(marker)
        if storage_now_ns is None:
            return
        if abs(now_ns - storage_now_ns) < CLOCKS_AGREE_NS:
            repo.backend.discard(read_markers(repo).stale)
        repo.backend.sweep_litter(storage_now_ns - DAY_NS)


def _read(stamp: Path) -> int:
    """Returns when this client cleared away last; a time long past where it does not know."""
    try:
        return int(stamp.read_text("ascii"))
    except (OSError, ValueError):
        return -DAY_NS
