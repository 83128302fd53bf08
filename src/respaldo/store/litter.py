"""Litter: what killed runs left in a repository and nobody is at any more, by the clock of the storage.

A client's clock may be wrong by years, and what it takes for long past may be a moment old. So temporaries go by the
storage's own clock alone, and a session counts as dead only when by both clocks its marker is. Where the storage cannot
tell what time it is, its last arrival stands for that: it is earlier, and less is swept. Implements docs/format.md,
"Prune" and "Markers" (what may be deleted).
"""

from __future__ import annotations

from respaldo.store.markers import DAY_NS, read_markers
from respaldo.store.repo import Repo

_ARRIVE = ("sessions", "condemned", "outcome", "pending")


def sweep_litter(repo: Repo) -> dict[str, int]:
    """Clears away what is older than a day; returns how many markers (`sessions`) and temporaries (`temporary`)."""
    backend = repo.backend
    markers = backend.discard(read_markers(repo).stale)
    now_ns = backend.now_ns()
    if now_ns is None:
        now_ns = max((time_ns for folder in _ARRIVE for time_ns in backend.arrivals(folder).values()), default=None)
    return {
        "sessions": markers,
        "temporary": 0 if now_ns is None else backend.sweep_litter(now_ns - DAY_NS),
    }
