"""The log: signed entries of each client, each naming the one before and what was seen of the other clients.

An object holds entries of one client that follow each other, and is named by the last one, so that a later object may
repeat earlier ones and take their place. Implements docs/format.md, "Log". Never checks a signature: that takes keys.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from respaldo.core.errors import Corruption
from respaldo.format import canonical

CLIENT_BYTES: Final = 16
HASH_BYTES: Final = 32
KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
FIRST: Final = bytes(HASH_BYTES)
"""What the first entry of a client names as the one before."""
SUBJECTS_MAX: Final = 1 << 17
HEADS_MAX: Final = 1 << 12
VERB_BYTES_MAX: Final = 64
NOTE_BYTES_MAX: Final = 1 << 12
SUBJECT_BYTES_MAX: Final = 64
FANOUT: Final = 16
ENTRIES_MAX: Final = 256

_NAME: Final = re.compile(r"log/([0-9a-f]{32})\.([0-9a-f]{16})(?:-[0-9a-f]{1,16})?", re.ASCII)


class Head(NamedTuple):
    """Is how far somebody has seen a client's log: the number of an entry, and its hash."""

    client: bytes
    number: int
    hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Says what a client did to a repository, in the order in which it did it.

    ``number`` counts from 0; ``previous`` is the hash of the entry before. ``key``: the client's public key, in its
    first entry alone. ``heads``: of other clients, what is new since the entry before. ``verb``: what was done;
    ``subjects``: to what (ids of snapshots, each with the SHA-256 of the manifest's object behind it in a commit).
    ``access``: number and hash of the last line of the client's own record of accesses. ``admin`` and ``signature``
    are 64 bytes each, the first one empty where no admin key signed.
    """

    client: bytes
    number: int
    previous: bytes
    time_ns: int
    verb: str
    subjects: tuple[bytes, ...] = ()
    note: str = ""
    key: bytes = b""
    heads: tuple[Head, ...] = ()
    access: tuple[int, bytes] = (0, b"")
    admin: bytes = b""
    signature: bytes = b""

    def signed(self) -> bytes:
        """Returns the bytes that signatures are of."""
        return canonical.pack(
            [
                1,
                self.client,
                self.number,
                self.previous,
                self.key,
                self.time_ns,
                [list(head) for head in self.heads],
                self.verb,
                list(self.subjects),
                self.note,
                list(self.access),
            ]
        )

    def encode(self) -> bytes:
        """Returns the canonical bytes."""
        return canonical.pack([self.signed(), self.admin, self.signature])

    @property
    def hash(self) -> bytes:
        """Names the entry to the one that follows it."""
        return hashlib.sha256(self.encode()).digest()

    @property
    def head(self) -> Head:
        """Is what others say who have seen it."""
        return Head(self.client, self.number, self.hash)


def object_name(client: bytes, number: int, epoch: int = 0) -> str:
    """Returns the name of the object whose last entry has a number; ``epoch``: that it was sealed anew under."""
    return f"log/{client.hex()}.{number:016x}" + (f"-{epoch:x}" if epoch else "")


def parse_name(name: str) -> tuple[bytes, int] | None:
    """Returns client and number of a log object's name, None where it is none."""
    match = _NAME.fullmatch(name)
    return (bytes.fromhex(match[1]), int(match[2], 16)) if match else None


def first_number(number: int) -> int:
    """Returns the number of the first entry that the object of an entry should hold.

    Where 16 entries are full, or 16 times as many, one object repeats them all: a reader finds few.
    """
    count = 1
    while (number + 1) % (count * FANOUT) == 0 and count * FANOUT <= ENTRIES_MAX:
        count *= FANOUT
    return number + 1 - count


def encode_object(entries: Sequence[bytes]) -> bytes:
    """Returns the canonical bytes of an object of encoded entries."""
    return canonical.pack([1, list(entries)])


def parse_object(data: bytes, what: str) -> tuple[Entry, ...]:
    """Parses an object's entries and checks that they belong under its name; raises `Corruption`."""
    named = parse_name(what)
    match canonical.unpack(data, what):
        case [1, list(items)] if named and 0 < len(items) <= ENTRIES_MAX:
            entries = tuple(parse_entry(item, what) for item in items)
        case _:
            raise Corruption(what, "not a log of this format")
    client, number = named
    for place, entry in enumerate(reversed(entries)):
        if entry.client != client or entry.number != number - place:
            raise Corruption(what, "it holds entries that do not belong under its name")
    return entries


def parse_entry(data: object, what: str) -> Entry:
    """Parses one entry; raises `Corruption`."""
    if isinstance(data, bytes):
        match canonical.unpack(data, what):
            case [bytes(signed), bytes(admin), bytes(signature)] if (
                len(admin) in {0, SIGNATURE_BYTES} and len(signature) == SIGNATURE_BYTES
            ):
                return _parse_signed(signed, admin, signature, what)
    raise Corruption(what, "not an entry of a log")


def _parse_signed(data: bytes, admin: bytes, signature: bytes, what: str) -> Entry:
    match canonical.unpack(data, what):
        case [
            1,
            bytes(client),
            int(number),
            bytes(previous),
            bytes(key),
            int(time_ns),
            list(heads),
            str(verb),
            list(subjects),
            str(note),
            [int(lines), bytes(access)],
        ] if (
            len(client) == CLIENT_BYTES
            and 0 <= number < 1 << 63
            and len(previous) == HASH_BYTES
            and len(key) == (0 if number else KEY_BYTES)
            and (number > 0 or previous == FIRST)
            and canonical.is_time(time_ns)
            and len(heads) <= HEADS_MAX
            and len(subjects) <= SUBJECTS_MAX
            and 0 < len(verb.encode("utf-8", "surrogateescape")) <= VERB_BYTES_MAX
            and len(note.encode("utf-8", "surrogateescape")) <= NOTE_BYTES_MAX
            and lines >= 0
            and len(access) == (HASH_BYTES if lines else 0)
        ):
            named = tuple(item for item in subjects if isinstance(item, bytes) and len(item) <= SUBJECT_BYTES_MAX)
            if len(named) == len(subjects):
                return Entry(
                    client=client,
                    number=number,
                    previous=previous,
                    key=key,
                    time_ns=time_ns,
                    heads=tuple(_parse_head(head, what) for head in heads),
                    verb=verb,
                    subjects=named,
                    note=note,
                    access=(lines, access),
                    admin=admin,
                    signature=signature,
                )
    raise Corruption(what, "not an entry of a log")


def _parse_head(value: object, what: str) -> Head:
    match value:
        case [bytes(client), int(number), bytes(seen)] if (
            len(client) == CLIENT_BYTES and 0 <= number < 1 << 63 and len(seen) == HASH_BYTES
        ):
            return Head(client, number, seen)
    raise Corruption(what, "not a head of a log")
