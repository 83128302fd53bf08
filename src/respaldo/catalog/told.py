"""What the log of an area says of snapshots: whose entry commits each, in which place, and when an owner saw it there.

An owner's entries name how far others' logs went when it was made, so that of what a client added between two of them
the time is known, whatever the client says. Believes nothing that is not signed, and of the owner nothing that is not
sealed under the area's own keys. Reads the log, and writes nothing. Implements docs/format.md, "Times in an area".
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from respaldo.catalog.arrival import Told
from respaldo.codec.signing import Signer, client_of, is_signed
from respaldo.core.errors import ObjectMissing, RespaldoError
from respaldo.core.ids import RANDOM_ID_BYTES, SnapshotId
from respaldo.format.logbook import SUBJECTS_MAX, Entry, parse_name, parse_object
from respaldo.format.snapshot import RECORD_BYTES_MAX
from respaldo.store.again import look_again
from respaldo.store.authority import COMMIT, ENTRY_PURPOSE, admin_signed
from respaldo.store.logbook import HEADS_TOLD
from respaldo.store.owned import OwnedArea
from respaldo.store.several import read_several


@dataclass(frozen=True, slots=True, kw_only=True)
class Commits:
    """Is what the log says of commits.

    ``told``: of each snapshot that one client's log commits, once. ``hashes``: of every one that is committed anywhere,
    the manifests' hashes. ``by_owner``: those that the owner has made, whose times are believed.
    """

    told: dict[SnapshotId, Told]
    hashes: dict[SnapshotId, set[bytes]]
    by_owner: frozenset[SnapshotId]


@dataclass(slots=True)
class _Log:
    """Is the log of one signer: entries by number, and whether the owner wrote it."""

    key: bytes = b""
    entries: dict[int, Entry] = field(default_factory=dict)
    by_owner: bool = False


@dataclass(frozen=True, slots=True)
class _Look:
    """Is an owner's entry: when it was made, and how far each log went then; ``all``: whether none is left out."""

    time_ns: int
    seen: dict[bytes, int]
    all: bool


def read_commits(repo: OwnedArea) -> Commits:
    """Reads the log of an area."""
    logs = _read_logs(repo)
    looks = sorted(_looks(repo, logs.values()), key=lambda look: look.time_ns)
    places: defaultdict[SnapshotId, list[Told]] = defaultdict(list)
    hashes: defaultdict[SnapshotId, set[bytes]] = defaultdict(set)
    by_owner: set[SnapshotId] = set()
    for signer, log in logs.items():
        for number, entry in log.entries.items():
            if entry.verb != COMMIT:
                continue
            after_ns, before_ns = _between(looks, signer, number)
            for at, subject in enumerate(entry.subjects):
                snapshot = SnapshotId(subject[:RANDOM_ID_BYTES])
                hashes[snapshot].add(subject[RANDOM_ID_BYTES:])
                if log.by_owner:
                    by_owner.add(snapshot)
                else:
                    place = number * SUBJECTS_MAX + at
                    places[snapshot].append(Told(signer, place, after_ns, before_ns))
    told = {snapshot: found[0] for snapshot, found in places.items() if len(found) == 1}
    return Commits(told=told, hashes=dict(hashes), by_owner=frozenset(by_owner - places.keys()))


def _read_logs(repo: OwnedArea) -> dict[bytes, _Log]:
    """Reads all that is there and opens, and leaves out what its signer has not signed."""
    return look_again(lambda: _read_logs_once(repo))


def _read_logs_once(repo: OwnedArea) -> dict[bytes, _Log]:
    logs: defaultdict[bytes, _Log] = defaultdict(_Log)
    names = [name for name in sorted(repo.backend.names("log"), reverse=True) if parse_name(name) is not None]
    written_by_owner: set[bytes] = set()
    for _, got in read_several(partial(_read, repo), names):
        if isinstance(got, ObjectMissing):
            raise got
        if isinstance(got, RespaldoError):
            continue
        entries, by_owner = got
        if by_owner:
            written_by_owner.add(entries[0].client)
        for entry in entries:
            logs[entry.client].entries[entry.number] = entry
            logs[entry.client].key = logs[entry.client].key or entry.key
    for client, log in logs.items():
        log.by_owner = client in written_by_owner
        log.entries = {number: entry for number, entry in log.entries.items() if _is_of(repo, entry, log.key)}
    return dict(logs)


def _read(repo: OwnedArea, name: str) -> tuple[Sequence[Entry], bool]:
    data = repo.backend.get_whole(name, RECORD_BYTES_MAX)
    entries = parse_object(repo.vault.open_record("log", name, data), name)
    return entries, not repo.vault.is_of_client("log", name, data)


def _is_of(repo: OwnedArea, entry: Entry, key: bytes) -> bool:
    return client_of(key) == entry.client and is_signed(
        key, entry.signature, ENTRY_PURPOSE, repo.header.hash, entry.signed()
    )


def _looks(repo: OwnedArea, logs: Iterable[_Log]) -> Iterator[_Look]:
    """Yields what the owner's entries have seen: each says what is new since the one before."""
    admin = Signer(repo.ring.admin_seed).public
    for log in logs:
        if not log.by_owner:
            continue
        seen: dict[bytes, int] = {}
        for _, entry in sorted(log.entries.items()):
            if admin_signed(entry, admin, repo.epoch.former, repo.header.hash):
                seen = {**seen, **{head.client: head.number for head in entry.heads}}
                yield _Look(entry.time_ns, seen, len(entry.heads) < HEADS_TOLD)


def _between(looks: Sequence[_Look], signer: bytes, number: int) -> tuple[int | None, int | None]:
    """Returns when an entry was last not there, and when it was first seen; None where nobody looked."""
    before_ns = next((look.time_ns for look in looks if look.seen.get(signer, -1) >= number), None)
    unseen = (look.time_ns for look in reversed(looks) if look.all and look.seen.get(signer, -1) < number)
    after_ns = next(unseen, None)
    if after_ns is not None and before_ns is not None and after_ns > before_ns:  # another owner's clock
        after_ns = None
    return after_ns, before_ns
