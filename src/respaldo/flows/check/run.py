"""The check: objects, then (if asked for) the bytes of packs, then all trees, then whom it concerns.

Writes nothing to the repository, and goes on after damage: everything that can be looked at is looked at. Only storage
that fails as a whole ends it. What no snapshot needs is reported as such.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from respaldo.catalog.snapshots import Snapshot, list_pending
from respaldo.catalog.sums import SumsKept
from respaldo.core.ids import PackName, SnapshotId, pack_object
from respaldo.core.seams import Cancel, Progress
from respaldo.flows.check.chunks import Chunks, doubt_segments
from respaldo.flows.check.findings import Findings
from respaldo.flows.check.lost import blame_packs
from respaldo.flows.check.objects import Inspector, Inventory
from respaldo.flows.check.options import VerifyOptions
from respaldo.flows.check.packs import NOT_ITS_NAME, WORKERS, WORKERS_FAR, Inspection, PackReader, Target, inspect_all
from respaldo.flows.check.parity import check_parity, take_mended
from respaldo.flows.check.result import Note, VerifyResult
from respaldo.flows.check.sums import Sums
from respaldo.flows.check.survey import Survey
from respaldo.flows.check.verified import Verified, choose
from respaldo.store.header import still_there
from respaldo.store.repo import Repo

_NOTED_TOGETHER = 64
_REST_BYTES = 64 << 20
_REST_SHARE = 2
"""So much, or such a share of what was read, may be read once more for the SHA-256 of files that did not come along."""
MEMORY = "verified"
"""The folder in a repository's cache that remembers when each pack was verified."""


@dataclass(slots=True)
class _Read:
    """Counts what was read of packs."""

    packs: int = 0
    read_bytes: int = 0
    chunks: int = 0
    raw_bytes: int = 0
    all: bool = False
    """Whether that was every pack there was, from its first byte to its last."""
    clean: bool = True
    """Whether every one of them was there and sound."""


@dataclass(slots=True, kw_only=True)
class Examination:
    """Is all that a check found, before it is put into words."""

    findings: Findings
    inventory: Inventory
    survey: Survey
    read: _Read
    incomplete: tuple[SnapshotId, ...]
    """Snapshots below which something is lost, and not marked as such."""


