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

Of clients that are not trusted (``by_log``), the log tells more, since they cannot change its order: an admin's entry
that knows the entry of a snapshot, or does not know it yet, says when the snapshot was there at the latest, or was not
there yet (`Doubt.EARLY`, `Doubt.LATE` again). Two notions come on top:

- `Doubt.UNSAID`: no entry of its client says that it was committed.
- `Doubt.ORDER`: it ended before one did that stands before it in the log of its client; or, where several logs are
  one client's (its state was lost, or a thief began one), while another of them goes on: of two that go on at the same
  time nobody knows the order.

What is left of those counts by when it ended and no earlier than what stands before it (`counted_times`): so whoever
has the credential of such a client can take no place in the calendar that an honest client could not have taken since
its last snapshot, whatever times he claims.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby

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
    UNSAID = "unsaid"
    ORDER = "order"

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
    Doubt.UNSAID: "its client's log does not say that it was made",
    Doubt.ORDER: "its client's log has it after one that ended later, or another log of the client goes on at its time",
}


@dataclass(frozen=True, slots=True)
class Told:
    """Is what the log says of a snapshot: whose entry says that it was committed, and which place that has.

    ``after_ns``: when an admin last saw that log without it; ``before_ns``: when one first saw it there. By the admins'
    clocks; None where none did.
    """

    signer: bytes
    place: int
    after_ns: int | None = None
    before_ns: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """Is what a snapshot says of when it was made, and when storage says that it came (None where it cannot tell).

    ``by_log``: it is of a client that is not trusted, and counts as ``told`` by the log, if it is.
    """

    id: SnapshotId
    time_ns: int
    started_ns: int
    ended_ns: int
    parent: bytes = b""
    stored_ns: int | None = None
    by_log: bool = False
    told: Told | None = None


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
    for item in known.values():
        if item.by_log and (doubt := _of_log(item)) is not None:
            found.setdefault(item.id, doubt)
    for items in _logs(known.values(), found):
        latest_ns = items[0].ended_ns
        for item in items:
            if item.ended_ns + SLACK_NS < latest_ns:
                found[item.id] = Doubt.ORDER
            latest_ns = max(latest_ns, item.ended_ns)
    found.update(dict.fromkeys(_at_once(_logs(known.values(), found)), Doubt.ORDER))
    return found


def _at_once(logs: Sequence[Sequence[Arrival]]) -> Iterator[SnapshotId]:
    """Yields what ended between the first and the last end of another log than its own."""
    spans = sorted(
        (min(ends), max(ends), which) for which, ends in enumerate([i.ended_ns for i in log] for log in logs)
    )
    # Of the spans that begin before one: which goes on longest, and which of the others.
    longest: list[tuple[tuple[int, int], tuple[int, int]]] = [((0, -1), (0, -1))]
    for _, end_ns, which in spans:
        first, second = longest[-1]
        if end_ns > first[0]:
            first, second = (end_ns, which), first
        elif end_ns > second[0]:
            second = (end_ns, which)
        longest.append((first, second))
    begins = [begin_ns for begin_ns, *_ in spans]
    for which, log in enumerate(logs):
        for item in log:
            first, second = longest[bisect_left(begins, item.ended_ns)]
            if item.ended_ns < (second if first[1] == which else first)[0]:
                yield item.id


def counted_times(arrivals: Iterable[Arrival], doubts: Mapping[SnapshotId, Doubt]) -> dict[SnapshotId, int]:
    """Returns, of snapshots of clients that are not trusted and that are not in doubt, the times that they count by."""
    found: dict[SnapshotId, int] = {}
    for items in _logs(arrivals, doubts):
        latest_ns = items[0].ended_ns
        for item in items:
            latest_ns = found[item.id] = max(latest_ns, item.ended_ns)
    return found


def _logs(arrivals: Iterable[Arrival], doubts: Mapping[SnapshotId, Doubt]) -> list[list[Arrival]]:
    """Returns what counts by the log and is not in doubt, by client, in the order of its log."""
    told = [
        (item.told.signer, item.told.place, item)
        for item in arrivals
        if item.by_log and item.told is not None and item.id not in doubts
    ]
    told.sort(key=lambda entry: (*entry[:2], entry[2].id))
    return [[item for *_, item in items] for _, items in groupby(told, key=lambda entry: entry[0])]


def _of_log(item: Arrival) -> Doubt | None:
    if item.told is None:
        return Doubt.UNSAID
    if item.told.before_ns is not None and item.told.before_ns + SLACK_NS < item.ended_ns:
        return Doubt.EARLY
    if item.told.after_ns is not None and item.ended_ns + SLACK_NS < item.told.after_ns:
        return Doubt.LATE
    return None


def _of_itself(item: Arrival, now_ns: int) -> Doubt | None:
    if max(item.time_ns, item.started_ns, item.ended_ns) > now_ns + SLACK_NS:
        return Doubt.FUTURE
    if not item.started_ns <= item.time_ns <= item.ended_ns:
        return Doubt.CLAIMED
    if item.ended_ns - item.started_ns > LONG_NS:
        return Doubt.LONG
    return None
