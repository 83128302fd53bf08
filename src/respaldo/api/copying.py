"""Copies between two open repositories: which snapshots, what is extra in the other, and what goes there."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from respaldo.api.repository import Repository
from respaldo.api.retention import candidates
from respaldo.backend.open import open_backend
from respaldo.backend.wrap import ReadOnly
from respaldo.catalog.arrival import find_doubts
from respaldo.catalog.snapshots import Snapshot
from respaldo.core.errors import Refused
from respaldo.core.ids import SnapshotId
from respaldo.core.seams import Cancel, Progress
from respaldo.flows.copying.options import CopyOptions, CopyResult
from respaldo.flows.copying.run import run_copy
from respaldo.store.header import read_header_mended
from respaldo.store.owned import OwnedArea


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncResult:
    """Is a finished synchronisation: the copy; what the other has of this one that this one has no more; what went."""

    copy: CopyResult
    extra: tuple[Snapshot, ...]
    deleted: tuple[Snapshot, ...] = ()
    pinned: tuple[Snapshot, ...] = ()
    """What is extra and stays, because it is pinned there."""
    refused: Refused | None = None
    """Why nothing was forgotten, where that was asked for."""


def repository_id(location: str) -> str:
    """Returns the id of the repository at a location, in hex, without opening it; raises `NotARepository`."""
    with ReadOnly(open_backend(location)) as backend:
        return read_header_mended(backend)[0].repository.hex()


def copy(
    source: Repository,
    target: Repository,
    names: Iterable[str],
    *,
    pins: bool = True,
    dry_run: bool = False,
    progress: Progress,
    cancel: Cancel,
) -> CopyResult:
    """Copies the snapshots that some names mean, all where there are none.

    Of all, those whose manifests cannot be read are named in the result, and the others are copied.
    Raises `NoSuchSnapshot`, `UsageError`, `NotRecorded` where the source's access log takes no line.
    """
    catalogue = source.snapshots()
    wanted = list(dict.fromkeys(catalogue.find(name).id for name in names))
    chosen = [item for item in catalogue.snapshots if not wanted or item.id in wanted]
    unreadable = () if wanted else tuple((item, str(error)) for item, error in catalogue.unreadable.items())
    for snapshot, reason in unreadable:
        progress.note(-1, f"snapshot {snapshot.hex()[:8]} cannot be copied: {reason}")
    options = CopyOptions(dry_run=dry_run, pinned=source.pins() if pins else frozenset())
    source.within.synchronise(progress, lenient=True)
    if dry_run:
        planned = run_copy(source.within, target.within, chosen, options, progress=progress, cancel=cancel)
        _warn_of_times(source, catalogue.snapshots, planned, progress)
        return replace(planned, unreadable=unreadable)
    ids, place = [item.id for item in chosen], os.fsencode(target.location)
    with source.accesses.recorded("copy", snapshots=ids, target=place, note=f"repository {target.id[:8]}") as ending:
        result = run_copy(source.within, target.within, chosen, options, progress=progress, cancel=cancel)
        result = replace(result, unreadable=unreadable)
        ending.take(0 if result.complete else 4, sum(item.new_bytes for item in result.copied))
    _warn_of_times(source, catalogue.snapshots, result, progress)
    return result


def _warn_of_times(source: Repository, snapshots: Sequence[Snapshot], result: CopyResult, progress: Progress) -> None:
    """Says which copies of a client's snapshots have times in doubt: where they are, they count by those they claim."""
    area, copied = source.within, {item.source.id for item in result.copied}
    if not isinstance(area, OwnedArea) or not copied:
        return
    arrivals = [item.arrival for item in candidates(snapshots, repo=area)]
    for snapshot, doubt in find_doubts(arrivals, area.clock.now_ns()).items():
        if snapshot in copied:
            what = f"snapshot {snapshot.hex()[:8]}: {doubt.text}; where it is copied to, it counts by that time"
            progress.note(0, f"warning: {what}")


def extra_in(source: Repository, target: Repository) -> tuple[Snapshot, ...]:
    """Returns the target's copies of snapshots that were this source's own and that it has no more, by time."""
    copies = target.snapshots().snapshots  # before the source: what another run has just copied was there by then
    catalogue = source.snapshots()
    here = {item.id for item in (*catalogue.snapshots, *catalogue.trash)} | set(catalogue.undecided)
    here |= catalogue.unreadable.keys()
    here |= {SnapshotId(item.manifest.repairs) for item in catalogue.snapshots}
    own = bytes.fromhex(source.id)
    for item in (*catalogue.snapshots, *catalogue.trash):  # carried over to another master key, under another id
        if item.manifest.origin is not None and item.manifest.origin[0] == own:
            here.add(SnapshotId(item.manifest.origin[1]))
    return tuple(
        item
        for item in copies
        if item.manifest.origin is not None and item.manifest.origin[0] == own and item.manifest.origin[1] not in here
    )


def sync(
    source: Repository,
    target: Repository,
    *,
    pins: bool = True,
    delete: bool = False,
    grace_ns: int = 0,
    dry_run: bool = False,
    progress: Progress,
    cancel: Cancel,
) -> SyncResult:
    """Brings all that the target lacks, then, if asked, forgets there what is extra and not pinned.

    Nothing is forgotten where the source cannot say for sure what it has, or where something could not be copied.
    """
    found = copy(source, target, (), pins=pins, dry_run=dry_run, progress=progress, cancel=cancel)
    extra = extra_in(source, target)
    if not delete or not extra:
        return SyncResult(copy=found, extra=extra)
    catalogue = source.snapshots()
    if catalogue.damaged or not catalogue.snapshots or not found.complete:
        refused = Refused(
            "nothing was forgotten in the other repository: this one is damaged, empty, or could not be copied whole",
            hint="verify this one first; or name what is to go: respaldo forget SNAPSHOT -r OTHER",
        )
        return SyncResult(copy=found, extra=extra, refused=refused)
    pinned = target.pins()
    going = [item for item in extra if item.id not in pinned]
    deleted = target.forget([item.hex for item in going], grace_ns=grace_ns, dry_run=dry_run, cancel=cancel)
    return SyncResult(
        copy=found, extra=extra, deleted=deleted, pinned=tuple(item for item in extra if item.id in pinned)
    )
