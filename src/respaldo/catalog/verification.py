"""Verification that is remembered in the repository: which snapshots were read and found whole, by whom and when.

Invariant: a record counts for a snapshot only with the root that the snapshot has. It is never trusted over the data:
whoever reads checks again. Records are written create-only, each with all that the ones before it said, which are then
deleted; two that are written at once stand side by side. Nothing depends on them. Implements docs/format.md,
"Verified".
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from respaldo.catalog.snapshots import Snapshot, list_pending
from respaldo.core.errors import Corruption, ObjectMissing
from respaldo.core.ids import RANDOM_ID_BYTES, SnapshotId
from respaldo.format.snapshot import RECORD_BYTES_MAX
from respaldo.format.verification import Verified, WasWhole, parse_verified
from respaldo.store.repo import Repo

FOLDER = "verified"


def load_verified(repo: Repo, snapshots: Iterable[Snapshot]) -> dict[SnapshotId, WasWhole]:
    """Returns what is remembered of snapshots, of each the latest; what cannot be read is passed over."""
    rows, _ = _read_all(repo)
    if not rows:
        return {}
    return {
        item.id: rows[item.id] for item in snapshots if item.id in rows and rows[item.id].root == item.manifest.root
    }


def note_verified(repo: Repo, fresh: Iterable[WasWhole], unsound: Collection[SnapshotId] = ()) -> bool:
    """Remembers snapshots as whole, and others as not; returns whether anything changed.

    Deletes the records that the new one repeats, and leaves out snapshots that are gone. Raises errors of storage.
    """
    before, names = _read_all(repo)
    there = list_pending(repo) if before else set()
    rows = {snapshot: row for snapshot, row in before.items() if snapshot in there and snapshot not in unsound}
    rows.update({row.snapshot: row for row in fresh})
    if rows == before and len(names) <= 1:
        return False
    if rows:
        name = f"{FOLDER}/{repo.random(RANDOM_ID_BYTES).hex()}"
        record = Verified(rows=tuple(rows[snapshot] for snapshot in sorted(rows)))
        repo.put_small("verified", name, record.encode())
    repo.backend.discard(names)
    return True


def _read_all(repo: Repo) -> tuple[dict[SnapshotId, WasWhole], list[str]]:
    """Returns the latest row of each snapshot, and the names of the records that could be read."""
    rows: dict[SnapshotId, WasWhole] = {}
    names: list[str] = []
    for name in repo.backend.names(FOLDER):
        try:
            data = repo.backend.get_whole(name, RECORD_BYTES_MAX)
            record = parse_verified(repo.vault.open_record("verified", name, data), name)
        except (ObjectMissing, Corruption):
            continue
        names.append(name)
        for row in record.rows:
            have = rows.get(row.snapshot)
            if have is None or have.time_ns < row.time_ns:
                rows[row.snapshot] = row
    return rows, names
