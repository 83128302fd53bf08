"""Rotating the key: a new epoch with a master key of its own, and key slots for it.

Invariant: one create-only put makes the new epoch, its record and its slots together; whoever could open the repository
before, and is not to be shut out, can open it after every step. What comes after that put (slots put in place, old ones
removed) is finished by whoever comes next. Never learns a secret. Implements docs/format.md, "Rotation".
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from respaldo.backend.base import Backend
from respaldo.codec.compress import LEVEL
from respaldo.codec.keys import KEY_BYTES, KeyRing
from respaldo.codec.signing import Signer
from respaldo.codec.slots import Slot, parse_slot
from respaldo.core.errors import Corruption, KeyRotated, ObjectExists, ObjectMissing, Refused, UsageError
from respaldo.format.epoch import EpochObject, EpochRecord, Former, parse_record_name, record_name
from respaldo.format.header import close_object
from respaldo.format.logbook import parse_name
from respaldo.store import slots
from respaldo.store.authority import ROTATE
from respaldo.store.ballast import with_ballast
from respaldo.store.epochs import Epoch, look, newest_listed, newest_record, require_newest, rings_of
from respaldo.store.logbook import Logbook
from respaldo.store.repo import Repo
from respaldo.store.slots import SlotInfo
from respaldo.store.vault import Vault, make_vault

_COPIES = 2
"""So many revisions of the record that counts are kept: without it nothing older could be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationPlan:
    """Is what a rotation would do: slots that get the new key, those that are left out, those that cannot get it."""

    kept: tuple[SlotInfo, ...]
    left_out: tuple[str, ...]
    unable: tuple[str, ...]
    """Slots that do not say which key pair they have, or are damaged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotated:
    """Is what a rotation came to. ``slots``: the new ones by the old ones that they take the place of.

    ``stay``: old slots that could not be carried over, and open nothing new.
    """

    epoch: Epoch
    slots: Mapping[str, str]
    stay: tuple[str, ...] = ()


def plan_rotation(repo: Repo, without: Collection[str], known: Mapping[str, bytes]) -> RotationPlan:
    """Returns what `rotate` would do; changes nothing. ``known``: public keys of slots that do not say theirs."""
    found, damaged = slots.describe(repo.backend, repo.vault)
    kept, unable = [], [error.name for error in damaged if error.name not in without]
    for slot in found:
        if slot.name in without or slot.epoch != repo.epoch.number:
            continue
        public = slot.public or known.get(slot.name, b"")
        if public:
            kept.append(replace(slot, public=public))
        else:
            unable.append(slot.name)
    kept.sort(key=lambda slot: (slot.created_ns, slot.name))
    return RotationPlan(kept=tuple(kept), left_out=tuple(sorted(without)), unable=tuple(sorted(unable)))


def rotate(repo: Repo, plan: RotationPlan) -> Rotated:
    """Makes a new epoch and what opens it, then finishes; raises `KeyRotated` where another client was faster."""
    require_newest(repo.backend, repo.epoch)
    if plan.unable:
        raise Refused(f"these key slots cannot get a new key: {', '.join(name[5:] for name in plan.unable)}")
    if not plan.kept:
        raise UsageError("no key slot would be left: nobody could open the repository")
    number = repo.epoch.number + 1
    ring = KeyRing(repo.random(KEY_BYTES), repo.header.hash, epoch=number)
    record = EpochRecord(
        time_ns=repo.clock.now_ns(),
        content_keys=repo.ring.content_keys,
        masters=(*(repo.epoch.record.masters if repo.epoch.record else ()), (repo.epoch.number, repo.ring.master)),
        former=(*repo.epoch.former, _former(repo)),
        without=plan.left_out,
    )
    epoch = Epoch(number=number, rings=rings_of(ring, record), record=record)
    vault = make_vault(epoch.rings, repo.header, LEVEL, repo.random)
    names: dict[str, str] = {}
    made: list[tuple[str, bytes]] = []
    for info in plan.kept:
        try:
            old = slots.read(repo.backend, info.name)
        except ObjectMissing:  # another client has removed it since the plan was made: it is to open nothing any more
            continue
        name = names[info.name] = slots.new_name(repo.random)
        made.append((name, slots.remake(info, old, name, ring, vault, repo.random).encode()))
    if not made:
        raise KeyRotated(newest_listed(repo.backend))
    item = _object(epoch, 0, vault, made)
    try:
        with_ballast(repo.backend, lambda: repo.backend.put(record_name(number, 0), [item.encode()]))
    except ObjectExists:
        if newest_listed(repo.backend) == number and newest_record(repo.backend, vault)[0] != number:
            raise Refused(
                "a record of a rotation lies there that is not whole: it was cut off, or is just being made",
                hint="where nobody is rotating the key right now: respaldo key rotate --resume",
            ) from None
        raise KeyRotated(number) from None
    # The name is free again once a faster one has finished: its other copies, or later epochs, are there then.
    newest = newest_record(repo.backend, vault)
    if newest != (number, record):
        repo.backend.discard([record_name(number, 0)])
        raise KeyRotated(max(number, newest_listed(repo.backend)))
    return replace(finish(repo, replace(epoch, pending=item)), slots=names)


def _former(repo: Repo) -> Former:
    """Returns what stays known of the epoch that ends: its admin key, valid for what its clients' logs hold now."""
    if repo.log is not None:
        heads = {client: item.number for client, item in repo.log.follow().memory.known.items()}
    else:
        heads = listed_heads(repo.backend)
    return Former(
        epoch=repo.epoch.number,
        check=repo.ring.check,
        admin=Signer(repo.ring.admin_seed).public,
        heads=tuple(sorted(heads.items())),
    )


