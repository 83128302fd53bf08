"""Tests of the commands that decide what stays: forget, pin, unpin, undo, and the views of snapshots."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta

import pytest

from respaldo.cli.values import ZONE

pytestmark = pytest.mark.usefixtures("repository")
STANDARD = ("--policy", "standard")


@pytest.fixture
def take(cli, tree):
    """Makes snapshots; returns the id."""

    def make(*words):
        return cli("snapshot", tree, "--json", *words).json["snapshot"]

    return make


def there(cli, *words):
    return [item["id"] for item in cli("snapshots", "--json", *words).json["snapshots"]]


@pytest.fixture
def daily(take, repository, monkeypatch):
    """Has a snapshot made on each of some days at noon, UTC: honestly, by clock and storage; returns the ids."""
    from respaldo.core.seams import SystemClock

    def make(days, *words, start="2025-03-01T12:00:00+00:00"):
        found = []
        for number in range(days):
            moment = datetime.fromisoformat(start) + timedelta(days=number)
            now_ns = int(moment.timestamp()) * 10**9
            with monkeypatch.context() as patch:
                patch.setattr(SystemClock, "now_ns", lambda _, now_ns=now_ns: now_ns)
                found.append(take(*words))
            os.utime(repository / "pending" / found[-1], ns=(now_ns, now_ns))
        return found

    return make


def test_forget_by_name(cli, take):
    """What is forgotten is not listed and cannot be named any more; the rest restores and verifies."""
    first, second = take("--label", "monday"), take()
    planned = cli("forget", "monday", "--dry-run", "--json").json
    assert planned == {
        "forgotten": [first],
        "trash": False,
        "dry_run": True,
        "frees_bytes": planned["frees_bytes"],
        "alone_bytes": {first: planned["frees_bytes"]},
    }
    assert there(cli) == [first, second]
    assert f"forgot {first[:8]} of " in cli("forget", "monday").out
    assert there(cli) == [second]
    cli("forget", first, expected=1)
    cli("verify", "--read-data")
    cli("ls", "latest")


def test_forget_several_or_none(cli, take):
    """One name that means nothing, or a pin, and nothing goes."""
    first, second = take(), take()
    cli("forget", first, "nonsense", expected=1)
    cli("pin", second)
    ran = cli("forget", first, second, expected=1)
    assert f"snapshot {second[:8]} is pinned" in ran.err
    assert f"respaldo unpin {second[:8]}" in ran.err
    assert there(cli) == [first, second]
    cli("unpin", second)
    assert cli("forget", first, second, first, "--json").json["forgotten"] == [first, second]
    assert there(cli) == []


def test_forget_wants_names_or_a_policy(cli, take):
    """Neither and both are wrong usage; options that keep nothing by themselves are no policy."""
    take()
    cli("forget", expected=2)
    cli("forget", "latest", "--keep-last", "1", expected=2)
    cli("forget", "--grace", "7d", expected=2)
    assert len(there(cli)) == 1


def test_forget_by_policy(cli, daily):
    """A dry run says for each why it stays, the run does just that, and a second run finds nothing to do."""
    made = daily(40)
    planned = cli("forget", *STANDARD, "--time-zone", "UTC", "--dry-run", "--json").json
    [group] = planned["groups"]
    rules = {item["id"]: [(rule["rule"], rule["of"]) for rule in item["rules"]] for item in group["snapshots"]}
    assert list(rules) == made
    assert rules[made[-1]] == [
        ("daily", "2025-04-09"),
        ("weekly", "2025-W15"),
        ("monthly", "2025-04"),
        ("yearly", "2025"),
    ]
    assert rules[made[30]] == [("monthly", "2025-03")]
    assert rules[made[0]] == []
    assert planned["forgotten"] == [item for item in made if not rules[item]]
    assert planned["kept"] == 10
    assert planned["policy"]["keep"] == {"daily": 7, "weekly": 4, "monthly": 12, "yearly": 5}
    assert there(cli) == made
    text = cli("forget", *STANDARD, "--time-zone", "UTC", "-n").out
    assert "keep    daily 2025-04-09, weekly 2025-W15, monthly 2025-04, yearly 2025  " in text
    assert "would forget 30 snapshots, would keep 10; together that frees " in text
    done = cli("forget", *STANDARD, "--time-zone", "UTC", "--json").json
    assert done["forgotten"] == planned["forgotten"]
    assert there(cli) == [item for item in made if rules[item]]
    assert cli("forget", *STANDARD, "--time-zone", "UTC").out.endswith("forgot 0 snapshots, kept 10\n")
    cli("verify", "--read-data")


RULES = {
    "--keep-last 3": 3,
    "--keep-daily 2 --keep-weekly 3": 3,
    "--keep-within 3d": 4,
    "--keep-within-weekly 7d": 2,
    "--keep-hourly 5": 5,
    "--keep-yearly 5": 1,
    "--policy standard --keep-daily 0 --keep-last 6": 7,
    "--keep-kind incremental=2d,full=30d": 8,
    "--keep-tag x --keep-last 1": 10,
}


def test_each_rule(cli, daily):
    """Of ten days in a row, from Saturday on."""
    made = daily(10, "--tag", "x")
    plans = {rule: cli("forget", *rule.split(), "--time-zone", "UTC", "-n", "--json").json for rule in RULES}
    assert {rule: plan["kept"] for rule, plan in plans.items()} == RULES
    assert there(cli) == made


def test_rules_that_keep_nothing_are_refused(cli, take):
    """Nothing is forgotten: a rule of zero is wrong usage, a tag that nobody bears a failure with a hint."""
    take()
    take()
    assert "would keep nothing" in cli("forget", "--keep-last", "0", expected=2).err
    ran = cli("forget", "--keep-tag", "mistyped", expected=1)
    assert "would keep none of the 2 snapshots" in ran.err
    assert "hint: add a rule" in ran.err
    assert len(there(cli)) == 2


def test_groups(cli, take):
    """By host and paths, unless something else is asked for."""
    for host in "ab":
        for tag in "xy":
            take("--host", host, "--tag", tag)

    def kept(*words):
        return cli("forget", "--keep-last", "1", "-n", "--json", *words).json["kept"]

    assert kept() == kept("--group-by", "host") == 2
    assert kept("--group-by", "host,tags") == 4
    assert kept("--group-by", "") == 1
    cli("forget", "--keep-last", "1", "--group-by", "user", expected=2)


def test_pinned_snapshot_survives_every_policy(cli, take):
    """Until it is unpinned; the table of snapshots marks it."""
    first, *_ = [take() for _ in range(3)]
    assert f"pinned {first[:8]} of " in cli("pin", first, "--reason", "why").out
    assert "(it was already)" in cli("pin", first).out
    assert [item["pinned"] for item in cli("snapshots", "--json").json["snapshots"]] == [True, False, False]
    assert f"{first[:8]}! " in cli("snapshots").out
    plan = cli("forget", "--keep-last", "1", "--json").json
    assert plan["kept"] == 2
    assert plan["groups"][0]["snapshots"][0]["rules"] == [{"rule": "pinned", "of": ""}]
    cli("verify")
    cli("verify", "--keyless")
    assert cli("unpin", first, "--json").json == {"unpinned": [first], "snapshots": [first]}
    assert cli("unpin", first, "--json").json["unpinned"] == []
    cli("forget", "--keep-last", "1")
    assert len(there(cli)) == 1


def test_undo(cli, take, place, tree):
    """What a policy forgets with grace is out of sight, restores still, and comes back."""
    made = [take() for _ in range(3)]
    assert "in the trash for 7 days: respaldo undo" in cli("forget", "--keep-last", "1", "--grace", "7d").out
    assert there(cli) == made[2:]
    trash = cli("snapshots", "--trash", "--json").json["snapshots"]
    assert [item["id"] for item in trash] == made[:2]
    until, forgotten = (datetime.fromisoformat(trash[0][key]) for key in ("until", "forgotten"))
    assert until - forgotten == timedelta(days=7)
    assert "UNTIL" in cli("snapshots", "--trash").out
    cli("ls", made[0], expected=1)
    assert cli("verify", "--json").json["ok"] is True
    assert cli("verify", "--keyless", "--json").json["ok"] is True
    assert f"brought back {made[0][:8]} of " in cli("undo", made[0]).out
    assert there(cli) == [made[0], made[2]]
    assert "respaldo snapshots --trash" in cli("undo", made[0], expected=1).err
    assert cli("undo", "--all", "--json").json == {"restored": [made[1]]}
    assert there(cli) == made
    assert cli("undo", "--all").out == "the trash is empty\n"
    cli("restore", made[1], place / "target")
    for words in ([], ["--all", made[0]]):
        cli("undo", *words, expected=2)


def test_trash_by_name(cli, take):
    """--grace works for named snapshots too; forgetting what is in the trash is for good."""
    first, second = take(), take()
    assert cli("forget", first, "--grace", "1h", "--json").json["trash"] is True
    assert there(cli, "--trash") == [first]
    cli("forget", first)
    assert there(cli, "--trash") == []
    assert there(cli) == [second]
    cli("verify")
    cli("snapshots", "--trash", "--view", "daily", expected=2)


def test_policy_of_a_file(cli, take, place):
    """FILE:NAME, or FILE with one policy; its grace counts; mistakes name file, policy and key."""
    made = [take() for _ in range(3)]
    path = place / "policies.toml"
    path.write_text('[one]\nkeep-last = 2\n[two]\nkeep-last = 1\ngrace = "3d"\n')
    assert "several policies" in cli("forget", "--policy", path, expected=2).err
    assert "has no policy 'three'" in cli("forget", "--policy", f"{path}:three", expected=2).err
    assert cli("forget", "--policy", f"{path}:one", "--json").json["forgotten"] == made[:1]
    assert cli("forget", "--policy", f"{path}:two", "--json").json["policy"]["grace_s"] == 3 * 86400
    assert there(cli, "--trash") == made[1:2]
    path.write_text("[one]\nkeep-lust = 2\n")
    ran = cli("forget", "--policy", path, expected=2)
    assert f"{path}, [one]: keep-lust: there is no such key" in ran.err
    assert "hint: there are: keep-last" in ran.err
    assert "no file" in cli("forget", "--policy", "nonsense", expected=2).err
    path.write_bytes(b"\xff")
    cli("forget", "--policy", path, expected=2)


def test_invented_time_pushes_nothing_out(cli, daily, take):
    """A snapshot of the future, or of a past that it was not made in, is kept, reported and does not count."""
    made = daily(3)
    forged = take("--time", "2025-03-03T23:59:00+00:00")
    ran = cli("forget", "--keep-daily", "3", "--time-zone", "UTC", "--json")
    assert ran.json["forgotten"] == []
    assert f"warning: snapshot {forged[:8]}: its time is not when it was made; it is kept" in ran.err
    doubts = {item["id"]: item["doubt"] for item in ran.json["groups"][0]["snapshots"]}
    assert doubts == {**dict.fromkeys(made), forged: "claimed"}
    ran = cli("forget", "--keep-daily", "3", "--time-zone", "UTC", "--accept-times", "--json")
    assert ran.json["forgotten"] == made[2:]
    assert "warning: " in ran.err


def test_backdated_clock_is_found_out_by_the_storage(cli, daily, repository, take, monkeypatch):
    """With every time in the manifest forged, the one that storage knows is left."""
    made = daily(3)
    [forged] = daily(1, start="2025-03-03T23:00:00+00:00")
    now_ns = time.time_ns()
    os.utime(repository / "pending" / forged, ns=(now_ns, now_ns))
    ran = cli("forget", "--keep-daily", "3", "--time-zone", "UTC", "--json")
    assert ran.json["forgotten"] == []
    assert [item["doubt"] for item in ran.json["groups"][0]["snapshots"]] == [None, None, None, "late"]
    assert there(cli) == [*made, forged]


@pytest.mark.parametrize(
    ("view", "column", "buckets"),
    [
        ("daily", "DAY", [f"2025-03-{day:02}" for day in range(1, 11)]),
        ("weekly", "WEEK", ["2025-W09", "2025-W10", "2025-W11"]),
        ("monthly", "MONTH", ["2025-03"]),
        ("yearly", "YEAR", ["2025"]),
    ],
)
def test_views_by_the_calendar(cli, daily, view, column, buckets):
    """The newest of each: the same snapshot is the day's, the week's, the month's and the year's."""
    made = daily(10)
    found = cli("snapshots", "--view", view, "--time-zone", "UTC", "--json").json["snapshots"]
    assert [item["bucket"] for item in found] == buckets
    assert found[-1]["id"] == made[-1]
    assert cli("snapshots", "--view", view, "--time-zone", "UTC").out.split()[0] == column


def test_views_of_what_each_holds_and_changed(cli, take, tree):
    """Those of a kind, with what each holds, or what it changed; of all together, all that is known."""
    first = take()
    (tree / "new").write_text("new")
    (tree / "docs" / "a.txt").unlink()
    (tree / "docs" / "b.log").write_text("another")
    second, third = take(), take("--kind", "full")
    heading, row = cli("snapshots", "--view", "incremental").out.splitlines()
    assert heading.split()[4:] == ["KIND", "LABEL", "AFTER", "NEW", "CHANGED", "REMOVED", "READ", "ADDED"]
    assert row.split()[7:11] == [first[:8], "1", "1", "1"]
    assert cli("snapshots", "--view", "full").out.splitlines()[0].split()[4:] == [
        "KIND",
        "LABEL",
        "FILES",
        "DIRS",
        "SIZE",
    ]
    assert there(cli) == [first, second, third]
    views = [there(cli, "--view", kind) for kind in ("snapshot", "incremental", "full")]
    assert views == [[first], [second], [third]]
    cli("snapshots", "--view", "fortnightly", expected=2)


@pytest.fixture
def kinds(cli, daily, monkeypatch):
    """Has three snapshots made a day, from Friday to Tuesday; returns their ids by kind."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    made = {
        (day, hour): daily(1, start=f"2025-03-{day:02}T{hour:02}:00:00+00:00")[0]
        for day in range(7, 12)
        for hour in (6, 12, 18)
    }
    yield made
    monkeypatch.undo()
    time.tzset()


