"""The feed: a search after a snapshot reads nothing that the snapshot wrote."""

from __future__ import annotations

import tempfile
from pathlib import Path

import lmdb
import pytest
from hypothesis import given
from hypothesis.strategies import integers

from respaldo.catalog.feed import Feed, enter_piles
from respaldo.catalog.register import Register, handle_of
from respaldo.core.ids import ChunkId
from respaldo.views.criteria import Criteria
from respaldo.views.find import Find
from tests.views.model import Chunks, File, Folder, histories, put_folder
from tests.views.test_find import expected, seen

HEADS = (b"\x9b\x01", b"\x92\x02")
"""What leaves and branches begin with."""


class Fed(Chunks):
    """Hands what it stores to a feed, if it is a tree."""

    def __init__(self, feed: Feed) -> None:
        super().__init__()
        self.feed = feed

    def put(self, raw: bytes) -> ChunkId:
        stored = super().put(raw)
        if raw.startswith(HEADS):
            self.feed.put(stored, raw)
        return stored


def fill(path: Path, trees: list[Folder], firsts: int = 0) -> Chunks:
    """Makes snapshots, each fed by a run of its own; of the first ones, each is the first of a source."""
    kept: dict[bytes, bytes] = {}
    for number, tree in enumerate(trees):
        with Feed(path) as feed:
            feed.first = number < firsts
            chunks = Fed(feed)
            feed.root(put_folder(chunks, tree))
        kept |= chunks.kept
    found = Chunks()
    found.kept = kept
    return found


