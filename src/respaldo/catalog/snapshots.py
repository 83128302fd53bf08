"""Snapshots: manifests that were committed, the ones still pending, and the names they answer to.

Invariant: a manifest counts as a snapshot only when its outcome is authentic, says commit and names the manifest's
bytes; a short or unauthentic outcome means undecided. Nothing is ever written over. Implements docs/format.md,
"Protocol" (W3, W5, readers).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from respaldo.core.errors import Corruption, NoSuchSnapshot, ObjectExists, ObjectMissing, UsageError
from respaldo.core.ids import SnapshotId, parse_random_leaf
from respaldo.format import canonical
from respaldo.format.snapshot import (
    RECORD_BYTES_MAX,
    RECORD_RAW_BYTES_MAX,
    Manifest,
    Outcome,
    Verdict,
    parse_manifest,
    parse_outcome,
)
from respaldo.store.repo import Repo


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Is one committed snapshot."""

    id: SnapshotId
    manifest: Manifest

    @property
    def hex(self) -> str:
        """The id in hex, as a person sees it."""
        return self.id.hex()


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """Is what a listing of manifests and outcomes showed: snapshots by time, those undecided, what is damaged."""

    snapshots: tuple[Snapshot, ...]
    undecided: tuple[SnapshotId, ...]
    damaged: tuple[Corruption, ...]

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
        found = [item for item in self.snapshots if item.hex == name]  # whole, no label can stand before it
        labelled = [item for item in self.snapshots if name and item.manifest.label == name]
        if labelled and not found:
            return labelled[-1]
        found = found or [item for item in self.snapshots if name and item.hex.startswith(name)]
        if name and not found:
            self.need_whole(name)
        if not found:
            raise NoSuchSnapshot(name)
        if len(found) > 1:
            raise NoSuchSnapshot(name, "several snapshots begin so")
        return found[0]

    def need_whole(self, name: str = "") -> None:
        """Raises `Corruption` where a manifest is damaged, of those alone whose id begins with ``name``."""
        for error in self.damaged:
            if error.name.startswith(f"{_PENDING}{name}"):
                raise Corruption(error.name, error.reason, hint=_DAMAGED_HINT)


_PENDING = "pending/"
_DAMAGED_HINT = "name another snapshot by its id or label; list what there is with: respaldo snapshots"


def pending_name(snapshot: SnapshotId) -> str:
    """Returns the object name of a manifest."""
    return _PENDING + snapshot.hex()


def outcome_name(snapshot: SnapshotId) -> str:
    """Returns the object name of an outcome."""
    return "outcome/" + snapshot.hex()


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
    abort is told of any commit, and gets `Corruption` for what is torn: that is no abort.
    """
    name = outcome_name(snapshot)
    outcome = Outcome(verdict=verdict, pending_hash=pending_hash)
    try:
        repo.backend.put(name, [repo.vault.seal_record("outcome", name, outcome.encode())])
    except ObjectExists:
        try:
            standing = parse_outcome(
                repo.vault.open_record("outcome", name, repo.backend.get_whole(name, RECORD_BYTES_MAX)), name
            )
        except Corruption:
            if verdict is Verdict.ABORT:
                raise
            return Verdict.ABORT
        if verdict is Verdict.COMMIT and standing.pending_hash != pending_hash:
            return Verdict.ABORT
        return standing.verdict
    return verdict


def load(repo: Repo) -> Catalogue:
    """Lists manifests, then outcomes, and reads those that the cache does not hold."""
    pending = _ids(repo, "pending")
    outcomes = _ids(repo, "outcome")
    snapshots: list[Snapshot] = []
    undecided: list[SnapshotId] = []
    damaged: list[Corruption] = []
    fresh: dict[str, bytes] = {}
    for snapshot in pending:
        if snapshot not in outcomes:
            undecided.append(snapshot)
            continue
        try:
            cached = repo.index.record(pending_name(snapshot))
            if cached is None:
                cached = _read(repo, snapshot)
                fresh[pending_name(snapshot)] = cached
            match canonical.unpack(cached, pending_name(snapshot)):
                case [str(verdict), bytes(raw)]:
                    pass
                case _:
                    raise Corruption(pending_name(snapshot), "the cache holds something else")
            if verdict == Verdict.COMMIT:
                manifest = parse_manifest(raw, pending_name(snapshot))
                snapshots.append(Snapshot(id=snapshot, manifest=manifest))
        except ObjectMissing:
            continue
        except _UndecidedError:
            undecided.append(snapshot)
        except Corruption as error:
            damaged.append(error)
    there = {pending_name(snapshot) for snapshot in pending}
    gone = [name for name in repo.index.record_names() if name.startswith(_PENDING) and name not in there]
    if fresh or gone:
        repo.index.put_records(fresh, gone)
    snapshots.sort(key=lambda item: (item.manifest.time_ns, item.manifest.started_ns, item.id))
    return Catalogue(snapshots=tuple(snapshots), undecided=tuple(undecided), damaged=tuple(damaged))


class _UndecidedError(Exception):
    """Says that an outcome is torn or not authentic."""


def _read(repo: Repo, snapshot: SnapshotId) -> bytes:
    """Returns [verdict, manifest's plaintext], the form that is cached: both are immutable once decided."""
    name = outcome_name(snapshot)
    try:
        outcome = parse_outcome(
            repo.vault.open_record("outcome", name, repo.backend.get_whole(name, RECORD_BYTES_MAX)), name
        )
    except Corruption:
        raise _UndecidedError from None
    if outcome.verdict is not Verdict.COMMIT:
        return canonical.pack([outcome.verdict.value, b""])
    name = pending_name(snapshot)
    data = repo.backend.get_whole(name, RECORD_BYTES_MAX)
    raw = repo.vault.open_record("manifest", name, data)
    if hashlib.sha256(data).digest() != outcome.pending_hash:
        raise Corruption(name, "its outcome names another manifest")
    parse_manifest(raw, name)
    return canonical.pack([outcome.verdict.value, raw])


def list_pending(repo: Repo) -> set[SnapshotId]:
    """Lists the manifests that are there, decided or not."""
    return set(_ids(repo, "pending"))


def _ids(repo: Repo, folder: str) -> Sequence[SnapshotId] | dict[SnapshotId, None]:
    found: dict[SnapshotId, None] = {}
    for name, _ in repo.backend.list(folder):
        parsed = parse_random_leaf(name.partition("/")[2])
        if parsed is not None:
            found[SnapshotId(parsed)] = None
    return found
