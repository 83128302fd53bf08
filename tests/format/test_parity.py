from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from respaldo.format.parity import (
    DATA_SHARDS_MAX,
    OBJECT_BYTES_MAX,
    PAYLOAD_BYTES,
    SECTOR_BYTES,
    SIDECAR_BYTES_MAX,
    Shape,
    pack_sidecar,
    pack_table,
    parse_sidecar,
    shape_of,
    unpack_table,
)

DIGEST = hashlib.sha256(b"an object").digest()


@given(st.integers(1, OBJECT_BYTES_MAX), st.integers(1, 500))
def test_shape_of_any_object_is_within_bounds(length, share):
    """Shards fit into the code, the share is kept, and either end of the sidecar holds enough of the table."""
    shape = shape_of(length, DIGEST, share)
    assert shape.data <= DATA_SHARDS_MAX
    assert shape.data * shape.shard_bytes >= length > (shape.data - 1) * shape.shard_bytes
    assert (shape.recovery - 1) * 1000 >= shape.data * share > (shape.recovery - 2) * 1000
    assert shape.recovery <= DATA_SHARDS_MAX
    assert shape.table * PAYLOAD_BYTES >= 4 * (shape.data + shape.recovery)
    after = shape.table + shape.spare - shape.units_before
    assert min(shape.units_before, after) >= shape.table
    assert shape.spare >= min(shape.recovery - 1, 7)
    assert shape.sidecar_bytes <= SIDECAR_BYTES_MAX


@pytest.mark.parametrize(
    ("length", "recovery"), [(0, 2), (OBJECT_BYTES_MAX + 1, 2), (4096, 1), (4096, 3), (1 << 20, 131), (1 << 20, 0)]
)
def test_shape_refuses_what_no_object_has(length, recovery):
    """Lengths and numbers that come out of a hostile sidecar are bounded before anybody works with them."""
    with pytest.raises(ValueError):
        Shape(length_bytes=length, digest=DIGEST, recovery=recovery)


def made(length: int = 100_000, share: int = 50) -> tuple[Shape, bytes, list[bytes]]:
    """Returns a sidecar with numbers for recovery shards."""
    shape = shape_of(length, DIGEST, share)
    sums = list(range(shape.data + shape.recovery))
    payloads = pack_table(shape, sums)
    payloads += [bytes([number]) * PAYLOAD_BYTES for number in range(shape.spare)]
    recovery = [bytes([200 + number]) * shape.shard_bytes for number in range(shape.recovery)]
    return shape, pack_sidecar(shape, payloads, recovery), payloads


def test_sidecar_is_read_as_it_was_written():
    """Shape, table and recovery shards come back; the sidecar ends with its hash and is as long as foretold."""
    shape, sidecar, payloads = made()
    assert len(sidecar) == shape.sidecar_bytes
    assert hashlib.sha256(sidecar[:-32]).digest() == sidecar[-32:]
    parsed = parse_sidecar(sidecar)
    assert parsed is not None and parsed.shape == shape
    assert parsed.payloads == dict(enumerate(payloads))
    assert unpack_table(shape, payloads[: shape.table]) == tuple(range(shape.data + shape.recovery))
    for number in range(shape.recovery):
        at = shape.offset_of(number)
        assert at % SECTOR_BYTES == 0
        assert sidecar[at : at + shape.shard_bytes] == bytes([200 + number]) * shape.shard_bytes


@given(st.data())
def test_units_stand_alone(data):
    """A unit whose bytes were changed is not among those that are read; all others are."""
    shape, sidecar, payloads = made()
    units = [number * SECTOR_BYTES for number in range(shape.units_before)]
    end = shape.offset_of(shape.recovery)
    units += [end + number * SECTOR_BYTES for number in range(len(payloads) - len(units))]
    struck = data.draw(st.sets(st.integers(0, len(units) - 1)))
    damaged = bytearray(sidecar)
    for number in struck:
        damaged[units[number] + data.draw(st.integers(0, SECTOR_BYTES - 65))] ^= data.draw(st.integers(1, 255))
    parsed = parse_sidecar(bytes(damaged))
    if len(struck) == len(units):
        assert parsed is None
    else:
        assert parsed is not None
        assert parsed.payloads == {n: payload for n, payload in enumerate(payloads) if n not in struck}


def test_units_of_another_object_are_outvoted():
    """Where units of two objects stand in one sidecar, the more frequent count."""
    shape, sidecar, _ = made()
    _, other, _ = made(length=100_001)
    mixed = other[:SECTOR_BYTES] + sidecar[SECTOR_BYTES:]
    parsed = parse_sidecar(mixed)
    assert parsed is not None and parsed.shape == shape


@given(st.binary(max_size=9000))
def test_parse_takes_anything(data):
    """Arbitrary bytes are no sidecar, and no error."""
    assert parse_sidecar(data) is None
    assert parse_sidecar(b"parity\n\x01" + data) is None
