"""What is said to an agent and what it answers: fixed forms, since both ends are of one version at times only.

A question is `MAGIC` and a verb. Answers: to `GET` a slot's name and the master key, or nothing; to `STATUS` a JSON
document; to `LOCK` one byte, once the key is wiped.
"""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from typing import Any

MAGIC = b"respaldo agent 1 "
GET, STATUS, LOCK = b"g", b"s", b"l"
QUESTION_BYTES = len(MAGIC) + 1
KEY_BYTES = 32
SLOT_BYTES = len("keys/") + 16
DONE = b"."
_STATUS_BYTES_MAX = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """Says what an agent is to hold, and for how long: seconds in all, and seconds without a question (0: no limit).

    ``leader``: the process whose end is the end of the login, with the time it started at; 0 where there is none.
    """

    directory: str
    name: str
    slot: str
    repository: str
    location: str
    for_s: float
    idle_s: float
    leader: int = 0
    leader_started: int = 0

    def encode(self) -> bytes:
        """Returns it as a line."""
        return json.dumps({field: getattr(self, field) for field in self.__dataclass_fields__}).encode() + b"\n"


def parse_lease(line: bytes) -> Lease:
    """Parses what `Lease.encode` made; raises ValueError, TypeError for anything else."""
    lease = Lease(**_document(line))
    if len(lease.slot) != SLOT_BYTES or lease.for_s <= 0 or lease.idle_s < 0:
        msg = "not a lease"
        raise ValueError(msg)
    return lease


def _document(data: bytes) -> dict[str, Any]:
    """Returns a JSON document, which its classes look at; raises ValueError for what is none, or nested too deep."""
    try:
        found: dict[str, Any] = json.loads(data)
    except RecursionError:
        raise ValueError("nested too deep") from None
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Is what an agent says of itself: whose key it holds, how long still, how long without a question, its process."""

    repository: str
    location: str
    slot: str
    left_s: float
    idle_left_s: float
    pid: int


def parse_held(data: bytes) -> Held | None:
    """Parses an agent's status; None where it is none."""
    try:
        held = Held(**_document(data))
        texts = (held.repository, held.location, held.slot)
        numbers = (held.left_s, held.idle_left_s, held.pid)
    except (ValueError, TypeError):
        return None
    sound = all(isinstance(text, str) for text in texts) and all(isinstance(number, int | float) for number in numbers)
    return held if sound else None


def ask(connection: socket.socket, verb: bytes) -> bytes:
    """Asks, and returns all of the answer; raises `OSError` where none comes in time."""
    connection.sendall(MAGIC + verb)
    answer = b""
    while len(answer) < _STATUS_BYTES_MAX:
        more = connection.recv(4096)
        if not more:
            break
        answer += more
    return answer
