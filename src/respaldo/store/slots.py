"""Key slots as objects: made, listed, opened, removed. The last slot cannot be removed, not by two clients at once.

What a slot says of itself (label, time made, use) is sealed under the master key. Whoever opens a repository reads all
slots before it tries one, and tries all: neither what is read nor how long it takes says which one opened. Implements
docs/format.md, "Key slots".
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from respaldo.backend.base import Backend
from respaldo.codec import box
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
    Stretching,
    parse_slot,
    rewrap,
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
Opens = Callable[[Slot], bool]
"""Says whether a slot opens what counts."""
RECOVERY = "recovery"
"""The use of a slot whose key is printed, whole; of one in shares it is ``shares 3/5``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotInfo:
    """Describes a slot to a person: object name, method, cost, label, when it was made (ns since the epoch), its use.

    ``use`` is empty for a passphrase or a key file. ``public``: the key that another master key can be wrapped for,
    empty where the slot does not say it. ``epoch``: which master key it opens. Slots of one ``salt`` have one secret.
    """

    name: str
    method: str
    kdf: Kdf | None
    label: str
    created_ns: int
    use: str = ""
    public: bytes = field(default=b"", repr=False)
    epoch: int = 0
    salt: bytes = field(default=b"", repr=False)


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
    slot = wrap(
        master=ring.master,
        secret=secret,
        kdf=kdf,
        header_hash=ring.header_hash,
        name=name,
        about=lambda public: _about(vault, name, label, now_ns, use, public),
        random=random,
        suite=vault.sealer.suite,
    )
    return close_object(slot.encode())


def remake(info: SlotInfo, slot: Slot, name: str, ring: KeyRing, vault: Vault, random: Random) -> Slot:
    """Returns a slot for a ring's master key that opens with the secret of another slot, and says the same of itself.

    ``info`` is of that slot, with its public key; raises `Corruption` where that is none.
    """
    try:
        return rewrap(
            slot,
            public=info.public,
            master=ring.master,
            header_hash=ring.header_hash,
            name=name,
            about=_about(vault, name, info.label, info.created_ns, info.use, info.public),
            random=random,
            suite=vault.sealer.suite,
        )
    except ValueError:
        raise Corruption(info.name, "what it says of its key pair is no public key") from None


def _about(vault: Vault, name: str, label: str, created_ns: int, use: str, public: bytes) -> bytes:
    raw = canonical.pack([2, label, created_ns, use, public])
    message = frame.build(frame.HEAD.pack(frame.STORED, len(raw), len(raw)), raw, _ABOUT_BYTES)
    return b"".join(vault.sealer.seal("about", name, len(message), message))


def read(backend: Backend, name: str) -> Slot:
    """Returns a slot; raises `Corruption`, `ObjectMissing`."""
    return parse_slot(name, unclose_object(backend.get(name, 0, SLOT_BYTES_MAX + HASH_BYTES), name))


def names(backend: Backend) -> list[str]:
    """Lists the slots; raises `Corruption` where there are more than there can be."""
    found = sorted(name for name, _ in backend.list("keys") if _NAME.fullmatch(name))
    if len(found) > SLOTS_READ_MAX:
        raise Corruption("keys", f"there are {len(found)} key slots, more than the {SLOTS_READ_MAX} there can be")
    return found


def open_all(backend: Backend, header: Header, secret: Secret, more: Sequence[Slot] = ()) -> list[Opened]:
    """Returns every master key that a secret gives, with its slot; tries every slot of the secret's method.

    ``more``: slots that lie elsewhere. Raises `WrongSecret` where none opens; `Corruption`, or what storage said, where
    none opens and a slot could not be read: one such slot does not keep the others from opening.
    """
    stored: dict[str, Slot] = {slot.name: slot for slot in more}
    found: list[Opened] = []
    unread: Corruption | StorageError | None = None
    for name in names(backend):
        try:
            stored[name] = read(backend, name)
        except ObjectMissing:
            continue
        except (Corruption, StorageError) as error:
            unread = error
    stretching = Stretching(secret)
    for slot in stored.values():
        if slot.method == secret.method:
            try:
                master = unwrap(slot, stretching, header.hash, header.suite)
                found.append(Opened(master=master, slot=slot.name, boxed=slot.boxed))
            except WrongSecret:
                continue
            except Corruption as error:
                unread = Corruption(slot.name, error.reason)
    if found:
        return found
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
    for name in names(backend):
        try:
            found.append(describe_slot(read(backend, name), vault))
        except ObjectMissing:
            continue
        except StorageDenied as error:
            damaged.append(Corruption(name, f"it cannot be read ({error.reason})"))
        except Corruption as error:
            damaged.append(error)
    return found, damaged


