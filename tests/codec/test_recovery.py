"""Recovery keys: forgiving about what makes no difference, exact about what does."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from respaldo.codec.recovery import ALPHABET, LETTERS, parse_key, show_key
from respaldo.core.errors import UsageError

KEY = bytes(range(7, 39))
keys = st.binary(min_size=32, max_size=32)


@given(keys)
def test_what_is_shown_is_read_back(key):
    """Two lines of seven groups of four, in letters and digits that look like no others."""
    shown = show_key(key)
    assert re.fullmatch(r"(?:(?:[0-9A-HJKMNP-TV-Z]{4}-){6}[0-9A-HJKMNP-TV-Z]{4}\n?){2}", shown)
    assert parse_key(shown) == key


@given(keys, st.data())
def test_case_blanks_dashes_and_look_alikes_make_no_difference(key, data):
    """As people write: other dashes or none, small letters, O for 0, I and l for 1, U for V."""
    alike = {"0": "0oO", "1": "1iIlL", "V": "VvuU"}
    typed = ""
    for letter in show_key(key):
        if letter in "-\n":
            typed += data.draw(st.sampled_from(["-", " ", "", "\n", " – ", "—", "\t", ".", "\u2011", "\u00a0"]))
        else:
            typed += data.draw(st.sampled_from(alike.get(letter, letter + letter.lower())))
    assert parse_key(typed) == key


@given(keys, st.integers(0, LETTERS - 1), st.sampled_from(ALPHABET))
def test_one_wrong_letter_is_found_and_its_group_named(key, at, letter):
    """A slip of the pen is said to be where it is, and the message holds nothing of the key."""
    letters = show_key(key).replace("-", "").replace("\n", "")
    wrong = letters[:at] + letter + letters[at + 1 :]
    if wrong == letters:
        assert parse_key(wrong) == key
        return
    with pytest.raises(UsageError, match="mistake") as caught:
        parse_key(wrong)
    assert f"probably in group {at // 4 + 1}:" in str(caught.value)
    for group in re.findall("....", wrong):
        assert group not in str(caught.value) + caught.value.hint


def test_two_letters_in_the_wrong_order_are_found():
    """The other slip that is common."""
    letters = show_key(KEY).replace("-", "").replace("\n", "")
    at = next(at for at in range(20, LETTERS, 4) if letters[at] != letters[at + 1])
    wrong = letters[:at] + letters[at + 1] + letters[at] + letters[at + 2 :]
    with pytest.raises(UsageError, match=f"probably in group {at // 4 + 1}:"):
        parse_key(wrong)


@pytest.mark.parametrize("length", [0, 1, 4, 52, 55, 57, 112])
def test_another_length_is_said(length):
    """What is too short or too long is no key."""
    with pytest.raises(UsageError, match=f"56 letters and digits, and this one {length}"):
        parse_key((show_key(KEY) * 2).replace("-", "").replace("\n", "")[:length])


@pytest.mark.parametrize("sign", ["!", "é", "0\u0300", "\0", "\ud800", "٣"])
def test_sign_that_no_key_has_is_named_by_its_group(sign):
    """Also signs that other parts of Python take for digits."""
    shown = show_key(KEY)
    with pytest.raises(UsageError, match="group 3 of the recovery key"):
        parse_key(shown[:11] + sign + shown[12:])


@given(st.text(max_size=200))
def test_anything_else_is_refused(text):
    """Noise is no key, and no other error comes out."""
    with pytest.raises(UsageError):
        parse_key(text)
