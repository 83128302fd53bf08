"""Padding: sizes that say little."""

from __future__ import annotations

from math import floor, log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from respaldo.codec.padding import SMALL_STEP_BYTES, STEP_BYTES, padded, padme

lengths = st.integers(1, 1 << 40)
steps = st.sampled_from([SMALL_STEP_BYTES, STEP_BYTES])


@given(lengths, steps)
def test_padding_never_cuts_and_costs_little(length, step):
    """At most a step up to 1 MiB, at most an eighth above."""
    size = padded(length, step)
    assert size >= length
    assert size - length < step if length <= 1 << 20 else size <= length * 1.06


@given(lengths, lengths, steps)
def test_padding_keeps_order(one, other, step):
    """A longer object never looks shorter."""
    if one <= other:
        assert padded(one, step) <= padded(other, step)


@given(lengths, steps)
def test_padding_is_done_once(length, step):
    """A padded size is padded to itself."""
    assert padded(padded(length, step), step) == padded(length, step)


@given(st.integers(2, 1 << 40))
def test_padme_is_what_its_paper_says(length):
    """E and S as in PURBs, section 4."""
    exponent = floor(log2(length))
    if 1 << exponent > length:  # log2 of a float rounds up below a power of two
        exponent -= 1
    bits = exponent - (floor(log2(exponent)) + 1) if exponent else 0
    step = 1 << max(bits, 0)
    assert padme(length) == -(-length // step) * step


@pytest.mark.parametrize(
    ("length", "size"), [(0, 0), (1, 1), (2, 2), (9, 10), (1 << 20, 1 << 20), ((1 << 25) + 1, (1 << 25) + (1 << 20))]
)
def test_padme_at_the_edges(length, size):
    """Powers of two stay what they are."""
    assert padme(length) == size
