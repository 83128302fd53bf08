"""Copies between repositories that name content alike: what lies in the source's blocks goes over as it is."""

from __future__ import annotations

from dataclasses import replace

from respaldo.catalog.losses import Rewriter
from respaldo.catalog.session import Session
from respaldo.catalog.snapshots import Snapshot
from respaldo.core.errors import Corruption
from respaldo.core.ids import SnapshotId
from respaldo.core.seams import Cancel, Progress
from respaldo.flows.copying.losing import lost_paths
from respaldo.flows.copying.moving import Moved, Mover
from respaldo.flows.copying.needs import Needs
from respaldo.flows.copying.options import LOST, Copied, as_copied
from respaldo.format.snapshot import Manifest
from respaldo.store.repo import Repo


class AsTheyAre:
    """Copies the content of snapshots, one after the other, in one session."""

    def __init__(self, source: Repo, target: Repo, session: Session, progress: Progress, cancel: Cancel) -> None:
        self._source = source
        self._target = target
        self._session = session
        self._progress = progress
        self._cancel = cancel
        self._needs = Needs(source, target, session.sink, cancel)
        self._mover = Mover(source, target, progress=progress, cancel=cancel, checkpoint=session.save_if_due)
        self._lost: set[bytes] = set()
        self._total = 0
        self.relied: set[SnapshotId] = set()
        """Those of the target that subtrees were taken over from."""

    def copy(self, item: Snapshot, base: Snapshot | None, *, dry_run: bool) -> tuple[Manifest | None, Copied]:
        """Moves what a snapshot needs; returns its manifest, with the root that it has in the target.

        Raises `Corruption` where the root is lost.
        """
        manifest, needs = item.manifest, self._needs
        if manifest.root_lost:
            raise Corruption(f"snapshot {item.hex[:8]}", "its root was lost to damage")
        if needs.walk(manifest.root, base.manifest.root if base is not None else None) and base is not None:
            self.relied.add(base.id)
        planned = self._mover.measure(needs.wanted)
        self._total += planned.raw_bytes
        self._progress.total(files=0, length_bytes=self._total)
        if dry_run:
            needs.wanted.rows.clear()  # the next one costs what this one does not bring
            return None, _copied(item, planned, planned.stored_bytes)
        tally = self._session.sink.tally
        before = tally.stored_bytes
        moved, lost = self._mover.move(needs.wanted, self._session.sink)
        self._session.save()
        self._lost |= lost | needs.lost
        copied = _copied(item, moved, tally.stored_bytes - before)
        if self._lost:
            manifest, copied = self._without_lost(item, copied)
        return as_copied(manifest, copied), copied

    def _without_lost(self, item: Snapshot, copied: Copied) -> tuple[Manifest, Copied]:
        """Writes the trees of a snapshot anew in which something is lost, and marks it."""
        manifest = item.manifest
        rewriter = Rewriter(self._source, self._session.sink, set(), self._cancel, known_lost=self._lost)
        result = rewriter.rewrite(manifest.root)
        if result.gone:
            raise Corruption(f"snapshot {item.hex[:8]}", "its root is lost to damage")
        if result.id == manifest.root:
            return manifest, copied
        self._session.save()
        paths, errors = lost_paths(self._source, self._target, manifest.root, result.id)
        for path in paths:
            self._progress.note(-1, LOST, path)
        manifest = replace(manifest, root=result.id, lost=b"".join(rewriter.lost))
        return manifest, replace(copied, lost=paths, errors=errors)

    def committed(self, snapshot: SnapshotId) -> None:
        """Remembers nothing: ids say it all."""


def _copied(item: Snapshot, moved: Moved, stored_bytes: int) -> Copied:
    return Copied(
        source=item,
        copy=None,
        chunks_new=moved.chunks,
        new_bytes=moved.raw_bytes,
        stored_bytes=stored_bytes,
        read_bytes=moved.read_bytes,
        blocks_kept=moved.blocks_kept,
    )
