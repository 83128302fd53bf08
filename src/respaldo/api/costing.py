"""What snapshots cost: each alone and with what it shares, what grew since the one before, and where the space lies.

Everything comes from manifests, trees and the local index; no content is read, nothing is written to the repository.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from respaldo.api.naming import Found
from respaldo.catalog.snapshots import Snapshot
from respaldo.catalog.trees import TreeReader
from respaldo.core.errors import UsageError
from respaldo.core.ids import ChunkId, SnapshotId
from respaldo.core.seams import Cancel, Progress
from respaldo.flows.gc.holders import Holders
from respaldo.flows.gc.options import Costs
from respaldo.store.repo import Repo
from respaldo.views.growth import Growth, find_growth
from respaldo.views.usage import Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Grew:
    """Is a snapshot, the one before it of the same machine and sources (None: there is none), and what grew."""

    snapshot: Snapshot
    before: Snapshot | None
    growth: Growth


class Costing:
    """Looks at one repository. One thread; goes through all trees once, when it is first asked for a cost."""

    def __init__(self, repo: Repo, trees: TreeReader, *, progress: Progress, cancel: Cancel) -> None:
        self._repo = repo
        self._trees = trees
        self._cancel = cancel
        self._holders = Holders(repo, progress=progress, cancel=cancel)
        self._looked = False

    def _look(self) -> Holders:
        if not self._looked:
            self._holders.look()
            self._looked = True
        return self._holders

    def costs(self) -> Costs:
        """Returns what each snapshot costs, those in the trash included."""
        return self._look().measure()

    def grew(self, snapshots: Sequence[Snapshot], item: Snapshot) -> Grew:
        """Returns what grew from the snapshot before; ``snapshots``: all there are, by time."""
        before = previous(snapshots, item)
        root = None if before is None else before.manifest.root
        growth = find_growth(self._trees, root, item.manifest.root, cancel=self._cancel)
        return Grew(snapshot=item, before=before, growth=growth)

    def usage(self, snapshot: SnapshotId) -> Usage:
        """Returns what looks into one snapshot, directory by directory."""
        holders = self._look()
        return Usage(
            self._repo.index,
            self._trees,
            rows=holders.rows,
            only=holders.only(snapshot),
            cancel=self._cancel,
        )


def previous(snapshots: Iterable[Snapshot], item: Snapshot) -> Snapshot | None:
    """Returns the last snapshot before one, of the same machine and sources."""
    manifest = item.manifest
    found = None
    for other in snapshots:
        if other.id == item.id:
            return found
        if other.manifest.sources == manifest.sources and other.manifest.host == manifest.host:
            found = other
    return found


def directory_of(found: Found) -> ChunkId:
    """Returns the tree of a directory that was found; raises `UsageError` where it is none."""
    tree = next(iter(found.entry.content), None) if found.entry.is_dir else None
    if tree is None:
        raise UsageError("only what is in a directory can be looked through", hint="name the directory it is in")
    return tree
