"""Re-encryption on a repository: snapshots, small objects, packs, in this order; then the old master keys go.

Each part can be cut off and is gone on with by the next run. Nothing is uploaded anew but what is sealed anew, and
nothing is compressed anew but what is taken out of sparse blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from respaldo.core.ids import SnapshotId
from respaldo.core.seams import Cancel, Progress
from respaldo.flows.gc.options import PruneOptions, PruneResult
from respaldo.flows.gc.run import run_prune
from respaldo.flows.reencrypt.objects import OWNERS, renew_objects
from respaldo.flows.reencrypt.run import carry_over
from respaldo.store.census import take_census
from respaldo.store.owned import OwnedArea
from respaldo.store.repo import Repo
from respaldo.store.retiring import Retired, retire


@dataclass(frozen=True, slots=True, kw_only=True)
class Under:
    """Is what is sealed under one epoch: objects and bytes by folder. ``in_use``: whether its master key is known."""

    epoch: int
    in_use: bool
    objects: Mapping[str, int]
    length_bytes: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reencrypted:
    """Is a finished re-encryption. ``snapshots``: new ids by old ones; ``failed``: those that stay, and why.

    ``prune`` is None where no old key was in use.
    """

    snapshots: Mapping[SnapshotId, SnapshotId] = field(default_factory=dict)
    failed: tuple[tuple[SnapshotId, str], ...] = ()
    objects: int = 0
    prune: PruneResult | None = None
    retired: Retired = field(default_factory=Retired)


def survey(repo: Repo, cancel: Cancel) -> tuple[Under, ...]:
    """Returns what is sealed under each epoch, the newest last; reads the beginnings of all objects, no more."""
    census = take_census(repo.backend, repo.vault, check=cancel.check)
    known = {repo.epoch.number, *repo.epoch.in_use}
    return tuple(
        Under(
            epoch=epoch,
            in_use=epoch in known,
            objects={folder: len(items) for folder, items in found.items()},
            length_bytes={folder: sum(item.length_bytes for item in items) for folder, items in found.items()},
        )
        for epoch in sorted(known | census.by_epoch.keys())
        for found in [census.by_epoch.get(epoch, {})]
    )


def reencrypt(repo: Repo, *, progress: Progress, cancel: Cancel) -> Reencrypted:
    """Seals all that is of earlier epochs under the newest, then destroys the old master keys if nothing is left.

    In the area of a client, content and what its owner has put: a manifest or a log that the owner seals anew would be
    the owner's, whose times are believed. So nothing is destroyed there.
    """
    if not repo.epoch.in_use:
        return Reencrypted()
    options = PruneOptions(repack_below=0, renew=True)
    if isinstance(repo, OwnedArea):
        pruned = run_prune(repo, options, progress=progress, cancel=cancel)
        return Reencrypted(objects=renew_objects(repo, cancel, OWNERS), prune=pruned)
    carried = carry_over(repo, progress=progress, cancel=cancel)
    objects = renew_objects(repo, cancel)
    pruned = run_prune(repo, options, progress=progress, cancel=cancel)
    objects += renew_objects(repo, cancel)  # the log has gone on
    return Reencrypted(
        snapshots=carried.snapshots,
        failed=tuple(carried.failed),
        objects=objects,
        prune=pruned,
        retired=retire(repo, cancel.check),
    )
