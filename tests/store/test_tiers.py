"""Which small objects are merged: few are left whatever was put, and no item is copied often."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from respaldo.store.tiers import FANOUT, FULL_BYTES, MERGED_BYTES_MAX, Extent, plan, tier

extents = st.builds(Extent, st.integers(1, 5000), st.integers(1, 12 << 20))


def test_tier_is_the_logarithm():
    """Each class holds sixteen times as many."""
    assert [tier(Extent(items, 1)) for items in (0, 1, 15, 16, 255, 256, 4095, 4096, 65536)] == [
        0, 0, 0, 1, 1, 2, 2, 3, 4,
    ]  # fmt: skip


@given(st.dictionaries(st.binary(min_size=1, max_size=4), extents, max_size=60))
def test_plan_is_bounded_and_worth_it(objects):
    """What is merged fits into memory, is no full object, and is more than one; the same objects give the same plan."""
    chosen = plan(objects)
    assert len(set(chosen)) == len(chosen) != 1
    assert chosen == plan(dict(reversed(objects.items())))
    assert sum(objects[name].length_bytes for name in chosen) <= MERGED_BYTES_MAX
    assert all(objects[name].length_bytes <= FULL_BYTES for name in chosen)


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 300)), min_size=1, max_size=400))
def test_few_are_left_of_any_sequence(sessions):
    """After every session at most fifteen of a class are left, and nothing that was put is lost or copied often."""
    standing: dict[bytes, Extent] = {}
    copied = put = 0
    for number, (items, each) in enumerate(sessions):
        standing[number.to_bytes(4, "big")] = Extent(items, items * each)
        put += items
        chosen = plan(standing)
        if chosen:
            parts = [standing.pop(name) for name in chosen]
            total = Extent(sum(part.items for part in parts), sum(part.length_bytes for part in parts))
            standing[b"m" + number.to_bytes(4, "big")] = total
            copied += total.items
        assert sum(extent.items for extent in standing.values()) == put
        classes = tier(Extent(put, 0)) + 1
        assert len(standing) <= (FANOUT - 1) * classes
    assert copied <= put * (math.log(put, FANOUT) + 1)


def test_long_ones_become_full_and_are_left_alone():
    """Where a class together is too long, the shortest are taken, and what comes of them is never taken again."""
    standing = {bytes([number]): Extent(300, (1 << 20) + number) for number in range(FANOUT)}
    chosen = plan(standing)
    total = sum(standing[name].length_bytes for name in chosen)
    assert FULL_BYTES < total <= MERGED_BYTES_MAX
    assert chosen == [bytes([number]) for number in range(len(chosen))]
    assert plan({bytes([number]): Extent(300, FULL_BYTES + 1) for number in range(40)}) == []


def test_full_class_is_taken_along():
    """What would be the sixteenth of the next class becomes one with it at once."""
    standing = {b"b%d" % number: Extent(16, 16) for number in range(FANOUT - 1)}
    assert plan(standing) == []
    standing.update({b"a%d" % number: Extent(1, 1) for number in range(FANOUT)})
    assert set(plan(standing)) == standing.keys()
