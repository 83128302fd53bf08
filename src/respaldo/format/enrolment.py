"""Enrolment: what the owner of a repository keeps of a client that writes into an area of its own.

An enrolment, a renewal for each time that the keys were changed and, where the client was removed, a removal. All are
records of kind ``client`` under the owner's keys, never in the area. Implements docs/format.md, "Enrolment" and
"Renewal".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from respaldo.core.errors import Corruption
from respaldo.core.ids import RANDOM_ID_BYTES
from respaldo.format import canonical
from respaldo.format.epoch import EPOCH_MAX, parse_head
from respaldo.format.header import close_object, unclose_object

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
_OBJECT: Final = re.compile(
    r"enrolled/([0-9a-f]{32})(?:\.(removed|[1-9a-f][0-9a-f]{0,7}))?(?:-([1-9a-f][0-9a-f]{0,15}))?(\.copy)?", re.ASCII
)
_REMOVED: Final = "removed"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordName:
    """Is what an object's name says: whose record it is, of what, and whether it is the second one of its kind.

    Each record is put twice, because one bad sector would make a whole area unreadable. ``renewal``: the area's epoch
    that begins with it, 0 of an enrolment. ``epoch``: of the owner's that it was sealed anew under, 0 if it was not.
    """

    client: bytes
    removed: bool = False
    renewal: int = 0
    copy: bool = False
    epoch: int = 0

    def object_name(self, epoch: int | None = None) -> str:
        """Returns the name of the object, or of the one that it becomes when it is sealed anew under an epoch."""
        epoch = self.epoch if epoch is None else epoch
        return "".join(
            (
                ENROLLED + self.client.hex(),
                f".{_REMOVED}" if self.removed else f".{self.renewal:x}" if self.renewal else "",
                f"-{epoch:x}" if epoch else "",
                ".copy" if self.copy else "",
            )
        )


def parse_record_name(name: str) -> RecordName | None:
    """Parses the name of an enrolment, a renewal or a removal; None for another name."""
    found = _OBJECT.fullmatch(name)
    if found is None:
        return None
    return RecordName(
        client=bytes.fromhex(found[1]),
        removed=found[2] == _REMOVED,
        renewal=int(found[2], 16) if found[2] and found[2] != _REMOVED else 0,
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
        case [1, bytes(client), int(time_ns), bytes(joined)] if len(client) == CLIENT_BYTES and canonical.is_time(
            time_ns
        ):
            return Removal(client=client, time_ns=time_ns, runs=_parse_runs(joined, what))
    raise Corruption(what, "not a removal of this format")


SIGN_BYTES_MAX: Final = 1024
SIGNATURE_BYTES: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovalSign:
    """Tells a client, in its area and in clear, that it was removed: signed by the owner, whose key it has pinned."""

    client: bytes
    time_ns: int
    signature: bytes = b""

    def signed(self) -> bytes:
        """Returns what is signed."""
        return canonical.pack([1, self.client, self.time_ns])

    def encode(self) -> bytes:
        """Returns the object's bytes, closing hash included."""
        return close_object(canonical.pack([1, self.signed(), self.signature]))


def parse_removal_sign(data: bytes, what: str) -> RemovalSign:
    """Parses such a sign; checks no signature, which takes keys. Raises `Corruption`."""
    match canonical.unpack(unclose_object(data, what), what) if len(data) <= SIGN_BYTES_MAX else None:
        case [1, bytes(signed), bytes(signature)] if len(signature) == SIGNATURE_BYTES:
            match canonical.unpack(signed, what):
                case [1, bytes(client), int(time_ns)] if len(client) == CLIENT_BYTES and canonical.is_time(time_ns):
                    return RemovalSign(client=client, time_ns=time_ns, signature=signature)
    raise Corruption(what, "not the sign of a removal of this format")


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """Says that a client and its area have other keys from then on, and what of those before still counts.

    ``epoch``: of the area, which begins with it. ``sign_public``, ``box_public``: the client's keys; ``master``: the
    area's. ``runs``: those that had begun. ``heads``: by signer, the number of the last entry of its log.
    """

    client: bytes
    epoch: int
    time_ns: int
    sign_public: bytes
    box_public: bytes
    master: bytes = field(repr=False)
    runs: frozenset[bytes]
    heads: tuple[tuple[bytes, int], ...] = ()

    def encode(self) -> bytes:
        """Returns the canonical bytes."""
        keys = [self.sign_public, self.box_public, self.master]
        heads = [[signer, number] for signer, number in self.heads]
        return canonical.pack([1, self.client, self.epoch, self.time_ns, *keys, b"".join(sorted(self.runs)), heads])


def parse_renewal(data: bytes, what: str) -> Renewal:
    """Parses a renewal; raises `Corruption`."""
    match canonical.unpack(data, what):
        case [
            1,
            bytes(client),
            int(epoch),
            int(time_ns),
            bytes(sign_public),
            bytes(box_public),
            bytes(master),
            bytes(joined),
            list(heads),
        ] if (
            len(client) == CLIENT_BYTES
            and 0 < epoch < EPOCH_MAX
            and canonical.is_time(time_ns)
            and len(sign_public) == len(box_public) == len(master) == KEY_BYTES
        ):
            return Renewal(
                client=client,
                epoch=epoch,
                time_ns=time_ns,
                sign_public=sign_public,
                box_public=box_public,
                master=master,
                runs=_parse_runs(joined, what),
                heads=tuple(parse_head(head, Corruption(what, "not a renewal of this format")) for head in heads),
            )
    raise Corruption(what, "not a renewal of this format")


def _parse_runs(joined: bytes, what: str) -> frozenset[bytes]:
    runs = [joined[at : at + RANDOM_ID_BYTES] for at in range(0, len(joined), RANDOM_ID_BYTES)]
    if len(joined) % RANDOM_ID_BYTES or runs != sorted(set(runs)):
        raise Corruption(what, "the runs that it names are not in order")
    return frozenset(runs)


def parse_client_record(data: bytes, what: str) -> Enrolment | Renewal | Removal:
    """Parses what stands under the name of an enrolment, a renewal or a removal; raises `Corruption`."""
    name = parse_record_name(what)
    if name is None:
        raise Corruption(what, "no record of a client is called so")
    found: Enrolment | Renewal | Removal
    if name.removed:
        found = parse_removal(data, what)
    elif name.renewal:
        found = renewal = parse_renewal(data, what)
        if renewal.epoch != name.renewal:
            raise Corruption(what, "it is of another epoch")
    else:
        found = parse_enrolment(data, what)
    if found.client != name.client:
        raise Corruption(what, "it is of another client")
    return found
