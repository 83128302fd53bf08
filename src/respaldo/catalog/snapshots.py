"""Snapshots: manifests that were committed, the ones still pending, and the names they answer to.

Invariant: a manifest counts as a snapshot only when its outcome is authentic, says commit and names the manifest's
bytes; a short or unauthentic outcome means undecided. Nothing is ever written over. Implements docs/format.md,
"Protocol" (W3, W5, readers, forgetting).
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from respaldo.catalog.decided import Decided, cached, commit_of, keep
from respaldo.catalog.labels import bearers, is_reserved, shown_label
from respaldo.catalog.rolls import apply_rolls, roll
from respaldo.core.errors import Corruption, KeyRotated, NoSuchSnapshot, ObjectExists, StorageError, UsageError
from respaldo.core.ids import RANDOM_ID_BYTES, SnapshotId, parse_leaves
from respaldo.format.logbook import SUBJECTS_MAX
from respaldo.format.snapshot import (
    RECORD_BYTES_MAX,
    RECORD_RAW_BYTES_MAX,
    Manifest,
    Outcome,
    Verdict,
    parse_manifest,
)
from respaldo.store import outcomes
from respaldo.store.authority import FORGET
from respaldo.store.epochs import is_retiring, newest_listed
from respaldo.store.outcomes import outcome_name
from respaldo.store.repo import Repo
from respaldo.store.several import read_several
from respaldo.store.tiers import FANOUT

SAFETY = "safety"
"""The tag of what a restore puts away before it overwrites it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Is one committed snapshot. Its manifest is parsed when it is first looked at: a list of thousands needs few."""

    id: SnapshotId
    encoded: bytes
    time_ns: int
    started_ns: int
    _parsed: Manifest | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def manifest(self) -> Manifest:
        """What the snapshot says of itself."""
        parsed = self._parsed
        if parsed is None:
            parsed = parse_manifest(self.encoded, pending_name(self.id))
            object.__setattr__(self, "_parsed", parsed)
        return parsed

    def is_of(self, host: str, sources: tuple[bytes, ...]) -> bool:
        """Whether it is one of a source, which its paths and the host make."""
        return self.manifest.sources == sources and self.manifest.host == host

    @property
    def hex(self) -> str:
        """The id in hex, as a person sees it."""
        return self.id.hex()

    @property
    def order(self) -> tuple[int, int, bytes]:
        """Says which of two is the later one."""
        return self.time_ns, self.started_ns, self.id


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """Is what a listing of manifests and outcomes showed: snapshots by time, those undecided, what is damaged.

    ``loose``: how many of the snapshots no catalogue is known to repeat. ``aborted``: those that can never be
    snapshots, whose manifests are still there. ``vanished``: listed, and gone when they were to be read.
    ``trash``: snapshots that were set apart (`respaldo.catalog.protection`) because a policy forgot them a short time
    ago. `load` sets none apart: they are roots like all others.
    """

    snapshots: tuple[Snapshot, ...]
    undecided: tuple[SnapshotId, ...]
    damaged: tuple[Corruption, ...]
    loose: int = 0
    aborted: tuple[SnapshotId, ...] = ()
    vanished: tuple[SnapshotId, ...] = ()
    trash: tuple[Snapshot, ...] = ()

    @property
    def unreadable(self) -> dict[SnapshotId, Corruption]:
        """The committed snapshots whose manifests are damaged, and how."""
        leaves = parse_leaves([error.name for error in self.damaged], RANDOM_ID_BYTES)
        found = zip(leaves, self.damaged, strict=True)
        return {SnapshotId(leaf): error for leaf, error in found if leaf is not None}

    def find(self, name: str) -> Snapshot:
        """Returns the snapshot that a name means: ``latest``, an id or its beginning, a label.

        Raises `NoSuchSnapshot` where there is none, or more than one, and `Corruption` where a manifest is damaged that
        may be the one that is meant: of the latest, an older one would be taken silently.
        """
        if name == "latest":
            self.need_whole()
            if not self.snapshots:
                raise NoSuchSnapshot(name, "there is no snapshot yet")
            return self.snapshots[-1]
        exact = self.named(name)
        if exact is not None:
            return exact
        found = [item for item in self.snapshots if name and item.hex.startswith(name)]
        if name and not found:
            self.need_whole(name)
            # What it was called before it was carried over to another master key, or where it was copied from.
            found = [item for item in self.snapshots if (was := item.manifest.origin) and was[1].hex().startswith(name)]
        if not found:
            raise NoSuchSnapshot(name)
        if len(found) > 1:
            raise NoSuchSnapshot(name, "several snapshots begin so", several=True)
        return found[0]

    def named(self, name: str) -> Snapshot | None:
        """Returns the snapshot with this id, whole, which no label can stand before, else the one of this label.

        Raises `NoSuchSnapshot` where several bear a label that the program gave.
        """
        whole = next((item for item in self.snapshots if item.hex == name), None)
        if whole is not None or not name:
            return whole
        return next(iter(self._find_by_label(name)), None)

    def _find_by_label(self, name: str) -> list[Snapshot]:
        """Returns the snapshot that bears a label; raises `NoSuchSnapshot` where several do that were not named.

        Those in the trash count: what the others are called does not depend on what becomes of them.
        """
        if not is_reserved(name):
            return bearers(name, self.snapshots)
        found = bearers(name, (*self.trash, *self.snapshots))
        if len(found) > 1:
            shared = {found[0].manifest.label: found}
            names = ", ".join(shown_label(item, shared) for item in found)
            raise NoSuchSnapshot(name, "several snapshots bear this label", several=True, hint=f"name one of: {names}")
        return [item for item in self.snapshots if found and item.id == found[0].id]

    def need_whole(self, name: str = "") -> None:
        """Raises `Corruption` where a manifest is damaged, of those alone whose id begins with ``name``."""
        for error in self.damaged:
            if error.name.startswith(f"{_PENDING}{name}"):
                raise Corruption(error.name, error.reason, hint=_DAMAGED_HINT)


_PENDING = "pending/"
_REWRITES = b"\xa8rewrites"
"""As it stands in an encoded manifest."""
_DAMAGED_HINT = "name another snapshot by its id or label; list what there is with: respaldo snapshots"


def pending_name(snapshot: SnapshotId) -> str:
    """Returns the object name of a manifest."""
    return _PENDING + snapshot.hex()


def identity(repo: Repo, snapshot: SnapshotId, manifest: Manifest) -> tuple[object, ...]:
    """Returns what a snapshot has in common with what it is carried over to, under another key, and with no other."""
    origin = manifest.origin or (repo.header.repository, manifest.repairs or snapshot)
    return origin, manifest.root, manifest.time_ns, manifest.started_ns, manifest.label


def put_pending(repo: Repo, snapshot: SnapshotId, manifest: Manifest) -> bytes:
    """Puts a manifest (W3); returns the SHA-256 of the object, which the outcome will name.

    Raises `UsageError`, and puts nothing, where no reader would accept it: that snapshot would be reported and lost.
    """
    name = pending_name(snapshot)
    raw = manifest.encode()
    try:
        readable = len(raw) <= RECORD_RAW_BYTES_MAX and parse_manifest(raw, name) == manifest
    except Corruption:
        readable = False
    if not readable:
        raise UsageError("the record of this snapshot could not be read back; nothing was backed up")
    data = repo.vault.seal_record("manifest", name, raw)
    repo.backend.put(name, [data])
    return hashlib.sha256(data).digest()


def decide(repo: Repo, snapshot: SnapshotId, verdict: Verdict, pending_hash: bytes) -> Verdict:
    """Puts an outcome create-only (W5) and returns the verdict that stands, which may be another's.

    Commit of another manifest is no commit to whoever wanted one, and neither is what is torn; but whoever wanted to
    abort is told of any commit, and gets `Corruption` for what is torn: that is no abort. Raises `KeyRotated` where the
    epoch that this client writes under is retiring: who destroys its key may not have seen the manifest, which goes.
    """
    name = outcome_name(snapshot)
    if verdict is Verdict.COMMIT and is_retiring(repo.backend, repo.epoch):
        repo.backend.discard([pending_name(snapshot)])
        raise KeyRotated(newest_listed(repo.backend))
    outcome = Outcome(verdict=verdict, pending_hash=pending_hash)
    if verdict is Verdict.COMMIT and repo.log is not None:
        repo.log.owe(snapshot, pending_hash)
    try:
        repo.backend.put(name, [repo.vault.seal_record("outcome", name, outcome.encode())])
    except ObjectExists:
        try:
            standing = read_outcome(repo, snapshot)
        except Corruption:
            if verdict is Verdict.ABORT:
                raise
            return Verdict.ABORT
        if verdict is Verdict.COMMIT and standing.pending_hash != pending_hash:
            return Verdict.ABORT
        return standing.verdict
    if verdict is Verdict.COMMIT and repo.log is not None:
        with contextlib.suppress(StorageError):  # the snapshot is committed: the next entry will say so
            repo.log.committed(snapshot, pending_hash)
    return verdict


def announce_forgetting(repo: Repo, snapshots: Sequence[SnapshotId]) -> None:
    """Says in the log which snapshots are about to be forgotten."""
    for first in range(0, len(snapshots), SUBJECTS_MAX):
        repo.announce(FORGET, snapshots[first : first + SUBJECTS_MAX])


def forget(repo: Repo, snapshot: SnapshotId) -> bool:
    """Deletes a committed snapshot's manifest, *then* its outcome; returns whether the manifest was still there.

    The first is the step that counts. Whoever finds it done by another, or by a run that was cut off, does the second.
    It was announced before.
    """
    there = repo.backend.discard([pending_name(snapshot)])
    repo.backend.discard([outcome_name(snapshot)])
    return bool(there)


def read_undecided(repo: Repo, snapshot: SnapshotId) -> tuple[Manifest, bytes]:
    """Reads a manifest from storage, whatever its outcome; returns it and the SHA-256 of its object.

    Raises `ObjectMissing` where it has gone, `Corruption`.
    """
    name = pending_name(snapshot)
    data = repo.backend.get_whole(name, RECORD_BYTES_MAX)
    return parse_manifest(repo.vault.open_record("manifest", name, data), name), hashlib.sha256(data).digest()


def read_outcome(repo: Repo, snapshot: SnapshotId) -> Outcome:
    """Reads an outcome; raises `ObjectMissing`, and `Corruption` where it is torn or not authentic."""
    return outcomes.read_outcome(repo.backend, repo.vault, snapshot)


def load(repo: Repo) -> Catalogue:
    """Lists manifests, then outcomes, and reads those that the cache does not hold: of many, from catalogues.

    A client that cannot read gets those that it has made itself and remembers.
    """
    kept = list(cached(repo.index))  # before the listing: what another process keeps meanwhile is not gone
    pending = _ids(repo, "pending")
    outcomes = _ids(repo, "outcome")
    undecided = [snapshot for snapshot in pending if snapshot not in outcomes]
    entries: dict[SnapshotId, Decided] = {}
    gone: list[SnapshotId] = []
    for snapshot, entry in kept:
        if snapshot not in pending:
            gone.append(snapshot)
        elif snapshot in outcomes:
            entries[snapshot] = entry
    if gone:
        repo.index.put_records({}, map(pending_name, gone))
    missing = [snapshot for snapshot in pending if snapshot in outcomes and snapshot not in entries]
    if repo.runs is not None:
        missing.clear()  # of earlier sessions it knows what it has kept, and can read nothing
    damaged: list[Corruption] = []
    vanished: list[SnapshotId] = []
    if len(missing) >= FANOUT:
        found, _ = apply_rolls(repo, entries, set(missing))
        entries.update(found)
        missing = [snapshot for snapshot in missing if snapshot not in entries]
    fresh: dict[SnapshotId, Decided] = {}
    for snapshot, got in read_several(partial(_read, repo), missing):
        if got is None:
            undecided.append(snapshot)
        elif isinstance(got, Corruption):
            damaged.append(got)
        elif isinstance(got, Decided):
            fresh[snapshot] = got
        else:
            vanished.append(snapshot)
    if fresh:
        keep(repo.index, fresh)
        entries.update(fresh)
    ordered = sorted(
        (entry.time_ns, entry.started_ns, snapshot) for snapshot, entry in entries.items() if entry.committed
    )
    snapshots = [
        Snapshot(id=snapshot, encoded=entries[snapshot].manifest, time_ns=time_ns, started_ns=started_ns)
        for time_ns, started_ns, snapshot in ordered
    ]
    loose = sum(entry.committed and not entry.rolled for entry in entries.values())
    return Catalogue(
        snapshots=tuple(_rewritten_last(snapshots)),
        undecided=tuple(undecided),
        damaged=tuple(damaged),
        loose=loose,
        aborted=tuple(snapshot for snapshot, entry in entries.items() if not entry.committed),
        vanished=tuple(vanished),
    )


def _rewritten_last(snapshots: list[Snapshot]) -> list[Snapshot]:
    """Puts a snapshot that was rewritten from one of the same time behind that one: ``latest`` is then the new one."""
    for at in range(1, len(snapshots)):
        first, second = snapshots[at - 1], snapshots[at]
        if (first.time_ns, first.started_ns) == (second.time_ns, second.started_ns) and _REWRITES in first.encoded:
            tied = [item for item in snapshots if (item.time_ns, item.started_ns) == (first.time_ns, first.started_ns)]
            start = snapshots.index(tied[0])
            snapshots[start : start + len(tied)] = sorted(tied, key=lambda item: _generation(item, tied))
    return snapshots


def _generation(item: Snapshot, tied: list[Snapshot]) -> int:
    """Returns how many times it was rewritten since the first of those that are there."""
    by_id = {other.id: other for other in tied}
    count = 0
    while (before := by_id.pop(SnapshotId(item.manifest.rewrites), None)) is not None:
        item, count = before, count + 1
    return count


def _read(repo: Repo, snapshot: SnapshotId) -> Decided | None:
    """Returns what a decided snapshot came to, None where its outcome is torn or not authentic. For any thread."""
    try:
        outcome = read_outcome(repo, snapshot)
    except Corruption:
        return None
    if outcome.verdict is not Verdict.COMMIT:
        return Decided(committed=False)
    name = pending_name(snapshot)
    data = repo.backend.get_whole(name, RECORD_BYTES_MAX)
    raw = repo.vault.open_record("manifest", name, data)
    if hashlib.sha256(data).digest() != outcome.pending_hash:
        raise Corruption(name, "its outcome names another manifest")
    return commit_of(raw, outcome.pending_hash, name)


def roll_up(repo: Repo, before: Catalogue) -> None:
    """Puts a catalogue where that is due now that one more snapshot than ``before`` is committed.

    One in sixteen times that costs listings; mostly nothing.
    """
    if before.loose + 1 >= FANOUT:
        now = load(repo)
        roll(repo, {item.id for item in now.snapshots})


def ordinary(snapshots: Sequence[Snapshot]) -> tuple[Snapshot, ...]:
    """Returns snapshots without those that restores put away for safety."""
    tag = SAFETY.encode()  # where it stands nowhere, nothing needs to be parsed
    return tuple(item for item in snapshots if tag not in item.encoded or SAFETY not in item.manifest.tags)


def list_pending(repo: Repo) -> set[SnapshotId]:
    """Lists the manifests that are there, decided or not."""
    return set(_ids(repo, "pending"))


def list_outcomes(repo: Repo) -> set[SnapshotId]:
    """Lists the outcomes that are there, whatever they say."""
    return set(_ids(repo, "outcome"))


def _ids(repo: Repo, folder: str) -> dict[SnapshotId, None]:
    leaves = parse_leaves(repo.backend.names(folder), RANDOM_ID_BYTES)
    return {SnapshotId(leaf): None for leaf in leaves if leaf is not None}
