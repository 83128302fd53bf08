from __future__ import annotations

import hashlib
import random
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from respaldo.codec import parity
from respaldo.core.errors import UsageError


@given(st.integers(1, 40), st.integers(1, 20), st.integers(0, 2**32), st.data())
def test_any_so_many_shards_give_the_others(count, recovery_count, seed, data):
    """Whatever is lost of data and recovery shards, as many as there are data shards give all of those back."""
    source = random.Random(seed)
    shards = [source.randbytes(64) for _ in range(count)]
    recovery = parity.encode(shards, recovery_count)
    numbers = list(range(count + recovery_count))
    left = set(data.draw(st.permutations(numbers))[:count])
    found = {number: shards[number] for number in range(count) if number in left}
    coded = {number: recovery[number] for number in range(recovery_count) if number + count in left}
    lost = parity.decode(count, recovery_count, found, coded)
    assert lost == {number: shards[number] for number in range(count) if number not in left}


def test_decode_refuses_too_few_shards():
    """One shard fewer than there are of data is refused."""
    recovery = parity.encode([b"a" * 64, b"b" * 64], 2)
    with pytest.raises(ValueError, match="1 of 2"):
        parity.decode(2, 2, {}, {1: recovery[1]})


def test_missing_library_is_said_with_the_way_to_get_it(monkeypatch):
    """Without the library nothing is coded, and the error says how to get it."""
    monkeypatch.setitem(sys.modules, "reed_solomon_leopard", None)
    assert not parity.is_available()
    with pytest.raises(UsageError) as caught:
        parity.encode([b"ab"], 1)
    assert "respaldo[parity]" in caught.value.hint


GOLDEN = ["5ac8bfc618d7cc68", "575c90f861904b42", "aff684217ed23904", "87f64f628e9ee19d"]


def test_code_is_the_one_of_the_format():
    """The recovery shards are those that repositories hold: another library, or version, must make the same ones."""
    shards = [hashlib.shake_128(bytes([number])).digest(128) for number in range(11)]
    assert [hashlib.sha256(shard).hexdigest()[:16] for shard in parity.encode(shards, 4)] == GOLDEN
