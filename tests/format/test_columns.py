"""Columns: rows that differ are those that a comparison one by one finds."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from respaldo.format.columns import differing


@given(st.integers(1, 80), st.integers(0, 300), st.data())
def test_differing_finds_what_a_comparison_of_rows_finds(width, count, data):
    """Whichever rows were changed, and wherever in them."""
    one = data.draw(st.binary(min_size=width * count, max_size=width * count))
    other = bytearray(one)
    for at in data.draw(st.lists(st.integers(0, max(len(one) - 1, 0)), max_size=20)) if one else ():
        other[at] ^= data.draw(st.integers(1, 255))
    rows = [
        row for row in range(count) if one[row * width : (row + 1) * width] != other[row * width : (row + 1) * width]
    ]
    assert differing(one, bytes(other), width) == struct.pack(f"<{len(rows)}I", *rows)


def test_differing_finds_all_rows_where_all_differ():
    """Nothing is left out, and they come in order."""
    assert differing(bytes(40_000), b"x" * 40_000, 40) == struct.pack("<1000I", *range(1000))


@pytest.mark.parametrize(("one", "other", "width"), [(b"ab", b"a", 1), (b"abc", b"abd", 2), (b"a", b"b", 0)])
def test_differing_refuses_columns_that_cannot_be_compared(one, other, width):
    """They are of different lengths, or end within a row."""
    with pytest.raises(ValueError, match="no whole number of rows"):
        differing(one, other, width)
