"""Epochs: what the holder of one master key must know of those before it, and the slots that open it.

The record is sealed under the master key of its own epoch. Around it, in clear, stand the slots of a rotation that is
not finished, so that one put makes the new key and everybody's way to it. Implements docs/format.md, "Epochs".
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from respaldo.core.errors import Corruption
from respaldo.format import canonical
from respaldo.format.header import close_object, unclose_object
from respaldo.format.logbook import CLIENT_BYTES

MASTER_BYTES: Final = 32
CONTENT_KEYS_BYTES: Final = 192
CHECK_BYTES: Final = 32
PUBLIC_BYTES: Final = 32
SLOTS_MAX: Final = 16
EPOCH_MAX: Final = 1 << 32
FOLDER: Final = "epochs"

_RECORD: Final = re.compile(r"epochs/([0-9a-f]{16})\.([0-9a-f]{16})", re.ASCII)
_ENDED: Final = re.compile(r"epochs/([0-9a-f]{16})\.ended", re.ASCII)
_REMOVED: Final = re.compile(r"epochs/([0-9a-f]{16})\.removed", re.ASCII)
_RETIRING: Final = re.compile(r"epochs/([0-9a-f]{16})\.retiring", re.ASCII)


def record_name(epoch: int, revision: int) -> str:
    """Returns the name of the record of an epoch."""
    return f"{FOLDER}/{epoch:016x}.{revision:016x}"


def retiring_name(epoch: int) -> str:
    """Returns the name of the sign that nothing may be written under an epoch any more."""
    return f"{FOLDER}/{epoch:016x}.retiring"


def ended_name(epoch: int) -> str:
    """Returns the name of the sign that an epoch of an area has ended: its client has another credential."""
    return f"{FOLDER}/{epoch:016x}.ended"


def parse_ended_name(name: str) -> int | None:
    """Returns the epoch of an area that a sign says to have ended, None where the name is none of such a sign."""
    match = _ENDED.fullmatch(name)
    return int(match[1], 16) if match else None


def removed_name(epoch: int) -> str:
    """Returns the name of the sign that the client of an area, in its epoch, was removed."""
    return f"{FOLDER}/{epoch:016x}.removed"


def parse_removed_name(name: str) -> int | None:
    """Returns the epoch of an area whose client a sign says to have been removed, None where it is another name."""
    match = _REMOVED.fullmatch(name)
    return int(match[1], 16) if match else None


def parse_record_name(name: str) -> tuple[int, int] | None:
    """Returns epoch and revision of a record's name, None where it is none."""
    match = _RECORD.fullmatch(name)
    return (int(match[1], 16), int(match[2], 16)) if match else None


def parse_retiring_name(name: str) -> int | None:
    """Returns the epoch that a sign is about, None where the name is none of a sign."""
    match = _RETIRING.fullmatch(name)
    return int(match[1], 16) if match else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Former:
    """Is what stays known of an earlier epoch, also after its master key was destroyed.

    ``check`` tells its master key. ``admin`` is its public key, valid in the log for entries up to ``heads``: by
    client, the number of the last one.
    """

    epoch: int
    check: bytes
    admin: bytes
    heads: tuple[tuple[bytes, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRecord:
    """Is what an epoch says. ``masters``: of earlier epochs that are in use still, by epoch. ``former``: all of those.

    ``content_keys`` name content as before. ``without``: key slots that were to be shut out.
    """

    time_ns: int
    content_keys: bytes = field(repr=False)
    masters: tuple[tuple[int, bytes], ...] = field(default=(), repr=False)
    former: tuple[Former, ...] = ()
    without: tuple[str, ...] = ()

    def encode(self) -> bytes:
        """Returns the canonical bytes."""
        former = [
            [item.epoch, item.check, item.admin, [[client, number] for client, number in item.heads]]
            for item in self.former
        ]
        masters = [[epoch, master] for epoch, master in self.masters]
        return canonical.pack([1, self.time_ns, self.content_keys, masters, former, list(self.without)])


def parse_record(data: bytes, what: str) -> EpochRecord:
    """Parses what an epoch says; raises `Corruption`."""
    wrong = Corruption(what, "not a record of an epoch of this format")
    match canonical.unpack(data, what):
        case [1, int(time_ns), bytes(content_keys), list(masters), list(former), list(without)] if (
            canonical.is_time(time_ns) and len(content_keys) == CONTENT_KEYS_BYTES
        ):
            kept = tuple(_master(item, wrong) for item in masters)
            names = tuple(item for item in without if isinstance(item, str))
            known = tuple(_former(item, wrong) for item in former)
            numbers = [item.epoch for item in known]
            if numbers != sorted(set(numbers)) or len(names) != len(without):
                raise wrong
            if [epoch for epoch, _ in kept] != sorted({epoch for epoch, _ in kept} & set(numbers)):
                raise wrong
            return EpochRecord(time_ns=time_ns, content_keys=content_keys, masters=kept, former=known, without=names)
    raise wrong


def _master(value: object, wrong: Corruption) -> tuple[int, bytes]:
    match value:
        case [int(epoch), bytes(master)] if 0 <= epoch < EPOCH_MAX and len(master) == MASTER_BYTES:
            return epoch, master
    raise wrong


def _former(value: object, wrong: Corruption) -> Former:
    match value:
        case [int(epoch), bytes(check), bytes(admin), list(heads)] if (
            0 <= epoch < EPOCH_MAX and len(check) == CHECK_BYTES and len(admin) == PUBLIC_BYTES
        ):
            return Former(epoch=epoch, check=check, admin=admin, heads=tuple(parse_head(head, wrong) for head in heads))
    raise wrong


def parse_head(value: object, wrong: Corruption) -> tuple[bytes, int]:
    """Returns whose log went how far; raises an error where it says no such thing."""
    match value:
        case [bytes(client), int(number)] if len(client) == CLIENT_BYTES and 0 <= number < 1 << 63:
            return client, number
    raise wrong


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochObject:
    """Is the object that holds an epoch's record, sealed, and slots (name, encoded) that are not in place yet."""

    sealed: bytes
    slots: tuple[tuple[str, bytes], ...] = ()

    def encode(self) -> bytes:
        """Returns the stored bytes, closing hash included."""
        return close_object(canonical.pack([1, [[name, slot] for name, slot in self.slots], self.sealed]))


def parse_object(data: bytes, what: str) -> EpochObject:
    """Parses the object of a record, which stays sealed; raises `Corruption`."""
    match canonical.unpack(unclose_object(data, what), what):
        case [1, list(slots), bytes(sealed)] if len(slots) <= SLOTS_MAX:
            found = []
            for item in slots:
                match item:
                    case [str(name), bytes(slot)]:
                        found.append((name, slot))
                    case _:
                        raise Corruption(what, "not an epoch of this format")
            return EpochObject(sealed=sealed, slots=tuple(found))
    raise Corruption(what, "not an epoch of this format")