def listed_heads(backend: Backend) -> dict[bytes, int]:
    """Returns how far the log of each client goes that is listed."""
    heads: dict[bytes, int] = {}
    for client, entry in filter(None, map(parse_name, backend.names("log"))):
        heads[client] = max(entry, heads.get(client, 0))
    return heads


def _object(epoch: Epoch, revision: int, vault: Vault, made: Sequence[tuple[str, bytes]] = ()) -> EpochObject:
    if epoch.record is None:
        msg = "epoch 0 has no record"
        raise ValueError(msg)
    sealed = vault.seal_record("epoch", record_name(epoch.number, revision), epoch.record.encode())
    return EpochObject(sealed=sealed, slots=tuple(made))


def finish(repo: Repo, epoch: Epoch) -> Rotated:
    """Puts the slots of an epoch in place, then removes those of earlier ones: what comes after the step that counts.

    May be done again, by anybody, at any time. ``repo`` may be open as of an earlier epoch.
    """
    vault = make_vault(epoch.rings, repo.header, LEVEL, repo.random)
    for name, encoded in epoch.pending.slots if epoch.pending else ():
        if slots.describe_slot(parse_slot(name, encoded), vault).epoch == epoch.number:
            with contextlib.suppress(ObjectExists):
                repo.backend.put(name, [close_object(encoded)])
    stay = _replace_old(repo, epoch, vault)
    _announce(repo, epoch, vault)
    save_record(repo.backend, epoch, vault)
    return Rotated(epoch=epoch, slots={}, stay=tuple(stay))


def _replace_old(repo: Repo, epoch: Epoch, vault: Vault) -> list[str]:
    """Removes slots of earlier epochs; one that was added while the key was rotated gets the new key before.

    Returns those that stay, since they do not say which key pair they have.
    """
    without = set(epoch.record.without) if epoch.record else set()
    found, damaged = slots.describe(repo.backend, vault)
    old = [slot for slot in found if slot.epoch != epoch.number]
    salts = {slot.salt for slot in found if slot.epoch == epoch.number}
    stay = []
    going = [error.name for error in damaged if error.name in without]
    for info in old:
        try:
            slot = slots.read(repo.backend, info.name)
        except ObjectMissing:
            continue
        if info.name not in without and info.salt not in salts:
            if not info.public:
                stay.append(info.name)
                continue
            made = slots.remake(info, slot, slots.new_name(repo.random), epoch.ring, vault, repo.random)
            repo.backend.put(made.name, [close_object(made.encode())])
        going.append(info.name)
    for name in going:
        with contextlib.suppress(UsageError):  # another client has removed it meanwhile
            slots.remove(repo.backend, name, repo.random, opener(vault, epoch.number))
    slots.sweep_marks(repo.backend)
    return stay


def opener(vault: Vault, epoch: int) -> slots.Opens:
    """Returns what tells whether a slot opens an epoch, by what it says of itself."""

    def opens(slot: Slot) -> bool:
        try:
            return slots.describe_slot(slot, vault).epoch == epoch
        except Corruption:
            return False

    return opens


def _announce(repo: Repo, epoch: Epoch, vault: Vault) -> None:
    if repo.log is None or epoch.record is None:
        return
    log = Logbook(
        backend=repo.backend,
        vault=vault,
        ring=epoch.ring,
        clock=repo.clock,
        recollection=repo.log.recollection,
        former=epoch.record.former,
    )
    with contextlib.suppress(KeyRotated):  # another client has gone on from this epoch, and seen the end of it
        check = partial(require_newest, repo.backend, epoch)
        with_ballast(repo.backend, lambda: log.append(ROTATE, note=f"epoch {epoch.number}", check=check))
    seen = repo.log.recollection.epoch()
    if seen is None or seen[0] < epoch.number:
        repo.log.recollection.note_epoch(epoch.number, epoch.ring.check, instead_of=seen)


def save_record(backend: Backend, epoch: Epoch, vault: Vault) -> int:
    """Puts the record of an epoch in as many copies as are kept, then deletes all others; returns the last revision.

    Copies that are there and say the same count. Signs of epochs that are retiring stay.
    """
    if epoch.record is None:
        msg = "epoch 0 has no record"
        raise ValueError(msg)
    found = look(backend)
    good: list[int] = []
    for revision, item in sorted(found.objects.items()):
        name = record_name(epoch.number, revision)
        with contextlib.suppress(Corruption):
            if not item.slots and vault.open_record("epoch", name, item.sealed) == epoch.record.encode():
                good.append(revision)
    listed = [parsed for name in found.names if (parsed := parse_record_name(name))]
    revision = max((number for at, number in listed if at == epoch.number), default=0)
    while len(good) < _COPIES:
        revision += 1
        item = _object(epoch, revision, vault)
        with_ballast(backend, partial(_put, backend, record_name(epoch.number, revision), item))
        good.append(revision)
    keep = {record_name(epoch.number, revision) for revision in good}
    gone = [record_name(at, number) for at, number in listed if at <= epoch.number]
    backend.discard(name for name in gone if name not in keep)
    return max(good)


def _put(backend: Backend, name: str, item: EpochObject) -> None:
    with contextlib.suppress(ObjectExists):  # another client is finishing, too, with a record that says the same
        backend.put(name, [item.encode()])


def clear_torn(backend: Backend, epoch: Epoch) -> int:
    """Deletes records of later epochs that are not whole: of rotations that were cut off; returns how many.

    Only where nobody rotates right now: on storage that puts no object at once, one may just be being written.
    """
    found = look(backend)
    return backend.discard(
        error.name for error in found.damaged if (parse_record_name(error.name) or (0, 0))[0] > epoch.number
    )
