"""`differing` in both kernels: the rows that a comparison one by one finds."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from respaldo import kernel
from respaldo.kernel import reference

KERNELS = [reference, *([kernel] if kernel.NATIVE else [])]


@given(st.integers(1, 50), st.integers(0, 400), st.data())
def test_differing_finds_what_a_comparison_of_rows_finds(width, count, data):
    """Both kernels return the rows that differ, in ascending order, wherever in a row the difference is."""
    one = bytes(width * count)
    other = bytearray(one)
    places = data.draw(st.sets(st.integers(0, max(len(one) - 1, 0)), max_size=20)) if one else set()
    for place in places:
        other[place] = 1
    expected = sorted({place // width for place in places})
    for verbs in KERNELS:
        found = verbs.differing(one, other, width)
        assert list(struct.unpack(f"<{len(found) // 4}I", found)) == expected


def test_differing_takes_rows_longer_than_what_is_compared_together(verbs):
    """A row may be longer than a page, and all of many rows may differ."""
    assert verbs.differing(bytes(30_000), bytes(29_999) + b"x", 10_000) == struct.pack("<I", 2)
    assert verbs.differing(bytes(40_000), b"x" * 40_000, 40) == struct.pack("<1000I", *range(1000))


@pytest.mark.parametrize(
    ("one", "other", "width"), [(b"ab", b"a", 1), (b"abc", b"abc", 2), (b"", b"", 0), (b"", b"", -1)]
)
def test_differing_refuses_columns_that_cannot_be_compared(verbs, one, other, width):
    """Columns of different lengths, parts of rows and impossible widths raise ValueError."""
    with pytest.raises(ValueError, match=r"columns|integer"):
        verbs.differing(one, other, width)
