"""Pins and trash: the two small records that say what retention may do with a snapshot.

Policy, never safety: no reader and no collector needs them to know what is a root. Implements docs/format.md,
"Pin" and "Trash".
"""

from __future__ import annotations

from dataclasses import dataclass

from respaldo.core.errors import Corruption
from respaldo.format import canonical
from respaldo.format.snapshot import TEXT_BYTES_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """Protects a snapshot from every policy. ``reason`` is the user's, and may be empty."""

    time_ns: int
    reason: str = ""

    def encode(self) -> bytes:
        """Returns the canonical bytes."""
        return canonical.pack([1, self.time_ns, self.reason])


def parse_pin(data: bytes, what: str) -> Pin:
    """Parses a pin; raises `Corruption`."""
    match canonical.unpack(data, what):
        case [1, int(time_ns), str(reason)] if (
            canonical.is_time(time_ns) and len(reason.encode("utf-8", "surrogateescape")) <= TEXT_BYTES_MAX
        ):
            return Pin(time_ns=time_ns, reason=reason)
    raise Corruption(what, "not a pin of this format")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trashed:
    """Says that a snapshot was forgotten, and until when that can be undone, by the clock of whoever forgot it."""

    time_ns: int
    until_ns: int

    def encode(self) -> bytes:
        """Returns the canonical bytes."""
        return canonical.pack([1, self.time_ns, self.until_ns])


def parse_trashed(data: bytes, what: str) -> Trashed:
    """Parses a record of the trash; raises `Corruption`."""
    match canonical.unpack(data, what):
        case [1, int(time_ns), int(until_ns)] if (
            canonical.is_time(time_ns) and canonical.is_time(until_ns) and time_ns <= until_ns
        ):
            return Trashed(time_ns=time_ns, until_ns=until_ns)
    raise Corruption(what, "not a record of the trash of this format")
