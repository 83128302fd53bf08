"""Roots: the snapshots whose content must stay, committed and undecided; and which of the undecided may expire.

Implements docs/format.md, "Prune" (G1, and what G5 says of listings), "Forgetting and expiry".
"""

from __future__ import annotations

from dataclasses import dataclass, field

from respaldo.catalog.snapshots import decide, load, read_undecided
from respaldo.core.errors import Corruption, ObjectMissing, StorageFailed
from respaldo.core.ids import ChunkId, SnapshotId
from respaldo.format.snapshot import Verdict
from respaldo.store.ballast import with_ballast
from respaldo.store.repo import Repo

_NEVER_SEEN = bytes(32)
_TRIES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Undecided:
    """Is an undecided snapshot: its root, the session that made it, the hash of its manifest's object."""

    root: ChunkId
    session: bytes
    pending_hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Roots:
    """Is what two listings showed, together.

    ``unreadable``: undecided, and their manifests are not whole. ``lost``: committed, and a repair has found their root
    lost, which may have been stored again.
    """

    committed: dict[SnapshotId, ChunkId]
    undecided: dict[SnapshotId, Undecided]
    unreadable: dict[SnapshotId, Corruption]
    lost: set[SnapshotId] = field(default_factory=set)


def list_roots(repo: Repo) -> Roots:
    """Lists roots, twice, one listing after the other, and again where a manifest went away before it was read.

    A listing may miss what is put and what is deleted while it goes on: one alone could miss a new snapshot as well as
    the forgotten one that it took subtrees over from. Raises `Corruption` where a committed manifest is damaged: nobody
    knows what it needs.
    """
    for _ in range(_TRIES):
        found = Roots(committed={}, undecided={}, unreadable={})
        if all(_add(repo, found) for _ in range(2)):
            for snapshot in found.committed:  # decided between the two
                found.undecided.pop(snapshot, None)
                found.unreadable.pop(snapshot, None)
            return found
    raise StorageFailed("pending", "manifests that are listed are not there, again and again", retryable=True)


def _add(repo: Repo, found: Roots) -> bool:
    """Adds what one listing shows; returns whether all of it was still there to be read."""
    catalogue = load(repo)
    if catalogue.damaged:
        error = catalogue.damaged[0]
        raise Corruption(error.name, error.reason, hint="nothing was deleted: it may need anything; respaldo verify")
    for item in catalogue.snapshots:
        found.committed[item.id] = item.manifest.root
        if item.manifest.root_lost:
            found.lost.add(item.id)
    whole = not catalogue.vanished
    for snapshot in catalogue.undecided:
        if snapshot in found.undecided:
            continue
        try:
            manifest, pending_hash = read_undecided(repo, snapshot)
        except ObjectMissing:
            whole = False
        except Corruption as error:
            found.unreadable[snapshot] = error
        else:
            found.undecided[snapshot] = Undecided(
                root=manifest.root, session=manifest.session, pending_hash=pending_hash
            )
    return whole


def expirable(roots: Roots, alive: frozenset[bytes]) -> tuple[SnapshotId, ...]:
    """Returns the undecided snapshots that may be aborted: no session that is alive is making them.

    What has no readable manifest may be anybody's: it expires when nobody is alive.
    """
    found = [snapshot for snapshot, item in roots.undecided.items() if item.session not in alive]
    return (*found, *(() if alive else roots.unreadable))


def expire(repo: Repo, snapshot: SnapshotId, roots: Roots) -> bool:
    """Puts an abort, create-only; returns whether that is what stands. Where commit won, the snapshot is a root."""
    item = roots.undecided.get(snapshot)
    pending_hash = item.pending_hash if item else _NEVER_SEEN
    try:
        return with_ballast(repo.backend, lambda: decide(repo, snapshot, Verdict.ABORT, pending_hash)) is Verdict.ABORT
    except Corruption:  # a torn outcome decides nothing
        return False
