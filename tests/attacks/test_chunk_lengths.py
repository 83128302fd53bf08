"""What chunk lengths give away: a gear chunker with a secret table entirely, ours as the threat model says."""

from __future__ import annotations

import random

import pytest

from respaldo.chunk.chunker import Chunker, ChunkerParams
from tests.attacks.lengths import MODULUS, ends, learn

LETTERS = b"acgt"
GEAR_BITS = 13
GEAR_MINIMUM, GEAR_MAXIMUM = 2048, 65536
CANDIDATE_BITS = 8


def plant(seed, size):
    """Returns a maker of random files of some letters."""
    source = random.Random(seed)
    return lambda letters: bytes(source.choices(letters, k=size))


def gear_cutter(seed):
    """Makes a chunker whose one secret is the table of its gear hash, as most have it."""
    source = random.Random(seed)
    table = [source.getrandbits(64) for _ in range(256)]

    def cut(data):
        lengths, start, value = [], 0, 0
        for place, letter in enumerate(data, 1):
            value = (value * 2 + table[letter]) % MODULUS
            length = place - start
            if length == GEAR_MAXIMUM or (length >= GEAR_MINIMUM and value >> (64 - GEAR_BITS) == 0):
                lengths.append(length)
                start = place
        return [*lengths, len(data) - start] if start < len(data) else lengths

    return cut


def test_lengths_give_away_a_secret_gear_table():
    """Three planted files are enough to say where files of other content will be cut."""
    cutter = gear_cutter("table")
    learnt = learn(cutter, LETTERS, plant("planted", 1 << 18), bits=GEAR_BITS, maximum=GEAR_MAXIMUM)
    assert learnt is not None
    victim = plant("unrelated", 1 << 19)(LETTERS)
    actual = set(ends(cutter(victim))) - {len(victim)}
    predicted, start = set(), 0
    for place in learnt.candidates(victim, GEAR_BITS):
        if place - start >= GEAR_MINIMUM:
            predicted.add(place)
            start = place
    assert len(actual) > 30
    assert len(actual & predicted) > 0.9 * len(actual | predicted)


@pytest.fixture(scope="module")
def ours():
    """Returns our chunker, as every repository has it."""
    return Chunker(random.Random("secret").randbytes(32), ChunkerParams.standard())


@pytest.fixture(scope="module")
def learnt(ours):
    """Returns what the same attack learns of our chunker, from files eight times as long."""
    maximum = ours.params.maximum
    return learn(
        lambda data: ours.lengths(data, final=True),
        LETTERS,
        plant("planted", 5 << 20),
        bits=CANDIDATE_BITS,
        maximum=maximum,
    )


@pytest.fixture(scope="module")
def victim():
    """Returns a file that the attacker has not seen."""
    return plant("unrelated", 4 << 20)(LETTERS)


@pytest.fixture(scope="module")
def candidates(learnt, victim):
    """Returns where a chunk of it may end, as far as the attacker can tell."""
    assert learnt is not None
    return set(learnt.candidates(victim, CANDIDATE_BITS))


def test_our_gear_table_is_no_secret(candidates, victim, ours):
    """The table only says where the PRF is asked, and is learnt just as well: nothing may rest on it."""
    lengths = list(ours.lengths(victim, final=True))
    actual = {
        end
        for end, length in zip(ends(lengths), lengths, strict=True)
        if length != ours.params.maximum and end < len(victim)
    }
    assert len(actual) > 30
    assert len(actual & candidates) > 0.95 * len(actual)


def test_knowing_our_table_predicts_no_cut_of_unrelated_files(candidates, victim, ours):
    """Of the places where a chunk may end, an attacker cannot tell those where it does."""
    actual = set(ends(ours.lengths(victim, final=True))) - {len(victim)}
    assert len(candidates & actual) < len(candidates) / 50
    # The best that he can do chunk by chunk, told where each one begins: name the likeliest place, the first that is
    # asked under the loose threshold. That is right as often as the threshold lets one in.
    ordered, params = sorted(candidates), ours.params
    guesses = [
        next((place for place in ordered if place - start >= params.average), None) for start in sorted({0, *actual})
    ]
    right = sum(guess in actual for guess in guesses)
    assert right <= max(3, len(actual) // 8)


def test_windows_that_were_seen_are_predictable(ours):
    """The limit that stays: where a cut was seen in some content, it comes again in a copy of that content."""
    seen = plant("seen", 4 << 20)(LETTERS)
    cuts = set(ends(ours.lengths(seen, final=True)))
    start, end = 1 << 20, 3 << 20
    victim = plant("before", 777_777)(LETTERS) + seen[start:end] + plant("after", 555_555)(LETTERS)
    shift = 777_777 - start
    again = {place - shift for place in ends(ours.lengths(victim, final=True))}
    inside = {place for place in cuts if start + 4 * ours.params.maximum <= place <= end}
    assert len(inside) > 5
    assert len(inside & again) > 0.9 * len(inside)
