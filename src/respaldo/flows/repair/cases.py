"""Cases: what is to be made of a snapshot whose manifest or outcome is damaged, and of a damaged condemnation.

A damaged outcome is no abort and no commit: its snapshot is undecided. Where a manifest can be had, from storage, a
catalogue or this client's cache, the snapshot is put again, because one too many costs space and one too few a life's
work. A damaged outcome stays where it is unless the snapshot is known to have been committed: it may be an abort, which
keeps a slow writer from committing what is no more. Decides, and changes nothing. Implements docs/format.md, "Repair".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from respaldo.catalog.decided import cached
from respaldo.catalog.rolls import list_rolls, read_roll
from respaldo.catalog.snapshots import pending_name, read_outcome, read_undecided
from respaldo.core.errors import Corruption, ObjectMissing, StorageFailed
from respaldo.core.ids import PackName, SnapshotId
from respaldo.flows.repair.options import Step, Verb
from respaldo.format.snapshot import Manifest, Outcome, Verdict, parse_condemnation, parse_manifest
from respaldo.store.outcomes import outcome_name
from respaldo.store.repo import Repo


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Is what is decided of a snapshot. ``manifest``: what to put again, None where it is only set aside.

    ``decided``: whether the outcome may be taken away with the manifest.
    """

    step: Step
    manifest: Manifest | None = None
    decided: bool = False


def decide_case(repo: Repo, snapshot: SnapshotId, alive: frozenset[bytes], *, alone: bool) -> Case | None:
    """Decides about a snapshot of which an object is damaged; None where there is nothing left to do about it."""
    outcome = _outcome(repo, snapshot)
    try:
        found: tuple[Manifest, bytes] | None = read_undecided(repo, snapshot)
    except ObjectMissing:
        return None
    except (Corruption, StorageFailed):
        found = None
    name = pending_name(snapshot)
    if isinstance(outcome, Outcome):
        return _decided(repo, snapshot, outcome, found, name)
    for row_hash, raw in _rows(repo, snapshot):
        if found is None or found[1] == row_hash:
            text = "its outcome is damaged; a catalogue, or this machine's cache, knows that it was committed"
            manifest = parse_manifest(raw, name)
            return Case(step=Step(verb=Verb.RECOVER, name=name, text=text), manifest=manifest, decided=True)
    if found is None:
        text = "neither it nor its outcome can be read, and nothing repeats it: the snapshot is lost"
        return Case(step=Step(verb=Verb.ASIDE, name=name, text=text), decided=alone)
    if found[0].session in alive and not alone:
        text = "its outcome is damaged, and whoever makes it may be at work: run repair again when that is over"
        return Case(step=Step(verb=Verb.LEAVE, name=name, text=text))
    text = "its outcome is damaged: it is committed again, under another id"
    return Case(step=Step(verb=Verb.RECOVER, name=name, text=text), manifest=found[0], decided=alone)


def _decided(
    repo: Repo, snapshot: SnapshotId, outcome: Outcome, found: tuple[Manifest, bytes] | None, name: str
) -> Case | None:
    if outcome.verdict is Verdict.ABORT:
        if found is not None:
            return None
        return Case(step=Step(verb=Verb.ASIDE, name=name, text="it is damaged, and was aborted anyway"))
    if found is not None and found[1] == outcome.pending_hash:
        return None
    for row_hash, raw in _rows(repo, snapshot):
        if row_hash == outcome.pending_hash:
            text = "it is damaged; a catalogue, or this machine's cache, repeats it"
            manifest = parse_manifest(raw, name)
            return Case(step=Step(verb=Verb.RECOVER, name=name, text=text), manifest=manifest, decided=True)
    text = "it cannot be read, and nothing repeats it: the snapshot is lost"
    return Case(step=Step(verb=Verb.ASIDE, name=name, text=text), decided=True)


def _outcome(repo: Repo, snapshot: SnapshotId) -> Outcome | None:
    try:
        return read_outcome(repo, snapshot)
    except (Corruption, ObjectMissing, StorageFailed):
        return None


def _rows(repo: Repo, snapshot: SnapshotId) -> Iterator[tuple[bytes, bytes]]:
    """Yields what is known elsewhere of a snapshot that was committed: hash of its manifest's object, and manifest."""
    for other, entry in cached(repo.index):
        if other == snapshot and entry.committed:
            yield entry.pending_hash, entry.manifest
            break
    for name in sorted(list_rolls(repo)):
        try:
            rows = read_roll(repo, name).rows
        except (Corruption, ObjectMissing, StorageFailed):
            continue
        yield from ((row.pending_hash, row.manifest) for row in rows if row.snapshot == snapshot)


def known_packs(repo: Repo, name: str) -> tuple[PackName, ...] | None:
    """Returns what a damaged condemnation condemns, where this client has read it before; else None."""
    raw = repo.index.record(name)
    return None if raw is None else parse_condemnation(raw, name).packs


def condemnation_step(repo: Repo, name: str, *, alone: bool) -> Step:
    """Decides about a damaged condemnation, which stops everybody who writes because it may condemn any pack."""
    if known_packs(repo, name) is not None:
        return Step(verb=Verb.CONDEMN, name=name, text="this machine's cache knows what it condemns")
    if alone:
        return Step(verb=Verb.ASIDE, name=name, text="nobody is at work who might delete what it condemns")
    text = "it may condemn any pack: make sure that no prune is running anywhere, then run repair with --alone"
    return Step(verb=Verb.LEAVE, name=name, text=text)


def snapshots_of(faults: Iterator[str] | list[str]) -> list[SnapshotId]:
    """Returns the snapshots whose manifests or outcomes are among names of damaged objects."""
    folders = (pending_name(SnapshotId(b"")), outcome_name(SnapshotId(b"")))
    found = {
        bytes.fromhex(name.removeprefix(folder))
        for name in faults
        for folder in folders
        if name.startswith(folder) and len(name) == len(folder) + 32
    }
    return [SnapshotId(item) for item in sorted(found)]
