"""Epochs in storage: which master key counts, what older ones there are, and whether a newer one has come.

Invariant: the highest epoch of which a whole record is there counts, and nothing older is ever used in its place:
whoever cannot open it holds an old key and is told so. Implements docs/format.md, "Epochs".
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from respaldo.backend.base import Backend
from respaldo.codec.compress import LEVEL
from respaldo.codec.keys import KeyRing
from respaldo.codec.slots import Opened, Secret, Slot, parse_slot
from respaldo.core.errors import Corruption, KeyRotated, ObjectMissing, WrongSecret
from respaldo.core.ids import PackName
from respaldo.core.seams import Random
from respaldo.format.epoch import (
    FOLDER,
    EpochObject,
    EpochRecord,
    Former,
    parse_object,
    parse_record,
    parse_record_name,
    parse_retiring_name,
    record_name,
    retiring_name,
)
from respaldo.format.header import Header
from respaldo.format.snapshot import RECORD_BYTES_MAX
from respaldo.store import slots
from respaldo.store.again import LOOKS, look_again
from respaldo.store.vault import Vault, make_vault


class EpochRings:
    """Seals under the newest of some rings, and opens under all of them. Implements `respaldo.codec.keys.Rings`."""

    def __init__(self, newest_first: Sequence[KeyRing]) -> None:
        self._rings = tuple(newest_first)

    @property
    def sealing(self) -> KeyRing:
        """The ring of the newest epoch."""
        return self._rings[0]

    def take_over(self, rings: EpochRings) -> None:
        """Becomes what others are, for all that seal and open with these. From any thread's view in one step."""
        self._rings = rings._rings

    def opening(self, kind: str, name: str) -> Iterable[KeyRing]:
        """Returns all rings, the newest first, whatever an object is."""
        del kind, name
        return self._rings


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """Is the epoch that counts. ``record`` is None in epoch 0 of a repository whose key was never rotated.

    ``revision``: of the record. ``pending``: the object that holds slots which are not in place yet: a rotation that
    was not finished.
    """

    number: int = 0
    rings: EpochRings
    record: EpochRecord | None = None
    revision: int = 0
    pending: EpochObject | None = field(default=None, repr=False)

    @classmethod
    def only(cls, ring: KeyRing) -> Self:
        """Returns the epoch of what was never rotated, sealed under one ring."""
        return cls(rings=EpochRings([ring]))

    @property
    def ring(self) -> KeyRing:
        """The ring of this epoch."""
        return self.rings.sealing

    @property
    def former(self) -> tuple[Former, ...]:
        """What stays known of the earlier epochs."""
        return self.record.former if self.record else ()

    @property
    def in_use(self) -> list[int]:
        """The earlier epochs whose master keys are known still."""
        return [epoch for epoch, _ in self.record.masters] if self.record else []

    def retiring(self, backend: Backend) -> set[int]:
        """Returns the earlier epochs of which a sign says that they are retiring; asks nobody where there is none."""
        known = set(self.in_use)
        return known & set(map(parse_retiring_name, backend.names(FOLDER))) if known else set()


@dataclass(slots=True, kw_only=True)
class Found:
    """Is what lies in the folder of epochs: names, the whole objects of the highest epoch that has one, damages."""

    names: tuple[str, ...] = ()
    number: int | None = None
    objects: dict[int, EpochObject] = field(default_factory=dict)
    """By revision."""
    damaged: list[Corruption] = field(default_factory=list)

    @property
    def slots(self) -> list[Slot]:
        """The slots that stand in the object of a rotation that was not finished."""
        found = []
        for item in self.objects.values():
            for name, encoded in item.slots:
                with contextlib.suppress(Corruption):
                    found.append(parse_slot(name, encoded))
        return found

    def record(self, revision: int, vault: Vault) -> EpochRecord | None:
        """Returns what a revision says, None where it is not to be opened."""
        name = record_name(self.number or 0, revision)
        try:
            return parse_record(vault.open_record("epoch", name, self.objects[revision].sealed), name)
        except Corruption:
            return None


def look(backend: Backend) -> Found:
    """Lists epochs and reads the objects of the highest one of which any is whole.

    Where one goes meanwhile, another one has come that says what it said, or more: they are listed again.
    """
    return look_again(lambda: _look(backend), is_whole=lambda found: not found[1])[0]


