"""Pins and the trash: what a policy must not take, and what it took that can still be brought back.

Invariant: a snapshot in the trash has its manifest and its outcome; it is a root like any other, only not shown.
Whoever empties the trash deletes manifest, outcome, record, in this order, so that a run that is cut off is finished by
the next. Doubt is decided for the snapshot: a pin that cannot be read protects, a record of the trash that cannot be
read hides nothing and condemns nothing. Implements docs/format.md, "Pin" and "Trash".
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace

from respaldo.catalog.snapshots import Catalogue, Snapshot, announce_forgetting, forget, list_pending
from respaldo.core.errors import Corruption, ObjectExists, ObjectMissing, Refused
from respaldo.core.ids import RANDOM_ID_BYTES, SnapshotId, parse_leaves
from respaldo.format.protection import Pin, Trashed, parse_trashed
from respaldo.format.snapshot import RECORD_BYTES_MAX
from respaldo.store.repo import Repo


def pin_name(snapshot: SnapshotId) -> str:
    """Returns the object name of a pin."""
    return "pins/" + snapshot.hex()


def trash_name(snapshot: SnapshotId) -> str:
    """Returns the object name of a record of the trash."""
    return "trash/" + snapshot.hex()


def list_pins(repo: Repo) -> frozenset[SnapshotId]:
    """Lists the snapshots that are pinned."""
    return frozenset(_ids(repo, "pins"))


def is_pinned(repo: Repo, snapshot: SnapshotId) -> bool:
    """Whether a snapshot is pinned right now."""
    return repo.backend.exists(pin_name(snapshot)) is not None


def pin(repo: Repo, snapshot: SnapshotId, reason: str = "") -> bool:
    """Pins a snapshot; returns whether it was not pinned before.

    Raises `Refused` where it is gone meanwhile, or in the trash: see `take_away`.
    """
    name = pin_name(snapshot)
    record = Pin(time_ns=repo.clock.now_ns(), reason=reason)
    fresh = True
    try:
        repo.put_small("pin", name, record.encode())
    except ObjectExists:
        fresh = False
    binned = False
    with contextlib.suppress(Corruption):  # it hides nothing
        binned = _read(repo, snapshot) is not None  # before manifests are listed: the record goes after its manifest
    there = snapshot in list_pending(repo)
    if binned or not there:
        if fresh or not there:
            repo.backend.discard([name])
        raise Refused(f"snapshot {snapshot.hex()[:8]} has just been forgotten by another run")
    return fresh


def unpin(repo: Repo, snapshot: SnapshotId) -> bool:
    """Takes a pin away; returns whether there was one."""
    return bool(repo.backend.discard([pin_name(snapshot)]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Trash:
    """Is what a listing of the trash showed: records by snapshot, and what cannot be read."""

    records: dict[SnapshotId, Trashed]
    damaged: tuple[Corruption, ...] = ()


def load_trash(repo: Repo) -> Trash:
    """Reads the trash. Its records are not cached: a name comes back when a snapshot is forgotten again."""
    records: dict[SnapshotId, Trashed] = {}
    damaged: list[Corruption] = []
    for snapshot in _ids(repo, "trash"):
        try:
            record = _read(repo, snapshot)
        except Corruption as error:
            damaged.append(error)
            continue
        if record is not None:
            records[snapshot] = record
    return Trash(records=records, damaged=tuple(damaged))


def set_apart(catalogue: Catalogue, trash: Trash) -> Catalogue:
    """Returns a catalogue that shows the snapshots in the trash as such."""
    shown: list[Snapshot] = []
    apart: list[Snapshot] = []
    for item in catalogue.snapshots:
        (apart if item.id in trash.records else shown).append(item)
    return replace(catalogue, snapshots=tuple(shown), trash=tuple(apart), damaged=(*catalogue.damaged, *trash.damaged))


def put_in_trash(repo: Repo, snapshot: SnapshotId, grace_ns: int) -> bool:
    """Hides a snapshot for the time of grace, unless it is pinned; returns whether it is hidden.

    One that is in the trash already stays there as it is. Whoever pins puts the pin, *then* looks into the trash; here
    a pin is looked for after the record was put: of two at the same time at least one sees the other, and withdraws.
    """
    name = trash_name(snapshot)
    now_ns = repo.clock.now_ns()
    record = Trashed(time_ns=now_ns, until_ns=min(now_ns + grace_ns, (1 << 63) - 1))
    fresh = True
    try:
        repo.put_small("trash", name, record.encode())
    except ObjectExists:
        fresh = False
    if not is_pinned(repo, snapshot):
        return True
    if fresh:
        repo.backend.discard([name])
    return False


def take_away(repo: Repo, snapshot: SnapshotId) -> bool:
    """Forgets a snapshot that is not pinned, by way of the trash; returns whether it went. It was announced before."""
    if not put_in_trash(repo, snapshot, 0):
        return False
    forget(repo, snapshot)
    repo.backend.discard([trash_name(snapshot)])
    return True


def take_back(repo: Repo, snapshot: SnapshotId) -> None:
    """Takes a snapshot out of the trash.

    Raises `Refused` after the time of grace, when another run may be emptying it, and where it is gone. Between clients
    whose clocks agree no run empties what this one brings back; the last look tells where they do not.
    """
    record = _read(repo, snapshot)
    short = snapshot.hex()[:8]
    if record is None:
        raise Refused(f"snapshot {short} is not in the trash any more")
    if record.until_ns <= repo.clock.now_ns() and not is_pinned(repo, snapshot):
        raise Refused(
            f"the time of grace of snapshot {short} is over: it is about to be taken away",
            hint=f"restore what you need of it now: respaldo restore {short} TARGET",
        )
    repo.backend.discard([trash_name(snapshot)])
    if snapshot not in list_pending(repo):
        repo.require_newest()  # else it may be there, under another key and id
        raise Refused(f"snapshot {short} is gone: another run, by another clock, has emptied the trash")


def empty_trash(repo: Repo, *, dry_run: bool = False) -> list[SnapshotId]:
    """Takes away for good what has been in the trash for its time of grace and is not pinned; returns what that is.

    Takes pins of snapshots that are gone with it.
    """
    now_ns = repo.clock.now_ns()
    pins = list_pins(repo)
    records = load_trash(repo).records
    there = list_pending(repo)  # last: what has a pin or a record, and no manifest that is listed after it, is gone
    due = [
        item
        for item, record in records.items()
        if (record.until_ns <= now_ns and item not in pins) or item not in there
    ]
    gone = sorted(item for item in due if item in there)
    if dry_run:
        return gone
    announce_forgetting(repo, gone)
    for snapshot in due:
        with contextlib.suppress(Corruption):  # what has become unreadable is nobody's to take away
            record = _read(repo, snapshot)  # again: it may have been brought back, and forgotten anew
            if record is None:
                continue
            if snapshot not in there or (record.until_ns <= now_ns and not is_pinned(repo, snapshot)):
                forget(repo, snapshot)
                repo.backend.discard([trash_name(snapshot)])
    repo.backend.discard([pin_name(item) for item in pins - there])
    return gone


def _read(repo: Repo, snapshot: SnapshotId) -> Trashed | None:
    name = trash_name(snapshot)
    try:
        data = repo.backend.get_whole(name, RECORD_BYTES_MAX)
    except ObjectMissing:
        return None
    return parse_trashed(repo.vault.open_record("trash", name, data), name)


def _ids(repo: Repo, folder: str) -> list[SnapshotId]:
    leaves = parse_leaves(repo.backend.names(folder), RANDOM_ID_BYTES)
    return sorted(SnapshotId(leaf) for leaf in leaves if leaf is not None)
