from __future__ import annotations

import pytest

from respaldo.core.errors import ChunkMissing, Corruption
from respaldo.core.ids import ChunkId, Kind
from respaldo.store.source import Location
from respaldo.views.treeblocks import TreeBlocks

IDS = [ChunkId(bytes([number]) * 32) for number in range(20)]


class Fake:
    """Has a block for each two chunks, which are their own bytes twice; knows what was fetched."""

    def __init__(self) -> None:
        self.fetched = []
        self.damaged = set()
        self.slow = []

    def locate(self, kind, chunk_id):
        number = chunk_id[0]
        if number >= 18:
            raise ChunkMissing(kind.word, chunk_id)
        return Location(1, number // 2, 32 * (number % 2), 32)

    def locate_each(self, ids):
        found = [ChunkId(ids[at : at + 32]) for at in range(0, len(ids), 32)]
        return [self.locate(Kind.TREE, item) if item[0] < 18 else None for item in found]

    def block(self, pack, block):
        self.fetched.append(block)
        if block in self.damaged:
            raise Corruption("block", "damaged")
        return IDS[2 * block] + IDS[2 * block + 1]

    def check(self, kind, chunk_id, raw):
        if raw != chunk_id:
            raise Corruption("chunk", "damaged")

    def get(self, kind, chunk_id):
        self.slow.append(chunk_id)
        return bytes(chunk_id)

    def has(self, chunk_id):
        return chunk_id[0] < 18


@pytest.fixture
def fake():
    return Fake()


def test_treeblocks_bring_what_is_next_once(fake):
    """Blocks of subdirectories are there when they are asked for, each fetched once; of many, a few."""
    trees = TreeBlocks(fake, fake)
    trees.prepare(b"".join(IDS[:4]))
    trees.prepare(b"".join(IDS))
    trees._pool.shutdown(wait=True)
    assert {0, 1} <= set(fake.fetched) and len(fake.fetched) == len(set(fake.fetched)) <= 2 + 6
    before = list(fake.fetched)
    for chunk_id in IDS[:4]:
        assert trees.get(Kind.TREE, chunk_id) == chunk_id
    assert fake.fetched == before and not fake.slow
    trees.close()


def test_treeblocks_take_what_is_damaged_or_gone_from_elsewhere(fake):
    """A block that cannot be had ahead is no error until it is needed, and then another copy is looked for."""
    trees = TreeBlocks(fake, fake)
    fake.damaged = {0}
    trees.prepare(IDS[0] + IDS[19])
    assert trees.get(Kind.TREE, IDS[0]) == IDS[0]
    assert trees.get(Kind.TREE, IDS[19]) == IDS[19]
    assert fake.slow == [IDS[0], IDS[19]]
    trees.close()


def test_treeblocks_find_a_tree_once_and_again_where_it_has_moved(fake, monkeypatch):
    """What was found when its directory was listed is not looked for again, unless it is not there any more."""
    trees = TreeBlocks(fake, fake)
    trees.prepare(b"".join(IDS[:4]))
    asked = []
    real = fake.locate
    monkeypatch.setattr(fake, "locate", lambda kind, chunk_id: asked.append(chunk_id) or real(kind, chunk_id))
    assert trees.get(Kind.TREE, IDS[0]) == IDS[0]
    assert trees.get(Kind.TREE, IDS[8]) == IDS[8]
    assert asked == [IDS[8]]
    trees._cached._places[IDS[1]] = Location(1, 5, 0, 32)
    assert trees.get(Kind.TREE, IDS[1]) == IDS[1]
    assert fake.slow == [IDS[1]], "what lies there is another tree: the source is asked, which looks everywhere"
    assert trees.get(Kind.TREE, IDS[1]) == IDS[1]
    assert asked == [IDS[8], IDS[1]]
    trees.close()
