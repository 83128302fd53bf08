"""Kinds by rule: the first of a week, the first of a day, all others; against an oracle that looks at a calendar."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from respaldo.catalog.kinds import is_near, kind_by_rule

HOUR_NS = 3600 * 10**9
DAY_NS = 24 * HOUR_NS
ZONES = tuple(
    ZoneInfo(name)
    for name in (
        "UTC",
        "Europe/Madrid",
        "America/St_Johns",
        "Australia/Lord_Howe",  # half an hour of summer time
        "Pacific/Apia",  # 30 December 2011 did not exist
        "America/Havana",  # clocks go forward at midnight
        "Asia/Kathmandu",
    )
)
EDGES = tuple(
    int(datetime(*moment, tzinfo=UTC).timestamp()) * 10**9
    for moment in (
        (2026, 3, 29, 1),  # clocks go forward in Madrid
        (2026, 10, 25, 1),  # and back
        (2011, 12, 30, 10),  # in Apia, the day before yesterday was yesterday
        (2026, 3, 8, 5),
        (2020, 12, 31, 23),  # a year of 53 weeks ends in one of its own
        (1969, 12, 29),
        (1700, 1, 1),
        (2200, 6, 1),
    )
)
MOMENTS = st.builds(
    lambda edge, hours, ns: edge + hours * HOUR_NS + ns,
    st.sampled_from(EDGES),
    st.integers(-250, 250),
    st.integers(-2, 2),
)


def day_of(time_ns, zone):
    """Reads the day off a calendar, by counting seconds."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=time_ns // 10**9)
    return moment.astimezone(zone).date()


def monday_of(day: date) -> date:
    return day - timedelta(days=day.weekday())


def oracle(time_ns, others_ns, zone):
    """Says the kind in the words of the rule."""
    day = day_of(time_ns, zone)
    days = {day_of(other, zone) for other in others_ns}
    if monday_of(day) not in set(map(monday_of, days)):
        return "snapshot"
    return "incremental" if day in days else "full"


@given(st.sampled_from(ZONES), MOMENTS, st.lists(MOMENTS, max_size=12))
def test_kind_is_that_of_the_calendar(zone, time_ns, others_ns):
    """In any zone, across changes of clocks, whatever the order of what was made and seen."""
    assert kind_by_rule(time_ns, others_ns, zone) == oracle(time_ns, others_ns, zone)


@given(st.sampled_from(ZONES), st.lists(MOMENTS, min_size=1, max_size=25))
@example(ZONES[1], [EDGES[1] - HOUR_NS, EDGES[1]])
def test_every_day_and_week_has_one_first(zone, moments):
    """However a clock jumps, of a week one is the snapshot, of each of its other days one is full."""
    kinds = []
    for place, moment in enumerate(moments):
        kinds.append(kind_by_rule(moment, moments[:place], zone))
    days = {day_of(moment, zone) for moment in moments}
    firsts = [day_of(moment, zone) for moment, kind in zip(moments, kinds, strict=True) if kind == "snapshot"]
    fulls = [day_of(moment, zone) for moment, kind in zip(moments, kinds, strict=True) if kind == "full"]
    assert sorted(map(monday_of, firsts)) == sorted(set(map(monday_of, days)))
    assert sorted(firsts + fulls) == sorted(days)


@given(st.sampled_from(ZONES), MOMENTS, MOMENTS)
def test_what_is_not_near_is_in_another_week(zone, one_ns, other_ns):
    """Nothing is overlooked because it was not looked at."""
    if not is_near(one_ns, other_ns):
        assert monday_of(day_of(one_ns, zone)) != monday_of(day_of(other_ns, zone))
    assert is_near(one_ns, other_ns) == is_near(other_ns, one_ns)


@pytest.mark.parametrize(
    ("moment", "before", "kind"),
    [
        ("2026-11-23T00:00:00", [], "snapshot"),
        ("2026-11-23T00:00:00", ["2026-11-22T23:59:59"], "snapshot"),  # a Sunday
        ("2026-11-24T00:00:00", ["2026-11-23T12:00:00"], "full"),
        ("2026-11-24T12:00:00", ["2026-11-24T00:00:00"], "incremental"),
        ("2026-11-24T12:00:00", ["2026-11-26T00:00:00"], "full"),  # the clock went back by two days
        ("2026-11-24T12:00:00", ["2026-11-24T23:00:00"], "incremental"),  # and by some hours
        ("2026-11-22T12:00:00", ["2026-11-24T00:00:00"], "snapshot"),  # and into the week before
        ("2026-10-25T03:30:00", ["2026-10-25T00:30:00"], "incremental"),  # a day of 25 hours
        ("2027-01-03T12:00:00", ["2026-12-28T12:00:00"], "full"),  # one week of two years
    ],
)
def test_kinds_of_a_week_in_madrid(moment, before, kind):
    """The rule, by example."""
    zone = ZoneInfo("Europe/Madrid")
    at = [int(datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()) * 10**9 for text in (moment, *before)]
    assert kind_by_rule(at[0], at[1:], zone) == kind
