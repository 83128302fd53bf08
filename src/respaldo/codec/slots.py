"""Key slots: the master key, wrapped under a passphrase (Argon2id) or under a 256-bit key.

Invariant: parameters are checked against bounds before any work is done with them, and a slot commits to its key: it
opens under one secret only. A slot is bound to its header and to its own name and parameters. From every secret a key
pair follows, to whose public half another master key can be wrapped by somebody who does not know the secret
(`rewrap`): that is how keys are rotated. Implements docs/format.md, "Key slots". Parameters: RFC 9106, second
recommended option.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import msgpack

from respaldo.codec import box
from respaldo.codec.keys import KEY_BYTES, derive
from respaldo.codec.seal import OVERHEAD_BYTES, open_with, seal_with
from respaldo.core.errors import Corruption, WrongSecret
from respaldo.core.ids import AES_256_GCM
from respaldo.core.seams import Random

PASSPHRASE: Final = "argon2id"  # noqa: S105 - a method
FILE_KEY: Final = "key"
SLOTS_MAX = 16
"""What a writer makes at most."""
SLOTS_READ_MAX = 32
"""What a reader tries at most: two clients that add the last one at the same moment lock nobody out."""
SLOT_BYTES_MAX = 4096
SALT_BYTES = 16
WRAPPED_BYTES = KEY_BYTES + OVERHEAD_BYTES
BOXED_BYTES = KEY_BYTES + box.BOX_OVERHEAD_BYTES
_MEMORY_FLOOR_KIB = 64 << 10
_MEMORY_CEILING_KIB = 1 << 20
_PASSES_CEILING = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Kdf:
    """Gives the cost of turning a passphrase into a key: ``passes`` over ``memory_kib`` KiB, one lane.

    Raises `Corruption` where they lie outside 1..10 passes and 64 MiB..1 GiB.
    """

    passes: int
    memory_kib: int

    def __post_init__(self) -> None:
        if not 1 <= self.passes <= _PASSES_CEILING:
            raise Corruption("key slot", f"asks for {self.passes} passes of Argon2id")
        if not _MEMORY_FLOOR_KIB <= self.memory_kib <= _MEMORY_CEILING_KIB:
            raise Corruption("key slot", f"asks for {self.memory_kib} KiB of memory")


STANDARD = Kdf(passes=3, memory_kib=64 << 10)
SENSITIVE = Kdf(passes=3, memory_kib=256 << 10)
KDFS: Final = {"standard": STANDARD, "sensitive": SENSITIVE}
"""The costs that have a name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """Is what a person or a script holds: a passphrase, or the 32 bytes of a key file."""

    passphrase: bytes | None = field(default=None, repr=False)
    key: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if (self.passphrase is None) == (self.key is None):
            msg = "a secret is either a passphrase or a key"
            raise ValueError(msg)
        if self.key is not None and len(self.key) != KEY_BYTES:
            msg = "a key is 32 bytes long"
            raise ValueError(msg)

    @property
    def method(self) -> str:
        """The method of the slots that this secret may open."""
        return PASSPHRASE if self.key is None else FILE_KEY


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """Is what a secret gave: the master key, and the object name of the slot that it opened.

    ``boxed``: whether that slot was made by a rotation.
    """

    master: bytes = field(repr=False)
    slot: str
    boxed: bool = False

    def __post_init__(self) -> None:
        if len(self.master) != KEY_BYTES:
            msg = "a master key is 32 bytes long"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """Is one key slot, parsed and within bounds. ``about`` is sealed under the master key (label, time made).

    ``boxed``: it was made without its secret, for the key pair that follows from it.
    """

    name: str
    method: str
    kdf: Kdf | None
    salt: bytes
    wrapped: bytes
    about: bytes
    boxed: bool = False

    def encode(self) -> bytes:
        """Returns the canonical bytes of the slot, without the SHA-256 that ends the object."""
        cost = [] if self.kdf is None else [self.kdf.passes, self.kdf.memory_kib]
        form = _form(boxed=self.boxed)
        packed: bytes = msgpack.packb([form, self.method, cost, self.salt, self.wrapped, self.about], use_bin_type=True)
        return packed


def parse_slot(name: str, data: bytes) -> Slot:
    """Parses a slot; raises `Corruption` on anything that is not canonical or lies out of bounds."""
    if len(data) > SLOT_BYTES_MAX:
        raise Corruption(name, "longer than a key slot can be")
    try:
        match msgpack.unpackb(data, use_list=True, strict_map_key=True):
            case [1 | 2 as form, str(method), list(cost), bytes(salt), bytes(wrapped), bytes(about)]:
                boxed = form == 2
            case _:
                raise Corruption(name, "not a key slot of this format")
    except (ValueError, msgpack.UnpackException):
        raise Corruption(name, "not a key slot") from None
    kdf = None
    match method, cost:
        case "argon2id", [int(passes), int(memory_kib)] if type(passes) is not bool:
            try:
                kdf = Kdf(passes=passes, memory_kib=memory_kib)
            except Corruption as error:
                raise Corruption(name, error.reason) from None
        case "key", []:
            pass
        case _:
            raise Corruption(name, "a key slot of an unknown method")
    slot = Slot(name=name, method=method, kdf=kdf, salt=salt, wrapped=wrapped, about=about, boxed=boxed)
    length = BOXED_BYTES if boxed else WRAPPED_BYTES
    if len(salt) != SALT_BYTES or len(wrapped) != length or slot.encode() != data:
        raise Corruption(name, "not a canonical key slot")
    return slot


