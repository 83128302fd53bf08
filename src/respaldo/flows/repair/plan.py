"""The plan: what to do about everything that a check found. Changes nothing; the run looks at each thing again.

Order: what stops writers first (condemnations), packs before the segments that may be the only ones to repeat their
footers, packs before snapshots, so that what is lost is known when it is marked. Implements docs/format.md, "Repair".
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from respaldo.catalog.snapshots import list_pending, load, pending_name
from respaldo.core.errors import Corruption, ObjectMissing, StorageFailed
from respaldo.core.ids import PackName, SegmentName, SnapshotId, pack_object, parse_hash_leaf
from respaldo.core.seams import Cancel
from respaldo.flows.repair.cases import condemnation_step, decide_case, snapshots_of
from respaldo.flows.repair.logs import plan_log
from respaldo.flows.repair.options import Diagnosis, RepairOptions, RepairPlan, Step, Verb
from respaldo.flows.repair.salvage import Salvage
from respaldo.format.pack import Footer, parse_footer
from respaldo.store.ballast import BALLAST, BALLAST_BYTES
from respaldo.store.markers import read_markers
from respaldo.store.packs import Finished
from respaldo.store.repo import Listing, Repo

_ASIDE = {
    "config": "an older configuration, which does not count any more",
    "sessions": "a marker, which only says that a session was at work",
    "trash": "a record of the trash that says nothing any more: its snapshot is shown",
    "catalogue": "what it repeated stands in manifests",
    "verified": "it only remembered which snapshots were found whole; verify them again",
    "sums": "the checksums in it can be computed again",
    "segments": "what it repeated stands in the packs, and is listed again",
    "keys": "another key slot opens the repository",
}
_PIN = "it protects its snapshot as it is; to have it whole, unpin the snapshot and pin it again"
_UNREAD = "it cannot be read"


class Planner:
    """Plans one repair. One thread."""

    def __init__(self, repo: Repo, diagnosis: Diagnosis, options: RepairOptions, cancel: Cancel) -> None:
        self._repo = repo
        self._diagnosis = diagnosis
        self._options = options
        self._cancel = cancel
        self.markers = read_markers(repo).alive
        self.footers: dict[PackName, list[Footer]] = {}
        """What segments and the index say of damaged packs."""

    def plan(self) -> RepairPlan:
        """Returns what is to be done."""
        faults = self._diagnosis.faults
        condemned = [name for name in faults if name.startswith("condemned/")]
        steps = [condemnation_step(self._repo, name, alone=self._options.alone) for name in condemned]
        stuck = any(step.verb is Verb.LEAVE for step in steps)
        steps += self._small()
        steps += plan_log(self._repo, faults, accept_lost=self._options.accept_lost)
        if stuck:
            text = "nothing can be written while a condemnation cannot be read"
            rest = sum(name.startswith(("packs/", "pending/", "outcome/")) for name in faults)
            if rest or self._diagnosis.incomplete:
                steps.append(Step(verb=Verb.LEAVE, name="packs and snapshots", text=text))
        else:
            steps += [*self._packs(), *self._lists(), *self._named("segments"), *self._snapshots()]
        return RepairPlan(steps=tuple(steps), faults=len(faults))

    def _small(self) -> Iterator[Step]:
        yield from self._named("keys", "config", "sessions", "trash", "catalogue", "verified", "sums")
        for name, reason in self._diagnosis.faults.items():
            folder, separator, _ = name.partition("/")
            if folder == "pins" and separator:
                yield Step(verb=Verb.LEAVE, name=name, text=_PIN)
            elif name == "header" or (folder == "enrolled" and separator):
                yield Step(verb=Verb.LEAVE, name=name, text=reason)
        if _is_spoilt(self._repo, BALLAST):
            yield Step(verb=Verb.ASIDE, name=BALLAST, text="the megabyte in reserve is put again")

    def _named(self, *folders: str) -> Iterator[Step]:
        for name, reason in sorted(self._diagnosis.faults.items()):
            folder, separator, _ = name.partition("/")
            if folder in folders and separator:
                if reason.startswith(_UNREAD):
                    yield Step(verb=Verb.LEAVE, name=name, text=f"{reason}; check the disk and its permissions")
                else:
                    yield Step(verb=Verb.ASIDE, name=name, text=_ASIDE[folder])

    # --- packs -----------------------------------------------------------------------------------------------------

    def damaged_packs(self) -> list[PackName]:
        """Returns the packs that are there and damaged."""
        found = []
        for name in sorted(self._diagnosis.faults):
            folder, _, leaf = name.partition("/")
            parsed = parse_hash_leaf(leaf)
            if folder == "packs" and parsed is not None and self._repo.backend.exists(name) is not None:
                found.append(PackName(parsed))
        return found

    def _packs(self) -> Iterator[Step]:
        damaged = self.damaged_packs()
        if not damaged:
            return
        self._gather_footers(set(damaged))
        with Salvage(self._repo, bytes(16), self.footers, self._cancel) as salvage:
            for name in damaged:
                yield self._pack(salvage, name)

    def _pack(self, salvage: Salvage, name: PackName) -> Step:
        what = pack_object(name)
        length = self._repo.backend.exists(what) or 0
        if salvage.is_sound(name, length):
            return Step(verb=Verb.LEAVE, name=what, text="it reads well now: nothing is done about it; check the disk")
        footers = salvage.footers(name, length)
        if not footers:
            if self.markers and not self._options.alone:
                text = "it may be one that is being written: run repair again when no snapshot is being made"
                return Step(verb=Verb.LEAVE, name=what, text=text)
            return Step(verb=Verb.RESCUE, name=what, text="nothing says what is in it, and it is set aside")
        chunks = {footer.chunk_id(row) for footer in footers for row in range(len(footer.lengths))}
        sound = {part.footer.chunk_id(row) for part in salvage.parts(name, length) for row in part.sound}
        text = f"{len(sound)} of {len(chunks)} chunks of it are sound, and go into new packs; it is set aside"
        return Step(verb=Verb.RESCUE, name=what, text=text)

    def _gather_footers(self, damaged: set[PackName]) -> None:
        repo = self._repo
        for name in damaged:
            number = repo.index.number_of(name)
            encoded = b"" if number is None else repo.index.footer(number)
            self._note_footer(name, encoded)
        for what, _ in repo.backend.list("segments"):
            leaf = parse_hash_leaf(what.partition("/")[2])
            try:
                segment = None if leaf is None else repo.read_segment(SegmentName(leaf))
            except (Corruption, ObjectMissing, StorageFailed):
                continue
            for item in segment.packs if segment is not None else ():
                if item.pack in damaged:
                    self._note_footer(item.pack, item.footer)

    def _note_footer(self, name: PackName, encoded: bytes) -> None:
        try:
            footer = parse_footer(encoded, pack_object(name)) if encoded else None
        except Corruption:
            return
        known = self.footers.setdefault(name, [])
        if footer is not None and footer not in known:
            known.append(footer)

    def _lists(self) -> Iterator[Step]:
        lost = any(name.startswith("segments/") for name in self._diagnosis.faults)
        if (lost or self._diagnosis.unlisted) and self.unlisted(self._repo.synchronise()):
            yield Step(verb=Verb.LIST, name="packs", text="those that no sound segment lists")

    def unlisted(self, listing: Listing) -> list[Finished]:
        """Returns the packs that no sound segment lists, but for what sessions that are alive have written."""
        repo, found = self._repo, []
        listed: set[PackName] = set()
        for name, _ in repo.backend.list("segments"):
            leaf = parse_hash_leaf(name.partition("/")[2])
            if leaf is not None and name not in self._diagnosis.faults:
                with contextlib.suppress(Corruption, ObjectMissing, StorageFailed):
                    listed.update(item.pack for item in repo.read_segment(SegmentName(leaf)).packs)
        for pack in list(repo.index.packs()):
            if pack.name in listed or listing.packs.get(pack.name) != pack.length_bytes:
                continue
            encoded = repo.index.footer(pack.number)
            footer = parse_footer(encoded, pack_object(pack.name)) if encoded else None
            if footer is not None and footer.session not in self.markers:
                found.append(Finished(name=pack.name, length_bytes=pack.length_bytes, footer=footer, encoded=encoded))
        return found

    # --- snapshots ---------------------------------------------------------------------------------------------------

    def _snapshots(self) -> Iterator[Step]:
        pending = list_pending(self._repo)
        retiring = set()
        for item in load(self._repo).snapshots:
            old = SnapshotId(item.manifest.repairs)
            if old in pending and old not in retiring:
                retiring.add(old)
                text = f"it was put again as {item.hex[:8]} by a repair that was cut off"
                yield Step(verb=Verb.RETIRE, name=pending_name(old), text=text)
        damaged = set(snapshots_of(list(self._diagnosis.faults)))
        for snapshot in sorted(damaged - retiring):
            case = decide_case(self._repo, snapshot, self.markers, alone=self._options.alone)
            if case is not None:
                yield case.step
        for snapshot in self._diagnosis.incomplete:
            if snapshot not in retiring | damaged:
                text = "what it lacks is marked as lost, unless it is rescued; it goes on under another id"
                yield Step(verb=Verb.MARK, name=pending_name(snapshot), text=text)


def _is_spoilt(repo: Repo, name: str) -> bool:
    """Whether the ballast is there and does not end with its hash."""
    import hashlib  # noqa: PLC0415 - few need it

    try:
        data = repo.backend.get(name, 0, BALLAST_BYTES + 1)
    except (ObjectMissing, StorageFailed):
        return False
    return len(data) != BALLAST_BYTES or hashlib.sha256(data[:-32]).digest() != data[-32:]
