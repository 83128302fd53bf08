"""Footers, trailers, segments and list nodes: lengths that lie."""

from __future__ import annotations

from array import array
from dataclasses import replace
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from respaldo.core.errors import Corruption
from respaldo.format import content, pack, segment
from tests.format.samples import FOOTER, IDS, NODE, SEGMENT, footers

ROW = FOOTER.blocks[0]


@given(footers())
def test_every_chunk_has_its_place(footer):
    """Blocks follow one another in the pack, chunks follow one another in a block."""
    row = 0
    for number, block in enumerate(footer.blocks):
        held = footer.lengths[row : row + block.chunks]
        for offset, length in zip(accumulate(held, initial=0), held, strict=False):
            assert footer.place(row) == (number, offset, length)
            assert footer.chunk_id(row) == footer.ids[32 * row : 32 * row + 32]
            row += 1
    assert footer.body_length == sum(block.sealed_length for block in footer.blocks)


@given(footers(), st.data())
def test_places_of_a_run_are_those_of_its_rows(footer, data):
    """A run of rows that goes over the ends of blocks has the places that each row has by itself."""
    rows = len(footer.lengths)
    first = data.draw(st.integers(0, rows))
    count = data.draw(st.integers(0, rows - first))
    assert list(footer.places(first, count)) == [footer.place(row) for row in range(first, first + count)]


@pytest.mark.parametrize(
    "block",
    [
        ROW._replace(kind=0),
        ROW._replace(kind=4),
        ROW._replace(kind=255),
        ROW._replace(sealed_length=0),
        ROW._replace(sealed_length=72),
        ROW._replace(sealed_length=373),
        ROW._replace(sealed_length=(1 << 32) - 1),
        ROW._replace(raw_length=0),
        ROW._replace(raw_length=299),
        ROW._replace(raw_length=301),
        ROW._replace(raw_length=(1 << 32) - 1),
        ROW._replace(chunks=0),
        ROW._replace(chunks=1),
        ROW._replace(chunks=3),
        ROW._replace(chunks=(1 << 32) - 1),
    ],
)
def test_impossible_blocks_are_refused(block):
    """Every length in a footer is consistent with every other."""
    with pytest.raises(Corruption):
        pack.parse_footer(replace(FOOTER, blocks=(block, *FOOTER.blocks[1:])).encode(), "x")


@pytest.mark.parametrize(
    "lengths",
    [[0, 300, 50, 40], [(1 << 32) - 1, 301, 50, 40], [100, 200, 50], [100, 200, 50, 40, 1], [200, 100, 40, 50], []],
)
def test_impossible_chunk_lengths_are_refused(lengths):
    """They sum up to their blocks, block by block; none is zero, and no sum wraps around."""
    ids = b"".join(IDS[: len(lengths)])
    with pytest.raises(Corruption):
        pack.parse_footer(replace(FOOTER, ids=ids, lengths=array("I", lengths)).encode(), "x")


@pytest.mark.parametrize(
    "change",
    [
        {"session": b"x" * 15},
        {"session": b""},
        {"body_hash": b"x" * 31},
        {"ids": FOOTER.ids[:-1]},
        {"ids": FOOTER.ids[:-32]},
        {"ids": FOOTER.ids + IDS[5]},
        {"blocks": FOOTER.blocks[:2]},
        {"blocks": ()},
    ],
)
def test_columns_that_do_not_fit_are_refused(change):
    """Every column has as many rows as the others say."""
    with pytest.raises(Corruption):
        pack.parse_footer(replace(FOOTER, **change).encode(), "x")


def test_bytes_between_the_fields_of_a_row_are_refused():
    """The three bytes that mean nothing are zero, or one footer had many forms."""
    data = bytearray(FOOTER.encode())
    data[data.index(b"\xac\0\0\0") - 1] = 1
    with pytest.raises(Corruption):
        pack.parse_footer(bytes(data), "x")


def test_blocks_longer_than_a_pack_are_refused():
    """Offsets that no pack can have never reach a reader."""
    big = pack.BLOCK_RAW_BYTES_MAX
    blocks = tuple(pack.BlockRow(1, big + 72, big, 1, b"c" * 32) for _ in range(16))
    with pytest.raises(Corruption):
        pack.parse_footer(
            pack.Footer(bytes(16), bytes(32), blocks, bytes(32 * 16), array("I", [big] * 16)).encode(), "x"
        )


@given(st.integers(0, (1 << 64) - 1), st.integers(0, 1 << 28))
def test_trailer_points_into_its_pack(offset, pack_length):
    """An offset is followed by a footer's seal and the trailer, or refused."""
    data = pack.pack_trailer(offset)
    if offset + 72 + 88 <= pack_length:
        assert pack.parse_trailer(data, pack_length, "x") == offset
    else:
        with pytest.raises(Corruption):
            pack.parse_trailer(data, pack_length, "x")


def test_trailer_with_anything_else_in_it_is_refused():
    """Its second half is zero."""
    with pytest.raises(Corruption):
        pack.parse_trailer(bytes(15) + b"\x01", 65536, "x")


@pytest.mark.parametrize("length_bytes", [0, -1, pack.PACK_BYTES_MAX + 1, (1 << 64) - 1])
def test_segment_with_a_pack_of_impossible_length_is_refused(length_bytes):
    """What nobody can hold is not looked for."""
    listed = replace(SEGMENT.packs[0], length_bytes=length_bytes)
    with pytest.raises(Corruption):
        segment.parse_segment(replace(SEGMENT, packs=(listed,)).encode(), "x")


@pytest.mark.parametrize("lengths", [[0], [1 << 63], [1 << 62, 1 << 62], [(1 << 64) - 1, 1], [1, 0]])
def test_node_with_impossible_lengths_is_refused(lengths):
    """No row is empty, and together they are less than any file can be."""
    with pytest.raises(Corruption):
        content.parse_node(b"".join(content.ROW.pack(IDS[0], length) for length in lengths), "x")


@pytest.mark.parametrize("data", [b"", NODE[:-1], NODE + b"x", NODE * 1000])
def test_node_of_impossible_size_is_refused(data):
    """A node has between 1 and 1024 whole rows."""
    for parse in (content.parse_node, content.parse_node_ids):
        with pytest.raises(Corruption):
            parse(data, "x")


@given(st.lists(st.sampled_from([*IDS, content.HOLE]), min_size=1, max_size=30))
def test_ids_of_a_node_are_those_of_its_rows(ids):
    """By columns the same ids come out, without holes."""
    rows = [row_id for at, row_id in enumerate(ids) if row_id != content.HOLE or not at or ids[at - 1] != content.HOLE]
    data = b"".join(content.ROW.pack(row_id, 1) for row_id in rows)
    expected = [row.id for row in content.parse_node(data, "x") if row.id != content.HOLE]
    assert content.parse_node_ids(data, "x") == b"".join(expected)


def test_node_ends_where_its_ids_say_within_bounds():
    """An id that begins with zero ends a node of 64 rows and more; a hole never does; 1024 rows always do."""
    ending, other = bytes([0]) + b"x" * 31, bytes([1]) + b"x" * 31
    assert not content.ends_node(ending, 63)
    assert content.ends_node(ending, 64)
    assert not content.ends_node(other, 64)
    assert not content.ends_node(content.HOLE, 64)
    assert content.ends_node(content.HOLE, 1024)