def _look(backend: Backend) -> tuple[Found, bool]:
    """Does so once; returns also whether an object went meanwhile."""
    went = False
    found = Found(names=tuple(sorted(name for name, _ in backend.list(FOLDER))))
    records = sorted((item for name in found.names if (item := parse_record_name(name))), reverse=True)
    named = {parse_record_name(name): name for name in found.names}
    for epoch, revision in records:
        if found.number is not None and epoch < found.number:
            break
        name = named[epoch, revision]
        try:
            found.objects[revision] = parse_object(backend.get_whole(name, RECORD_BYTES_MAX), name)
            found.number = epoch
        except ObjectMissing:
            went = True
        except Corruption as error:
            found.damaged.append(error)
    return found, went


def open_newest(backend: Backend, header: Header, secret: Secret | Opened, random: Random) -> tuple[Epoch, Opened]:
    """Returns the epoch that counts, and what a secret gave that opens it.

    Raises `WrongSecret`; `KeyRotated` where the secret opens what is older only; `Corruption`.
    """
    for _ in range(LOOKS):
        found = look(backend)
        try:
            return _opened(header, found, _candidates(backend, header, found, secret), random)
        except (WrongSecret, Corruption) as error:
            problem = error
            if look(backend).names == found.names:
                break  # or somebody is just rotating, and slots are there whose epoch was not yet
    raise problem


def _candidates(backend: Backend, header: Header, found: Found, secret: Secret | Opened) -> list[Opened]:
    if not isinstance(secret, Opened):
        return slots.open_all(backend, header, secret, found.slots)
    if not slots.is_there(backend, secret.slot):
        raise WrongSecret
    return [secret]


def _opened(header: Header, found: Found, candidates: list[Opened], random: Random) -> tuple[Epoch, Opened]:
    if found.number is None:  # what is there is torn: a rotation that was cut off within its one step
        first = next((item for item in candidates if not item.boxed), None)
        if first is None:
            for error in found.damaged:
                raise error
            raise Corruption(FOLDER, "the record of the epoch that this key slot belongs to is not there")
        return Epoch.only(KeyRing(first.master, header.hash)), first
    for revision in sorted(found.objects, reverse=True):
        for candidate in candidates:
            ring = KeyRing(candidate.master, header.hash, epoch=found.number)
            vault = make_vault(ring, header, LEVEL, random)
            record = found.record(revision, vault)
            if record is not None:
                waiting = (at for at, item in found.objects.items() if item.slots and found.record(at, vault))
                epoch = Epoch(
                    number=found.number,
                    rings=rings_of(ring, record),
                    record=record,
                    revision=revision,
                    pending=next((found.objects[at] for at in waiting), None),
                )
                return epoch, candidate
    raise KeyRotated(found.number)


def rings_of(ring: KeyRing, record: EpochRecord) -> EpochRings:
    """Returns the rings of an epoch and of those before it that are in use, all naming content alike."""
    older = [KeyRing(master, ring.header_hash, epoch=epoch) for epoch, master in reversed(record.masters)]
    return EpochRings([item.naming_as(record.content_keys) for item in (ring, *older)])


def packs_under(
    epochs: Collection[int], backend: Backend, vault: Vault, packs: Mapping[PackName, int], known: dict[PackName, int]
) -> set[PackName]:
    """Returns which of some packs are of some epochs; see `census.packs_under`."""
    from respaldo.store import census  # noqa: PLC0415 - start-up time, and few repositories have an epoch that retires

    return census.packs_under(epochs, backend, vault, packs, known)


def newest_listed(backend: Backend) -> int:
    """Returns the highest epoch of which a record is listed, whole or not; 0 where there is none."""
    records = (parse_record_name(name) for name in backend.names(FOLDER))
    return max((item[0] for item in records if item), default=0)


def newest_record(backend: Backend, vault: Vault) -> tuple[int | None, EpochRecord | None]:
    """Returns the highest epoch of which a whole record is there, and what its highest revision says, if that opens."""
    found = look(backend)
    return found.number, found.record(max(found.objects), vault) if found.objects else None


def require_newest(backend: Backend, epoch: Epoch) -> None:
    """Raises `KeyRotated` where an epoch is not the newest any more: for whoever acts for all (slots, log, prune)."""
    if newest_listed(backend) > epoch.number:  # a torn record is none
        newest = look(backend).number or 0
        if newest > epoch.number:
            raise KeyRotated(newest)


def is_retiring(backend: Backend, epoch: Epoch) -> bool:
    """Whether nothing may be committed under an epoch any more."""
    return backend.exists(retiring_name(epoch.number)) is not None