def test_kinds_follow_the_calendar(cli, kinds):
    """The first of a week is a snapshot, the first of another day full, all others incremental."""
    found = {item["id"]: item["kind"] for item in cli("snapshots", "--json").json["snapshots"]}
    expected = {made: "incremental" if hour > 6 else "full" for (_, hour), made in kinds.items()}
    expected |= {kinds[7, 6]: "snapshot", kinds[10, 6]: "snapshot"}
    assert found == expected
    assert there(cli, "--view", "full") == [kinds[8, 6], kinds[9, 6], kinds[11, 6]]


def test_kinds_are_kept_by_policies(cli, kinds):
    """Each kind for as long as the policy says, and what it lets go is gone with its space."""
    cli("prune", "--keep-kind", "incremental=1d,full=2d,snapshot=12w", "--time-zone", "UTC")
    kept = [kinds[7, 6], *(kinds[day, hour] for day, hour in ((10, 6), (10, 18), (11, 6), (11, 12), (11, 18)))]
    assert there(cli) == kept
    assert there(cli, "--view", "snapshot") == [kinds[7, 6], kinds[10, 6]]
    cli("verify", "--read-data")


def test_kind_that_does_not_exist_is_not_kept(cli, kinds):
    """A slip of the pen forgets nothing."""
    ran = cli("forget", "--keep-kind", "incremental=1d,ful=30d", expected=2)
    assert "ful" in ran.err and "snapshot, full, incremental" in ran.err
    assert len(there(cli)) == 15


