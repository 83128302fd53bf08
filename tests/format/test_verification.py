"""Records of verification: what they refuse, and what a content is found by."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from respaldo.core.errors import Corruption
from respaldo.core.model import Content
from respaldo.format import canonical
from respaldo.format.verification import Sums, content_key, parse_sums, parse_verified, rows_of, sums_of

ROW = [b"s" * 16, b"r" * 32, 5, "verify"]


@pytest.mark.parametrize(
    "rows",
    [
        [[b"s" * 15, *ROW[1:]]],
        [[ROW[0], b"r" * 31, *ROW[2:]]],
        [[*ROW[:2], 1 << 63, ROW[3]]],
        [[*ROW[:3], "hearsay"]],
        [ROW[:3]],
        [[*ROW, 1]],
        [ROW, ROW],
        [ROW, [b"a" * 16, *ROW[1:]]],
        [b""],
    ],
)
def test_verified_of_another_shape_is_refused(rows):
    """Lengths, words, order."""
    with pytest.raises(Corruption):
        parse_verified(canonical.pack([1, rows]), "x")


@pytest.mark.parametrize(
    ("keys", "digests"),
    [
        (b"k" * 47, b"d" * 32),
        (b"k" * 48, b"d" * 31),
        (b"k" * 48, b""),
        (b"k" * 96, b"d" * 64),
        (b"l" * 48 + b"k" * 48, b"d" * 64),
    ],
)
def test_sums_of_another_shape_are_refused(keys, digests):
    """Each key once, in order, with a digest each."""
    with pytest.raises(Corruption):
        parse_sums(Sums(keys=keys, digests=digests).encode(), "x")


@given(st.dictionaries(st.binary(min_size=48, max_size=48), st.binary(min_size=32, max_size=32), max_size=20))
def test_sums_hold_what_they_were_made_of(rows):
    """In whatever order it came."""
    assert dict(rows_of(parse_sums(sums_of(rows).encode(), "x"))) == rows


def test_content_is_found_by_all_of_its_ids():
    """One chunk by its id alone; several, and lists, by the first and a hash of level and ids."""
    one, other = b"1" * 32, b"2" * 32
    assert content_key(Content(ids=one)) == one + bytes(16)
    keys = {
        content_key(content)
        for content in (
            Content(ids=one),
            Content(ids=one + other),
            Content(ids=one + one),
            Content(level=1, ids=one),
            Content(level=2, ids=one),
            Content(ids=other),
        )
    }
    assert len(keys) == 6
    assert all(len(key) == 48 for key in keys)