@dataclass(slots=True)
class Stretching:
    """Turns a secret into the keys of slots; of slots with one salt and cost, the work is done once."""

    secret: Secret
    _done: dict[tuple[bytes, Kdf | None], bytes] = field(default_factory=dict, repr=False)

    def key(self, kdf: Kdf | None, salt: bytes) -> bytes:
        """Returns the wrapping key of slots of one salt and cost."""
        if (salt, kdf) not in self._done:
            self._done[salt, kdf] = _wrapping_key(self.secret, kdf, salt)
        return self._done[salt, kdf]

    def public(self, slot: Slot) -> bytes:
        """Returns the public half of the key pair that follows from the secret in a slot."""
        return box.box_public(_box_seed(self.key(slot.kdf, slot.salt)))


def _wrapping_key(secret: Secret, kdf: Kdf | None, salt: bytes) -> bytes:
    if secret.key is not None:
        return derive("slot key", secret.key + salt)
    if secret.passphrase is None or kdf is None:
        msg = "a passphrase needs the cost of its slot"
        raise ValueError(msg)
    from nacl.exceptions import RuntimeError as Exhausted  # noqa: PLC0415 - 30 ms of start-up that only opening needs
    from nacl.pwhash import argon2id  # noqa: PLC0415

    try:
        stretched = argon2id.kdf(KEY_BYTES, secret.passphrase, salt, opslimit=kdf.passes, memlimit=kdf.memory_kib << 10)
    except (Exhausted, MemoryError):
        raise Corruption("key slot", f"there is no memory to try it: it asks for {kdf.memory_kib >> 10} MiB") from None
    return derive("slot passphrase", stretched + salt)


def _box_seed(wrapping: bytes) -> bytes:
    return derive("slot box", wrapping)


def _form(*, boxed: bool) -> int:
    return 2 if boxed else 1


def _slot_aad(
    header_hash: bytes, name: str, method: str, kdf: Kdf | None, salt: bytes, *, boxed: bool = False
) -> bytes:
    cost = [] if kdf is None else [kdf.passes, kdf.memory_kib]
    fields = [_form(boxed=boxed), "slot", header_hash, name, method, cost, salt]
    packed: bytes = msgpack.packb(fields, use_bin_type=True)
    return packed


def wrap(
    *,
    master: bytes,
    secret: Secret,
    kdf: Kdf,
    header_hash: bytes,
    name: str,
    about: Callable[[bytes], bytes],
    random: Random,
    suite: str = AES_256_GCM,
) -> Slot:
    """Makes a slot that opens with a secret. Takes the time that ``kdf`` asks for, unless the secret is a key.

    ``about``: returns what the slot says of itself, sealed, given the public key that follows from its secret.
    """
    salt = random(SALT_BYTES)
    cost = kdf if secret.key is None else None
    wrapping = _wrapping_key(secret, cost, salt)
    aad = _slot_aad(header_hash, name, secret.method, cost, salt)
    head, body = seal_with(derive("slot seal", wrapping), derive("slot hedge", wrapping), aad, master, random, suite)
    described = about(box.box_public(_box_seed(wrapping)))
    return Slot(name=name, method=secret.method, kdf=cost, salt=salt, wrapped=head + body, about=described)


def rewrap(
    slot: Slot,
    *,
    public: bytes,
    master: bytes,
    header_hash: bytes,
    name: str,
    about: bytes,
    random: Random,
    suite: str = AES_256_GCM,
) -> Slot:
    """Makes a slot for another master key that opens with the secret of a slot, given that one's public key alone.

    It costs its secret what the old one does. Raises ValueError for what is no public key.
    """
    aad = _slot_aad(header_hash, name, slot.method, slot.kdf, slot.salt, boxed=True)
    wrapped = box.lock(public, aad, master, random, suite)
    return Slot(name=name, method=slot.method, kdf=slot.kdf, salt=slot.salt, wrapped=wrapped, about=about, boxed=True)


def unwrap(slot: Slot, secret: Secret | Stretching, header_hash: bytes, suite: str = AES_256_GCM) -> bytes:
    """Returns the master key; raises `WrongSecret` where the secret does not open this slot.

    Raises `Corruption` where there is no memory for what the slot costs: whether it opens is not known then.
    """
    stretching = secret if isinstance(secret, Stretching) else Stretching(secret)
    if slot.method != stretching.secret.method:
        raise WrongSecret
    wrapping = stretching.key(slot.kdf, slot.salt)
    aad = _slot_aad(header_hash, slot.name, slot.method, slot.kdf, slot.salt, boxed=slot.boxed)
    try:
        if slot.boxed:
            master = box.unlock(_box_seed(wrapping), aad, slot.wrapped, slot.name, suite)
        else:
            master = open_with(derive("slot seal", wrapping), aad, slot.wrapped, slot.name, suite)
    except Corruption:
        raise WrongSecret from None
    if len(master) != KEY_BYTES:
        raise Corruption(slot.name, "wraps something that is not a master key")
    return master
