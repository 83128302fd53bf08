"""Moments in words: ``2026-11-20``, ``2026-11-20 14:30``, ``yesterday``, ``3 days ago``, and what they mean.

Pure: the clock and the zone are arguments. A moment is a span of time whose end counts: a date means the end of that
day, a month the end of that month, a second its end, so that a time copied from a listing means what was listed there.
Where clocks are set back, a local time means the later of its two moments; where they are set forward, a time that
there was not means the one that the clocks showed instead.
"""

from __future__ import annotations

import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo

SECOND_NS = 10**9
MOMENT_FORM = 'a time, such as 2026-11-20, "2026-11-20 14:30", yesterday, "3 days ago"'
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MONTH = re.compile(r"(\d{4})-(\d\d)", re.ASCII)
_DATED = re.compile(r"(\d{4}-\d\d-\d\d|today|yesterday)(?:[T ]\s*(.+))?", re.ASCII | re.IGNORECASE)
_TIME = re.compile(
    r"(\d{1,2}):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?\s*(?:(Z|UTC)|([+-])(\d\d)(?::?(\d\d))?)?", re.ASCII | re.IGNORECASE
)
_AGO = re.compile(r"((?:(?:\d{1,9}\s*|an?\s+)[a-z]+\s+(?:and\s+)?)*(?:\d{1,9}\s*|an?\s+)[a-z]+)\s+ago", re.ASCII)
"""Can be read in one way only: what could be read in two would take exponential time to be none."""
_PART = re.compile(r"(\d{1,9}|an?)\s*([a-z]+)", re.ASCII)
_EXACT_S = {"s": 1, "sec": 1, "second": 1, "min": 60, "minute": 60, "h": 3600, "hr": 3600, "hour": 3600}
_DAYS = {"d": 1, "day": 1, "w": 7, "week": 7}
_MONTHS = {"month": 1, "y": 12, "year": 12}


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """Is a span of time that was named; its last nanosecond is the moment meant. ``text`` says so to a person.

    ``exact``: whether it says when by itself, and not by how long ago that is.
    """

    first_ns: int
    last_ns: int
    text: str
    exact: bool = True


def parse_moment(words: str, *, now_ns: int, zone: tzinfo) -> Moment | None:
    """Returns the moment that words mean, None where they mean none."""
    words = words.strip()
    if not words.isascii():
        return None
    try:
        return _parse(words, now_ns, zone)
    except (ValueError, OverflowError, OSError):  # 30 February, the year 10000
        return None


def _parse(words: str, now_ns: int, zone: tzinfo) -> Moment | None:
    now = (_EPOCH + timedelta(microseconds=now_ns // 1000)).astimezone(zone)
    if words.lower() == "now":
        return _moment(now_ns, now_ns, zone, exact=False)
    month = _MONTH.fullmatch(words)
    if month:
        first = date(int(month[1]), int(month[2]), 1)
        return _days(first, first + timedelta(monthrange(first.year, first.month)[1]), zone)
    dated = _DATED.fullmatch(words)
    if dated:
        day = _day(dated[1].lower(), now.date())
        return _days(day, day + timedelta(1), zone) if dated[2] is None else _at(day, dated[2], zone)
    if _TIME.fullmatch(words):
        return _at(now.date(), words, zone)
    ago = _AGO.fullmatch(words.lower())
    return _ago(ago[1], now_ns, now, zone) if ago else None


def _day(word: str, today: date) -> date:
    if word in {"today", "yesterday"}:
        return today - timedelta(word == "yesterday")
    return date.fromisoformat(word)


def _days(first: date, after: date, zone: tzinfo) -> Moment:
    """Returns whole days. A day begins when its date begins, also where midnight is skipped or comes twice."""
    return _moment(_ns(datetime.combine(first, time(), zone)), _ns(datetime.combine(after, time(), zone)) - 1, zone)


def _at(day: date, words: str, zone: tzinfo) -> Moment | None:
    found = _TIME.fullmatch(words.strip())
    if not found:
        return None
    hour, minute, second, fraction, utc, sign, hours, minutes = found.groups()
    digits = len(fraction or "")
    fraction_ns = int((fraction or "").ljust(9, "0"))
    local = datetime.combine(day, time(int(hour), int(minute), int(second or 0)))
    if utc or sign:
        east = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
        first_ns = _ns(local.replace(tzinfo=timezone(-east if sign == "-" else east)))
    else:
        # The later one of two; and of a time that is skipped, the one that the clock before the change makes of it.
        first_ns = max(_ns(local.replace(tzinfo=zone, fold=fold)) for fold in (0, 1))
    first_ns += fraction_ns
    return _moment(first_ns, first_ns + 10 ** (9 - digits) - 1, zone)


def _ago(words: str, now_ns: int, now: datetime, zone: tzinfo) -> Moment | None:
    """Goes back by the calendar for days and more, so that the hour stays; exactly for less."""
    back_ns = 0
    day = now.date()
    for number, unit in _PART.findall(words.replace(" and ", " ")):
        count = 1 if number.startswith("a") else int(number)
        name = unit if unit in _EXACT_S | _DAYS | _MONTHS else unit.removesuffix("s")
        if name in _EXACT_S:
            back_ns += count * _EXACT_S[name] * SECOND_NS
        elif name in _DAYS:
            day -= timedelta(count * _DAYS[name])
        elif name in _MONTHS:
            months = day.year * 12 + day.month - 1 - count * _MONTHS[name]
            year, month = divmod(months, 12)
            day = date(year, month + 1, min(day.day, monthrange(year, month + 1)[1]))
        else:
            return None
    then_ns = now_ns
    if day != now.date():
        local = datetime.combine(day, now.time(), zone)
        then_ns = max(_ns(local.replace(fold=fold)) for fold in (0, 1)) + now_ns % 1000
    return _moment(then_ns - back_ns, then_ns - back_ns, zone, exact=False)


def _ns(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000


def _moment(first_ns: int, last_ns: int, zone: tzinfo, *, exact: bool = True) -> Moment:
    return Moment(first_ns=first_ns, last_ns=last_ns, text=show_moment(last_ns, zone), exact=exact)


def show_moment(time_ns: int, zone: tzinfo) -> str:
    """Returns a time in a zone, with its distance from UTC."""
    try:
        local = (_EPOCH + timedelta(seconds=time_ns // SECOND_NS)).astimezone(zone)
    except (OverflowError, ValueError, OSError):
        return f"{time_ns} ns since 1970"
    return f"{local:%Y-%m-%d %H:%M:%S %z}"
