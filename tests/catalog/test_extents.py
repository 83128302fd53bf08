from __future__ import annotations

import hashlib

import pytest

from respaldo.catalog.extents import Extent, Extents
from respaldo.catalog.trees import TreeReader
from respaldo.core.errors import Corruption
from respaldo.core.ids import ChunkId
from respaldo.core.model import Content
from respaldo.format.content import HOLE, ROW

WORD = ChunkId(b"w" * 32)


class Lists:
    """Keeps list nodes, and counts how often one is read."""

    def __init__(self) -> None:
        self._nodes: dict[ChunkId, bytes] = {}
        self.reads = 0

    def get(self, _kind, chunk_id):
        self.reads += 1
        return self._nodes[chunk_id]

    def has(self, chunk_id):
        return chunk_id in self._nodes

    def add(self, *rows):
        raw = b"".join(ROW.pack(*row) for row in rows)
        node = ChunkId(hashlib.sha256(raw).digest())
        self._nodes[node] = raw
        return node, sum(length for _, length in rows)


def test_extents_are_the_rows_of_the_lists():
    """Data and holes of two levels come in their order, as the rows tell them."""
    lists = Lists()
    one = lists.add((WORD, 5), (HOLE, 7))
    two = lists.add((WORD, 3), (WORD, 4))
    content = Content(level=2, ids=lists.add(one, two, two)[0])
    found = [(length, is_hole) for length, is_hole in Extents(lists).of(content)]
    assert found == [(5, False), (7, True), (3, False), (4, False), (7, False)]
    assert [length for length, _ in found[:4]] == [row.length for row in TreeReader(lists).list_rows(content)][:4]


def test_extents_pass_a_list_of_data_once():
    """A list of data that is named 10^12 times is read once at each level."""
    lists = Lists()
    node = lists.add((WORD, 8))
    for _ in range(4):
        node = lists.add(*[node] * 1000)
    found = list(Extents(lists).of(Content(level=5, ids=node[0])))
    assert sum(extent.length for extent in found) == 8 * 1000**4 == node[1]
    assert lists.reads == 5
    assert Extent(8 * 1000**3, is_hole=False) in found


def test_extents_of_holes_without_end_end_where_that_is_wanted():
    """Lists with holes that name one another thousandfold are gone through so often and no further."""
    lists = Lists()
    node = lists.add((WORD, 8), (HOLE, 8))
    for _ in range(4):
        node = lists.add(*[node] * 1000)
    extents = Extents(lists, again_max=5000)
    with pytest.raises(Corruption, match="named too often"):
        list(extents.of(Content(level=5, ids=node[0])))
    assert 5000 < extents.again <= 6000
    one = lists.add((WORD, 8), (HOLE, 8))
    few = list(extents.of(Content(level=2, ids=lists.add(*[one] * 1000)[0])))
    assert len(few) == 2000, "the next file has its own bound"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (lambda lists: [lists.add((WORD, 4), (HOLE, 4)), lists.add((HOLE, 4), (WORD, 4))], "adjacent"),
        (lambda lists: [(lists.add((WORD, 4))[0], 5)], "add up"),
        (lambda lists: [lists.add((WORD, 4)), (lists.add((WORD, 4))[0], 5)], "add up"),
    ],
)
def test_extents_refuse_what_no_writer_makes(rows, message):
    """Two holes side by side and lists that are not as long as they are said to be are damage, at any time."""
    lists = Lists()
    with pytest.raises(Corruption, match=message):
        list(Extents(lists).of(Content(level=2, ids=lists.add(*rows(lists))[0])))
