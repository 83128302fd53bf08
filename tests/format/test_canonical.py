"""Canonical msgpack: one encoding for each value."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given

from respaldo.core.errors import Corruption, Interrupted
from respaldo.format import canonical
from tests.format.samples import values


@given(values)
def test_round_trip(value):
    """What was packed comes back, and packs to the same bytes."""
    packed = canonical.pack(value)
    assert canonical.unpack(packed, "x") == value
    assert canonical.pack(canonical.unpack(packed, "x")) == packed


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\xcc\x01", id="u8 for 1"),
        pytest.param(b"\xcd\x00\xff", id="u16 for 255"),
        pytest.param(b"\xce\x00\x00\xff\xff", id="u32 for 65535"),
        pytest.param(b"\xcf" + bytes(7) + b"\x01", id="u64 for 1"),
        pytest.param(b"\xd0\x01", id="i8 for 1"),
        pytest.param(b"\xd0\xff", id="i8 for -1"),
        pytest.param(b"\xd1\xff\x80", id="i16 for -128"),
        pytest.param(b"\xd3" + bytes(7) + b"\x01", id="i64 for 1"),
        pytest.param(b"\xd9\x01a", id="str8 for a fixstr"),
        pytest.param(b"\xda\x00\x01a", id="str16 for a fixstr"),
        pytest.param(b"\xc5\x00\x01a", id="bin16 for a bin8"),
        pytest.param(b"\xdc\x00\x01\x01", id="array16 for a fixarray"),
        pytest.param(b"\xde\x00\x01\xa1a\x01", id="map16 for a fixmap"),
        pytest.param(b"\x82\xa1b\x01\xa1a\x01", id="keys out of order"),
        pytest.param(b"\x82\xa1a\x01\xa1a\x01", id="repeated key"),
        pytest.param(b"\x82\xa1a\x01\xa1a\x02", id="repeated key, other value"),
        pytest.param(b"\x81\xc4\x01a\x01", id="bytes as a key"),
        pytest.param(b"\x81\x01\x01", id="number as a key"),
        pytest.param(b"\x81\xc0\x01", id="nil as a key"),
        pytest.param(b"\x81\x90\x01", id="array as a key"),
        pytest.param(b"\x82\xa3\xee\x80\x80\x01\xa1\xff\x01\x00", id="trailing byte"),
        pytest.param(b"\x82\xa1\xff\x01\xa3\xee\x80\x80\x01", id="keys by code point, not by byte"),
        pytest.param(b"\xc0", id="nil"),
        pytest.param(b"\xc2", id="false"),
        pytest.param(b"\x91\xc3", id="true"),
        pytest.param(b"\x81\xa1a\xc0", id="nil in a map"),
        pytest.param(b"\xca\x00\x00\x00\x00", id="float"),
        pytest.param(b"\x91\xcb" + bytes(8), id="double"),
        pytest.param(b"\xcb\x7f\xf8" + bytes(6), id="not a number"),
        pytest.param(b"\xd4\x01\x00", id="fixext"),
        pytest.param(b"\xd6\xff" + bytes(4), id="timestamp"),
        pytest.param(b"\xd7\xff" + b"\xff" * 8, id="impossible timestamp"),
        pytest.param(b"\xc7\x00\x01", id="ext8"),
        pytest.param(b"\xc1", id="never used"),
        pytest.param(b"\x90\x90", id="two values"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x91", id="missing item"),
        pytest.param(b"\x91" * 5000 + b"\x90", id="deep"),
        pytest.param(b"\xdd\xff\xff\xff\xff", id="huge array"),
        pytest.param(b"\xdf\xff\xff\xff\xff", id="huge map"),
        pytest.param(b"\xc6\xff\xff\xff\xff", id="huge bytes"),
    ],
)
def test_other_encodings_are_refused(data):
    """What is not the one encoding of a value of the format is damage."""
    with pytest.raises(Corruption):
        canonical.unpack(data, "x")


def test_keys_ascend_by_their_bytes():
    """Text that is not UTF-8 sorts by the bytes it stands for, where Python would sort by code points."""
    packed = canonical.pack({"\udcff": 1, "\ue000": 2})
    assert packed == b"\x82\xa3\xee\x80\x80\x02\xa1\xff\x01"
    assert canonical.unpack(packed, "x") == {"\udcff": 1, "\ue000": 2}


@pytest.mark.parametrize("value", [None, True, 1.5, {1, 2}, [None], {"a": False}, object()])
def test_values_without_an_encoding_are_a_mistake_of_the_program(value):
    """A writer that tries is told so."""
    with pytest.raises(TypeError):
        canonical.pack(value)


@pytest.mark.parametrize("value", [1 << 64, -(1 << 63) - 1])
def test_numbers_beyond_64_bits_are_a_mistake_of_the_program(value):
    """They are never cut short."""
    with pytest.raises(OverflowError):
        canonical.pack(value)


def test_more_items_than_the_limit_are_refused():
    """They count together, whatever holds them: a segment that compresses to nothing may hold 2²⁸ numbers."""
    half = canonical.ITEMS_MAX // 2
    assert canonical.unpack(msgpack.packb([[7] * (half - 1), [7] * (half - 1)]), "x")
    for value in ([[7] * half, [7] * half], [[7] * half, {"a": [7] * half}]):
        with pytest.raises(Corruption):
            canonical.unpack(msgpack.packb(value), "x")
        assert canonical.unpack(msgpack.packb(value), "x", items_max=2 * canonical.ITEMS_MAX) == value


def test_more_arrays_or_maps_than_the_limit_are_refused():
    """An empty array of one byte takes eighty in memory; the limit is what keeps input and memory in proportion."""
    free = canonical.ARRAYS_FREE
    assert len(canonical.unpack(msgpack.packb([[]] * (free - 1)), "x")) == free - 1
    with pytest.raises(Corruption):
        canonical.unpack(msgpack.packb([[]] * free), "x")
    assert canonical.unpack(msgpack.packb([[row, 1] for row in range(300_000)]), "x")
    assert canonical.unpack(msgpack.packb([{}] * canonical.MAPS_MAX), "x")
    with pytest.raises(Corruption):
        canonical.unpack(msgpack.packb([{}] * (canonical.MAPS_MAX + 1)), "x")


def test_interruption_is_no_damage(monkeypatch):
    """Whoever stops a run while a tree is read is not told that the tree is damaged."""

    def interrupted(_items):
        raise Interrupted("SIGINT")

    monkeypatch.setattr(canonical, "_hooks", lambda *_: (interrupted, interrupted))
    with pytest.raises(Interrupted):
        canonical.unpack(canonical.pack([1, 2]), "x")


def test_refusal_holds_nothing_of_what_was_refused():
    """Errors are kept in lists: one that held its bytes would hold 64 MiB for each record."""
    with pytest.raises(Corruption) as caught:
        canonical.unpack(bytes(1000), "x")
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None
