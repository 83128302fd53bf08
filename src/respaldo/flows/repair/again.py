"""A snapshot put again under another id, in the place of one that is damaged; and the old one retired.

Invariant: the new one is committed before anything of the old one goes, and the old one's manifest is listed when the
new one is checked, so that whatever collects meanwhile takes one of the two for a root (docs/format.md, W4). It keeps
time, words, pin and trash. Whoever is cut off between the two leaves both; the next repair retires the old one. Of two
repairs that put the same one again at once, one commits: each puts its manifest before it looks for others, so that at
least one of them sees the other.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace

from respaldo.catalog.losses import Rewriter
from respaldo.catalog.protection import list_pins, load_trash, pin, pin_name, trash_name
from respaldo.catalog.snapshots import (
    announce_forgetting,
    decide,
    list_pending,
    load,
    pending_name,
    put_pending,
    read_undecided,
)
from respaldo.core.errors import Corruption, ObjectExists, ObjectMissing, StorageFailed
from respaldo.core.ids import RANDOM_ID_BYTES, SnapshotId
from respaldo.flows.repair.salvage import Salvage
from respaldo.format.snapshot import Manifest, Verdict
from respaldo.store.aside import set_aside
from respaldo.store.outcomes import outcome_name
from respaldo.store.repo import Repo

_TRIES = 20
_LOOKS = 3
"""So often whoever has the higher id looks again before it aborts what another repair, which may be dead, has begun."""


def put_again(
    repo: Repo, session: bytes, salvage: Salvage, rewriter: Rewriter, old: SnapshotId, manifest: Manifest
) -> SnapshotId | None:
    """Commits a snapshot anew; returns its id, None where the old one has been forgotten meanwhile.

    Where another repair was faster, that one's id.
    """
    for _ in range(_TRIES):
        result = rewriter.rewrite(manifest.root)
        salvage.finish()
        fresh = replace(
            manifest,
            session=session,
            root=result.id,
            root_lost=result.gone,
            repairs=old,
            lost=b"".join(rewriter.lost),
        )
        snapshot = SnapshotId(repo.random(RANDOM_ID_BYTES))
        pending_hash = put_pending(repo, snapshot, fresh)
        there = old in list_pending(repo)
        other = _another(repo, old, snapshot) if there else None
        if there and other is None and _is_safe(repo, salvage):
            _protect(repo, old, snapshot)
            if decide(repo, snapshot, Verdict.COMMIT, pending_hash) is Verdict.COMMIT:
                return snapshot
        else:
            with contextlib.suppress(Corruption):
                decide(repo, snapshot, Verdict.ABORT, pending_hash)
        repo.backend.discard([pin_name(snapshot), trash_name(snapshot)])
        if not there or other is not None:
            return other
        repo.synchronise()
        rewriter.forget()
    raise StorageFailed("packs", "what is stored is condemned again and again", retryable=True)


def _another(repo: Repo, old: SnapshotId, mine: SnapshotId) -> SnapshotId | None:
    """Returns what another repair has committed in the place of a snapshot; of what others have begun, nothing stays.

    Of two that have begun, the lower id goes on: it aborts the other, and that one gives it time to come to its end.
    """
    for look in range(_LOOKS):
        found = load(repo)
        for item in found.snapshots:
            if bytes(old) in item.encoded and item.manifest.repairs == old:
                return item.id
        begun = []
        for other in found.undecided:
            with contextlib.suppress(ObjectMissing, Corruption):
                manifest, pending_hash = read_undecided(repo, other)
                if other != mine and manifest.repairs == old:
                    begun.append((other, pending_hash))
        for other, pending_hash in begun:
            if mine < other or look == _LOOKS - 1:
                with contextlib.suppress(Corruption):  # an outcome that is torn: it is no snapshot
                    if decide(repo, other, Verdict.ABORT, pending_hash) is Verdict.COMMIT:
                        return other
        if all(mine < other for other, _ in begun):
            break
    return None


def _is_safe(repo: Repo, salvage: Salvage) -> bool:
    """Lists condemnations, then packs (W4): whether all that was written or relied on is there and stays."""
    listing = repo.list_packs()
    sink = salvage.sink
    there = {
        pack.number
        for pack in repo.index.packs()
        if listing.packs.get(pack.name) == pack.length_bytes and pack.name not in listing.condemned
    }
    repo.index.usable &= there
    safe = sink.own_packs | sink.relied.packs <= there
    if not safe:
        sink.own_packs &= there
        sink.relied.packs &= there
    return safe


def _protect(repo: Repo, old: SnapshotId, new: SnapshotId) -> None:
    """Gives the new one the old one's pin, and its record of the trash."""
    if old in list_pins(repo):
        pin(repo, new, "")
    record = load_trash(repo).records.get(old)
    if record is not None:
        name = trash_name(new)
        with contextlib.suppress(ObjectExists):
            repo.backend.put(name, [repo.vault.seal_record("trash", name, record.encode())])


def retire(repo: Repo, old: SnapshotId, *, decided: bool) -> list[str]:
    """Sets a snapshot's manifest and outcome aside and takes them away, the manifest first; returns their copies.

    ``decided``: whether the outcome goes too. One that is damaged and may be an abort stays.
    """
    copies = []
    for name in (pending_name(old), outcome_name(old)):
        with contextlib.suppress(ObjectMissing):
            copies.append(set_aside(repo.backend, name))
    announce_forgetting(repo, [old])
    repo.backend.discard([pending_name(old)])
    if decided:
        repo.backend.discard([outcome_name(old)])
    repo.backend.discard([trash_name(old)])
    repo.backend.discard([pin_name(old)])
    return copies