def describe_slot(slot: Slot, vault: Vault) -> SlotInfo:
    """Returns what a slot says of itself; raises `Corruption`."""
    name, length = slot.name, len(slot.about) - OVERHEAD_BYTES
    what = vault.sealer.open("about", name, length, slot.about, name)
    ring = vault.sealer.ring_of("about", name, length, slot.about)
    use, public = "", b""
    match canonical.unpack(frame.unbuild(what, vault.decompressor, name, raw_length_max=_ABOUT_BYTES), name):
        case [1, str(label), int(created_ns)]:
            pass
        case [1, str(label), int(created_ns), str(use)] if 0 < len(use) <= USE_BYTES_MAX:
            pass
        case [2, str(label), int(created_ns), str(use), bytes(public)] if (
            len(use) <= USE_BYTES_MAX and len(public) == box.BOX_KEY_BYTES
        ):
            pass
        case _:
            raise Corruption(name, "what the slot says of itself is malformed")
    return SlotInfo(
        name=name,
        method=slot.method,
        kdf=slot.kdf,
        label=label,
        created_ns=created_ns,
        use=use,
        public=public,
        epoch=ring.epoch if ring is not None else 0,
        salt=slot.salt,
    )


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
    if len(names(backend)) >= SLOTS_MAX:
        raise full
    name = new_name(random)
    backend.put(name, [make(name, ring, secret, kdf, vault, label=label, now_ns=now_ns, random=random, use=use)])
    if len(names(backend)) > SLOTS_MAX:  # another client added one at the same time
        backend.delete(name)
        raise full
    return name


def check_removable(backend: Backend, name: str, opens: Opens | None = None) -> None:
    """Raises `UsageError` where a slot is not there, or is the last one that is sound and that nobody is removing.

    ``opens``: whether another slot opens what counts; without it, any sound one does.
    """
    listed = [item for item, _ in backend.list("keys")]
    if name not in listed or not _NAME.fullmatch(name):
        raise UsageError(f"there is no key slot {name.removeprefix('keys/')}", hint="list them with: respaldo key list")
    going = {found[1] for item in listed if (found := _MARK.fullmatch(item)) and found[1] in listed}
    stay = [item for item in listed if _NAME.fullmatch(item) and item not in going and item != name]
    for other in stay:
        # Read, and after the listing: the proof that two clients never remove each other's last slot rests on it.
        try:
            slot = read(backend, other)
        except (Corruption, ObjectMissing):
            continue
        if opens is None or opens(slot):
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


def remove(backend: Backend, name: str, random: Random, opens: Opens | None = None) -> None:
    """Removes a slot; refuses to remove the last one that is sound, also where several clients remove at once.

    ``opens`` as for `check_removable`.

    A mark beside the slot says that it is going, and is put before this client looks whether another one stays: of two
    clients, one at least sees the mark of the other. A mark that a crash leaves is removed with its slot.
    """
    check_removable(backend, name, opens)
    mark = f"{name}.{random(_NAME_BYTES).hex()}"
    backend.put(mark, [close_object(b"")])
    try:
        check_removable(backend, name, opens)
    except BaseException:
        backend.discard([mark])  # which is gone where another client has removed the same slot
        raise
    with contextlib.suppress(ObjectMissing):  # another client removed the same one
        backend.delete(name)
    sweep_marks(backend)


def sweep_marks(backend: Backend) -> None:
    """Deletes marks of slots that are gone."""
    listed = {item for item, _ in backend.list("keys")}
    backend.discard(item for item in listed if (found := _MARK.fullmatch(item)) and found[1] not in listed)
