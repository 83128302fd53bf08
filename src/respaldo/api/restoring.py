"""One restore as callers outside see it: recorded in the access log before anything of it is written."""

from __future__ import annotations

import os

from respaldo.api.naming import Found
from respaldo.api.recording import Accesses
from respaldo.core.seams import Cancel, Progress
from respaldo.flows.restore.begin import Restore
from respaldo.flows.restore.options import RestoreResult
from respaldo.flows.restore.run import run_restore
from respaldo.store.repo import Repo


def restore(
    repo: Repo, accesses: Accesses, found: Found, wanted: Restore, *, progress: Progress, cancel: Cancel
) -> RestoreResult:
    """Restores what was found; raises `NotRecorded`, and else as `run_restore`."""
    target = os.path.abspath(wanted.target)
    with accesses.recorded("restore", snapshots=[found.snapshot.id], paths=[found.path], target=target) as ending:
        result = run_restore(wanted, progress=progress, cancel=cancel, clock=repo.clock, random=repo.random)
        ending.take(result.exit_status, result.written_bytes)
    return result
