"""Checks whose results the repository remembers: which snapshots were found whole, and the SHA-256 of files.

Where the repository cannot be written to, they are told and not remembered; that is no error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext

from respaldo.api.naming import Found
from respaldo.catalog.sums import SumsKept
from respaldo.catalog.trees import TreeReader
from respaldo.catalog.verification import note_verified
from respaldo.core.errors import KeyRotated, Refused, RespaldoError, StorageDenied, StorageFull
from respaldo.core.ids import ChunkId, SnapshotId
from respaldo.core.seams import Cancel, Progress
from respaldo.flows.check.options import VerifyOptions
from respaldo.flows.check.result import VerifyResult
from respaldo.flows.check.run import run_verify
from respaldo.format.verification import How, WasWhole
from respaldo.store.repo import Repo
from respaldo.views.checksums import Checksum, Checksums
from respaldo.views.content import Contents

Failed = Callable[[bytes, RespaldoError | str], None]
_NOT_KEPT = "the repository cannot be written to: that this was verified is not remembered"


def remember(
    repo: Repo, whole: Iterable[tuple[SnapshotId, ChunkId]], how: How, unsound: Iterable[SnapshotId] = ()
) -> bool:
    """Remembers snapshots as read and found whole, others as not; returns whether the repository took it."""
    now_ns = repo.clock.now_ns()
    rows = [WasWhole(snapshot=snapshot, root=root, time_ns=now_ns, how=how) for snapshot, root in whole]
    unsound = frozenset(unsound)
    if not rows and not unsound:
        return True
    try:
        note_verified(repo, rows, unsound)
    except (StorageDenied, StorageFull, Refused, KeyRotated):  # or who only reads an area seals nothing
        return False
    return True


def verify(repo: Repo, options: VerifyOptions, *, progress: Progress, cancel: Cancel) -> VerifyResult:
    """Checks a repository, and remembers what it found; raises as `run_verify` does.

    Raises `KeyRotated` where something seems damaged because the key was rotated since the repository was opened.
    """
    epoch = repo.epoch  # who only reads may go on in another one
    with SumsKept(repo) if options.computes_checksums else nullcontext() as known:
        result = run_verify(repo, options, progress=progress, cancel=cancel, known=known)
    if result.damages:
        repo.require_newest(epoch)
    if options.remember and not remember(repo, result.whole, How.VERIFY, result.unsound):
        progress.note(0, _NOT_KEPT)
    return result


def list_checksums(
    repo: Repo,
    trees: TreeReader,
    found: Found,
    *,
    anew: bool,
    progress: Progress,
    cancel: Cancel,
    failed: Failed,
) -> Iterator[Checksum]:
    """Yields the SHA-256 of every file of a directory, or of one; with ``anew`` from the content, whatever is kept."""
    failures = 0

    def fail(path: bytes, error: RespaldoError | str) -> None:
        nonlocal failures
        failures += 1
        failed(path, error)

    with SumsKept(repo) as known:
        contents = Contents(repo.source, trees)
        yield from Checksums(trees, contents, known, progress=progress, failed=fail, cancel=cancel, anew=anew).of(
            found.entry
        )
    if anew and found.path == b"/" and not failures:
        remember(repo, [(found.snapshot.id, found.snapshot.manifest.root)], How.CHECKSUMS)
