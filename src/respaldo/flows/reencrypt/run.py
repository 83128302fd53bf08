"""Snapshots carried over to the newest epoch: each is committed again, then the one it is made of is forgotten.

Invariant: a snapshot goes only after its like is committed and has its pin, its place in the trash and what is known of
its being whole. Ids change; which one it was stands in `origin`, so that copies elsewhere and old names still mean it.
Cut off anywhere it leaves both, and the next run goes on. Implements docs/format.md, "Re-encryption".
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from respaldo.catalog.protection import pin_name, trash_name
from respaldo.catalog.session import ContentGoneError, Session
from respaldo.catalog.snapshots import (
    Catalogue,
    Snapshot,
    announce_forgetting,
    decide,
    forget,
    identity,
    pending_name,
)
from respaldo.catalog.verification import load_verified, note_verified
from respaldo.core.errors import Corruption, ObjectExists, ObjectMissing
from respaldo.core.ids import SnapshotId
from respaldo.core.seams import Cancel, Progress
from respaldo.format.header import HASH_BYTES
from respaldo.format.protection import Pin
from respaldo.format.snapshot import RECORD_BYTES_MAX, Verdict
from respaldo.store.census import take_census
from respaldo.store.repo import Repo

_TOGETHER = 64
"""So many are forgotten in one step: until then, each is there twice."""


@dataclass(slots=True, kw_only=True)
class CarriedOver:
    """Is what became of the snapshots: new ids by old ones; those that could not be carried over, and why."""

    snapshots: dict[SnapshotId, SnapshotId] = field(default_factory=dict)
    failed: list[tuple[SnapshotId, str]] = field(default_factory=list)


def old_snapshots(repo: Repo, cancel: Cancel) -> set[SnapshotId]:
    """Returns the ids whose manifest or outcome is of an earlier epoch."""
    census = take_census(repo.backend, repo.vault, ["outcome", "pending"], cancel.check)
    found = (census.older_than(repo.epoch.number, folder) for folder in ("pending", "outcome"))
    return {SnapshotId(bytes.fromhex(item.name.partition("/")[2])) for items in found for item in items}


def carry_over(repo: Repo, *, progress: Progress, cancel: Cancel) -> CarriedOver:
    """Carries every snapshot over that is of an earlier epoch; raises errors of storage, and `Interrupted`."""
    done = CarriedOver()
    with Session(repo, progress) as session:
        catalogue = session.begin()
        old = old_snapshots(repo, cancel)
        run = _Run(repo, session, catalogue, old, done)
        wanted = [item for item in catalogue.snapshots if item.id in old]
        progress.total(files=len(wanted), length_bytes=0)
        for first in range(0, len(wanted), _TOGETHER):
            part = wanted[first : first + _TOGETHER]
            try:
                for item in part:
                    cancel.check()
                    run.one(item)
                    progress.advance(files=1)
            finally:
                run.forget(part)
        if done.snapshots:
            session.tidy(catalogue)
    return done


class _ForgottenError(Exception):
    """Says that a snapshot was forgotten while it was carried over."""


class _Run:
    """Is one session. ``old``: ids of what is to be carried over."""

    def __init__(
        self, repo: Repo, session: Session, catalogue: Catalogue, old: set[SnapshotId], done: CarriedOver
    ) -> None:
        self._repo = repo
        self._session = session
        self._done = done
        self._there = {
            identity(repo, item.id, item.manifest): item.id
            for item in catalogue.snapshots
            if item.id not in old and item.manifest.origin
        }

    def one(self, item: Snapshot) -> None:
        """Commits a snapshot again, unless a run that was cut off has done so."""
        before, known = item.manifest, self._done.snapshots
        there = self._there.get(identity(self._repo, item.id, before))
        if there is not None:
            self._protect(item.id, there)
            known[item.id] = there
            return
        fresh = replace(
            before,
            session=self._session.id,
            origin=before.origin or (self._repo.header.repository, before.repairs or item.id),
            parent=known.get(SnapshotId(before.parent), before.parent),
            rewrites=known.get(SnapshotId(before.rewrites), before.rewrites),
        )
        try:
            known[item.id] = self._session.commit(fresh, {item.id}, lambda new: self._before(item.id, new))
        except ContentGoneError:
            self._done.failed.append((item.id, "content that it needs is gone or damaged"))
        except _ForgottenError:
            return

    def _before(self, old: SnapshotId, new: SnapshotId) -> None:
        """Protects a new snapshot as the old one is; raises where that one has been forgotten meanwhile."""
        if self._repo.backend.exists(pending_name(old)) is None:
            with contextlib.suppress(Corruption):
                decide(self._repo, new, Verdict.ABORT, bytes(HASH_BYTES))
            raise _ForgottenError
        self._protect(old, new)

    def _protect(self, old: SnapshotId, new: SnapshotId) -> None:
        """Gives the new one the old one's pin, and its record of the trash."""
        for kind, before, after in (
            ("pin", pin_name(old), pin_name(new)),
            ("trash", trash_name(old), trash_name(new)),
        ):
            try:
                raw = self._repo.vault.open_record(kind, before, self._repo.backend.get_whole(before, RECORD_BYTES_MAX))
            except ObjectMissing:
                continue
            except Corruption:
                if kind == "trash":  # means nothing then; a pin still pins
                    continue
                raw = Pin(time_ns=self._repo.clock.now_ns()).encode()
            with contextlib.suppress(ObjectExists):
                self._repo.backend.put(after, [self._repo.vault.seal_record(kind, after, raw)])

    def _protect_again(self, old: SnapshotId, new: SnapshotId) -> None:
        """Does so once more before the old one goes: it may have been pinned, put into the trash or taken out since."""
        self._protect(old, new)
        if self._repo.backend.exists(trash_name(old)) is None:
            self._repo.backend.discard([trash_name(new)])

    def forget(self, items: Iterable[Snapshot]) -> None:
        """Forgets those that were carried over, after what is known of their being whole is said of the new ones."""
        gone = [item for item in items if item.id in self._done.snapshots]
        if not gone:
            return
        known = self._done.snapshots
        whole = load_verified(self._repo, gone)
        note_verified(self._repo, [replace(row, snapshot=known[old]) for old, row in whole.items()])
        announce_forgetting(self._repo, [item.id for item in gone])
        for item in gone:
            self._protect_again(item.id, known[item.id])
            forget(self._repo, item.id)
            self._repo.backend.discard([trash_name(item.id)])
            self._repo.backend.discard([pin_name(item.id)])
