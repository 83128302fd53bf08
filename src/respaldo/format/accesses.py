"""Lines of the access log: who was handed what on this client, each line naming the one before by its hash.

Client-side: no object of a repository. What is sealed in a line repeats its number and the hash before it, so that a
line cannot be taken out of its place without the private key. Implements docs/format.md, "Access log". Never seals.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import Final

from respaldo.core.errors import Corruption
from respaldo.format import canonical, frame

HASH_BYTES: Final = 32
FIRST: Final = bytes(HASH_BYTES)
"""What the first line names as the one before."""
STEP_BYTES: Final = 512
LINE_BYTES_MAX: Final = 1 << 17
SNAPSHOTS_MAX: Final = 64
PATHS_MAX: Final = 8
TEXT_BYTES_MAX: Final = 4096
RAW_BYTES_MAX: Final = 90 << 10
PURPOSE: Final = "access"
"""What boxes are for, in the words of docs/format.md, "Boxes"."""
END: Final = "end"
"""The verb of a line that says how what another began has ended."""

_LINE: Final = re.compile(rb"([1-9][0-9]{0,17}) ([0-9a-f]{64}) ([A-Za-z0-9+/]+={0,2})\.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Says what was about to be handed over, or how that has ended.

    ``number`` counts from 1; ``previous`` is the hash of the line before. ``verb``: what was asked for; ``end`` of what
    line ``of`` began. ``uid``, ``user``: whose process; ``login``: who logged in, where the system knows (it outlasts
    sudo). ``key``: the slot that opened the repository. ``snapshots``: at most 64 ids, of ``count``. ``paths``: what
    was asked for in them; ``target``: where it goes. ``outcome`` and ``length_bytes``: of an end. ``note``: for people.
    """

    number: int
    previous: bytes
    time_ns: int
    verb: str
    host: str = ""
    uid: int = 0
    user: str = ""
    login: str = ""
    pid: int = 0
    key: str = ""
    snapshots: tuple[bytes, ...] = ()
    count: int = 0
    paths: tuple[bytes, ...] = ()
    target: bytes = b""
    of: int = 0
    outcome: str = ""
    length_bytes: int = 0
    note: str = ""

    def encode(self) -> bytes:
        """Returns the canonical bytes in a frame, padded so that lengths say little."""
        raw = canonical.pack(
            [
                1,
                self.number,
                self.previous,
                self.time_ns,
                self.verb,
                [self.host, self.uid, self.user, self.login, self.pid, self.key],
                [*self.snapshots[:SNAPSHOTS_MAX]],
                self.count,
                [path[:TEXT_BYTES_MAX] for path in self.paths[:PATHS_MAX]],
                self.target[:TEXT_BYTES_MAX],
                [self.of, self.outcome, self.length_bytes],
                self.note[:TEXT_BYTES_MAX],
            ]
        )
        length = -(-(frame.HEAD.size + len(raw)) // STEP_BYTES) * STEP_BYTES
        return frame.build(frame.HEAD.pack(frame.STORED, len(raw), len(raw)), raw, length)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Is a line as it is stored: its number, the hash of the one before, and a box."""

    number: int
    previous: bytes
    box: bytes

    def encode(self) -> bytes:
        """Returns the line without its end; the dot says that nothing of it was cut off."""
        return b"%d %s %s." % (self.number, self.previous.hex().encode(), base64.b64encode(self.box))

    @property
    def hash(self) -> bytes:
        """Names the line to the one that follows it."""
        return hashlib.sha256(self.encode()).digest()


def parse_line(data: bytes) -> Line | None:
    """Returns a line, None for what is none: cut off, or changed."""
    match = _LINE.fullmatch(data) if len(data) <= LINE_BYTES_MAX else None
    if match is None:
        return None
    try:
        box = base64.b64decode(match[3], validate=True)
    except binascii.Error:
        return None
    line = Line(number=int(match[1]), previous=bytes.fromhex(match[2].decode()), box=box)
    return line if line.encode() == data else None


class _Never:
    """Expands nothing: lines are not compressed."""

    def decompress(self, frame: memoryview, raw_length: int, what: str) -> bytes:  # noqa: ARG002 - the seam's
        raise Corruption(what, "it is compressed")


def parse_access(data: bytes, line: Line, what: str) -> Access:
    """Parses what was in the box of a line; raises `Corruption`, also where it belongs to another line."""
    raw = frame.unbuild(data, _Never(), what, raw_length_max=RAW_BYTES_MAX)
    match canonical.unpack(raw, what):
        case [
            1,
            int(number),
            bytes(previous),
            int(time_ns),
            str(verb),
            [str(host), int(uid), str(user), str(login), int(pid), str(key)],
            list(snapshots),
            int(count),
            list(paths),
            bytes(target),
            [int(of), str(outcome), int(length_bytes)],
            str(note),
        ] if canonical.is_time(time_ns) and len(snapshots) <= SNAPSHOTS_MAX and len(paths) <= PATHS_MAX:
            if (number, previous) != (line.number, line.previous):
                raise Corruption(what, "what is in it belongs to another line")
            named = tuple(item for item in snapshots if isinstance(item, bytes))
            asked = tuple(item for item in paths if isinstance(item, bytes))
            if len(named) == len(snapshots) and len(asked) == len(paths):
                access = Access(
                    number=number,
                    previous=previous,
                    time_ns=time_ns,
                    verb=verb,
                    host=host,
                    uid=uid,
                    user=user,
                    login=login,
                    pid=pid,
                    key=key,
                    snapshots=named,
                    count=count,
                    paths=asked,
                    target=target,
                    of=of,
                    outcome=outcome,
                    length_bytes=length_bytes,
                    note=note,
                )
                if access.encode() == data:
                    return access
    raise Corruption(what, "not a line of an access log")
