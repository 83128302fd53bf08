"""A snapshot put again under another id, in the place of one that is damaged; and the old one retired.

Invariant: the new one is committed before anything of the old one goes, and the old one's manifest is listed when the
new one is checked, so that whatever collects meanwhile takes one of the two for a root (docs/format.md, W4). It keeps
time, words, pin and trash. Whoever is cut off between the two leaves both; the next repair retires the old one.
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
    pending_name,
    put_pending,
)
from respaldo.core.errors import Corruption, ObjectExists, ObjectMissing, StorageFailed
from respaldo.core.ids import RANDOM_ID_BYTES, SnapshotId
from respaldo.flows.repair.salvage import Salvage
from respaldo.format.snapshot import Manifest, Verdict
from respaldo.store.aside import set_aside
from respaldo.store.outcomes import outcome_name
from respaldo.store.repo import Repo

_TRIES = 20


def put_again(
    repo: Repo, session: bytes, salvage: Salvage, rewriter: Rewriter, old: SnapshotId, manifest: Manifest
) -> SnapshotId | None:
    """Commits a snapshot anew; returns its id, None where the old one has been forgotten meanwhile."""
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
        if there and _is_safe(repo, salvage):
            _protect(repo, old, snapshot)
            if decide(repo, snapshot, Verdict.COMMIT, pending_hash) is Verdict.COMMIT:
                return snapshot
        else:
            with contextlib.suppress(Corruption):
                decide(repo, snapshot, Verdict.ABORT, pending_hash)
        repo.backend.discard([pin_name(snapshot), trash_name(snapshot)])
        if not there:
            return None
        repo.synchronise()
        rewriter.forget()
    raise StorageFailed("packs", "what is stored is condemned again and again", retryable=True)


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
