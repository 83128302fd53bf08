"""One restore as callers outside see it: recorded in the access log before anything of it is written."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from respaldo.api.blocks import restore_of
from respaldo.api.naming import Found
from respaldo.core.seams import Cancel, Progress
from respaldo.flows.restore.options import RestoreOptions, RestoreResult
from respaldo.flows.restore.run import run_restore
from respaldo.flows.restore.seams import Trees

if TYPE_CHECKING:
    from respaldo.api.repository import Repository


def restore(
    repository: Repository,
    trees: Trees,
    found: Found,
    target: bytes,
    options: RestoreOptions,
    *,
    progress: Progress,
    cancel: Cancel,
) -> RestoreResult:
    """Restores what was found: what is in a directory directly into the target, a file as it or into it.

    Raises `NotRecorded` before anything of it is written, `KeyRotated` where something seems damaged or is not to be
    had because the key was rotated since the repository was opened (run again, it goes on), and else as `run_restore`.
    """
    repo = repository.within
    wanted = restore_of(repo, trees, found, target, options)
    with repository.accesses.recorded(
        "restore", snapshots=[found.snapshot.id], paths=[found.path], target=os.path.abspath(target)
    ) as ending:
        result = run_restore(wanted, progress=progress, cancel=cancel, clock=repo.clock, random=repo.random)
        if result.damaged:
            repo.require_newest()
        ending.take(result.exit_status, result.written_bytes)
    return result
