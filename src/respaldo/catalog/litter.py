"""Litter: what killed runs left in a repository, cleared away when a session begins, at most once a day per client.

What is litter, `respaldo.store.litter` knows. Never stops or fails a backup.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from respaldo.core.errors import Corruption, StorageError
from respaldo.core.private import read_file, write_file
from respaldo.store.litter import sweep_litter
from respaldo.store.markers import DAY_NS
from respaldo.store.repo import Repo

_STAMP = "swept"
_STAMP_BYTES_MAX = 64


def sweep_if_due(repo: Repo) -> None:
    """Clears away, unless this client did so within a day."""
    now_ns = repo.clock.now_ns()
    stamp = repo.cache_dir / _STAMP
    if abs(now_ns - _read(stamp)) < DAY_NS:
        return
    with contextlib.suppress(OSError):
        write_file(stamp, str(now_ns).encode("ascii"))
    with contextlib.suppress(StorageError, Corruption):
        sweep_litter(repo)


def _read(stamp: Path) -> int:
    """Returns when this client cleared away last; a time long past where it does not know."""
    try:
        return int(read_file(stamp, _STAMP_BYTES_MAX))
    except (OSError, ValueError):
        return -DAY_NS
