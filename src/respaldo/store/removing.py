"""Removing a client: what it has begun counts for good, what it begins from now on never does.

Invariant: a client that goes on after it has looked for the sign of its removal has a run that counts: the sign is put
before runs are listed, and the client puts its run before it looks. What the log says once cannot go unnoticed, so that
nobody is let in again by whoever deletes the record. Implements docs/format.md, "Removal".
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

from respaldo.backend.base import Backend
from respaldo.codec.signing import Signer
from respaldo.core.errors import ObjectExists, UsageError
from respaldo.format.enrolment import RecordName, Removal, RemovalSign, parse_record_name
from respaldo.format.epoch import removed_name
from respaldo.format.logbook import SUBJECT_BYTES_MAX, SUBJECTS_MAX
from respaldo.store.areas import Client, list_clients, list_runs, put_record
from respaldo.store.authority import REMOVE
from respaldo.store.epochs import require_newest
from respaldo.store.repo import Repo
from respaldo.store.runs import REMOVAL_PURPOSE, is_removed


def remove(repo: Repo, client: bytes, area: Backend) -> Removal:
    """Lets no run of a client count that has not begun; what it wrote stays. ``area``: where it writes.

    May be done again, where something of it is gone or was not done: then nothing is let in that came meanwhile. Raises
    `UsageError` where all of it is there, `KeyRotated`.
    """
    require_newest(repo.backend, repo.epoch)
    known = next(item for item in list_clients(repo)[0] if item.enrolment.client == client)
    parsed = map(parse_record_name, repo.backend.names("enrolled"))
    recorded = any(name is not None and name.removed and name.client == client for name in parsed)
    said = client in repo.removals
    if not _put_sign(repo, known, area) and recorded and said:
        raise UsageError("the client was removed already", hint="list them with: respaldo key client list")
    removal = known.removal
    if removal is None or known.damage is not None:
        removal = Removal(client=client, time_ns=repo.clock.now_ns(), runs=frozenset(list_runs(area)))
    if not said:
        for subjects in entries(removal):
            repo.announce(REMOVE, subjects, known.enrolment.name)
    if not recorded:
        with contextlib.suppress(ObjectExists):
            put_record(repo, RecordName(client=client, removed=True), removal.encode())
    return removal


def _put_sign(repo: Repo, known: Client, area: Backend) -> bool:
    """Puts the sign that tells the client, unless it is there; what else stands in its place goes."""
    epoch = replace(known, damage=None).epoch()
    signer, name, client = Signer(epoch.ring.admin_seed), removed_name(epoch.number), known.enrolment.client
    header_hash = known.enrolment.header_hash
    if is_removed(area, client, epoch.number, signer.public, header_hash):
        return False
    sign = RemovalSign(client=client, time_ns=repo.clock.now_ns())
    sign = replace(sign, signature=signer.sign(REMOVAL_PURPOSE, header_hash, sign.signed()))
    area.discard([name])
    area.put(name, [sign.encode()])
    return True


def entries(removal: Removal) -> Iterator[list[bytes]]:
    """Yields the subjects of entries of the log that say it: the client, then its runs, as many as go in."""
    joined = b"".join(sorted(removal.runs))
    pieces = [joined[at : at + SUBJECT_BYTES_MAX] for at in range(0, len(joined), SUBJECT_BYTES_MAX)]
    for first in range(0, max(1, len(pieces)), SUBJECTS_MAX - 1):
        yield [removal.client, *pieces[first : first + SUBJECTS_MAX - 1]]
