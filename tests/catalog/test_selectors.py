"""Selectors: which snapshot a name means, and what is said where it means none."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from respaldo.catalog.selectors import SAFETY, Context, choose, covers, need_exact
from respaldo.catalog.snapshots import Catalogue, Snapshot
from respaldo.core.errors import Corruption, NoSuchSnapshot, Refused
from respaldo.core.ids import SnapshotId
from tests.catalog.test_snapshots import MANIFEST

MADRID = ZoneInfo("Europe/Madrid")


def ns(text: str) -> int:
    moment = datetime.fromisoformat(text).replace(tzinfo=MADRID)
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000


NOW = ns("2026-11-20 15:00:00")


def snapshot(number, when, **fields):
    manifest = replace(MANIFEST, time_ns=ns(when), **fields)
    return Snapshot(
        id=SnapshotId(bytes([number]) * 16), encoded=manifest.encode(), time_ns=manifest.time_ns, started_ns=1
    )


ITEMS = (
    snapshot(1, "2026-11-17 22:00:00", kind="full", label="before-move", host="web"),
    snapshot(2, "2026-11-18 22:00:00", kind="incremental", host="web", tags=("a,b",), sources=(b"/srv",)),
    snapshot(3, "2026-11-19 10:00:00.5", kind="full", host="mail", user="ana", sources=(b"/home/ana",)),
    snapshot(4, "2026-11-19 22:00:00", host="web", parent=b"p" * 16, sources=(b"/srv",), tags=("x",)),
)
ALL = Catalogue(snapshots=ITEMS, undecided=(), damaged=())
CONTEXT = Context(now_ns=NOW, zone=MADRID, verified=lambda: {ITEMS[1].id, ITEMS[2].id})


def chosen(name, catalogue=ALL, **more):
    return choose(catalogue, name, CONTEXT, **more).snapshot.id[0]


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("latest", 4),
        ("latest~1", 3),
        ("latest~3", 1),
        ("latest:kind=full", 3),
        ("latest:kind=incremental", 4),
        ("latest:host=web", 4),
        ("latest:host=web,kind=full", 1),
        ("latest:user=ana", 3),
        ("latest:verified", 3),
        ("latest:verified,host=web", 2),
        ("latest~1:verified", 2),
        ("latest:tag=x", 4),
        ("latest:tag=a\\,b", 2),
        ("latest:path=/home/ana/thesis.tex", 3),
        ("latest:path=/srv/,complete", 4),
        ("2026-11-18", 2),
        ("yesterday", 4),
        ("yesterday 10:00:00", 3),
        ("2026-11-19 10:00", 3),
        ("2026-11-19 09:59:59", 2),
        ("2026-11-19T09:00:00Z", 3),
        ("2 days ago", 1),
        ("yesterday:kind=full", 3),
        ("2026-11-19 12:00:host=web", 2),
        ("before-move", 1),
        ("0202", 2),
        ("04" * 16, 4),
    ],
)
def test_name_means_a_snapshot(name, number):
    """Latest, times, conditions, labels and ids."""
    assert chosen(name) == number


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("latest:kind=fulll", ["no snapshot has kind=fulll", "kind=full"]),
        ("latest:host=nobody", ["no snapshot has host=nobody", "host=mail, host=web"]),
        ("latest:host=mail,kind=incremental", ["no snapshot has kind=incremental", "kind=full"]),
        ("latest:verified,tag=x", ["no snapshot has tag=x", "tag=a,b"]),
        ("latest:knd=full", ['"knd=full" is no condition', "did you mean kind=…?", "verified"]),
        ("latest:kind=", ["is no condition"]),
        ("latest:verified=yes", ["is no condition"]),
        ("latest:", ["nothing stands behind the colon"]),
        ("latest~4", ["there are only 4", "01010101 of 2026-11-17 22:00:00 +0100"]),
        ("2026-11-16", ["not after 2026-11-16 23:59:59 +0100", "the oldest is 01010101 of 2026-11-17 22:00:00 +0100"]),
        ("3 years ago", ["not after 2023-11-20 15:00:00 +0100"]),
        ("before-mvoe", ["no such snapshot", "did you mean before-move?"]),
        ("lastest", ["did you mean latest?"]),
        ("2026-11-31", ["neither an id, nor a label, nor a time", "2026-11-20"]),
        ("three days ago", ["neither an id, nor a label, nor a time", "3 days ago"]),
        ("0", ["several snapshots begin so", "04040404 of 2026-11-19 22:00:00 +0100", "01010101"]),
        ("ff", ["no such snapshot", "respaldo snapshots"]),
    ],
)
def test_name_that_means_none_says_what_was_understood(name, words):
    """And what is nearest to it."""
    with pytest.raises(NoSuchSnapshot) as caught:
        choose(ALL, name, CONTEXT)
    said = f"{caught.value} | {caught.value.hint}"
    assert [word for word in words if word not in said] == [], said


def test_label_goes_before_a_time_but_not_before_latest():
    """A snapshot that is called like a date is meant by it; nobody can make his the latest by a label."""
    named = (
        snapshot(5, "2026-11-01 10:00:00", label="2026-11-18"),
        snapshot(6, "2026-11-01 11:00:00", label="latest:kind=full"),
    )
    catalogue = Catalogue(snapshots=(*named, *ITEMS), undecided=(), damaged=())
    assert chosen("2026-11-18", catalogue) == 5
    assert chosen("latest:kind=full", catalogue) == 3


def test_what_is_kept_for_safety_is_never_the_latest():
    """Nor that of a time; it is found by its id and by its tag."""
    safe = snapshot(7, "2026-11-20 14:00:00", tags=(SAFETY,), sources=(b"/srv",))
    catalogue = Catalogue(snapshots=(*ITEMS, safe), undecided=(), damaged=())
    assert [chosen(name, catalogue) for name in ("latest", "today", "latest:tag=safety", "07")] == [4, 4, 7, 7]
    alone = Catalogue(snapshots=(safe,), undecided=(), damaged=())
    with pytest.raises(NoSuchSnapshot, match="put away for safety"):
        chosen("latest", alone)


def test_tests_are_tried_one_after_another():
    """Of what covers a path the newest, and only where nothing does what lies below it."""
    tests = (lambda item: covers(item, b"/home/ana/x"), lambda _: True)
    assert chosen("latest", tests=tests) == 3
    assert chosen("2026-11-18", tests=(lambda item: covers(item, b"/srv/www"),)) == 2
    with pytest.raises(NoSuchSnapshot, match="covers"):
        chosen("latest", tests=(lambda item: covers(item, b"/nowhere"),), where=":/nowhere")


def test_no_older_snapshot_stands_in_for_a_damaged_one():
    """A manifest that cannot be read may be the one that a time or a condition means; by its id another is had."""
    catalogue = Catalogue(snapshots=ITEMS, undecided=(), damaged=(Corruption("pending/" + "09" * 16, "flipped"),))
    for name in ("latest", "yesterday", "latest:kind=full"):
        with pytest.raises(Corruption):
            chosen(name, catalogue)
    assert chosen("0101", catalogue) == 1


@pytest.mark.parametrize("name", ["latest", "latest:kind=full", "2026-11-18", "2026-11-19 22:00:00", "0202"])
def test_exact_name_may_be_taken_away(name):
    """A day with one snapshot is exact, and so is a second."""
    need_exact(ALL, choose(ALL, name, CONTEXT), CONTEXT)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("yesterday", "2 snapshots lie in it, the newest of them is 04040404"),
        ("2026-11-20", "the newest not after 2026-11-20 23:59:59 \\+0100 is 04040404"),
        ("2 days ago", "the newest not after .* is 01010101 of 2026-11-17 22:00:00"),
        ("2026-11-18:kind=full", "is 01010101"),
    ],
)
def test_inexact_name_takes_nothing_away(name, words):
    """What a day does not hold, or holds twice, is refused, and named."""
    with pytest.raises(Refused, match=words) as caught:
        need_exact(ALL, choose(ALL, name, CONTEXT), CONTEXT)
    assert "by its id" in caught.value.hint
