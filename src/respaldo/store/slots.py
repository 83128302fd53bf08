"""Key slots as objects: made, listed, opened, removed. The last slot cannot be removed, not by two clients at once.

What a slot says of itself (label, time made, use) is sealed under the master key. Whoever opens a repository reads all
slots before it tries one, and tries all: neither what is read nor how long it takes says which one opened. Implements
docs/format.md, "Key slots".
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass

from respaldo.backend.base import Backend
from respaldo.codec.keys import KeyRing
from respaldo.codec.seal import OVERHEAD_BYTES
from respaldo.codec.slots import (
    SLOT_BYTES_MAX,
    SLOTS_MAX,
    SLOTS_READ_MAX,
    Kdf,
    Opened,
    Secret,
    Slot,
    parse_slot,
    unwrap,
    wrap,
)
from respaldo.core.errors import Corruption, ObjectMissing, StorageDenied, StorageError, UsageError, WrongSecret
from respaldo.core.seams import Random
from respaldo.format import canonical, frame
from respaldo.format.header import HASH_BYTES, Header, close_object, unclose_object
from respaldo.store.vault import Vault

_NAME_BYTES = 8
_NAME = re.compile(r"keys/[0-9a-f]{16}")
_MARK = re.compile(r"(keys/[0-9a-f]{16})\.[0-9a-f]{16}")
_ABOUT_BYTES = 512
LABEL_BYTES_MAX = 256
USE_BYTES_MAX = 64
RECOVERY = "recovery"
"""The use of a slot whose key is printed, whole; of one in shares it is ``shares 3/5``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotInfo:
    """Describes a slot to a person: object name, method, cost, label, when it was made (ns since the epoch), its use.

    ``use`` is empty for a passphrase or a key file.
    """

    name: str
    method: str
    kdf: Kdf | None
    label: str
    created_ns: int
    use: str = ""


def new_name(random: Random) -> str:
    """Draws the object name of a new slot."""
    return "keys/" + random(_NAME_BYTES).hex()


def make(
    name: str,
    ring: KeyRing,
    secret: Secret,
    kdf: Kdf,
    vault: Vault,
    *,
    label: str,
    now_ns: int,
    random: Random,
    use: str = "",
) -> bytes:
    """Returns the stored bytes of a slot that opens with a secret."""
    if len(label.encode("utf-8", "surrogateescape")) > LABEL_BYTES_MAX:
        raise UsageError(f"a slot's label has at most {LABEL_BYTES_MAX} bytes")
    raw = canonical.pack([1, label, now_ns, *([use] if use else [])])
    message = frame.build(frame.HEAD.pack(frame.STORED, len(raw), len(raw)), raw, _ABOUT_BYTES)
    about = b"".join(vault.sealer.seal("about", name, len(message), message))
    slot = wrap(
        master=ring.master,
        secret=secret,
        kdf=kdf,
        header_hash=ring.header_hash,
        name=name,
        about=about,
        random=random,
        suite=vault.sealer.suite,
    )
    return close_object(slot.encode())


def read(backend: Backend, name: str) -> Slot:
    """Returns a slot; raises `Corruption`, `ObjectMissing`."""
    return parse_slot(name, unclose_object(backend.get(name, 0, SLOT_BYTES_MAX + HASH_BYTES), name))


def _names(backend: Backend) -> list[str]:
    names = sorted(name for name, _ in backend.list("keys") if _NAME.fullmatch(name))
    if len(names) > SLOTS_READ_MAX:
        raise Corruption("keys", f"there are {len(names)} key slots, more than the {SLOTS_READ_MAX} there can be")
    return names


def open_master(backend: Backend, header: Header, secret: Secret) -> Opened:
    """Returns the master key and the slot that gave it; tries every slot of the secret's method.

    Raises `WrongSecret` where none opens; `Corruption`, or what storage said, where none opens and a slot could not be
    read: one such slot does not keep the others from opening.
    """
    stored: list[Slot] = []
    found: list[Opened] = []
    unread: Corruption | StorageError | None = None
    for name in _names(backend):
        try:
            stored.append(read(backend, name))
        except ObjectMissing:
            continue
        except (Corruption, StorageError) as error:
            unread = error
    for slot in stored:
        if slot.method == secret.method:
            try:
                found.append(Opened(master=unwrap(slot, secret, header.hash, header.suite), slot=slot.name))
            except WrongSecret:
                continue
            except Corruption as error:
                unread = Corruption(slot.name, error.reason)
    if found:
        return found[0]
    if unread is not None:
        unread.hint = "no other key slot opens with this passphrase or key; put this one right, or use another"
        raise unread
    raise WrongSecret


def is_there(backend: Backend, name: str) -> bool:
    """Tells whether a slot is there; what was opened with one that has been removed since is not to be used."""
    return _NAME.fullmatch(name) is not None and backend.exists(name) is not None


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
                    use = ""
                case [1, str(label), int(created_ns), str(use)] if 0 < len(use) <= USE_BYTES_MAX:
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
        found.append(SlotInfo(name=name, method=slot.method, kdf=slot.kdf, label=label, created_ns=created_ns, use=use))
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
    use: str = "",
) -> str:
    """Puts a new slot; returns its object name."""
    full = UsageError(f"there are {SLOTS_MAX} key slots already", hint="remove one with: respaldo key remove")
    if len(_names(backend)) >= SLOTS_MAX:
        raise full
    name = new_name(random)
    backend.put(name, [make(name, ring, secret, kdf, vault, label=label, now_ns=now_ns, random=random, use=use)])
    if len(_names(backend)) > SLOTS_MAX:  # another client added one at the same time
        backend.delete(name)
        raise full
    return name


def check_removable(backend: Backend, name: str) -> None:
    """Raises `UsageError` where a slot is not there, or is the last one that is sound and that nobody is removing."""
    listed = [item for item, _ in backend.list("keys")]
    if name not in listed or not _NAME.fullmatch(name):
        raise UsageError(f"there is no key slot {name.removeprefix('keys/')}", hint="list them with: respaldo key list")
    going = {found[1] for item in listed if (found := _MARK.fullmatch(item)) and found[1] in listed}
    stay = [item for item in listed if _NAME.fullmatch(item) and item not in going and item != name]
    for other in stay:
        # Read, and after the listing: the proof that two clients never remove each other's last slot rests on it.
        try:
            read(backend, other)
        except (Corruption, ObjectMissing):
            continue
        return
    if going - {name}:
        raise UsageError(
            "this is the last key slot but for those that another client is removing, or began to remove",
            hint=f"add another first with: respaldo key add, or finish with: respaldo key remove {min(going)[5:]}",
        )
    raise UsageError(
        "this is the last key slot; without it nobody could open the repository",
        hint="add another first with: respaldo key add",
    )


def remove(backend: Backend, name: str, random: Random) -> None:
    """Removes a slot; refuses to remove the last one that is sound, also where several clients remove at once.

    A mark beside the slot says that it is going, and is put before this client looks whether another one stays: of two
    clients, one at least sees the mark of the other. A mark that a crash leaves is removed with its slot.
    """
    check_removable(backend, name)
    mark = f"{name}.{random(_NAME_BYTES).hex()}"
    backend.put(mark, [close_object(b"")])
    try:
        check_removable(backend, name)
    except BaseException:
        backend.discard([mark])  # which is gone where another client has removed the same slot
        raise
    with contextlib.suppress(ObjectMissing):  # another client removed the same one
        backend.delete(name)
    listed = {item for item, _ in backend.list("keys")}
    backend.discard(item for item in listed if (found := _MARK.fullmatch(item)) and found[1] not in listed)
