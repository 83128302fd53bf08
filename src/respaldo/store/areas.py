"""Areas and their clients: enrolled and listed by whoever owns the repository.

An area is made before the record that names it, so that a client that is listed has one. Nothing of an enrolment is
ever changed. Implements docs/format.md, "Enrolment" and "Credential".
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from respaldo.backend.base import Backend
from respaldo.codec.box import box_public
from respaldo.codec.keys import KEY_BYTES, KeyRing
from respaldo.codec.signing import Signer, client_of
from respaldo.core.errors import Corruption, KeyRotated, ObjectExists, ObjectMissing, RespaldoError, UsageError
from respaldo.core.ids import RANDOM_ID_BYTES
from respaldo.format.credential import Credential
from respaldo.format.enrolment import (
    RIGHTS,
    Enrolment,
    RecordName,
    Removal,
    Renewal,
    is_client_name,
    parse_client_record,
    parse_record_name,
)
from respaldo.format.epoch import EpochRecord, Former
from respaldo.format.header import HEADER, Header
from respaldo.format.runrecord import parse_run_name
from respaldo.format.snapshot import RECORD_BYTES_MAX
from respaldo.store.configuration import next_name
from respaldo.store.epochs import Epoch, EpochRings, require_newest
from respaldo.store.repo import Repo
from respaldo.store.vault import Vault, make_vault

KIND = "client"
ENROL = "enrol"
"""The verb in the log."""
REMOVAL_GONE: Final = (
    "the client was removed, as the log says, and the record of that is gone; it counts as removed. "
    "To put the record again: respaldo key client remove {}"
)
_LOOKS: Final = 3
"""So often records are listed again while they are sealed anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """Is a client that was enrolled; ``removal`` where it was removed again; ``renewals`` by epoch, from the first.

    ``damage``: a renewal that cannot be read: nobody can go on in an older epoch then; or a removal of which nobody
    knows any more what it lets count: a collector would delete that.
    """

    enrolment: Enrolment
    removal: Removal | None
    renewals: tuple[Renewal, ...] = ()
    damage: Corruption | None = None

    def keys(self, epoch: int) -> Enrolment:
        """Returns the enrolment as if it had been made with the keys of an epoch of the area."""
        if not epoch:
            return self.enrolment
        now = self.renewals[epoch - 1]
        return replace(self.enrolment, sign_public=now.sign_public, box_public=now.box_public, master=now.master)

    def epoch(self) -> Epoch:
        """Returns the epoch of the area that counts, with the keys of all before it; raises `Corruption`."""
        if self.damage is not None:
            raise self.damage
        number = len(self.renewals)
        header_hash = self.enrolment.header_hash
        rings = [KeyRing(self.keys(at).master, header_hash, epoch=at) for at in range(number + 1)]
        former = [
            Former(epoch=at, check=ring.check, admin=Signer(ring.admin_seed).public, heads=self.renewals[at].heads)
            for at, ring in enumerate(rings[:number])
        ]
        content_keys = rings[0].content_keys
        record = EpochRecord(
            time_ns=self.renewals[-1].time_ns if number else self.enrolment.time_ns,
            content_keys=content_keys,
            masters=tuple((ring.epoch, ring.master) for ring in rings[:number]),
            former=tuple(former),
        )
        named = [ring.naming_as(content_keys) for ring in reversed(rings)]
        return Epoch(number=number, rings=EpochRings(named), record=record if number else None)


class Records(Protocol):
    """Is what records of clients are read from: a repository, or as much of one."""

    @property
    def backend(self) -> Backend:
        """Where they lie."""
        ...

    @property
    def vault(self) -> Vault:
        """What opens them."""
        ...

    @property
    def removals(self) -> Mapping[bytes, Removal]:
        """What the log says of removals, by client."""
        ...


def list_clients(repo: Records) -> tuple[list[Client], list[Corruption]]:
    """Returns the clients by the time they were added, and the records that are damaged.

    A removal that cannot be read removes all the same; which runs count, the log says, and where it does not, the area
    stays closed. One that only the log speaks of counts, too, and its record is called damaged. Of a record that was
    sealed anew under another epoch there may be two; a run counts that all of them and the log name.
    """
    for _ in range(_LOOKS):
        found = _Found()
        if found.look(repo):
            break
    said = repo.removals
    clients = [found.client(enrolment, said.get(client)) for client, enrolment in found.enrolments.items()]
    return sorted(clients, key=lambda item: (item.enrolment.time_ns, item.enrolment.client)), found.damaged


