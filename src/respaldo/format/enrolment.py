"""Enrolment: what the owner of a repository keeps of a client that writes into an area of its own.

An enrolment and, where the client was removed, a removal. Both are records of kind ``client`` under the owner's keys,
never in the area. Implements docs/format.md, "Enrolment".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from respaldo.core.errors import Corruption
from respaldo.core.ids import RANDOM_ID_BYTES
from respaldo.format import canonical

CLIENT_BYTES: Final = 16
KEY_BYTES: Final = 32
HASH_BYTES: Final = 32
CLIENT_NAME_BYTES_MAX: Final = 64
LIST: Final = "list"
RESTORE: Final = "restore"
RIGHTS: Final = (LIST, RESTORE)
"""What a client may be given beside writing, in the order in which they stand."""
ENROLLED: Final = "enrolled/"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)
_OBJECT: Final = re.compile(r"enrolled/([0-9a-f]{32})(\.removed)?(?:-([1-9a-f][0-9a-f]{0,15}))?(\.copy)?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordName:
    """Is what an object's name says: whose record it is, of what, and whether it is the second one of its kind.

    Each record is put twice, because one bad sector would make a whole area unreadable. ``epoch``: that it was sealed
    anew under, 0 where it was not.
    """

    client: bytes
    removed: bool = False
    copy: bool = False
    epoch: int = 0

    def object_name(self, epoch: int | None = None) -> str:
        """Returns the name of the object, or of the one that it becomes when it is sealed anew under an epoch."""
        epoch = self.epoch if epoch is None else epoch
        return "".join(
            (
                ENROLLED + self.client.hex(),
                ".removed" if self.removed else "",
                f"-{epoch:x}" if epoch else "",
                ".copy" if self.copy else "",
            )
        )


def parse_record_name(name: str) -> RecordName | None:
    """Parses the name of an enrolment or a removal; None for another name."""
    found = _OBJECT.fullmatch(name)
    if found is None:
        return None
    return RecordName(
        client=bytes.fromhex(found[1]),
        removed=found[2] is not None,
        copy=found[4] is not None,
        epoch=int(found[3] or "0", 16),
    )


def is_client_name(name: str) -> bool:
    """Tells whether a client may be called so: letters, digits, dots, dashes and underscores; 64 at most."""
    return len(name) <= CLIENT_NAME_BYTES_MAX and _NAME.fullmatch(name) is not None


def parse_rights(rights: Iterable[object], what: str) -> tuple[str, ...]:
    """Returns rights as they stand; raises `Corruption` unless they are known, in order, each once."""
    found = tuple(rights)
    if found != tuple(right for right in RIGHTS if right in found):
        raise Corruption(what, "it gives rights that this program does not know")
    return tuple(right for right in RIGHTS if right in found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """Is a client as its owner knows it.

    ``client``: its id, which its signing key makes. ``sign_public``, ``box_public``: its keys. ``header_hash`` and
    ``master``: of its area.
    """

    client: bytes
    name: str
    rights: tuple[str, ...]
    sign_public: bytes
    box_public: bytes
    header_hash: bytes
    master: bytes = field(repr=False)
    time_ns: int

    def encode(self) -> bytes:
        """Returns the canonical bytes."""
        keys = [self.sign_public, self.box_public, self.header_hash, self.master]
        return canonical.pack([1, self.client, self.name, list(self.rights), *keys, self.time_ns])


def parse_enrolment(data: bytes, what: str) -> Enrolment:
    """Parses an enrolment; raises `Corruption`."""
    match canonical.unpack(data, what):
        case [
            1,
            bytes(client),
            str(name),
            list(rights),
            bytes(sign_public),
            bytes(box_public),
            bytes(header_hash),
            bytes(master),
            int(time_ns),
        ] if (
            len(client) == CLIENT_BYTES
            and is_client_name(name)
            and len(sign_public) == len(box_public) == len(master) == KEY_BYTES
            and len(header_hash) == HASH_BYTES
            and canonical.is_time(time_ns)
        ):
            return Enrolment(
                client=client,
                name=name,
                rights=parse_rights(rights, what),
                sign_public=sign_public,
                box_public=box_public,
                header_hash=header_hash,
                master=master,
                time_ns=time_ns,
            )
    raise Corruption(what, "not an enrolment of this format")


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """Says that a client was removed, and which of its runs count: those that had begun by then, ids ascending."""

    client: bytes
    time_ns: int
    runs: frozenset[bytes]

    def encode(self) -> bytes:
        """Returns the canonical bytes."""
        return canonical.pack([1, self.client, self.time_ns, b"".join(sorted(self.runs))])


def parse_removal(data: bytes, what: str) -> Removal:
    """Parses a removal; raises `Corruption`."""
    match canonical.unpack(data, what):
        case [1, bytes(client), int(time_ns), bytes(joined)] if (
            len(client) == CLIENT_BYTES and canonical.is_time(time_ns) and len(joined) % RANDOM_ID_BYTES == 0
        ):
            runs = [joined[at : at + RANDOM_ID_BYTES] for at in range(0, len(joined), RANDOM_ID_BYTES)]
            if runs == sorted(set(runs)):
                return Removal(client=client, time_ns=time_ns, runs=frozenset(runs))
    raise Corruption(what, "not a removal of this format")


def parse_client_record(data: bytes, what: str) -> Enrolment | Removal:
    """Parses what stands under the name of an enrolment or of a removal; raises `Corruption`."""
    name = parse_record_name(what)
    if name is None:
        raise Corruption(what, "no record of a client is called so")
    found = parse_removal(data, what) if name.removed else parse_enrolment(data, what)
    if found.client != name.client:
        raise Corruption(what, "it is of another client")
    return found
