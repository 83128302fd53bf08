"""Notices: what a collector tells a client that cannot read condemnations, in a box that the client opens.

Which packs a condemnation names, where what lay in them has gone, and which runs are no more. Signed by the area's
owner inside the box. Implements docs/format.md, "Notice".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from respaldo.core.errors import Corruption
from respaldo.core.ids import NAME_BYTES, RANDOM_ID_BYTES, PackName
from respaldo.format import canonical
from respaldo.format.enrolment import CLIENT_BYTES, SIGNATURE_BYTES
from respaldo.format.segment import Listed, parse_listed

NOTICES: Final = "notices/"
NOTICE_RAW_BYTES_MAX: Final = 64 << 20
NOTICE_BYTES_MAX: Final = 80 << 20
"""As stored: sealed and padded."""
_NAME: Final = re.compile(r"notices/([0-9a-f]{32})")


def notice_name(leaf: bytes) -> str:
    """Returns the object name of a notice: ``leaf`` is the condemnation's, or random where it is of several."""
    return NOTICES + leaf.hex()


def parse_notice_name(name: str) -> bytes | None:
    """Returns the 16 bytes that an object's name stands for, None for another name."""
    found = _NAME.fullmatch(name)
    return None if found is None else bytes.fromhex(found[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Is what the owner says to a client.

    ``condemned``: (condemnation's 16 bytes, its packs). ``moved``: packs, with their footers, that hold what lay in
    condemned ones. ``retired``: runs whose records are deleted, because nothing is left that they opened.
    """

    client: bytes
    time_ns: int
    condemned: tuple[tuple[bytes, tuple[PackName, ...]], ...] = ()
    moved: tuple[Listed, ...] = ()
    retired: frozenset[bytes] = frozenset()
    signature: bytes = b""

    def signed(self) -> bytes:
        """Returns what is signed."""
        condemned = [[name, b"".join(packs)] for name, packs in self.condemned]
        moved = [[item.pack, item.length_bytes, item.footer] for item in self.moved]
        return canonical.pack([1, self.client, self.time_ns, condemned, moved, b"".join(sorted(self.retired))])

    def encode(self) -> bytes:
        """Returns the canonical bytes of what goes into the box."""
        return canonical.pack([1, self.signed(), self.signature])


def parse_notice(data: bytes, what: str) -> Notice:
    """Parses what was in a box, whoever signed it; raises `Corruption`."""
    match canonical.unpack(data, what):
        case [1, bytes(signed), bytes(signature)] if len(signature) == SIGNATURE_BYTES:
            return _parse_signed(signed, signature, what)
    raise Corruption(what, "not a notice of this format")


def _parse_signed(data: bytes, signature: bytes, what: str) -> Notice:
    match canonical.unpack(data, what):
        case [1, bytes(client), int(time_ns), list(condemned), list(moved), bytes(retired)] if (
            len(client) == CLIENT_BYTES and canonical.is_time(time_ns) and len(retired) % RANDOM_ID_BYTES == 0
        ):
            runs = _cut(retired, RANDOM_ID_BYTES)
            if runs == sorted(set(runs)):
                return Notice(
                    client=client,
                    time_ns=time_ns,
                    condemned=tuple(_parse_condemned(item, what) for item in condemned),
                    moved=tuple(parse_listed(item, what) for item in moved),
                    retired=frozenset(runs),
                    signature=signature,
                )
    raise Corruption(what, "not a notice of this format")


def _parse_condemned(value: object, what: str) -> tuple[bytes, tuple[PackName, ...]]:
    match value:
        case [bytes(name), bytes(packs)] if len(name) == RANDOM_ID_BYTES and len(packs) % NAME_BYTES == 0:
            return name, tuple(map(PackName, _cut(packs, NAME_BYTES)))
    raise Corruption(what, "not a notice of this format")


def _cut(joined: bytes, length: int) -> list[bytes]:
    return [joined[at : at + length] for at in range(0, len(joined), length)]