def test_local_zone_has_its_own_rules(monkeypatch):
    """Summer and winter differ, also where only TZ says so."""
    monkeypatch.setenv("TZ", "EST5EDT,M3.2.0,M11.1.0")
    time.tzset()
    try:
        zone = ZONE.convert("local", None, None)
        found = [datetime(2026, month, 1, 12, tzinfo=UTC).astimezone(zone) for month in (1, 7)]
        assert [moment.hour for moment in found] == [7, 8]
        assert [datetime(2026, month, 1, tzinfo=zone).utcoffset() for month in (1, 7)] == [
            timedelta(hours=-5),
            timedelta(hours=-4),
        ]
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("words", [["--time-zone", "Nowhere/Else"], ["--time-zone", "../x"], ["--keep-within", "7"]])
def test_options_of_nonsense(cli, words):
    """What cannot be understood is wrong usage."""
    cli("forget", "--keep-last", "1", *words, expected=2)


@pytest.mark.parametrize("kinds", ["full", "=7d", "full=x"])
def test_kinds_of_nonsense(cli, kinds):
    """A kind has a name and a span."""
    assert "KIND=SPAN" in cli("forget", "--keep-kind", kinds, expected=2).err


def test_damaged_manifest_is_reported_and_left_alone(cli, take, repository):
    """A policy decides about what it can read, and ends with status 4."""
    first, second, third = take(), take(), take()
    path = repository / "pending" / second
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1])
    ran = cli("forget", "--keep-last", "1", "--json", "--cache-dir", repository.parent / "fresh", expected=4)
    assert ran.json["forgotten"] == [first]
    assert f"pending/{second}" in ran.err
    assert (repository / "pending" / second).exists()
    assert (repository / "pending" / third).exists()


@pytest.mark.parametrize("folder", ["pins", "trash"])
def test_verify_finds_damaged_pins_and_trash(cli, take, repository, folder):
    """With and without a key; and it notes what belongs to no snapshot any more."""
    first = take()
    take()
    cli("pin", first) if folder == "pins" else cli("forget", first, "--grace", "7d")
    (repository / "pending" / first).rename(repository / "away")
    (repository / "outcome" / first).rename(repository / "away2")
    assert f"{folder}/{first}: its snapshot is gone" in cli("verify", "--accept-rollback").out
    path = repository / folder / first
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    for words in ([], ["--keyless"]):
        found = cli("verify", "--json", *words, expected=4).json["damages"]
        assert f"{folder}/{first}" in [item["name"] for item in found]
