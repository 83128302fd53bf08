"""What options take: sizes, rates, times, shares; parsed here, with an error that says what is expected."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

import click

_SIZE = re.compile(r"\s*(\d{1,18}(?:\.\d{1,18})?)\s*([KMGTP]?)(i?)(B?)\s*", re.IGNORECASE | re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SHARE = re.compile(r"\s*(\d{1,3}(?:\.\d+)?)\s*%\s*", re.ASCII)
_DURATION_PART = re.compile(r"(\d{1,6})([smhd])", re.ASCII)
_DURATION = re.compile(rf"(?:{_DURATION_PART.pattern})+", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION_MAX_S = 366 * 86400
_ZONE_LETTERS_MAX = 100
"""No name of a zone is half as long, and each slash in one may cost a look for a package."""
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5}


def parse_size(text: str) -> int | None:
    """Returns a size in bytes: ``5M`` and ``5MiB`` are binary, ``5MB`` is decimal; None where it is none."""
    found = _SIZE.fullmatch(text)
    if not found:
        return None
    number, unit, binary, byte = found.groups()
    if binary and not unit:
        return None
    base = 1000 if byte and unit and not binary else 1024
    return int(float(number) * base ** _POWERS[unit.upper()])


class Size(click.ParamType[int]):
    """Is a size such as 5M, 5MiB (binary) or 5MB (decimal)."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:  # noqa: ANN401
        if isinstance(value, int):
            return value
        found = parse_size(str(value))
        if found is None:
            self.fail(f"{value!r} is not a size; write 500K, 20MiB, 1.5G or 2TB", param, ctx)
        return found


class Share(click.ParamType[float]):
    """Is a share from 0% to 100%, as a number from 0 to 1."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401
        if isinstance(value, float):
            return value
        found = _SHARE.fullmatch(str(value))
        if not found or float(found[1]) > 100:
            self.fail(f"{value!r} is not a share; write 0% to 100%", param, ctx)
        return float(found[1]) / 100


class Rate(Size):
    """Is a rate such as 20MiB/s."""

    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:  # noqa: ANN401
        if isinstance(value, int):
            return value
        found = parse_size(str(value).removesuffix("/s"))
        if not found:
            self.fail(f"{value!r} is not a rate; write 500KiB/s or 20MiB/s", param, ctx)
        return found


class Moment(click.ParamType[int]):
    """Is a moment: ISO 8601 or ``YYYY-MM-DD HH:MM:SS``, local unless it names a zone; as ns since the epoch."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:  # noqa: ANN401
        if isinstance(value, int):
            return value
        try:
            moment = datetime.fromisoformat(str(value)).astimezone()
        except (ValueError, OverflowError, OSError):
            self.fail(f"{value!r} is not a time; write '2026-11-30 18:05:00' or 2026-11-30T18:05:00+01:00", param, ctx)
        return (moment - _EPOCH) // timedelta(microseconds=1) * 1000


class Past(Moment):
    """Is a moment, or how long ago one was: 36h, 7d; as ns since the epoch."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:  # noqa: ANN401
        from respaldo.api import parse_span  # start-up time

        span = parse_span(value) if isinstance(value, str) else None
        return super().convert(value, param, ctx) if span is None else time.time_ns() - span


class Span(click.ParamType[int]):
    """Is a span of time such as 36h, 30d, 12w, 6m or 5y; in ns."""

    name = "span"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:  # noqa: ANN401
        from respaldo.api import SPAN_FORM, parse_span  # start-up time

        if isinstance(value, int):
            return value
        found = parse_span(str(value))
        if found is None:
            self.fail(f"{value!r} is not a span of time; {SPAN_FORM}", param, ctx)
        return found


class Duration(click.ParamType[float]):
    """Is a duration such as 90s, 15m (minutes), 2h, 1h30m or 1d; in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401
        if isinstance(value, float):
            return value
        text = str(value).strip().lower()
        seconds = sum(int(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(text))
        if not _DURATION.fullmatch(text) or not 0 < seconds <= _DURATION_MAX_S:
            self.fail(f"{value!r} is not a duration; write 90s, 15m, 1h30m or 2d", param, ctx)
        return float(seconds)


class _LocalZone(tzinfo):
    """Is the zone of this machine, by the system's rules. `astimezone` asks only `fromutc`."""

    def fromutc(self, moment: datetime) -> datetime:
        return moment.replace(tzinfo=UTC).astimezone()

    def utcoffset(self, moment: datetime | None) -> timedelta | None:
        return moment.replace(tzinfo=None).astimezone().utcoffset() if moment else None

    def dst(self, moment: datetime | None) -> timedelta | None:  # noqa: ARG002
        return None

    def tzname(self, moment: datetime | None) -> str:  # noqa: ARG002
        return "local"


LOCAL_ZONE = _LocalZone()


class Zone(click.ParamType[tzinfo]):
    """Is a time zone of the IANA database, or "local"."""

    name = "zone"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tzinfo:  # noqa: ANN401
        if isinstance(value, tzinfo):
            return value
        if value == "local":
            return LOCAL_ZONE
        import zoneinfo  # start-up time

        try:
            if len(str(value)) > _ZONE_LETTERS_MAX:
                raise ValueError
            return zoneinfo.ZoneInfo(str(value))
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            self.fail(f"{value!r} is not a time zone; write local, UTC or Europe/Madrid", param, ctx)


SIZE = Size()
SHARE = Share()
SPAN = Span()
DURATION = Duration()
ZONE = Zone()
RATE = Rate()
MOMENT = Moment()
PAST = Past()
