"""Moments: what words for times mean, in zones that set their clocks forward and back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from respaldo.catalog.moments import parse_moment, show_moment

MADRID = ZoneInfo("Europe/Madrid")
HAVANA = ZoneInfo("America/Havana")
"""Midnight comes twice there in autumn, and not at all in spring."""


def ns(text: str) -> int:
    moment = datetime.fromisoformat(text)
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000


NOW = ns("2026-11-20T15:30:00.123456+01:00") + 789


def last(words: str, zone: tzinfo = MADRID, now_ns: int = NOW) -> int | None:
    moment = parse_moment(words, now_ns=now_ns, zone=zone)
    return None if moment is None else moment.last_ns


@pytest.mark.parametrize(
    ("words", "begin"),
    [
        ("2026-11-19", "2026-11-20T00:00:00+01:00"),
        ("yesterday", "2026-11-20T00:00:00+01:00"),
        ("Today", "2026-11-21T00:00:00+01:00"),
        ("2026-10", "2026-11-01T00:00:00+01:00"),
        ("2024-02", "2024-03-01T00:00:00+01:00"),
        ("2026-11-20 14:30", "2026-11-20T14:30:01+01:00"),
        ("2026-11-20T14:30:05", "2026-11-20T14:30:06+01:00"),
        ("2026-11-20 14:30:05.25", "2026-11-20T14:30:05.260000+01:00"),
        ("2026-11-20T14:30Z", "2026-11-20T14:30:01+00:00"),
        ("2026-11-20T14:30:05.123456+00:00", "2026-11-20T14:30:05.123457+00:00"),
        ("2026-11-20 14:30 -0330", "2026-11-20T14:30:01-03:30"),
        ("2026-11-20T14:30+02", "2026-11-20T14:30:01+02:00"),
        ("yesterday 8:05", "2026-11-19T08:05:01+01:00"),
        ("14:30", "2026-11-20T14:30:01+01:00"),
    ],
)
def test_time_means_the_end_of_what_it_names(words, begin):
    """A day, a month, a second ends where the next one begins; a minute is its first second."""
    assert last(words) == ns(begin) - 1


@pytest.mark.parametrize(
    ("words", "when"),
    [
        ("now", "2026-11-20T15:30:00.123456+01:00"),
        ("3 days ago", "2026-11-17T15:30:00.123456+01:00"),
        ("3d ago", "2026-11-17T15:30:00.123456+01:00"),
        ("a week ago", "2026-11-13T15:30:00.123456+01:00"),
        ("1 hour and 30 minutes ago", "2026-11-20T14:00:00.123456+01:00"),
        ("90min ago", "2026-11-20T14:00:00.123456+01:00"),
        ("9 months ago", "2026-02-20T15:30:00.123456+01:00"),
        ("2 years ago", "2024-11-20T15:30:00.123456+01:00"),
        ("30 days ago", "2026-10-21T15:30:00.123456+02:00"),
    ],
)
def test_time_ago_keeps_the_hour(words, when):
    """Days, weeks, months and years go back by the calendar, also across a change of the clocks; hours exactly."""
    moment = parse_moment(words, now_ns=NOW, zone=MADRID)
    assert moment is not None
    assert (moment.last_ns, moment.exact) == (ns(when) + 789, False)


def test_month_without_that_day_ends_earlier():
    """A month before 31 March is the last of February."""
    assert last("1 month ago", now_ns=ns("2026-03-31T12:00:00+02:00")) == ns("2026-02-28T12:00:00+01:00")


@pytest.mark.parametrize(
    "words",
    [
        "",
        "2026",
        "20261120",
        "2026-02-30",
        "2026-13",
        "2026-11-20 25:00",
        "2026-11-20 14",
        "3 ages ago",
        "ago",
        "3 ago",
        "99999999 years ago",
        "999999999 days ago",
        "latest",
        "٣ days ago",
        "0000-01-01",
        "-1 days ago",
        "5m ago",
    ],
)
def test_what_is_no_time_is_none(words):
    """Neither dates that do not exist nor years that no calendar holds; "m" is months to some and minutes to others."""
    assert last(words) is None


def test_local_time_that_comes_twice_means_the_later_one():
    """What a listing showed in that hour is found, whichever of the two it was."""
    assert last("2026-10-25 02:30", now_ns=NOW) == ns("2026-10-25T02:30:01+01:00") - 1


def test_local_time_that_is_skipped_means_what_clocks_showed():
    """At 02:30 of that night it was 03:30."""
    assert last("2026-03-29 02:30") == ns("2026-03-29T03:30:01+02:00") - 1


def test_day_ends_where_the_next_begins_when_midnight_is_odd():
    """A midnight that comes twice begins the new day the first time; one that is skipped, at one o'clock."""
    assert last("2026-10-31", HAVANA) == ns("2026-11-01T00:00:00-04:00") - 1
    assert last("2026-03-07", HAVANA) == ns("2026-03-08T01:00:00-04:00") - 1


@given(st.integers(0, 1 << 33), st.sampled_from([MADRID, HAVANA, UTC, ZoneInfo("Australia/Lord_Howe")]))
def test_time_as_listed_finds_what_was_listed(seconds, zone):
    """The local second that a listing shows of a snapshot is never before that snapshot, and at most an hour after."""
    shown = f"{datetime.fromtimestamp(seconds, UTC).astimezone(zone):%Y-%m-%d %H:%M:%S}"
    found = last(shown, zone)
    assert found is not None
    assert 0 <= found - seconds * 10**9 <= 3600 * 10**9 + 10**9


@given(st.text(max_size=30))
def test_no_words_raise(words):
    """Whatever is typed is a time or none."""
    parse_moment(words, now_ns=NOW, zone=MADRID)


def test_shown_moment_says_its_zone():
    """So that nobody has to guess."""
    assert show_moment(ns("2026-10-25T02:30:01+01:00"), MADRID) == "2026-10-25 02:30:01 +0100"