def examine(
    repo: Repo, options: VerifyOptions, *, progress: Progress, cancel: Cancel, sums: Sums | None = None
) -> Examination:
    """Looks at everything, and computes ``sums`` on the way; raises as `run_verify` does."""
    findings = Findings()
    inventory = Inspector(repo, findings, cancel).take()
    read = _Read()
    if options.read_data and options.subset is None:
        doubt_segments(repo, findings)
    surveyed = None
    if sums is not None:  # which files there are is to be known first; where all is sound, once is enough
        before = Findings()
        surveyed = _survey(repo, inventory, before, progress, cancel, sums)
        if before.by_name or surveyed[1]:
            surveyed = None
    if options.reads_data or repo.spoilt.load():
        read = _read_packs(repo, options, inventory, findings, progress, cancel, sums)
    if surveyed is None or not read.clean:
        surveyed = _survey(repo, inventory, findings, progress, cancel)
    survey, incomplete = surveyed
    if sums is not None:
        sums.read_rest(None if options.all_checksums else max(_REST_BYTES, read.raw_bytes // _REST_SHARE), cancel)
    rows = ((finding.name, finding.rows) for finding in findings.by_pack.values())
    repo.spoilt.note({PackName(bytes.fromhex(name.partition("/")[2])): bits.number() for name, bits in rows})
    return Examination(findings=findings, inventory=inventory, survey=survey, read=read, incomplete=incomplete)


def run_verify(
    repo: Repo, options: VerifyOptions, *, progress: Progress, cancel: Cancel, known: SumsKept | None = None
) -> VerifyResult:
    """Checks a repository and says what is damaged; raises `Interrupted`, and errors of the storage as a whole.

    ``known`` learns the SHA-256 of files, as far as the options ask for them.
    """
    sums = Sums(repo, known) if known is not None and options.computes_checksums else None
    found = examine(repo, options, progress=progress, cancel=cancel, sums=sums)
    findings, inventory, survey, read = found.findings, found.inventory, found.survey, found.read
    if survey.cut_short:
        inventory.notes.append(Note(name="paths", text="more paths are affected than were counted"))
    take_mended(repo, findings)
    inventory.notes += check_parity(repo, findings, cancel, read_data=options.read_data)
    unsound = tuple(
        item.id
        for item in inventory.snapshots
        if item.id in found.incomplete or item.manifest.root_lost or survey.loses(item.manifest.root)
    )
    damages = findings.freeze()
    for damage in damages:
        progress.note(-1, str(damage))
    return VerifyResult(
        snapshots=len(inventory.snapshots),
        segments=inventory.segments,
        packs=len(inventory.listing.packs),
        pack_bytes=sum(inventory.listing.packs.values()),
        trees=survey.trees,
        references=survey.references,
        packs_read=read.packs,
        read_bytes=read.read_bytes,
        chunks=read.chunks,
        damages=damages,
        notes=tuple(inventory.notes),
        lost=tuple(survey.lost),
        lost_count=survey.named_lost,
        whole=tuple((item.id, item.manifest.root) for item in inventory.snapshots if item.id not in unsound)
        if read.all
        else (),
        checksums=0 if sums is None else sums.computed,
        checksums_left=0 if sums is None else sums.left,
        unsound=unsound,
    )


def _survey(
    repo: Repo,
    inventory: Inventory,
    findings: Findings,
    progress: Progress,
    cancel: Cancel,
    sums: Sums | None = None,
) -> tuple[Survey, tuple[SnapshotId, ...]]:
    """Goes through all trees, and names what is affected; leaves out snapshots that are forgotten meanwhile."""
    while True:
        chunks = Chunks(repo, findings)
        survey = Survey(chunks, findings, cancel, sums)
        incomplete: list[Snapshot] = []
        for snapshot in inventory.snapshots:
            progress.note(2, f"looking at snapshot {snapshot.hex[:8]}")
            root = snapshot.manifest.root
            lost = snapshot.manifest.root_lost and not survey.has(root)
            if not lost and survey.walk(root):
                incomplete.append(snapshot)
        there = list_pending(repo) if incomplete else set()
        forgotten = {snapshot.id for snapshot in incomplete if snapshot.id not in there}
        if not forgotten:
            break
        inventory.snapshots = [snapshot for snapshot in inventory.snapshots if snapshot.id not in forgotten]
        inventory.listing = repo.synchronise(lenient=True)
    blame_packs(repo, chunks, findings, inventory)
    for snapshot in incomplete:
        survey.name(snapshot.id, snapshot.manifest.root)
    for snapshot in inventory.snapshots:
        if snapshot.manifest.root_lost and not survey.has(snapshot.manifest.root):
            survey.name_one(snapshot.id, b"/", below=True)
        elif survey.lost_count:
            survey.name_lost(snapshot.id, snapshot.manifest.root)
    return survey, tuple(snapshot.id for snapshot in incomplete)


def _read_packs(
    repo: Repo,
    options: VerifyOptions,
    inventory: Inventory,
    findings: Findings,
    progress: Progress,
    cancel: Cancel,
    sums: Sums | None,
) -> _Read:
    """Reads the packs that were asked for, and those that were found damaged before; remembers those that are sound."""
    packs = inventory.listing.packs
    before = [name for name in repo.spoilt.load() if name in packs]
    read = _Read()
    workers = WORKERS_FAR if repo.backend.distant else WORKERS
    with Verified(repo.cache_dir / MEMORY) as memory:
        times = memory.times()
        chosen = choose(packs, times, options.subset) if options.reads_data else []
        if sums is not None:
            chosen = sums.order(chosen, workers)
        chosen = [*before, *(name for name in chosen if name not in before)]
        progress.total(files=len(chosen), length_bytes=sum(packs[name] for name in chosen))
        sound: list[PackName] = []
        unsound: list[PackName] = list(times.keys() - packs.keys())
        gone = False
        reader = PackReader(repo.backend, repo.vault, repo.ring.id_keys, cancel)
        try:
            for seen in inspect_all(reader, _targets(repo, options, packs, chosen, cancel, sums), workers):
                read.packs += 1
                read.read_bytes += seen.read_bytes
                read.raw_bytes += seen.raw_bytes
                read.chunks += seen.chunks
                read.clean &= seen.sound
                if sums is not None and seen.target.sums is not None:
                    sums.note(seen.target.sums)
                gone |= seen.gone
                (sound if seen.sound else unsound).append(seen.target.name)
                if not seen.sound:
                    _report(repo, seen, packs, findings)
                elif seen.target.name in before:
                    repo.spoilt.note({}, [seen.target.name])
                progress.advance(files=1, length_bytes=seen.target.length_bytes)
                if len(sound) >= _NOTED_TOGETHER:
                    memory.note(sound, repo.clock.now_ns())
                    sound.clear()
                cancel.check()  # between two packs, even where the workers are ahead and have read them all
        finally:
            memory.note(sound, repo.clock.now_ns(), unsound)
    read.all = options.read_data and options.subset is None and read.packs == len(packs) and not gone
    if gone:  # by a collector: whether anybody needs them is seen when the trees are walked
        inventory.listing = repo.synchronise(lenient=True)
    return read


def _targets(
    repo: Repo,
    options: VerifyOptions,
    packs: dict[PackName, int],
    chosen: list[PackName],
    cancel: Cancel,
    sums: Sums | None,
) -> Iterator[Target]:
    """Yields the packs to read, until the time is up where there is a limit."""
    limit_s = options.subset.duration_s if options.subset is not None else 0.0
    end_ns = repo.clock.monotonic_ns() + int(limit_s * 1e9)
    for done, name in enumerate(chosen):
        cancel.check()
        if limit_s and done and repo.clock.monotonic_ns() >= end_ns:
            return
        number = repo.index.number_of(name)
        encoded = b"" if number is None else repo.index.footer(number)
        wanted = None if sums is None or number is None else sums.of_pack(number)
        yield Target(number=number or 0, name=name, length_bytes=packs[name], encoded=encoded, sums=wanted)


def _report(repo: Repo, seen: Inspection, packs: dict[PackName, int], findings: Findings) -> None:
    """Turns what is wrong with a pack into findings."""
    if seen.failure is not None:
        still_there(repo.backend, seen.failure)
    target = seen.target
    what = pack_object(target.name)
    if repo.backend.mend(what):  # its bytes are to be had, and nobody has to know which of them were damaged
        findings.add(what, seen.reasons[0] if seen.reasons else seen.spoilt[0][1])
        return
    for reason in seen.reasons:
        other = PackName(seen.digest)
        if reason == NOT_ITS_NAME and other in packs:
            findings.add(pack_object(target.name), f"it holds the bytes of {pack_object(other)}")
        else:
            findings.add(pack_object(target.name), reason)
    for rows, reason in seen.spoilt:
        findings.spoil(target.number, target.name, rows, reason)
