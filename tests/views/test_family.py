"""What stands in some directories of trees that have a base in common, beside what each of them says by itself."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from respaldo.catalog.register import Recorded
from respaldo.core.ids import CHUNK_ID_BYTES
from respaldo.format.columns import u32_bytes
from respaldo.views.family import Family

ROWS = 600


def a_member(changed):
    """Returns a tree that differs from its base in some rows; what stands there says in which, and what."""
    rows = sorted(changed)
    ids = b"".join(bytes([changed[row]]) * CHUNK_ID_BYTES for row in rows)
    return Recorded(b"", b"", cells=u32_bytes(array("I", rows)), ids=ids)


class OfCells(Family):
    """Is a family whose directories are its cells, of which its base has none."""

    def __init__(self) -> None:
        self._base = type("Base", (), {"folders": range(ROWS), "raw": b"-"})()

    def _own_tree(self, place):
        return b"own"


@given(
    st.lists(st.dictionaries(st.integers(0, ROWS - 1), st.integers(1, 3), max_size=40), min_size=1, max_size=6),
    st.sets(st.integers(0, ROWS - 1), min_size=1, max_size=12),
)
def test_directories_below_are_those_of_each_member(members, places):
    """However many differ, and however few are asked for: each member has what differs there, or what its base has."""
    held = [(a_member(changed), 1 << number) for number, changed in enumerate(members)]
    found = dict(OfCells().below(held, sorted(places)))
    for place in places:
        expected = {}
        for number, changed in enumerate(members):
            tree = bytes([changed[place]]) * 16 if place in changed else b"own"
            expected[tree] = expected.get(tree, 0) | 1 << number
        assert found[place] == expected


@pytest.mark.parametrize("place", [1, 256, 257])
def test_number_is_not_found_across_two_others(place):
    """256 and 1 joined hold the bytes of 257's and of others at places that are no number's."""
    changed = dict.fromkeys((0, 1, 256, 512, 513), 2)
    ((_, trees),) = OfCells().below([(a_member(changed), 1)], [place])
    assert trees == ({b"\2" * 16: 1} if place in changed else {b"own": 1})
