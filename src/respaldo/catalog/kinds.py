"""Kinds: what a snapshot is called among those of its source when nobody says it.

Pure: times and a zone come in. The first of a week is a ``snapshot``, the first of any other day ``full``, all others
are ``incremental``. Weeks and days are those of the calendar in the zone; "first" means that there is no other in that
week or day, wherever in it, so that a clock that jumps back makes no second one. Two that are made at the same time,
and neither of which sees the other, may both be the first. A snapshot without a kind has the one that
`kind_of` gives.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, tzinfo

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NEAR_NS = 9 * 24 * 3600 * 10**9


def is_near(time_ns: int, other_ns: int) -> bool:
    """Whether two moments may lie in one week, whatever clocks and calendars do in it."""
    return abs(other_ns - time_ns) <= _NEAR_NS


def kind_by_rule(time_ns: int, others_ns: Iterable[int], zone: tzinfo) -> str:
    """Returns the kind of a snapshot of a time, where its source has others of other times, of which few are near."""
    week, day = bucket_of("weekly", time_ns, zone), bucket_of("daily", time_ns, zone)
    kind = "snapshot"
    for other_ns in others_ns:
        if bucket_of("daily", other_ns, zone) == day:
            return "incremental"
        if bucket_of("weekly", other_ns, zone) == week:
            kind = "full"
    return kind


def kind_of(recorded: str, parent: bytes) -> str:
    """Returns a snapshot's kind: the recorded one, else whether it was compared with another."""
    return recorded or ("incremental" if parent else "full")


def bucket_of(period: str, time_ns: int, zone: tzinfo) -> str:
    """Returns the hour, day, week, month or year of the calendar that a moment lies in."""
    local = (_EPOCH + timedelta(microseconds=time_ns // 1000)).astimezone(zone)
    match period:
        case "hourly":
            return f"{local:%Y-%m-%dT%H%z}"
        case "daily":
            return f"{local:%Y-%m-%d}"
        case "weekly":
            year, week, _ = local.isocalendar()
            return f"{year}-W{week:02}"
        case "monthly":
            return f"{local:%Y-%m}"
    return f"{local:%Y}"
