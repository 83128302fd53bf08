"""Trial runs for a measurement: the newest snapshot restored, then backed up again, into places that are thrown away.

Reads the repository that is measured and writes to the directory that was given, nowhere else.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from respaldo.api.bench import Stage
from respaldo.api.making import init
from respaldo.api.naming import Found
from respaldo.api.opening import open_repository
from respaldo.api.places import Places
from respaldo.api.repository import Repository
from respaldo.codec.keys import KEY_BYTES
from respaldo.codec.slots import Secret
from respaldo.core.seams import Cancel, Progress, SystemClock, system_random
from respaldo.flows.backup.options import BackupOptions
from respaldo.flows.check.options import Subset, VerifyOptions
from respaldo.flows.restore.options import RestoreOptions


def try_verify(repository: Repository, *, length_bytes: int, progress: Progress, cancel: Cancel) -> Stage:
    """Verifies about so many bytes of packs, those that were verified longest ago."""
    clock = SystemClock()
    options = VerifyOptions(subset=Subset(length_bytes=length_bytes))
    started_ns = clock.monotonic_ns()
    result = repository.verify(options, progress=progress, cancel=cancel)
    return Stage(name="verify", length_bytes=result.read_bytes, duration_ns=clock.monotonic_ns() - started_ns)


def try_runs(
    repository: Repository, found: Found, directory: Path, *, progress: Progress, cancel: Cancel
) -> Iterator[Stage]:
    """Restores what was found into a directory, and backs that up twice into a new repository beside it."""
    restored = directory / "restored"
    result = repository.restore(
        found, os.fsencode(restored), RestoreOptions(owners=False), progress=progress, cancel=cancel
    )
    yield Stage(name="restore", length_bytes=result.written_bytes, duration_ns=result.duration_ns)
    places = Places(cache_dir=directory / "cache", state_dir=directory / "state")
    secret = Secret(key=system_random(KEY_BYTES))
    location = f"file:{directory / 'repository'}"
    init(location, secret, places=places)
    with open_repository(location, secret, places=places, writes=True) as trial:
        for name in ("backup", "backup, unchanged"):
            made = trial.backup([os.fsencode(restored)], BackupOptions(), progress=progress, cancel=cancel)
            figures = made.figures
            yield Stage(name=name, length_bytes=figures.length_bytes, duration_ns=figures.duration_ns)
