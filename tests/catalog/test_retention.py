"""Retention: a naive oracle says what is kept, rule by rule; calendars and clocks do what they do."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from respaldo.catalog.arrival import HOUR_NS, Arrival, Doubt, Told
from respaldo.catalog.kinds import bucket_of, kind_of
from respaldo.catalog.retention import (
    COUNTS,
    PERIODS,
    WINDOWS,
    Candidate,
    Policy,
    decide,
    newest_of_each,
)
from respaldo.core.errors import Refused, UsageError

DAY_NS = 24 * HOUR_NS
START_NS = 1_780_000_000 * 10**9
NOW_NS = START_NS + 4000 * DAY_NS
ZONES = [
    ZoneInfo(name)
    for name in ("UTC", "Europe/Madrid", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "Asia/Kathmandu")
]
ids = itertools.count(1)


def at(text, zone="UTC"):
    """Returns a moment in ns; a fold is said by `+hh:mm`."""
    moment = datetime.fromisoformat(text)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=ZoneInfo(zone))
    return round(moment.timestamp()) * 10**9


def made(time_ns, **fields):
    """Returns a snapshot of that time which nobody doubts."""
    arrival = Arrival(
        id=fields.pop("id", None) or next(ids).to_bytes(16, "big"),
        time_ns=time_ns,
        started_ns=time_ns,
        ended_ns=time_ns,
    )
    return Candidate(arrival=arrival, **fields)


def kept(items, policy, *, zone=UTC, now_ns=NOW_NS, **more):
    return {item.id for item in decide(items, policy, zone=zone, now_ns=now_ns, **more) if item.kept}


# --- what is drawn ---

# Close together and far apart, so that every bucket has one, several and no snapshots in it.
times = st.one_of(
    st.integers(0, 3 * 24).map(lambda hours: START_NS + hours * HOUR_NS // 3),
    st.integers(0, 60).map(lambda days: START_NS + days * DAY_NS + 7 * HOUR_NS),
    st.integers(0, 3000).map(lambda days: START_NS + days * DAY_NS),
)
GROUPS = [(("host", (name,)),) for name in "ab"]
candidates = st.builds(
    made,
    times,
    group=st.sampled_from(GROUPS),
    kind=st.sampled_from(["", "full", "incremental"]),
    tags=st.lists(st.sampled_from("xy"), max_size=2).map(tuple),
    pinned=st.sampled_from([False, False, False, True]),
    complete=st.sampled_from([True, True, False]),
)
histories = st.lists(candidates, min_size=1, max_size=25)
spans = st.one_of(st.integers(1, 72).map(lambda n: n * HOUR_NS), st.integers(1, 900).map(lambda n: n * DAY_NS))
bucket_policies = st.builds(
    Policy,
    keep=st.dictionaries(st.sampled_from(COUNTS), st.integers(0, 5), max_size=4),
    within_ns=st.dictionaries(st.sampled_from(WINDOWS), spans, max_size=2),
).filter(lambda policy: policy.has_rules)


def by_time(counts):
    """Returns policies of rules that go by times alone."""
    return st.builds(
        Policy,
        keep=st.dictionaries(st.sampled_from(counts), st.integers(0, 5), max_size=4),
        within_ns=st.dictionaries(st.sampled_from(WINDOWS), spans, max_size=2),
    )


policies = st.builds(
    lambda policy, tags, kinds_ns: replace(policy, tags=tags, kinds_ns=kinds_ns),
    by_time(COUNTS),
    st.lists(st.sampled_from("xy"), max_size=1).map(tuple),
    st.dictionaries(st.sampled_from(["full", "incremental"]), spans, max_size=2),
).filter(lambda policy: policy.has_rules)
zones = st.sampled_from(ZONES)


# --- the oracle: each question is asked of each snapshot on its own ---


def name(period, item, zone):
    """Returns the bucket as the standard library's clock would name it."""
    local = datetime.fromtimestamp(item.time_ns // 10**9, zone)
    return {
        "last": item.id,
        "hourly": (local.date(), local.hour, local.utcoffset()),
        "daily": local.date(),
        "weekly": local.isocalendar()[:2],
        "monthly": (local.year, local.month),
        "yearly": local.year,
    }[period]


def is_kept(item, items, policy, zone):
    """Says whether a snapshot is kept, by what is newer in its group, and nothing that was computed for another."""
    group = [other for other in items if other.group == item.group]
    newer = [other for other in group if other.order > item.order]
    newest_ns = max(other.time_ns for other in group)
    age_ns = newest_ns - item.time_ns
    stands = {
        period: all(name(period, other, zone) != name(period, item, zone) for other in newer)
        for period in ("last", *PERIODS)
    }
    return (
        not newer
        or (item.complete and not any(other.complete for other in newer))
        or item.pinned
        or bool(set(item.tags) & set(policy.tags))
        or age_ns <= policy.within_ns.get("", -1)
        or age_ns <= policy.kinds_ns.get(item.kind, -1)
        or any(stands[period] and age_ns <= policy.within_ns.get(period, -1) for period in PERIODS)
        or any(
            stands[period] and len({name(period, other, zone) for other in newer}) < policy.keep.get(period, 0)
            for period in COUNTS
        )
    )


@given(histories, policies, zones)
def test_decision_is_the_oracles(items, policy, zone):
    """For every history, policy and zone, unless the policy is refused."""
    try:
        found = kept(items, policy, zone=zone)
    except Refused:
        assume(False)
    assert found == {item.id for item in items if is_kept(item, items, policy, zone)}


@given(histories, policies, zones)
def test_newest_of_a_group_is_never_forgotten(items, policy, zone):
    """Whatever the rules; and a policy that leaves a group nothing else is refused instead."""
    groups = {item.group: [other for other in items if other.group == item.group] for item in items}
    newest = {max(group, key=lambda item: item.order).id for group in groups.values()}
    try:
        assert newest <= kept(items, policy, zone=zone)
    except Refused:
        rules = bool(sum(policy.keep.values())) or bool(policy.within_ns)
        assert not rules  # bucket and window rules always keep one


def test_incomplete_snapshot_pushes_the_last_complete_one_not_out():
    """However few a policy keeps; and as soon as a complete one is there, it goes by the rules alone."""
    history = [made(START_NS + day * DAY_NS, complete=day not in {2, 3}) for day in range(5)]
    policy = Policy(keep={"last": 1})
    assert kept(history[:4], policy) == {history[1].id, history[3].id}
    [decision] = [item for item in decide(history[:4], policy, zone=UTC, now_ns=NOW_NS) if item.id == history[1].id]
    assert [reason.rule for reason in decision.reasons] == ["complete"]
    assert kept(history, policy) == {history[4].id}


@given(histories, policies, zones, st.sampled_from(GROUPS))
def test_decision_about_one_group_is_that_among_all(items, policy, zone, group):
    """Snapshots of other groups are not decided about, and make no difference but to what is in doubt."""
    try:
        found = decide(items, policy, zone=zone, now_ns=NOW_NS)
        alone = decide(items, policy, zone=zone, now_ns=NOW_NS, only=group)
    except Refused:
        assume(False)
    assert alone == tuple(item for item in found if item.group == group)


@given(histories, bucket_policies, zones)
def test_no_bucket_rule_keeps_more_than_it_says(items, policy, zone):
    """At most N of a group for each, and each for a bucket of its own."""
    found = {}
    for decision in decide(items, policy, zone=zone, now_ns=NOW_NS):
        for reason in decision.reasons:
            found.setdefault((decision.group, reason.rule), []).append(reason.of)
    for (_, rule), buckets in found.items():
        if rule in COUNTS:
            assert len(buckets) == len(set(buckets)) <= policy.keep[rule]


@given(
    st.lists(candidates.map(lambda item: replace(item, pinned=False)), min_size=1, max_size=25), bucket_policies, zones
)
def test_forgetting_every_time_keeps_what_forgetting_once_would(items, policy, zone):
    """Nothing goes early: what a finer rule let go yesterday is never missed by a coarser one tomorrow."""
    there = []
    for item in sorted(items, key=lambda item: item.order):
        there.append(item)
        left = kept(there, policy, zone=zone)
        there = [other for other in there if other.id in left]
    assert {item.id for item in there} == kept(items, policy, zone=zone)


@given(st.lists(times, min_size=2, max_size=20), st.sampled_from(PERIODS), st.integers(1, 4), zones)
def test_snapshot_goes_only_when_its_bucket_does(moments, period, count, zone):
    """A newer snapshot pushes out the one that stood for its own bucket, or one that N newer buckets come after."""
    *items, new = sorted(map(made, moments), key=lambda item: item.order)
    policy = Policy(keep={period: count})
    for gone in kept(items, policy, zone=zone) - kept([*items, new], policy, zone=zone):
        [item] = [item for item in items if item.id == gone]
        newer = {name(period, other, zone) for other in [*items, new] if other.order > item.order}
        assert name(period, item, zone) == name(period, new, zone) or len(newer) >= count


@given(histories, st.lists(candidates, max_size=8), policies, zones, st.data())
def test_snapshots_in_doubt_push_nothing_out(items, forged, policy, zone, data):
    """All that is kept among sound snapshots stays kept, whatever times others claim; those themselves are kept."""
    spoil = st.sampled_from(
        [
            lambda _: {"time_ns": NOW_NS + 2 * HOUR_NS},
            lambda _: {"ended_ns": NOW_NS + 10**4 * DAY_NS},
            lambda time_ns: {"started_ns": time_ns + 1},
            lambda time_ns: {"ended_ns": time_ns - 1},
            lambda time_ns: {"ended_ns": time_ns + DAY_NS + 1},
        ]
    )
    forged = [replace(item, arrival=replace(item.arrival, **data.draw(spoil)(item.time_ns))) for item in forged]
    try:
        before = kept(items, policy, zone=zone)
    except Refused:
        assume(False)
    assert kept([*items, *forged], policy, zone=zone) == before | {item.id for item in forged}


# --- examples ---


def test_future_snapshot_is_kept_and_does_not_count():
    """Until its times are accepted: then it is the newest like any other."""
    items = [made(START_NS), made(START_NS + DAY_NS), made(NOW_NS + 2 * HOUR_NS)]
    policy = Policy(keep={"last": 1})
    decisions = decide(items, policy, zone=UTC, now_ns=NOW_NS)
    assert [item.kept for item in decisions] == [False, True, True]
    assert [item.doubt for item in decisions] == [None, None, Doubt.FUTURE]
    assert str(decisions[2].reasons[0]) == "doubt future"
    accepted = decide(items, policy, zone=UTC, now_ns=NOW_NS, accept_times=True)
    assert [item.kept for item in accepted] == [False, False, True]
    assert accepted[2].doubt is Doubt.FUTURE


def test_hours_that_bear_one_name_are_two():
    """When clocks go back, 02:30 comes twice: two hours, one day."""
    zone = ZoneInfo("Europe/Madrid")
    items = [made(at("2026-10-25T02:30+02:00")), made(at("2026-10-25T02:30+01:00"))]
    assert len(kept(items, Policy(keep={"hourly": 2}), zone=zone)) == 2
    assert kept(items, Policy(keep={"daily": 2}), zone=zone) == {items[1].id}


def test_half_an_hour_that_comes_twice():
    """Lord Howe's clocks go back by half an hour."""
    zone = ZoneInfo("Australia/Lord_Howe")
    first, again = at("2026-04-05T01:45+11:00"), at("2026-04-05T01:45+10:30")
    assert again - first == HOUR_NS // 2
    assert bucket_of("hourly", first, zone) == "2026-04-05T01+1100"
    assert bucket_of("hourly", again, zone) == "2026-04-05T01+1030"


@pytest.mark.parametrize(
    ("zone", "days"),
    [("UTC", 1), ("America/New_York", 2), ("Asia/Kathmandu", 1), ("Asia/Tokyo", 2)],
)
def test_day_is_the_zones(zone, days):
    """Midnight lies elsewhere in every zone."""
    items = [made(at("2026-11-25T03:00Z")), made(at("2026-11-25T17:00Z"))]
    assert len(kept(items, Policy(keep={"daily": 9}), zone=ZoneInfo(zone))) == days


def test_days_of_23_and_25_hours():
    """Every hour of both is of its day, and the day after begins at midnight."""
    zone = ZoneInfo("Europe/Madrid")
    for day, hours in (("2026-03-29", 23), ("2026-10-25", 25), ("2026-11-25", 24)):
        start = at(f"{day}T00:00", "Europe/Madrid")
        named = [bucket_of("daily", start + hour * HOUR_NS, zone) for hour in range(hours + 1)]
        assert set(named[:-1]) == {day}
        assert named[-1] > day
        assert len({bucket_of("hourly", start + hour * HOUR_NS, zone) for hour in range(hours)}) == hours


def test_day_that_there_was_not():
    """Samoa went from the 29th to the 31st of December 2011: two snapshots an hour apart, two days."""
    zone = ZoneInfo("Pacific/Apia")
    moment = at("2011-12-29T23:30", "Pacific/Apia")
    assert bucket_of("daily", moment, zone) == "2011-12-29"
    assert bucket_of("daily", moment + HOUR_NS, zone) == "2011-12-31"


@pytest.mark.parametrize(
    ("day", "week"),
    [("2026-12-31", "2026-W53"), ("2027-01-03", "2026-W53"), ("2027-01-04", "2027-W01"), ("2024-12-30", "2025-W01")],
)
def test_weeks_are_those_of_iso_8601(day, week):
    """They begin on Monday, and belong to the year that has more of them."""
    assert bucket_of("weekly", at(f"{day}T12:00Z"), UTC) == week


@given(st.integers(-(1 << 63), (1 << 63) - 1), st.sampled_from(PERIODS), zones)
def test_every_time_that_a_manifest_can_hold_has_its_bucket(time_ns, period, zone):
    """From 1677 to 2262."""
    assert bucket_of(period, time_ns, zone)


def test_span_counts_from_the_newest():
    """A machine that was off for a year loses nothing, and the span's end is in it."""
    items = [made(START_NS - 30 * DAY_NS - 1), made(START_NS - 30 * DAY_NS), made(START_NS)]
    assert kept(items, Policy(within_ns={"": 30 * DAY_NS})) == {item.id for item in items[1:]}


def test_standard_history():
    """Of three years of daily snapshots: days, weeks, months and years as they are named."""
    end = datetime(2026, 11, 25, 22, tzinfo=UTC)
    items = [made(round((end - timedelta(days=days)).timestamp()) * 10**9) for days in range(3 * 365)]
    policy = Policy(keep={"daily": 7, "weekly": 4, "monthly": 12, "yearly": 5})
    rules = {}
    for decision in decide(items, policy, zone=UTC, now_ns=NOW_NS):
        for reason in decision.reasons:
            rules.setdefault(reason.rule, []).append(reason.of)
    assert rules["daily"] == [f"2026-11-{day}" for day in range(19, 26)]
    assert rules["weekly"] == ["2026-W45", "2026-W46", "2026-W47", "2026-W48"]
    assert rules["monthly"] == ["2025-12", *(f"2026-{month:02}" for month in range(1, 12))]
    assert rules["yearly"] == ["2023", "2024", "2025", "2026"]
    assert len(kept(items, policy)) == 7 + 2 + 11 + 2


def test_groups_are_decided_on_their_own():
    """One that is busy takes nothing from one that is not."""
    quiet, busy = GROUPS
    items = [made(START_NS, group=quiet), *(made(START_NS + n * DAY_NS, group=busy) for n in range(1, 9))]
    assert kept(items, Policy(keep={"last": 2})) == {items[0].id, items[7].id, items[8].id}


@pytest.mark.parametrize("policy", [Policy(), Policy(keep={"last": 0}), Policy(grace_ns=DAY_NS)])
def test_policy_without_rules_is_refused(policy):
    """Also where there is nothing to forget."""
    with pytest.raises(UsageError):
        decide([], policy, zone=UTC, now_ns=NOW_NS)


def test_policy_that_keeps_nothing_of_a_group_is_refused():
    """A tag that nobody bears would leave one snapshot: more likely it was misspelt."""
    items = [made(START_NS, tags=("keep",), group=GROUPS[0]), made(START_NS, group=GROUPS[1])]
    with pytest.raises(Refused) as caught:
        decide(items, Policy(tags=("keep",)), zone=UTC, now_ns=NOW_NS)
    assert "none of the 1 snapshots of b" in str(caught.value)
    assert "--keep-last" in caught.value.hint
    decide([*items, made(START_NS - 1, pinned=True, group=GROUPS[1])], Policy(tags=("keep",)), zone=UTC, now_ns=NOW_NS)


@pytest.mark.parametrize(
    "fields", [{"keep": {"fortnightly": 1}}, {"keep": {"last": -1}}, {"within_ns": {"last": 1}}, {"grace_ns": -1}]
)
def test_policy_of_nonsense(fields):
    """Rules that do not exist and numbers below nothing are wrong usage."""
    with pytest.raises(UsageError):
        Policy(**fields)


def test_kind_is_the_recorded_one_or_follows_from_the_parent():
    """A user's word counts first."""
    assert kind_of("milestone", b"") == "milestone"
    assert kind_of("", b"p" * 16) == "incremental"
    assert kind_of("", b"") == "full"


@given(histories, st.sampled_from(PERIODS), zones)
def test_view_is_what_an_unbounded_rule_keeps(items, period, zone):
    """What `--view weekly` shows is what `--keep-weekly` would choose among."""
    shown = newest_of_each(items, period, zone)
    chosen = {
        decision.id: reason.of
        for decision in decide(items, Policy(keep={period: 10**6}), zone=zone, now_ns=NOW_NS)
        for reason in decision.reasons
        if reason.rule == period
    }
    assert shown == chosen


# --- clients that are not trusted ---


def claimed(place, time_ns, *, signer=b"c"):
    """Returns a snapshot of such a client: its log's order is true, its times are what it claims."""
    item = made(time_ns)
    told = Told(signer=signer, place=place)
    return replace(item, arrival=replace(item.arrival, by_log=True, told=told))


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=8),
    st.lists(
        st.tuples(st.integers(0, 59), st.integers(0, 23), st.integers(0, 24), st.sampled_from([b"c", b"d", b"e"])),
        max_size=12,
    ),
    by_time([rule for rule in COUNTS if rule != "last"]).filter(lambda policy: policy.has_rules),
)
def test_false_times_push_out_no_more_than_an_honest_client_would(days, forged, policy):
    """Whatever a thief claims: a good snapshot that goes would have gone if the machine had gone on honestly."""
    good = [claimed(place, START_NS + day * DAY_NS) for place, day in enumerate(sorted(days))]
    last_ns = good[-1].time_ns
    now_ns = START_NS + 42 * DAY_NS
    bad = [
        replace(
            item,
            arrival=replace(
                item.arrival,
                started_ns=item.arrival.started_ns - before * HOUR_NS,
                time_ns=item.arrival.time_ns - before * HOUR_NS,
            ),
        )
        for place, (day, hour, before, signer) in enumerate(forged, len(good))
        for item in [claimed(place, START_NS + day * DAY_NS + hour * HOUR_NS, signer=signer)]
    ]
    goes = {item.id for item in good} - kept([*good, *bad], policy, now_ns=now_ns)
    hours = range(max(0, last_ns - START_NS) // HOUR_NS, (now_ns - START_NS) // HOUR_NS + 2)
    honest = [claimed(10_000 + hour, max(last_ns, START_NS + hour * HOUR_NS)) for hour in hours]
    assert goes <= {item.id for item in good} - kept([*good, *honest], policy, now_ns=now_ns + 2 * HOUR_NS)


def test_backdated_within_a_day_takes_no_place():
    """A start that lies a day back makes it the newest of yesterday: it counts by its end."""
    now = at("2026-06-10 12:00")
    good, bad = claimed(1, at("2026-06-09 02:00")), claimed(2, now)
    bad = replace(bad, arrival=replace(bad.arrival, started_ns=now - 20 * HOUR_NS, time_ns=now - 20 * HOUR_NS))
    policy = Policy(keep={"daily": 2})
    assert kept([good, bad], policy) == {good.id, bad.id}
    trusting = [replace(item, arrival=replace(item.arrival, by_log=False)) for item in (good, bad)]
    assert kept(trusting, policy) == {bad.id}
