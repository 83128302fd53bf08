"""What a collector clears away besides packs: records that nobody can need any more, each in an order that is safe.

Never deletes an abort, because a slow writer could commit after it; never anything that it cannot read, save what
storage itself left half-written. Implements docs/format.md, "Prune" (what may be deleted), "Forgetting and expiry",
"Markers".
"""

from __future__ import annotations

import contextlib

from respaldo.catalog.rolls import roll, superseded_rolls
from respaldo.catalog.snapshots import list_outcomes, list_pending, load, pending_name, read_outcome
from respaldo.core.errors import Corruption, ObjectMissing, StorageFull
from respaldo.core.ids import RANDOM_ID_BYTES, catalogue_object, pack_object
from respaldo.flows.gc.remembered import sweep_sums, sweep_verified
from respaldo.format.pack import parse_footer
from respaldo.format.snapshot import Verdict
from respaldo.store.bitmaps import Bitmaps
from respaldo.store.litter import sweep_litter
from respaldo.store.outcomes import outcome_name
from respaldo.store.packs import Finished
from respaldo.store.repo import Repo
from respaldo.store.sidecars import sweep as sweep_sidecars
from respaldo.store.sweep import sweep_condemnations, sweep_segments

_ABORTED = b"abort"


def tidy(repo: Repo, live: Bitmaps, *, deleted: bool) -> tuple[tuple[str, int], ...]:
    """Clears away; returns how many objects of each folder. ``deleted``: whether packs went before."""
    if not repo.telling.trusted:
        _gather(repo)
    swept = {
        "segments": sweep_segments(repo),
        "catalogue": repo.backend.discard(map(catalogue_object, superseded_rolls(repo))),
        "condemned": sweep_condemnations(repo),
        "notices": repo.telling.merge(),
        "pending": repo.backend.discard(pending_name(snapshot) for snapshot in load(repo).aborted),
        "outcome": _outcomes(repo),
        "verified": sweep_verified(repo),
        "sums": sweep_sums(repo, live, deleted=deleted),
        "parity": sweep_sidecars(repo.backend),
        **sweep_litter(repo),
    }
    return tuple(swept.items())


def _gather(repo: Repo) -> None:
    """Lists packs that stand in no segment that may be believed, and merges small objects, which nobody else does.

    The client of an area can read neither what it wrote nor what it would have to merge.
    """
    session = repo.random(RANDOM_ID_BYTES)
    there = repo.list_packs().packs
    found: list[Finished] = []
    with contextlib.suppress(StorageFull):  # a new reader takes longer, and nothing is lost
        for pack in repo.unlisted():
            encoded = repo.index.footer(pack.number)
            if encoded and there.get(pack.name) == pack.length_bytes:
                footer = parse_footer(encoded, pack_object(pack.name))
                found.append(Finished(name=pack.name, length_bytes=pack.length_bytes, footer=footer, encoded=encoded))
        repo.put_segments(session, found)
        repo.segments.merge(session)
        roll(repo, {item.id for item in load(repo).snapshots})


def _outcomes(repo: Repo) -> int:
    """Deletes commits of manifests that are gone: a forgetting that was interrupted after its first step."""
    outcomes = list_outcomes(repo)
    orphans = outcomes - list_pending(repo)  # listed after them: a manifest comes before its outcome
    done = []
    for snapshot in sorted(orphans):
        name = outcome_name(snapshot)
        if repo.index.record(name) == _ABORTED:
            continue
        try:
            verdict = read_outcome(repo, snapshot).verdict
        except (ObjectMissing, Corruption):
            continue
        if verdict is Verdict.COMMIT:
            done.append(name)
        else:
            repo.index.put_records({name: _ABORTED})
    return repo.backend.discard(done)
