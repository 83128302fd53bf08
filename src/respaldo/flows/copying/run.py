"""One copy from beginning to end: which snapshots are missing, what they need, commit by commit.

Invariant: the target sees an ordinary writer (W1 to W5), the source an ordinary reader; nothing in the source is
written. A copy is a snapshot of its own, with an id of its own, that says whose copy it is; so a second run copies
nothing. Cut off, it leaves what was moved, which the next run finds. Implements docs/format.md, "Copies".
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from respaldo.catalog.protection import pin
from respaldo.catalog.session import ContentGoneError, Session
from respaldo.catalog.snapshots import Catalogue, Snapshot, list_pending, load
from respaldo.core.errors import ChunkMissing, Corruption, Interrupted, Refused, StorageFailed, UsageError
from respaldo.core.ids import SnapshotId
from respaldo.core.seams import Cancel, Progress
from respaldo.flows.copying.alike import AsTheyAre
from respaldo.flows.copying.anew import Anew
from respaldo.flows.copying.moving import SourceMovedError
from respaldo.flows.copying.options import Copied, CopyOptions, CopyResult, copies_of, lacks, origin_of
from respaldo.flows.copying.rechunk import Ahead
from respaldo.format.snapshot import Manifest
from respaldo.store.repo import Repo

_TRIES = 5


def run_copy(
    source: Repo, target: Repo, wanted: Sequence[Snapshot], options: CopyOptions, *, progress: Progress, cancel: Cancel
) -> CopyResult:
    """Copies snapshots that the target lacks; raises `UsageError` where both are the same repository.

    One that cannot be copied at all is named in the result, the others are copied.
    """
    if source.header.repository == target.header.repository:
        raise UsageError(
            "both are the same repository, or one is a copy of the other's files",
            hint="name another repository with --to; respaldo init makes one",
        )
    done: dict[SnapshotId, Copied] = {}
    for number in range(_TRIES):
        try:
            return _Run(source, target, options, done, progress, cancel, fresh=number > 0).copy(wanted)
        except (ContentGoneError, SourceMovedError):
            source.synchronise(progress, lenient=True)
    raise StorageFailed("packs", "content went away again and again while it was copied", retryable=True)


class _Run:
    """Is one attempt; ``done`` is what others have committed."""

    def __init__(
        self,
        source: Repo,
        target: Repo,
        options: CopyOptions,
        done: dict[SnapshotId, Copied],
        progress: Progress,
        cancel: Cancel,
        *,
        fresh: bool,
    ) -> None:
        self._source = source
        self._target = target
        self._options = options
        self._done = done
        self._progress = progress
        self._cancel = cancel
        self._fresh = fresh
        self._failed: list[tuple[Snapshot, str]] = []
        self._origins: dict[bytes, tuple[bytes, bytes]] = {}
        self.alike = source.ring.id_keys == target.ring.id_keys

    def copy(self, wanted: Sequence[Snapshot]) -> CopyResult:
        source, target = self._source, self._target
        with Session(target, self._progress) as session:
            if self._options.dry_run:
                target.synchronise(self._progress)
                catalogue = load(target)
            else:
                catalogue = session.begin()
            there = copies_of(target.header.repository, catalogue.snapshots)
            repository = source.header.repository
            self._origins = {item.id: origin_of(repository, item.id, item.manifest) for item in wanted}
            missing: list[Snapshot] = []
            present: list[Snapshot] = []
            # By time; of one time as they came, the rewritten behind what they were made from.
            for item in sorted(wanted, key=lambda item: item.order[:2]):
                if item.id not in self._done:
                    known = there.get(self._origins[item.id])
                    whole = known is not None and lacks(known.manifest) <= lacks(item.manifest)
                    (present if whole else missing).append(item)
            if missing:
                try:
                    self._each(session, catalogue, there, missing, wanted)
                except Interrupted:
                    if not self._options.dry_run:
                        session.save()
                    raise
                if not self._options.dry_run:
                    session.tidy(catalogue)
        copied = tuple(self._done[item.id] for item in wanted if item.id in self._done)
        return CopyResult(alike=self.alike, copied=copied, present=tuple(present), failed=tuple(self._failed))

    def _each(
        self,
        session: Session,
        catalogue: Catalogue,
        there: dict[tuple[bytes, bytes], Snapshot],
        missing: list[Snapshot],
        wanted: Sequence[Snapshot],
    ) -> None:
        with contextlib.ExitStack() as stack:
            if self.alike:
                way: AsTheyAre | Anew = AsTheyAre(self._source, self._target, session, self._progress, self._cancel)
            else:
                way = Anew(
                    self._source,
                    self._target,
                    session,
                    snapshots=() if self._fresh else {item.id for item in catalogue.snapshots},
                    ahead=stack.enter_context(Ahead(self._source)),
                    dry_run=self._options.dry_run,
                    progress=self._progress,
                    cancel=self._cancel,
                )
                stack.callback(way.close)
                way.learn_from(there, wanted)
            for item in missing:
                self._progress.note(1, f"copying snapshot {item.hex[:8]}")
                parent = self._copy_of(item.manifest.parent, there)
                base = None if self._fresh else _base(item, parent, there)
                try:
                    manifest, copied = way.copy(item, base, dry_run=self._options.dry_run)
                except (ChunkMissing, Corruption) as error:
                    if not self._is_forgotten(item):
                        self._failed.append((item, str(error)))
                        self._progress.note(-1, f"snapshot {item.hex[:8]} cannot be copied: {error}")
                    continue
                if copied.errors and self._is_forgotten(item):  # what it lacks was collected, and is no damage
                    continue
                known = there.get(self._origins[item.id])
                if known is not None and manifest is not None and lacks(manifest) >= lacks(known.manifest):
                    copied = replace(copied, copy=known.id)  # what is there lacks no more than this one would
                elif manifest is not None:
                    rewrites = self._copy_of(manifest.rewrites, there)
                    manifest = replace(
                        manifest,
                        parent=parent.id if parent is not None else b"",
                        rewrites=rewrites.id if rewrites is not None else manifest.rewrites,
                    )
                    copied = self._commit(session, way, item, manifest, copied, there)
                self._done[item.id] = copied

    def _is_forgotten(self, item: Snapshot) -> bool:
        if item.id in list_pending(self._source):
            return False
        self._source.require_newest()  # else it may be there, under another key and id
        self._progress.note(0, f"snapshot {item.hex[:8]} was forgotten while it was copied")
        return True

    def _copy_of(self, snapshot: bytes, there: Mapping[tuple[bytes, bytes], Snapshot]) -> Snapshot | None:
        """Returns what the target has of a snapshot of the source."""
        return there.get(self._origins.get(snapshot) or (self._source.header.repository, snapshot))

    def _commit(
        self,
        session: Session,
        way: AsTheyAre | Anew,
        item: Snapshot,
        manifest: Manifest,
        copied: Copied,
        there: dict[tuple[bytes, bytes], Snapshot],
    ) -> Copied:
        origin = self._origins[item.id]
        manifest = replace(manifest, session=session.id, repairs=b"", origin=origin)
        snapshot = session.commit(manifest, way.relied)
        way.committed(snapshot)
        if item.id in self._options.pinned:
            with contextlib.suppress(Refused):
                pin(self._target, snapshot, "pinned where it was copied from")
        there[origin] = Snapshot(
            id=snapshot, encoded=manifest.encode(), time_ns=manifest.time_ns, started_ns=manifest.started_ns
        )
        return replace(copied, copy=snapshot)


def _base(item: Snapshot, parent: Snapshot | None, there: dict[tuple[bytes, bytes], Snapshot]) -> Snapshot | None:
    """Returns a snapshot of the target that is likely to share much with one that is to be copied."""
    if parent is not None:
        return parent
    like = [other for other in there.values() if other.manifest.sources == item.manifest.sources]
    earlier = [other for other in like if other.order <= item.order]
    return (
        max(earlier, key=lambda other: other.order)
        if earlier
        else min(like, key=lambda other: other.order, default=None)
    )
