"""Which times of snapshots are in doubt: what a client says of its clock, held against what others can tell.

Pure: no storage, no clock. A time in doubt is no accusation; whoever decides by times must not let such a snapshot push
another one out. That errs on the safe side only: a snapshot that does not count makes no other one go.

Five notions, each an hour wide, because clocks differ a little:

- `Doubt.FUTURE`: the snapshot lies beyond the present of whoever asks.
- `Doubt.CLAIMED`: its time is not between its start and its end (``--time``), or it ended before it started.
- `Doubt.LONG`: it says that it took more than a day, so that its start proves nothing.
- `Doubt.PARENT`: it started before the snapshot that it was compared with had ended. One of the two clocks was wrong,
  and nobody can tell which: both are in doubt.
- `Doubt.EARLY`, `Doubt.LATE`: it reached storage, by the storage's clock and where that can tell, before it says that
  it ended; or after, although one that had arrived before it was on time. The second half spares repositories that
  were copied without their times: all that was copied is late then, and says nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from respaldo.core.ids import SnapshotId

HOUR_NS = 3600 * 10**9
SLACK_NS = HOUR_NS
"""Clocks that differ by less than this contradict nobody."""
LONG_NS = 24 * HOUR_NS


class Doubt(StrEnum):
    """Says why a snapshot's time is in doubt."""

    FUTURE = "future"
    CLAIMED = "claimed"
    LONG = "long"
    PARENT = "parent"
    EARLY = "early"
    LATE = "late"

    @property
    def text(self) -> str:
        """The reason in words."""
        return _TEXTS[self]


_TEXTS = {
    Doubt.FUTURE: "it lies in the future",
    Doubt.CLAIMED: "its time is not when it was made",
    Doubt.LONG: "it says that it took more than a day",
    Doubt.PARENT: "it and the snapshot it was compared with contradict each other",
    Doubt.EARLY: "it was stored before it says that it ended",
    Doubt.LATE: "it was stored long after it says that it ended",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """Is what a snapshot says of when it was made, and when storage says that it came (None where it cannot tell)."""

    id: SnapshotId
    time_ns: int
    started_ns: int
    ended_ns: int
    parent: bytes = b""
    stored_ns: int | None = None


def find_doubts(arrivals: Iterable[Arrival], now_ns: int) -> dict[SnapshotId, Doubt]:
    """Returns the snapshots whose times are in doubt, each with the first reason of those in the module's docstring."""
    known = {item.id: item for item in arrivals}
    found = {item.id: doubt for item in known.values() if (doubt := _of_itself(item, now_ns)) is not None}
    for item in known.values():
        parent = known.get(SnapshotId(item.parent))
        if parent is not None and item.started_ns + SLACK_NS < parent.ended_ns:
            found.setdefault(item.id, Doubt.PARENT)
            found.setdefault(parent.id, Doubt.PARENT)
    first_on_time_ns: int | None = None
    for stored_ns, item in sorted(
        ((item.stored_ns, item) for item in known.values() if item.stored_ns is not None),
        key=lambda pair: (pair[0], pair[1].id),
    ):
        if stored_ns + SLACK_NS < item.ended_ns:
            found.setdefault(item.id, Doubt.EARLY)
        elif stored_ns <= item.ended_ns + SLACK_NS:
            first_on_time_ns = stored_ns if first_on_time_ns is None else first_on_time_ns
        elif first_on_time_ns is not None and first_on_time_ns + SLACK_NS < stored_ns:
            found.setdefault(item.id, Doubt.LATE)
    return found


def _of_itself(item: Arrival, now_ns: int) -> Doubt | None:
    if max(item.time_ns, item.started_ns, item.ended_ns) > now_ns + SLACK_NS:
        return Doubt.FUTURE
    if not item.started_ns <= item.time_ns <= item.ended_ns:
        return Doubt.CLAIMED
    if item.ended_ns - item.started_ns > LONG_NS:
        return Doubt.LONG
    return None
