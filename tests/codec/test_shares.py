"""Shares: any few give the key back, fewer or others do not, and nothing is said that a share holds."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import pytest

from respaldo.codec.recovery import show_key
from respaldo.codec.shares import WORDS, are_words, join_shares, parse_share, parse_shares, split_key
from respaldo.core.errors import UsageError

KEY = bytes(range(100, 132))
GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "recovery.json").read_text())


@pytest.fixture(scope="module")
def shares():
    return split_key(KEY, 3, 5)


def test_any_three_of_five_give_the_key(shares):
    """In any order; two do not, nor one of them three times."""
    parsed = [parse_share(share) for share in shares]
    for some in combinations(parsed, 3):
        assert join_shares(list(reversed(some))) == KEY
    for some in combinations(parsed, 2):
        with pytest.raises(UsageError, match="3 different shares are needed, and these are 2"):
            join_shares(some)
    with pytest.raises(UsageError, match="these are 1"):
        join_shares([parsed[0]] * 3)
    with pytest.raises(UsageError):
        join_shares([])


def test_more_shares_than_needed_do_no_harm(shares):
    """Whoever brings all of them is served."""
    assert join_shares([parse_share(share) for share in shares]) == KEY


def test_two_divisions_of_one_key_do_not_mix(shares):
    """Each is drawn anew: shares of an older division are of no use to whoever holds newer ones."""
    again = split_key(KEY, 3, 5)
    assert not set(shares) & set(again)
    with pytest.raises(UsageError, match="do not belong together"):
        join_shares([parse_share(share) for share in (*shares[:2], again[2])])


@pytest.mark.parametrize(("threshold", "count"), [(0, 0), (1, 1), (1, 5), (4, 3), (2, 17), (-1, 3)])
def test_numbers_that_make_no_sense_are_refused(threshold, count):
    """A share that opens alone is a copy of the key; more than sixteen the standard does not know."""
    with pytest.raises(UsageError):
        split_key(KEY, threshold, count)


def test_sixteen_of_sixteen(shares):
    """The most there can be."""
    assert join_shares([parse_share(share) for share in split_key(KEY, 16, 16)]) == KEY


def test_numbers_case_and_the_ends_of_words_make_no_difference(shares):
    """Four letters say which word it is."""
    words = shares[0].split()
    typed = "\n".join(f"{number}. {word[:4].upper()}," for number, word in enumerate(words, 1))
    assert parse_share(typed) == parse_share(shares[0])
    assert are_words(typed)


def test_wrong_words_are_found(shares):
    """A word that is none is named by its number, one of another word by the checksum; neither is repeated."""
    words = shares[0].split()
    for bad in ("xyzzy", words[4] + "s", words[4][:3]):
        with pytest.raises(UsageError, match="word 5 of the share") as caught:
            parse_share(" ".join([*words[:4], bad, *words[5:]]))
        assert bad not in str(caught.value)
    for at in range(WORDS):
        other = next(word for word in ("academic", "zero") if word != words[at])
        with pytest.raises(UsageError, match="checksum") as caught:
            parse_share(" ".join([*words[:at], other, *words[at + 1 :]]))
        assert other not in str(caught.value)
    with pytest.raises(UsageError, match="33 words, and this one 32"):
        parse_share(" ".join(words[:-1]))


def test_key_is_not_taken_for_shares(shares):
    """What is typed says by itself which of the two it is."""
    for number in range(200):
        key = bytes([number]) + bytes(31)
        for shown in (show_key(key), show_key(key).lower().replace("-", " "), show_key(key).replace("-", "")):
            assert not are_words(shown)
    assert all(are_words(share) for share in shares)
    assert all(are_words(" ".join(share.split()[:3])) for share in shares)
    assert not are_words("")


def test_golden_shares_give_their_key():
    """Of this program as of another implementation of the standard, written by others."""
    key = bytes.fromhex(GOLDEN["key"])
    assert show_key(key) == GOLDEN["text"]
    for group in (GOLDEN["shares"], *GOLDEN["shares_of_another_implementation"]):
        parsed = [parse_share(share) for share in group]
        for some in combinations(parsed, parsed[0].threshold):
            assert join_shares(some) == key
        assert join_shares(list(parse_shares("\n".join(group)))) == key


def test_share_of_groups_is_refused():
    """The standard has shares of shares, of which nothing here is made."""
    from shamir_mnemonic import generate_mnemonics

    groups = generate_mnemonics(2, [(2, 3), (2, 3)], KEY, iteration_exponent=0)
    with pytest.raises(UsageError, match="groups"):
        parse_share(groups[0][0])


def test_share_of_a_shorter_secret_is_refused():
    """A wallet's share of 128 bits has 20 words."""
    from shamir_mnemonic import generate_mnemonics

    [shares] = generate_mnemonics(1, [(2, 3)], KEY[:16], iteration_exponent=0)
    with pytest.raises(UsageError, match="33 words, and this one 20"):
        parse_share(shares[0])
