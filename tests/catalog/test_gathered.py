"""Trees that lie scattered are gathered block by block; every answer is what the reader would have given."""

from __future__ import annotations

import hashlib
import random
import stat
from collections import Counter, OrderedDict

import pytest

from respaldo.catalog.gathered import AGAIN_MIN, Gathered
from respaldo.catalog.trees import TreeReader
from respaldo.core.errors import ChunkMissing, Corruption, StorageFailed
from respaldo.core.ids import ChunkId, Kind
from respaldo.core.model import Content, Entry
from respaldo.flows.restore.columns import leaf_of
from respaldo.store.reopened import Reopened
from respaldo.store.source import Location

BLOCKS = 24
KEPT = 3


class Store:
    """Has trees drawn into blocks; reads them one by one with few blocks kept, and counts what it opens."""

    def __init__(self) -> None:
        self.draw = random.Random(4)
        self.blocks = [b""] * BLOCKS
        self.places: dict[bytes, Location] = {}
        self.opened: Counter[int] = Counter()
        self.damaged: set[int] = set()
        self.fails = False
        self.kept: OrderedDict[int, bytes] = OrderedDict()
        self.reopened = Reopened()

    def put(self, raw: bytes) -> ChunkId:
        tree = ChunkId(hashlib.sha256(raw).digest())
        if tree not in self.places:
            number = self.draw.randrange(BLOCKS)
            self.places[tree] = Location(7, number, len(self.blocks[number]), len(raw))
            self.blocks[number] += raw
        return tree

    def fill(self, depth: int, name: str = "") -> ChunkId:
        """Stores a directory of four in each of which are four, and so on."""
        entries = [Entry(name=f"file of {name}".encode(), mode=stat.S_IFREG | 0o644)]
        for child in "abcd" if depth else "":
            tree = self.fill(depth - 1, name + child)
            entries.append(Entry(name=child.encode(), mode=stat.S_IFDIR | 0o755, content=Content(ids=tree)))
        return self.put(leaf_of(sorted(entries, key=lambda entry: entry.name)).encode())

    def locate_each(self, ids):
        return [self.places.get(ids[at : at + 32]) for at in range(0, len(ids), 32)]

    def block(self, pack, block):
        self.opened[block] += 1
        if block in self.damaged:
            raise Corruption("block", "damaged")
        if self.fails:
            raise StorageFailed("packs", "gone")
        return self.blocks[block]

    def check(self, kind, chunk_id, raw):
        assert kind is Kind.TREE
        if hashlib.sha256(raw).digest() != chunk_id:
            raise Corruption("tree", "damaged")

    def let_go(self):
        self.kept.clear()

    def get(self, kind, chunk_id):
        if chunk_id not in self.places:
            raise ChunkMissing(kind.word, chunk_id)
        _, number, offset, length = self.places[chunk_id]
        if number not in self.kept:
            self.reopened.opened((7, number))
            self.kept[number] = self.block(7, number)
            if len(self.kept) > KEPT:
                self.reopened.let_go((7, self.kept.popitem(last=False)[0]))
        self.kept.move_to_end(number)
        return self.kept[number][offset : offset + length]

    def has(self, chunk_id):
        return chunk_id in self.places


def walk(trees: TreeReader, tree: ChunkId):
    """Yields what is in a directory and below it, in the order of paths, and errors where they are met."""
    try:
        entries = list(trees.entries(tree))
    except Corruption as error:
        yield str(error)
        return
    for entry in entries:
        yield entry.name
        if entry.is_dir:
            yield from walk(trees, ChunkId(entry.content.ids))


@pytest.fixture
def store():
    return Store()


def gathered(store, root, **options):
    reader = Gathered(store, store, store.reopened, **options)
    reader.expect([root])
    return reader


def test_gathered_opens_each_block_a_few_times(store):
    """What is read is the same; where one by one a block is opened for nearly every tree, it is a few times now."""
    root = store.fill(4)
    plain = list(walk(TreeReader(store), root))
    before = store.opened.total()
    store.opened.clear()
    store.let_go()
    assert list(walk(TreeReader(gathered(store, root)), root)) == plain
    assert before > 8 * BLOCKS
    assert store.opened.total() < 4 * BLOCKS


def test_gathered_leaves_damage_to_the_reader(store):
    """What lies in a damaged block fails as it did, and nothing else does."""
    root = store.fill(4)
    store.damaged = {number for number in range(3) if number != store.places[root].block}
    plain = list(walk(TreeReader(store), root))
    assert any(isinstance(item, str) for item in plain)
    store.let_go()
    assert list(walk(TreeReader(gathered(store, root)), root)) == plain


def test_gathered_holds_so_much_and_reads_on_without(store):
    """Where there is no room for all, what is there is used, and the rest read one by one."""
    root = store.fill(4)
    plain = list(walk(TreeReader(store), root))
    reader = gathered(store, root, limit_bytes=20_000)
    assert list(walk(TreeReader(reader), root)) == plain
    assert reader._trees
    assert reader._held_bytes < 20_000 + max(map(len, store.blocks)) * 3


def test_gathered_reads_nothing_ahead_of_few(store):
    """Whoever opens no block again reads what he asks for."""
    root = store.fill(1)
    reader = gathered(store, root)
    reader.get(Kind.TREE, root)
    assert store.opened.total() == 1
    assert store.reopened.count < AGAIN_MIN


def test_gathered_gives_up_where_storage_fails(store):
    """A storage that is gone is asked once, and then by whoever needs a tree, who hears of it."""
    root = store.fill(4)
    reader = gathered(store, root)
    list(walk(TreeReader(reader), root))
    store.reopened.count += AGAIN_MIN
    reader.expect([root])
    reader._trees.clear()
    store.let_go()
    store.opened.clear()
    store.fails = True
    with pytest.raises(StorageFailed):
        reader.get(Kind.TREE, root)
    assert store.opened.total() == 2


def test_gathered_takes_note_of_so_many_at_a_time(store, monkeypatch):
    """A directory of a million others is no reason to hold a note of each; what is left out is read one by one."""
    monkeypatch.setattr("respaldo.catalog.gathered._NOTED_MAX", 8)
    root = store.fill(4)
    plain = list(walk(TreeReader(store), root))
    reader = gathered(store, root)
    assert store.reopened.count >= AGAIN_MIN
    ids = b"".join(store.places)
    held = []
    for tree in store.places:
        reader.get(Kind.TREE, ChunkId(tree))
        held.append((len(ids) - len(reader.lacking(ids))) // 32)
    assert max(held) <= 8
    assert list(walk(TreeReader(gathered(store, root)), root)) == plain
