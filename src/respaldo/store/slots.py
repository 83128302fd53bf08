"""Key slots as objects: made, listed, opened, removed. The last slot cannot be removed.

What a slot says of itself (label, time made) is sealed under the master key. Implements docs/format.md, "Key slots".
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from respaldo.backend.base import Backend
from respaldo.codec.keys import KeyRing
from respaldo.codec.seal import OVERHEAD_BYTES
from respaldo.codec.slots import SLOT_BYTES_MAX, SLOTS_MAX, Kdf, Secret, Slot, parse_slot, unwrap, wrap
from respaldo.core.errors import Corruption, ObjectMissing, StorageDenied, StorageError, UsageError, WrongSecret
from respaldo.core.seams import Random
from respaldo.format import canonical, frame
from respaldo.format.header import HASH_BYTES, Header, close_object, unclose_object
from respaldo.store.vault import Vault

_NAME_BYTES = 8
_NAME = re.compile(r"keys/[0-9a-f]{16}")
_ABOUT_BYTES = 512
LABEL_BYTES_MAX = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotInfo:
    """Describes a slot to a person: object name, method, cost, label, and when it was made (ns since the epoch)."""

    name: str
    method: str
    kdf: Kdf | None
    label: str
    created_ns: int


def new_name(random: Random) -> str:
    """Draws the object name of a new slot."""
    return "keys/" + random(_NAME_BYTES).hex()


def make(
    name: str, ring: KeyRing, secret: Secret, kdf: Kdf, vault: Vault, *, label: str, now_ns: int, random: Random
) -> bytes:
    """Returns the stored bytes of a slot that opens with a secret."""
    if len(label.encode("utf-8", "surrogateescape")) > LABEL_BYTES_MAX:
        raise UsageError(f"a slot's label has at most {LABEL_BYTES_MAX} bytes")
    raw = canonical.pack([1, label, now_ns])
    message = frame.build(frame.HEAD.pack(frame.STORED, len(raw), len(raw)), raw, _ABOUT_BYTES)
    about = b"".join(vault.sealer.seal("about", name, len(message), message))
    slot = wrap(
        master=ring.master, secret=secret, kdf=kdf, header_hash=ring.header_hash, name=name, about=about, random=random
    )
    return close_object(slot.encode())


def read(backend: Backend, name: str) -> Slot:
    """Returns a slot; raises `Corruption`, `ObjectMissing`."""
    return parse_slot(name, unclose_object(backend.get(name, 0, SLOT_BYTES_MAX + HASH_BYTES), name))


def _names(backend: Backend) -> list[str]:
    names = sorted(name for name, _ in backend.list("keys") if _NAME.fullmatch(name))
    if len(names) > SLOTS_MAX:
        raise Corruption("keys", f"there are {len(names)} key slots, more than the {SLOTS_MAX} there can be")
    return names


def open_master(backend: Backend, header: Header, secret: Secret) -> bytes:
    """Returns the master key; tries every slot of the secret's method, so that it does not show which one opened.

    Raises `WrongSecret` where none opens; `Corruption`, or what storage said, where none opens and a slot could not be
    read: one such slot does not keep the others from opening.
    """
    unread: Corruption | StorageError | None = None
    for name in _names(backend):
        try:
            slot = read(backend, name)
            if slot.method == secret.method:
                return unwrap(slot, secret, header.hash)
        except (WrongSecret, ObjectMissing):
            continue
        except (Corruption, StorageError) as error:
            unread = error
            unread.hint = "no other key slot opens with this passphrase or key; put this one right, or use another"
    if unread is not None:
        raise unread
    raise WrongSecret


def describe(backend: Backend, vault: Vault) -> tuple[list[SlotInfo], list[Corruption]]:
    """Returns what there is, and what is damaged."""
    found: list[SlotInfo] = []
    damaged: list[Corruption] = []
    for name in _names(backend):
        try:
            slot = read(backend, name)
            what = vault.sealer.open("about", name, len(slot.about) - OVERHEAD_BYTES, slot.about, name)
            raw = frame.unbuild(what, vault.decompressor, name, raw_length_max=_ABOUT_BYTES)
            match canonical.unpack(raw, name):
                case [1, str(label), int(created_ns)]:
                    pass
                case _:
                    raise Corruption(name, "what the slot says of itself is malformed")
        except ObjectMissing:
            continue
        except StorageDenied as error:
            damaged.append(Corruption(name, f"it cannot be read ({error.reason})"))
            continue
        except Corruption as error:
            damaged.append(error)
            continue
        found.append(SlotInfo(name=name, method=slot.method, kdf=slot.kdf, label=label, created_ns=created_ns))
    return found, damaged


def add(
    backend: Backend,
    ring: KeyRing,
    vault: Vault,
    *,
    secret: Secret,
    kdf: Kdf,
    label: str,
    now_ns: int,
    random: Random,
) -> str:
    """Puts a new slot; returns its object name."""
    if len(_names(backend)) >= SLOTS_MAX:
        raise UsageError(f"there are {SLOTS_MAX} key slots already", hint="remove one with: respaldo key remove")
    name = new_name(random)
    backend.put(name, [make(name, ring, secret, kdf, vault, label=label, now_ns=now_ns, random=random)])
    return name


def remove(backend: Backend, name: str) -> None:
    """Removes a slot; refuses to remove the last one that is sound."""
    names = _names(backend)
    if name not in names:
        raise UsageError(f"there is no key slot {name.removeprefix('keys/')}", hint="list them with: respaldo key list")
    others = 0
    for other in names:
        if other != name:
            try:
                read(backend, other)
            except (Corruption, ObjectMissing):
                continue
            others += 1
    if not others:
        raise UsageError(
            "this is the last key slot; without it nobody could open the repository",
            hint="add another first with: respaldo key add",
        )
    backend.delete(name)