@given(histories(), histories(2), integers(0, 3))
def test_search_after_snapshots_reads_nothing(trees, later, firsts):
    """Whatever was written through a feed is found without a tree being read, and stays so beside what is read."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "register"
        chunks = fill(path, trees, firsts)
        register = Register(path)
        found, finding = seen(chunks, register, trees, Criteria())
        assert found == expected(trees)
        assert finding.trees == 0
        assert chunks.read == []
        assert seen(chunks, register, [*later, *trees], Criteria())[0] == expected([*later, *trees])
        register.close()


def test_feed_enters_nothing_above_what_it_was_not_given(tmp_path):
    """A directory that was taken over from a snapshot nobody searched is read by the search, and all above it."""
    below = Folder({b"b": File()})
    with Feed(tmp_path / "register") as feed:
        chunks = Fed(feed)
        apart = Chunks()
        inner = put_folder(apart, below)
        chunks.put = lambda raw: ChunkId(inner) if raw == apart.kept[inner] else Fed.put(chunks, raw)
        root = put_folder(chunks, Folder({b"a": below, b"c": Folder({b"d": File()})}))
        feed.root(root)
    chunks.kept |= apart.kept
    register = Register(tmp_path / "register")
    assert not register.has(handle_of(root))
    finding = Find(chunks, chunks, register, [root], Criteria())
    assert {version.path for version in finding.run()} == {b"/a", b"/a/b", b"/c", b"/c/d"}
    assert finding.trees == 2
    register.close()


def test_feed_keeps_only_what_differs(tmp_path):
    """Of a directory in which one file of many changes each time, one version is kept whole."""
    trees = [
        Folder(
            {b"%d" % row: Folder({b"f%d" % row: File(content=b"%d" % (number if row == 1 else 0))}) for row in range(3)}
        )
        for number in range(5)
    ]
    fill(tmp_path / "register", trees)
    register = Register(tmp_path / "register")
    counts = counted(register)
    assert counts["roots"] == counts["trees"] - 3 - 4 == 5
    assert counts["shapes"] == 1
    register.close()


def counted(register: Register) -> dict[str, int]:
    with register._environment.env.begin() as txn:
        return {name: txn.stat(db)["entries"] for name, db in register._environment.dbs.items()}


def test_first_snapshot_is_entered_by_the_next(tmp_path, monkeypatch):
    """What a first snapshot wrote waits, with the little that others add, for one that writes more."""
    path = tmp_path / "register"
    trees = [
        Folder({b"a": Folder({b"f%d" % row: File(content=b"%d" % (row or number)) for row in range(40)})})
        for number in range(3)
    ]
    fill(path, trees[:1], firsts=1)
    register = Register(path)
    assert counted(register) == dict.fromkeys(counted(register), 0) | {"piles": 1}
    register.close()
    fill(path, trees[1:2])
    register = Register(path)
    assert counted(register) == dict.fromkeys(counted(register), 0) | {"piles": 2}
    register.close()
    monkeypatch.setattr("respaldo.catalog.feed._FEW_BYTES", 0)
    fill(path, trees[2:])
    fill(tmp_path / "at once", trees)
    register, at_once = Register(path), Register(tmp_path / "at once")
    assert counted(register) == counted(at_once)
    assert counted(register)["bases"] < counted(register)["trees"]
    assert counted(register)["roots"] == 3
    register.close()
    at_once.close()


def test_piles_keep_their_order(tmp_path, monkeypatch):
    """A big first snapshot, and one beside it, are entered in the order in which they were laid by."""
    monkeypatch.setattr("respaldo.catalog.feed._PILE_BYTES_MAX", 1)
    trees = [Folder({b"%d" % number: Folder({b"a": Folder({b"b": File()})})}) for number in range(5)]
    chunks = fill(tmp_path / "register", trees, firsts=5)
    register = Register(tmp_path / "register")
    assert counted(register)["piles"] > 5
    found, finding = seen(chunks, register, trees, Criteria())
    assert found == expected(trees)
    assert (finding.trees, chunks.read) == (0, [])
    assert counted(register)["piles"] == 0
    register.close()


def test_first_snapshot_that_was_cut_off_leaves_no_root(tmp_path, monkeypatch):
    """Its trees are entered all the same: the run after it takes them over."""
    monkeypatch.setattr("respaldo.catalog.feed._PILE_BYTES_MAX", 1)
    with Feed(tmp_path / "register") as feed:
        feed.first = True
        tree = put_folder(Fed(feed), Folder({b"a": File()}))
    register = Register(tmp_path / "register")
    enter_piles(register)
    assert counted(register) | {"names": 1} == dict.fromkeys(counted(register), 0) | dict.fromkeys(
        ("trees", "names", "bases", "latest"), 1
    )
    assert register.has(handle_of(tree))
    register.close()


def test_rotten_pile_is_damage_of_the_cache(tmp_path, monkeypatch):
    """It ends what a snapshot enters, and tells a search that the register is to be thrown away."""
    path = tmp_path / "register"
    fill(path, [Folder({b"a": File()})], firsts=1)
    register = Register(path)
    key, value = register._environment.write(
        lambda txn: next(iter(txn.cursor(db=register._environment.dbs["piles"]).iternext()))
    )
    rotten = value[:-1] + bytes([value[-1] ^ 1])
    register._environment.write(lambda txn: txn.put(key, rotten, db=register._environment.dbs["piles"]))
    with pytest.raises(lmdb.CorruptedError):
        enter_piles(register)
    register.close()
    monkeypatch.setattr("respaldo.catalog.feed._FEW_BYTES", 0)
    fill(path, [Folder({b"b": File()})])
    register = Register(path)
    assert counted(register)["trees"] == 0
    register.close()


def test_frozen_feed_makes_no_register(tmp_path):
    """A dry run leaves nothing behind."""
    with Feed(tmp_path / "register", frozen=True) as feed:
        chunks = Fed(feed)
        feed.root(put_folder(chunks, Folder({b"a": File()})))
    assert not (tmp_path / "register").exists()


@pytest.mark.parametrize("error", [lmdb.CorruptedError("rotten"), lmdb.DiskError("full"), OSError(28, "full")])
def test_feed_that_fails_fails_nothing_else(tmp_path, monkeypatch, error):
    """A cache that is damaged or cannot be written ends what is entered, nothing more."""
    with Feed(tmp_path / "register") as feed:
        chunks = Fed(feed)
        tree = put_folder(chunks, Folder({b"a": File()}))
        feed.root(tree)

    def fail(*_):
        raise error

    with Feed(tmp_path / "register") as feed:
        monkeypatch.setattr(Register, "tree", fail)
        monkeypatch.setattr(Register, "latest", fail)
        chunks = Fed(feed)
        feed.root(put_folder(chunks, Folder({b"a": Folder({b"b": File()})})))
    monkeypatch.undo()
    register = Register(tmp_path / "register")
    assert register.has(handle_of(tree))
    register.close()
