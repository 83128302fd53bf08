"""Every object but the packs' bodies: configuration, slots, segments, manifests, outcomes, catalogues and the rest.

All are read from storage, none from a cache. Segments are compared with the packs that are listed and with the index,
so that what is found by the index afterwards is what the repository says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from respaldo.backend.base import Litter
from respaldo.catalog.rolls import FOLDER as ROLLS
from respaldo.catalog.rolls import list_rolls, read_roll
from respaldo.catalog.snapshots import Snapshot, pending_name
from respaldo.catalog.told import read_commits
from respaldo.core.errors import Corruption, ObjectMissing, StorageFailed
from respaldo.core.ids import (
    PackName,
    SegmentName,
    SnapshotId,
    catalogue_object,
    pack_object,
    parse_hash_leaf,
    parse_random_leaf,
)
from respaldo.core.seams import Cancel
from respaldo.flows.check.findings import Findings
from respaldo.flows.check.packs import NOT_ITS_NAME, Pieces
from respaldo.flows.check.result import Note
from respaldo.format.catalogue import Row
from respaldo.format.config import parse_config
from respaldo.format.enrolment import parse_client_record
from respaldo.format.header import HEADER
from respaldo.format.logbook import parse_object
from respaldo.format.protection import parse_pin, parse_trashed
from respaldo.format.runrecord import run_name
from respaldo.format.segment import Listed
from respaldo.format.snapshot import (
    RECORD_BYTES_MAX,
    Verdict,
    parse_condemnation,
    parse_manifest,
    parse_marker,
)
from respaldo.format.verification import parse_sums, parse_verified
from respaldo.store import slots
from respaldo.store.areas import list_clients
from respaldo.store.header import read_header, still_there
from respaldo.store.logstate import survey_log
from respaldo.store.outcomes import outcome_name, read_outcome
from respaldo.store.owned import OwnedArea
from respaldo.store.packrow import Indexed
from respaldo.store.packs import read_footer
from respaldo.store.repo import Listing, Repo

T = TypeVar("T")
_UNLISTED_NAMED = 20
_WHOLE = b"/"


@dataclass(slots=True, kw_only=True)
class Inventory:
    """Is what the repository holds besides the bodies of packs."""

    listing: Listing
    snapshots: list[Snapshot] = field(default_factory=list)
    segments: int = 0
    stray_segments: list[SegmentName] = field(default_factory=list)
    """Segments that speak of packs that the index does not hold: gone, of another length, or unreadable."""
    notes: list[Note] = field(default_factory=list)


class Inspector:
    """Reads the objects of one repository. One thread."""

    def __init__(self, repo: Repo, findings: Findings, cancel: Cancel) -> None:
        self._repo = repo
        self._findings = findings
        self._cancel = cancel
        self._corrected = 0
        self._rows: dict[SnapshotId, Row] = {}
        """What a catalogue may say of each snapshot that is committed and sound."""
        self._aborted: set[SnapshotId] = set()

    def take(self) -> Inventory:
        """Reads everything; manifests before packs, so that every pack that a snapshot needs is listed after it."""
        self._small()
        notes = self._log()
        snapshots = self._snapshots(notes)
        notes += _litter(self._repo.backend.litter())
        self._catalogues()
        self._commits(notes)
        listing = self._repo.synchronise(lenient=True)
        inventory = Inventory(listing=listing, snapshots=snapshots, notes=notes)
        self._segments(inventory)
        for error in self._repo.damaged:
            if isinstance(error, Corruption):
                self._findings.add(error.name, error.reason)
        return inventory

    def _try(self, name: str, read: Callable[[], T]) -> T | None:
        """Returns what reading an object gave, None where it is damaged or has gone meanwhile."""
        self._cancel.check()
        try:
            return read()
        except ObjectMissing:
            return None
        except Corruption as error:
            self._findings.add(name, error.reason)
        except StorageFailed as error:
            still_there(self._repo.backend, error)
            self._findings.add(name, f"it cannot be read ({error.reason})")
        return None

    def _small(self) -> None:
        repo = self._repo
        if (header := self._try(HEADER, lambda: read_header(repo.backend))) and header.hash != repo.header.hash:
            self._findings.add(HEADER, "it is not the header that the repository was opened with")
        described = self._try("keys", lambda: slots.describe(repo.backend, repo.vault))
        for error in described[1] if described else ():
            self._findings.add(error.name, error.reason)
        self._records("config", "config", parse_config)
        self._records("condemned", "condemnation", parse_condemnation)
        self._records("sessions", "marker", parse_marker)
        self._records("pins", "pin", parse_pin)
        self._records("trash", "trash", parse_trashed)
        self._records("verified", "verified", parse_verified)
        self._records("sums", "sums", parse_sums)
        self._records("enrolled", "client", parse_client_record)
        for error in list_clients(repo)[1]:  # also what the log says, and no record does
            if error.name not in self._findings.by_name:
                self._findings.add(error.name, error.reason)

    def _log(self) -> list[Note]:
        """Reads the log from its beginning, and names what is damaged or gone; returns what is known to be."""
        log = self._repo.log
        if log is None:
            self._records("log", "log", parse_object)
            return []
        state = survey_log(log)
        for name, reason in state.faults.items():
            self._findings.add(name, reason)
        return [Note(name="log", text=f"{gap} {gap.are} known to be lost") for gap in state.lost]

    def _records(self, folder: str, kind: str, parse: Callable[[bytes, str], object]) -> None:
        for name, _ in sorted(self._repo.backend.list(folder)):
            self._try(name, partial(self._parse, kind, parse, name))

    def _parse(self, kind: str, parse: Callable[[bytes, str], T], name: str) -> T:
        data = self._repo.backend.get_whole(name, RECORD_BYTES_MAX)
        return parse(self._repo.vault.open_record(kind, name, data), name)

    # --- snapshots ---------------------------------------------------------------------------------------------------

    def _snapshots(self, notes: list[Note]) -> list[Snapshot]:
        protected = [(folder, item) for folder in ("pins", "trash") for item in sorted(self._listed(folder))]
        pending = self._listed("pending")
        outcomes = self._listed("outcome")
        found: list[Snapshot] = []
        for snapshot in sorted(pending):
            if snapshot not in outcomes:
                notes.append(Note(name=pending_name(snapshot), text="it is undecided: its snapshot was not finished"))
                continue
            item = self._snapshot(snapshot)
            if item is not None:
                found.append(item)
        for snapshot in sorted(outcomes - pending):
            name = outcome_name(snapshot)
            try:
                outcome = read_outcome(self._repo.backend, self._repo.vault, snapshot)
            except Corruption:  # nothing can come of it, and nobody may delete what may be an abort
                notes.append(Note(name=name, text="it is damaged, and its manifest is gone: it means nothing"))
                continue
            except ObjectMissing:
                continue
            if outcome.verdict is Verdict.COMMIT:
                notes.append(
                    Note(name=name, text="its manifest is gone: forgetting it was interrupted, or it was lost")
                )
        notes += [
            Note(name=f"{folder}/{item.hex()}", text="its snapshot is gone; the next prune takes it away")
            for folder, item in protected
            if item not in pending
        ]
        found.sort(key=lambda item: (item.manifest.time_ns, item.manifest.started_ns, item.id))
        return found

    def _listed(self, folder: str) -> set[SnapshotId]:
        leaves = (parse_random_leaf(name.partition("/")[2]) for name, _ in self._repo.backend.list(folder))
        return {SnapshotId(leaf) for leaf in leaves if leaf is not None}

    def _snapshot(self, snapshot: SnapshotId) -> Snapshot | None:
        """Returns a snapshot that is committed and sound; says what is wrong with any other."""
        name, verdict_name = pending_name(snapshot), outcome_name(snapshot)
        outcome = self._try(verdict_name, partial(read_outcome, self._repo.backend, self._repo.vault, snapshot))
        data = self._try(name, partial(self._repo.backend.get_whole, name, RECORD_BYTES_MAX))
        manifest = self._try(name, partial(self._manifest, name, data)) if data is not None else None
        if outcome is None:
            if verdict_name in self._findings.by_name:
                reason = "its snapshot is undecided, and not shown, until it is decided anew"
                self._findings.add(verdict_name, reason).affects(snapshot, _WHOLE, below=True)
            return None
        if outcome.verdict is not Verdict.COMMIT:
            self._aborted.add(snapshot)
            return None
        if manifest is not None and data is not None and hashlib.sha256(data).digest() != outcome.pending_hash:
            self._findings.add(name, "its outcome names another manifest")
            manifest = None
        if manifest is None:
            if name in self._findings.by_name:
                self._findings.by_name[name].affects(snapshot, _WHOLE, below=True)
            return None
        encoded, times = manifest
        self._rows[snapshot] = Row(snapshot=snapshot, pending_hash=outcome.pending_hash, manifest=encoded)
        return Snapshot(id=snapshot, encoded=encoded, time_ns=times[0], started_ns=times[1])

    def _manifest(self, name: str, data: bytes) -> tuple[bytes, tuple[int, int]]:
        raw = self._repo.vault.open_record("manifest", name, data)
        parsed = parse_manifest(raw, name)
        return raw, (parsed.time_ns, parsed.started_ns)

    # --- catalogues --------------------------------------------------------------------------------------------------

    def _catalogues(self) -> None:
        """Compares every catalogue with the manifests and outcomes that it repeats."""
        for name in sorted(self._try(ROLLS, partial(list_rolls, self._repo)) or {}):
            what = catalogue_object(name)
            merged = self._try(what, partial(read_roll, self._repo, name))
            for row in merged.rows if merged is not None else ():
                if row.snapshot in self._aborted:
                    self._findings.add(what, f"it repeats {pending_name(row.snapshot)}, which was aborted")
                elif self._rows.get(row.snapshot, row) != row:
                    self._findings.add(what, f"it does not repeat {pending_name(row.snapshot)}")

    def _commits(self, notes: list[Note]) -> None:
        """Compares, in the area of a client, the manifests with what its log commits: it may have been stolen."""
        if not isinstance(self._repo, OwnedArea) or self._repo.log is None:
            return
        hashes = read_commits(self._repo).hashes
        for snapshot, row in self._rows.items():
            name = pending_name(snapshot)
            if snapshot not in hashes:
                notes.append(Note(name=name, text="no log says that it was made; its time counts for no policy"))
            elif row.pending_hash not in hashes[snapshot]:
                self._findings.add(name, "the log says that another manifest was committed under this name")
        for run, reason in sorted(self._repo.area.refused.items()):
            notes.append(Note(name=run_name(run), text=f"it does not count, nor does what it opens: {reason}"))

    # --- segments and the packs' listing -----------------------------------------------------------------------------

    def _segments(self, inventory: Inventory) -> None:
        listed = self._compare(inventory)
        if self._corrected:
            text = f"the local index was wrong about {self._corrected} packs, and was put right"
            inventory.notes.append(Note(name="index", text=text))
            listed = self._compare(inventory)  # for segments that had said the same as the index
        if not self._repo.telling.trusted:
            return  # what a client wrote stands in no segment that counts before its owner has collected
        unlisted = sorted(inventory.listing.packs.keys() - listed)
        notes = [Note(name=pack_object(name), text="no segment lists it") for name in unlisted[:_UNLISTED_NAMED]]
        if len(unlisted) > _UNLISTED_NAMED:
            notes.append(Note(name="packs", text=f"no segment lists {len(unlisted)} of them"))
        inventory.notes += notes

    def _compare(self, inventory: Inventory) -> set[PackName]:
        """Reads all segments and compares them with listing and index; returns the packs that they list."""
        listed: set[PackName] = set()
        inventory.segments = 0
        inventory.stray_segments.clear()
        for name, _ in sorted(self._repo.backend.list("segments")):
            leaf = parse_hash_leaf(name.partition("/")[2])
            if leaf is None:
                continue
            inventory.segments += 1
            segment = self._try(name, partial(self._repo.read_segment, SegmentName(leaf)))
            if segment is None:
                continue
            listed.update(item.pack for item in segment.packs)
            agrees = [self._agrees(name, item, inventory.listing) for item in segment.packs]
            if not all(agrees):
                inventory.stray_segments.append(SegmentName(leaf))
        return listed

    def _agrees(self, segment: str, item: Listed, listing: Listing) -> bool:
        """Whether the index holds what a segment says of a pack."""
        length = listing.packs.get(item.pack)
        number = self._repo.index.number_of(item.pack)
        pack = pack_object(item.pack)
        if length is None:
            return False
        if length != item.length_bytes:
            if number is not None and self._is_itself(item.pack, length):
                self._findings.add(segment, f"it gives {pack} another length than the pack has")
            else:
                self._findings.add(pack, f"it is {length} bytes long, not {item.length_bytes} as a segment says")
            return False
        if number is None:
            return False
        if self._repo.index.footer(number) != item.footer:
            self._disagreement(segment, item, number)
        return True

    def _is_itself(self, pack: PackName, length_bytes: int) -> bool:
        """Whether a pack's bytes have its name: another pack's bytes open just as well under a wrong one."""
        name = pack_object(pack)
        pieces = Pieces(self._repo.backend, name, length_bytes)
        self._try(name, pieces.drain)
        if pieces.hasher.digest() == pack:
            return True
        self._findings.add(name, NOT_ITS_NAME)
        return False

    def _disagreement(self, segment: str, item: Listed, number: int) -> None:
        """Finds out from the pack itself who is wrong about it: the segment, the index, or both."""
        repo, name = self._repo, pack_object(item.pack)
        own = self._try(name, lambda: read_footer(repo.backend, repo.vault, item.pack, item.length_bytes))
        if own is None:
            self._findings.add(segment, f"another segment repeats another footer of {name}")
            return
        footer, encoded = own
        if encoded != repo.index.footer(number):
            self._corrected += 1
            repo.index.forget_packs([Indexed(number, item.pack, item.length_bytes)])
            repo.index.add_packs([(item.pack, item.length_bytes, footer, encoded)])
            repo.source.forget_positions()
        if encoded != item.footer and self._is_itself(item.pack, item.length_bytes):
            self._findings.add(segment, f"it does not repeat the footer of {name}")


def _litter(litter: Litter) -> list[Note]:
    if not litter:
        return []
    length_bytes = sum(size for _, size, _ in litter)
    text = f"{len(litter)} ({length_bytes} bytes) of runs at work or killed; a later snapshot takes old ones away"
    return [Note(name="temporary files", text=text)]
