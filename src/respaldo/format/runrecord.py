"""The record of a run: the key of one session of a client, in boxes for those who may open what it wrote.

The first thing that a session puts, under its own id; signed by the client, or by the area's owner for what a collector
writes anew. In clear but for the boxes: whoever holds the storage sees when a client ran, as it does anyway. Implements
docs/format.md, "Run".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from respaldo.core.errors import Corruption
from respaldo.core.ids import RANDOM_ID_BYTES
from respaldo.format import canonical
from respaldo.format.enrolment import CLIENT_BYTES, RIGHTS, SIGNATURE_BYTES
from respaldo.format.header import close_object, unclose_object

RUN_BYTES_MAX: Final = 4096
ROOT: Final = "root"
"""The purpose of the box that the owner opens; those of the others are the rights that they stand for."""
RUNS: Final = "runs/"
_BOX_BYTES_MIN: Final = 104
_BOX_BYTES_MAX: Final = 1024
_NAME: Final = re.compile(r"runs/([0-9a-f]{32})")


def run_name(session: bytes) -> str:
    """Returns the object name of a run."""
    return RUNS + session.hex()


def parse_run_name(name: str) -> bytes | None:
    """Returns the session that an object's name stands for, None for another name."""
    found = _NAME.fullmatch(name)
    return None if found is None else bytes.fromhex(found[1])


class Author(StrEnum):
    """Says whose signature a run bears."""

    CLIENT = "client"
    OWNER = "owner"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Is a run's record. ``box``: its root key for the owner. ``grants``: (right, box for the client), as `RIGHTS`."""

    author: Author
    client: bytes
    session: bytes
    time_ns: int
    box: bytes
    grants: tuple[tuple[str, bytes], ...] = ()
    signature: bytes = b""

    def signed(self) -> bytes:
        """Returns what is signed."""
        grants = [list(grant) for grant in self.grants]
        return canonical.pack([1, self.author.value, self.client, self.session, self.time_ns, self.box, grants])

    def encode(self) -> bytes:
        """Returns the object's bytes, closing hash included."""
        return close_object(canonical.pack([1, self.signed(), self.signature]))


def parse_run(data: bytes, what: str) -> Run:
    """Parses a run's object and checks that it belongs under its name, not who signed it; raises `Corruption`."""
    if len(data) > RUN_BYTES_MAX:
        raise Corruption(what, "longer than a run's record can be")
    match canonical.unpack(unclose_object(data, what), what):
        case [1, bytes(signed), bytes(signature)] if len(signature) == SIGNATURE_BYTES:
            return _parse_signed(signed, signature, what)
    raise Corruption(what, "not a run of this format")


def _parse_signed(data: bytes, signature: bytes, what: str) -> Run:
    match canonical.unpack(data, what):
        case [
            1,
            ("client" | "owner") as author,
            bytes(client),
            bytes(session),
            int(time_ns),
            bytes(box),
            list(grants),
        ] if (
            len(client) == CLIENT_BYTES
            and len(session) == RANDOM_ID_BYTES
            and run_name(session) == what
            and canonical.is_time(time_ns)
            and _is_box(box)
        ):
            found: list[tuple[str, bytes]] = []
            for grant in grants:
                match grant:
                    case [str(right), bytes(granted)] if _is_box(granted):
                        found.append((right, granted))
            rights = [right for right, _ in found]
            if len(found) == len(grants) and rights == [right for right in RIGHTS if right in rights]:
                return Run(
                    author=Author(author),
                    client=client,
                    session=session,
                    time_ns=time_ns,
                    box=box,
                    grants=tuple(found),
                    signature=signature,
                )
    raise Corruption(what, "not a run of this format, or under another's name")


def _is_box(data: bytes) -> bool:
    return _BOX_BYTES_MIN <= len(data) <= _BOX_BYTES_MAX
