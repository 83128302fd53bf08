"""What the tests of rewriting share: a repository of tiny chunks, a source, and what a snapshot of it says."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from respaldo.api.rewriting import RewriteResult, rewrite
from respaldo.backend.memory import MemoryBackend
from respaldo.catalog.protection import load_trash, set_apart
from respaldo.catalog.selectors import Context
from respaldo.catalog.snapshots import Snapshot, load
from respaldo.core.ids import SnapshotId
from respaldo.core.seams import Cancel, Silent
from respaldo.flows.rewrite.options import RewriteOptions
from respaldo.store.repo import Repo
from tests.protocol.scene import OPTIONS, Kept, back_up, make_repository, open_repository


@dataclass
class World:
    """Is a source and a repository."""

    folder: Path
    backend: MemoryBackend = field(default_factory=MemoryBackend)

    def __post_init__(self) -> None:
        self.source = self.folder / "source"
        self.source.mkdir(exist_ok=True)
        make_repository(self.backend)
        self.repo: Repo = open_repository(Kept(self.backend), self.folder / "cache")

    def snapshot(self, *sources: Path, **options) -> SnapshotId:
        """Makes a snapshot, whatever could not be read."""
        result = back_up(self.repo, *(sources or (self.source,)), options=replace(OPTIONS, **options))
        assert result.snapshot is not None
        return result.snapshot

    def item(self, snapshot: SnapshotId) -> Snapshot:
        """Returns a snapshot that is there."""
        return next(item for item in load(self.repo).snapshots if item.id == snapshot)

    def rewrite(self, *snapshots: SnapshotId, forget: bool = False, **options) -> RewriteResult:
        """Rewrites snapshots."""
        catalogue = set_apart(load(self.repo), load_trash(self.repo))
        return rewrite(
            self.repo,
            catalogue,
            [snapshot.hex() for snapshot in snapshots],
            Context(now_ns=self.repo.clock.now_ns()),
            RewriteOptions(**{"program": "test", **options}),
            forget=forget,
            progress=Silent(),
            cancel=Cancel(),
        )

    def rewritten(self, snapshot: SnapshotId, **options) -> Snapshot:
        """Rewrites a snapshot; returns the new one."""
        (item,) = self.rewrite(snapshot, **options).items
        assert item.snapshot is not None
        return self.item(item.snapshot)
