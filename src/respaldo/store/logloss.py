"""Entries of a log that are lost for good, and said to be: whoever meets the gap goes on behind it.

An entry of verb ``lost`` names them, signed by an admin key: storage cannot take entries away and say so itself.
Implements docs/format.md, "Log".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from respaldo.codec.signing import CLIENT_BYTES, PUBLIC_BYTES, client_of
from respaldo.format.logbook import Entry

LOST: Final = "lost"
_NUMBER_BYTES: Final = 8
_BYTES: Final = CLIENT_BYTES + 2 * _NUMBER_BYTES + PUBLIC_BYTES
_UNKNOWN: Final = bytes(PUBLIC_BYTES)


@dataclass(frozen=True, slots=True, order=True)
class Gap:
    """Is entries of one client that are not there, from the first to the last of them."""

    client: bytes
    first: int
    last: int

    def __contains__(self, place: tuple[bytes, int]) -> bool:
        return place[0] == self.client and self.first <= place[1] <= self.last

    @property
    def are(self) -> str:
        """Is the verb that goes with it."""
        return "is" if self.first == self.last else "are"

    def __str__(self) -> str:
        what = f"entry {self.first}" if self.first == self.last else f"entries {self.first} to {self.last}"
        return f"{what} of client {self.client.hex()[:8]}"


def subject_of(gap: Gap, key: bytes) -> bytes:
    """Returns how an entry names a gap, with the client's public key where that is known."""
    numbers = gap.first.to_bytes(_NUMBER_BYTES, "big") + gap.last.to_bytes(_NUMBER_BYTES, "big")
    return gap.client + numbers + (key or _UNKNOWN)


def parse_subject(subject: bytes) -> tuple[Gap, bytes] | None:
    """Returns a gap and the client's key, empty where it is not known; None for what names none."""
    if len(subject) != _BYTES:
        return None
    client, rest = subject[:CLIENT_BYTES], subject[CLIENT_BYTES:]
    first, last = (int.from_bytes(rest[at : at + _NUMBER_BYTES], "big") for at in (0, _NUMBER_BYTES))
    key = rest[2 * _NUMBER_BYTES :]
    if first > last or (key != _UNKNOWN and client_of(key) != client):
        return None
    return Gap(client, first, last), b"" if key == _UNKNOWN else key


class Losses:
    """Is what is said to be lost."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self.gaps: list[Gap] = []
        self.keys: dict[bytes, bytes] = {}
        for entry in entries:
            for subject in entry.subjects:
                parsed = parse_subject(subject)
                if parsed is not None:
                    gap, key = parsed
                    self.gaps.append(gap)
                    if key:
                        self.keys[gap.client] = key

    def has(self, client: bytes, first: int, last: int) -> bool:
        """Whether all of these entries are said to be lost."""
        number = first
        for gap in sorted(item for item in self.gaps if item.client == client):
            if gap.first <= number <= gap.last:
                number = gap.last + 1
        return number > last