@dataclass(slots=True)
class _Found:
    """Is what one look at the records of clients has found."""

    enrolments: dict[bytes, Enrolment] = field(default_factory=dict)
    removals: dict[bytes, Removal] = field(default_factory=dict)
    unread: set[bytes] = field(default_factory=set)
    """Clients with a removal that cannot be read."""
    renewals: dict[RecordName, Renewal | None] = field(default_factory=dict)
    """By the name of the first of each; None where none was read, or two differ."""
    damaged: list[Corruption] = field(default_factory=list)

    def look(self, repo: Records) -> bool:
        """Reads all records; returns whether none went meanwhile, as when they are sealed anew."""
        whole = True
        for name in sorted(repo.backend.names("enrolled")):
            parsed = parse_record_name(name)
            if parsed is None:
                continue
            try:
                data = repo.backend.get_whole(name, RECORD_BYTES_MAX)
                self._take(parse_client_record(repo.vault.open_record(KIND, name, data), name), parsed)
            except ObjectMissing:
                whole = False
            except Corruption as error:
                self.damaged.append(error)
                if parsed.removed:
                    self.unread.add(parsed.client)
                if parsed.renewal:
                    self.renewals.setdefault(replace(parsed, copy=False, epoch=0))
        return whole

    def _take(self, found: Enrolment | Renewal | Removal, name: RecordName) -> None:
        if isinstance(found, Removal):
            before = self.removals.get(found.client, found)
            self.removals[found.client] = replace(found, runs=found.runs & before.runs)
        elif isinstance(found, Renewal):
            first = replace(name, copy=False, epoch=0)
            other = self.renewals.get(first)
            self.renewals[first] = found
            if other not in {None, found}:
                self.renewals[first] = None
                self.damaged.append(Corruption(name.object_name(), "there is another one that says something else"))
        else:
            self.enrolments[found.client] = found

    def client(self, enrolment: Enrolment, said: Removal | None) -> Client:
        """Returns a client, with its renewals from the first to where one is missing, and what is wrong then.

        ``said``: its removal, as the log has it.
        """
        client = enrolment.client
        removal = self.removals.get(client)
        damage: Corruption | None = None
        if said is not None:
            if removal is None and client not in self.unread:
                name = RecordName(client=client, removed=True).object_name()
                self.damaged.append(Corruption(name, REMOVAL_GONE.format(enrolment.name)))
            removal = said if removal is None else replace(removal, runs=removal.runs & said.runs)
        elif removal is None and client in self.unread:
            removal = Removal(client=client, time_ns=0, runs=frozenset())
            name = RecordName(client=client, removed=True).object_name()
            damage = Corruption(name, "the client was removed, and which of its runs count cannot be read")
        named = {name: found for name, found in self.renewals.items() if name.client == client}
        renewals: list[Renewal] = []
        while found := named.pop(RecordName(client=client, renewal=len(renewals) + 1), None):
            renewals.append(found)
        if not named:
            return Client(enrolment=enrolment, removal=removal, renewals=tuple(renewals), damage=damage)
        name = RecordName(client=client, renewal=len(renewals) + 1).object_name()
        damage = Corruption(name, "the keys of the client's area were renewed, and what says so cannot be read")
        if name not in {error.name for error in self.damaged}:
            self.damaged.append(damage)
        return Client(enrolment=enrolment, removal=removal, renewals=tuple(renewals), damage=damage)


def enrol(repo: Repo, name: str, rights: Iterable[str], area_of: Callable[[bytes], Backend]) -> Credential:
    """Makes a client with an area of its own; returns its credential, which is kept nowhere else.

    ``area_of`` gives the backend of a client's area. Raises `UsageError` for a name that is none or is taken.
    """
    if not is_client_name(name):
        raise UsageError(
            f"no client can be called {name!r}", hint="use letters, digits, dots, dashes and underscores; 64 at most"
        )
    known, _ = list_clients(repo)
    if any(item.enrolment.name == name and item.removal is None for item in known):
        raise UsageError(f"there is a client {name} already", hint="list them with: respaldo key client list")
    given = set(rights)
    ordered = tuple(right for right in RIGHTS if right in given)
    random = repo.random
    sign_seed, box_seed, master = random(KEY_BYTES), random(KEY_BYTES), random(KEY_BYTES)
    signer = Signer(sign_seed)
    client = client_of(signer.public)
    now_ns = repo.clock.now_ns()
    header = Header(repository=random(RANDOM_ID_BYTES), created_ns=now_ns, suite=repo.header.suite)
    ring = KeyRing(master, header.hash)
    config = replace(repo.config, content_keys=b"")
    config_name = next_name(())
    with area_of(client) as area:
        vault = make_vault(ring, header, config.level, random)
        made: list[str] = []
        try:
            for object_name, data in (
                (config_name, vault.seal_record("config", config_name, config.encode())),
                (HEADER, header.encode()),
            ):
                made.append(object_name)
                area.put(object_name, [data])
            enrolment = Enrolment(
                client=client,
                name=name,
                rights=ordered,
                sign_public=signer.public,
                box_public=box_public(box_seed),
                header_hash=header.hash,
                master=master,
                time_ns=now_ns,
            )
            repo.announce(ENROL, [client], name)
            put_record(repo, RecordName(client=client), enrolment.encode())
        except BaseException:
            with contextlib.suppress(RespaldoError):
                area.discard(reversed(made))
            raise
    return Credential(
        name=name,
        rights=ordered,
        header_hash=header.hash,
        sign_seed=sign_seed,
        box_seed=box_seed,
        owner_box=box_public(ring.box_seed),
        owner_sign=Signer(ring.admin_seed).public,
        content_keys=ring.content_keys,
        config=config,
    )


def list_runs(area: Backend) -> Iterator[bytes]:
    """Yields the runs that are listed in an area."""
    return (run for run in map(parse_run_name, area.names("runs")) if run is not None)


def renewed_name(name: str, epoch: int) -> str:
    """Returns what a record of a client is called when it is sealed anew under an epoch."""
    parsed = parse_record_name(name)
    if parsed is None:
        raise ObjectMissing(name)
    return parsed.object_name(epoch)


def put_record(repo: Repo, name: RecordName, raw: bytes) -> None:
    """Puts a record, then once more: without it nobody can read the area, and a disk has bad sectors.

    Unless its key was rotated before it was there: who retires that key may not have seen it.
    """
    names = [name.object_name(), replace(name, copy=True).object_name()]
    for what in names:
        with contextlib.suppress(ObjectExists) if what != names[0] else contextlib.nullcontext():
            repo.backend.put(what, [repo.vault.seal_record(KIND, what, raw)])
    try:
        require_newest(repo.backend, repo.epoch)
    except KeyRotated:
        repo.backend.discard(names)
        raise
