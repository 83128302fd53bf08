"""Times in doubt: what a client can invent, and who finds out."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from respaldo.catalog.arrival import HOUR_NS, Arrival, Doubt, Told, counted_times, find_doubts

DAY_NS = 24 * HOUR_NS
NOW_NS = 1_780_000_000 * 10**9


def made(number, days_ago, **fields):
    """Returns a snapshot that took a minute and was stored at once."""
    time_ns = NOW_NS - round(days_ago * DAY_NS)
    arrival = Arrival(
        id=bytes([number]) * 16,
        time_ns=time_ns,
        started_ns=time_ns,
        ended_ns=time_ns + 60 * 10**9,
        stored_ns=time_ns + 61 * 10**9,
    )
    return replace(arrival, **fields)


def doubted(*items):
    return {item[0]: doubt for item, doubt in find_doubts(items, NOW_NS).items()}


def test_ordinary_history_is_believed():
    """Each compared with the one before, stored when it was made."""
    items = [made(number, 10 - number, parent=bytes([number - 1]) * 16) for number in range(1, 10)]
    assert doubted(*items) == {}


@pytest.mark.parametrize("field", ["time_ns", "started_ns", "ended_ns"])
def test_future(field):
    """An hour ahead is a clock, more is the future."""
    assert doubted(made(1, 0.5, **{field: NOW_NS + HOUR_NS + 1})) == {1: Doubt.FUTURE}
    assert Doubt.FUTURE not in doubted(made(1, 0.5, **{field: NOW_NS + HOUR_NS})).values()


def test_recorded_time():
    """A time that is not between start and end was invented, with the best of reasons or not."""
    item = made(1, 3)
    assert doubted(replace(item, time_ns=item.started_ns - 1)) == {1: Doubt.CLAIMED}
    assert doubted(replace(item, time_ns=item.ended_ns + 1)) == {1: Doubt.CLAIMED}
    assert doubted(replace(item, time_ns=item.ended_ns)) == {}
    assert doubted(replace(item, ended_ns=item.started_ns - 1)) == {1: Doubt.CLAIMED}


def test_start_that_lies_far_back():
    """Whoever says that he began last month and ended now has no time that means anything."""
    item = made(1, 30)
    assert doubted(replace(item, ended_ns=NOW_NS, stored_ns=NOW_NS)) == {1: Doubt.LONG}


def test_child_that_began_before_its_parent_ended():
    """One of the two clocks was wrong, and nobody knows which."""
    parent, child = made(1, 3, stored_ns=None), made(2, 4, parent=b"\1" * 16, stored_ns=None)
    assert doubted(parent, child) == {1: Doubt.PARENT, 2: Doubt.PARENT}
    close = made(2, 3, parent=b"\1" * 16, stored_ns=None)
    assert doubted(parent, close) == {}
    assert doubted(child) == {}  # of a parent that is gone nothing can be said


def test_stored_before_it_was_made():
    """By a clock that ran ahead, or a hand that did."""
    item = made(1, 3)
    assert doubted(replace(item, stored_ns=item.ended_ns - HOUR_NS - 1)) == {1: Doubt.EARLY}


def test_backdated_snapshot_is_late():
    """One that arrives now and says it is of three weeks ago, with all its own times forged."""
    honest = [made(number, 30 - number) for number in range(1, 20)]
    forged = made(99, 21, stored_ns=NOW_NS)
    assert doubted(*honest, forged) == {99: Doubt.LATE}


def test_backdated_snapshot_is_late_after_a_silence():
    """Also where nothing newer contradicts it: one that arrived before was on time."""
    assert doubted(made(1, 25), made(99, 21, stored_ns=NOW_NS)) == {99: Doubt.LATE}


def test_copy_without_times_is_believed():
    """What was copied is late all together; what came after it is on time, and what is forged after that is late."""
    copied = [made(number, 100 - number, stored_ns=NOW_NS - 10 * DAY_NS + number) for number in range(1, 50)]
    after = [made(number, 60 - number) for number in range(52, 58)]
    assert doubted(*copied, *after) == {}
    assert doubted(*copied, *after, made(99, 70, stored_ns=NOW_NS)) == {99: Doubt.LATE}


def test_storage_that_tells_nothing():
    """Without its clock only the other notions count."""
    assert doubted(made(1, 25, stored_ns=None), made(2, 21, stored_ns=None)) == {}


@given(
    st.lists(
        st.builds(
            Arrival,
            id=st.integers(0, 9).map(lambda number: bytes([number]) * 16),
            time_ns=st.integers(-(1 << 63), (1 << 63) - 1),
            started_ns=st.integers(-(1 << 63), (1 << 63) - 1),
            ended_ns=st.integers(-(1 << 63), (1 << 63) - 1),
            parent=st.just(b"") | st.integers(0, 9).map(lambda number: bytes([number]) * 16),
            stored_ns=st.none() | st.integers(-(1 << 63), (1 << 63) - 1),
        ),
        max_size=10,
    )
)
def test_any_claim_has_an_answer(items):
    """Nothing that a manifest can hold, parents that are their own ancestors included, ends in an error."""
    assert set(find_doubts(items, NOW_NS)) <= {item.id for item in items}


def test_every_doubt_has_words():
    """For people."""
    assert all(doubt.text for doubt in Doubt)


# --- clients that are not trusted, whose log tells ---


def logged(number, days_ago, place=None, **fields):
    """Returns a snapshot of such a client, whose log says so in the place of its number."""
    told = Told(signer=b"c", place=number if place is None else place)
    return made(number, days_ago, by_log=True, told=told, stored_ns=None, **fields)


def test_honest_log_is_believed():
    """In order, or nearly so: what was made at the same time ends in another order than it began."""
    long = logged(3, 7.5, started_ns=NOW_NS - 8 * DAY_NS)
    assert doubted(logged(1, 9), logged(2, 7.6), replace(long, ended_ns=NOW_NS - 7 * DAY_NS), logged(4, 6)) == {}


def test_what_no_log_says_does_not_count():
    """Whoever cannot sign for the client, or would rather not."""
    assert doubted(replace(logged(1, 3), told=None)) == {1: Doubt.UNSAID}
    assert doubted(replace(made(1, 3), told=None)) == {}


def test_backdated_in_the_log():
    """Storage keeps no times, and the forger has the key: but his entry stands behind that of the last honest one."""
    honest = [logged(number, 30 - number) for number in range(1, 20)]
    assert doubted(*honest, logged(99, 21), logged(100, 10.5)) == {99: Doubt.ORDER}


def test_one_ahead_does_not_make_the_others_doubtful():
    """A time in the future, or one that storage or an admin knows better, is no measure for those behind it."""
    ahead = logged(2, -3)
    assert doubted(logged(1, 3), ahead, logged(3, 2)) == {2: Doubt.FUTURE}
    seen = replace(logged(2, 1), told=Told(signer=b"c", place=2, before_ns=NOW_NS - 2 * DAY_NS))
    assert doubted(logged(1, 3), seen, logged(3, 2)) == {2: Doubt.EARLY}
    unseen = replace(logged(2, 3), told=Told(signer=b"c", place=2, after_ns=NOW_NS - 2 * DAY_NS))
    assert doubted(logged(1, 3), unseen, logged(3, 1)) == {2: Doubt.LATE}


def test_logs_that_go_on_at_the_same_time():
    """A thief begins a log of his own, which nothing goes before: where it meets the honest one, neither counts."""
    honest = [logged(number, 30 - number) for number in range(1, 20)]
    forged = [replace(logged(99 + n, days), told=Told(signer=b"d", place=n)) for n, days in enumerate((21.5, 19.5))]
    assert doubted(*honest, *forged) == {9: Doubt.ORDER, 10: Doubt.ORDER, 99: Doubt.ORDER, 100: Doubt.ORDER}
    alone = replace(logged(99, 20.5), told=Told(signer=b"d", place=1))
    assert doubted(*honest, alone) == {99: Doubt.ORDER}


def test_logs_one_after_the_other():
    """A machine that lost its state goes on under another name."""
    before = [logged(number, 30 - number) for number in range(1, 9)]
    after = [replace(logged(number, 30 - number), told=Told(signer=b"a", place=number)) for number in range(9, 20)]
    last = [replace(logged(number, 30 - number), told=Told(signer=b"b", place=number)) for number in range(20, 30)]
    assert doubted(*before, *last, *after) == {}


def test_counted_times_never_go_back():
    """By when it ended, and not before what stands before it; what is in doubt has none."""
    items = [logged(1, 3), logged(2, 3 + 0.5 / 24), logged(3, 9), made(4, 1)]
    doubts = find_doubts(items, NOW_NS)
    times = {item[0]: time_ns for item, time_ns in counted_times(items, doubts).items()}
    assert times == {1: items[0].ended_ns, 2: items[0].ended_ns}
