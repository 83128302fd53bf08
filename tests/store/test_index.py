"""The index against a dict, through additions, removals, crashes and other processes."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import shutil
import subprocess
import sys
import tempfile
from array import array
from pathlib import Path

import lmdb
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from respaldo.core.ids import ChunkId, PackName, SegmentName
from respaldo.format.pack import BlockRow, Footer, parse_footer
from respaldo.store.index import Index, Indexed


def chunk(number):
    """An id; those of one ten share their first eight bytes, those of one hundred their first two."""
    return ChunkId(
        hashlib.sha256(b"%d" % (number // 100)).digest()[:2]
        + hashlib.sha256(b"%d" % (number // 10)).digest()[:6]
        + hashlib.sha256(b"%d" % number).digest()[:24]
    )


def footer(ids, session=b"s" * 16):
    """A footer of one block with chunks of one byte."""
    block = BlockRow(1, len(ids) + 72, len(ids), len(ids), b"c" * 32)
    return Footer(
        session=session,
        body_hash=b"h" * 32,
        blocks=(block,) if ids else (),
        ids=b"".join(ids),
        lengths=array("I", [1] * len(ids)),
    )


def entered(name, ids, length=65536):
    made = footer(ids)
    return PackName(name), length, made, made.encode()


class IndexMachine(RuleBasedStateMachine):
    """Adds and forgets packs, closes, reopens, crashes; a dict of packs says what must be found."""

    packs = Bundle("packs")

    def __init__(self):
        super().__init__()
        self.path = Path(tempfile.mkdtemp(prefix="respaldo-index-"))
        self.index = Index(self.path / "index")
        self.model: dict[PackName, list[ChunkId]] = {}
        self.serial = itertools.count()

    def teardown(self):
        self.index.close()
        shutil.rmtree(self.path)

    @rule(target=packs, numbers=st.lists(st.lists(st.integers(0, 300), max_size=30), min_size=1, max_size=3))
    def add(self, numbers):
        """Enters packs, a chunk perhaps in several, or twice in one."""
        names = [PackName(hashlib.sha256(b"pack %d" % next(self.serial)).digest()) for _ in numbers]
        packs = [entered(name, [chunk(number) for number in ids]) for name, ids in zip(names, numbers, strict=True)]
        given = self.index.add_packs(packs)
        assert len(set(given)) == len(packs)
        for name, ids, number in zip(names, numbers, given, strict=True):
            self.model[name] = [chunk(number) for number in ids]
            assert self.index.pack(number) == Indexed(number, name, 65536)
        return names[0]

    @rule(name=packs)
    def add_again(self, name):
        """Enters a pack that is there already, as another process may have: its number stays."""
        if name in self.model:
            before = self.index.number_of(name)
            assert self.index.add_packs([entered(name, self.model[name])]) == [before]

    @rule(name=packs)
    def forget(self, name):
        """Takes a pack out."""
        if name in self.model:
            del self.model[name]
            self.index.forget_packs([Indexed(self.index.number_of(name), name, 65536)])
            assert self.index.number_of(name) is None

    @rule(numbers=st.lists(st.integers(0, 300), min_size=1, max_size=30))
    def crash_half_way(self, numbers):
        """Dies between entering a pack's rows and its name: the pack does not exist."""
        publish, self.index._publish = self.index._publish, None
        with pytest.raises(TypeError):
            self.index.add_packs([entered(b"n" * 32, [chunk(number) for number in numbers])])
        self.index._publish = publish

    @rule()
    def reopen(self):
        """Closes and opens again: everything is still there."""
        self.index.close()
        self.index = Index(self.path / "index")

    @rule()
    def machine_crashes(self):
        """The machine loses power while the index is written: it begins empty."""
        self.index.close()
        (self.path / "index" / "dirty-1").write_bytes(b"another boot")
        self.index = Index(self.path / "index")
        self.model.clear()

    @rule(name=packs)
    def use_only(self, name):
        """Leaves one pack usable: only its chunks count as known to a writer."""
        if name in self.model:
            self.index.usable = {self.index.number_of(name)}
            for number in range(0, 301, 7):
                found = self.index.find(chunk(number), usable_only=True)
                assert (found is not None) == (chunk(number) in self.model[name])
            self.index.usable = set()

    @invariant()
    def finds_what_is_there(self):
        """Every chunk is found where it is, with its id in that row; none is found that is nowhere."""
        assert {pack.name for pack in self.index.packs()} == set(self.model)
        for number in range(301):
            there = {
                (self.index.number_of(name), row)
                for name, ids in self.model.items()
                for row, chunk_id in enumerate(ids)
                if chunk_id == chunk(number)
            }
            found = self.index.find(chunk(number), usable_only=False)
            assert found in there if there else found is None
            assert set(self.index.copies(chunk(number))) == there


IndexMachine.TestCase.settings = settings(max_examples=15, stateful_step_count=12, deadline=None)
test_index_agrees_with_a_dict = IndexMachine.TestCase


@pytest.fixture
def index(tmp_path):
    made = Index(tmp_path / "index")
    yield made
    made.close()


def test_footer_is_kept_as_it_was_given(index):
    """The footer that comes back parses to the one that was entered."""
    made = entered(b"a" * 32, [chunk(number) for number in range(50)])
    [number] = index.add_packs([made])
    assert index.footer(number) == made[3]
    assert parse_footer(index.footer(number), "x") == made[2]
    assert (index.footer(99), index.pack(99), index.number_of(PackName(b"z" * 32))) == (b"", None, None)


def test_forgotten_pack_is_not_found_through_what_was_cached(index):
    """A pack that was looked into before it was forgotten is gone all the same, for writers too."""
    [number] = index.add_packs([entered(b"a" * 32, [chunk(1)])])
    index.usable = {number}
    assert index.find(chunk(1), usable_only=True) == (number, 0)
    index.forget_packs([Indexed(number, PackName(b"a" * 32), 65536)])
    assert index.find(chunk(1), usable_only=False) is None
    assert number not in index.usable
    [again] = index.add_packs([entered(b"a" * 32, [chunk(1)])])
    assert index.find(chunk(1), usable_only=False) == (again, 0)
    assert again != number


def test_segments_and_records_are_remembered(index):
    """What was applied and read is remembered until it is gone."""
    one, two = SegmentName(b"1" * 32), SegmentName(b"2" * 32)
    index.note_segments([one, two])
    index.note_segments([], gone=[one])
    assert (index.segments(), index.has_segment(one), index.has_segment(two)) == ({two}, False, True)
    index.put_records({"pending/a": b"x", "condemned/b": b"y"})
    index.put_records({"pending/c": b""}, gone=["pending/a"])
    assert index.record("pending/a") is None
    assert (index.record("condemned/b"), index.record("pending/c")) == (b"y", b"")
    assert sorted(index.record_names()) == ["condemned/b", "pending/c"]


def test_discarded_index_is_empty_and_usable(index):
    """An index that is thrown away begins anew, without a restart."""
    index.usable = set(index.add_packs([entered(b"a" * 32, [chunk(1)])]))
    index.find(chunk(1), usable_only=False)
    index.discard()
    assert (list(index.packs()), index.usable, index.chunk_count()) == ([], set(), 0)
    assert index.find(chunk(1), usable_only=False) is None
    index.add_packs([entered(b"b" * 32, [chunk(1)])])
    assert index.find(chunk(1), usable_only=False) is not None


def test_large_pack_takes_several_transactions(index):
    """More rows than a transaction takes are all entered."""
    ids = [ChunkId(hashlib.sha256(b"%d" % number).digest()) for number in range(5000)]
    [number] = index.add_packs([entered(b"a" * 32, ids)])
    assert index.chunk_count() == 5000
    assert all(index.find(chunk_id, usable_only=False) == (number, row) for row, chunk_id in enumerate(ids))


OTHER = """
import sys, pathlib
sys.path.insert(0, {root!r})
from tests.store.test_index import chunk, entered
from respaldo.store.index import Index
index = Index(pathlib.Path(sys.argv[1]))
for number in range(int(sys.argv[2]), int(sys.argv[2]) + 40):
    index.add_packs([entered(b'%032d' % number, [chunk(number)])])
    index.add_packs([entered(b's%031d' % (number % 40), [chunk(1000 + number % 40)])])
index.close()
"""


def test_two_processes_write_one_index(tmp_path, index):
    """Processes that add packs at once, some of them the same ones, lose nothing and enter each pack once."""
    script = OTHER.format(root=str(Path(__file__).parents[2]))
    others = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "index"), str(first)]) for first in (100, 200)
    ]
    for number in range(40):
        index.add_packs([entered(b"s%031d" % number, [chunk(1000 + number)])])
    assert [other.wait(60) for other in others] == [0, 0]
    index._end_read()
    names = [pack.name for pack in index.packs()]
    assert len(names) == len(set(names)) == 120
    for number in [*range(100, 140), *range(200, 240), *range(1000, 1040)]:
        assert len(index.copies(chunk(number))) == 1
    numbers = [pack.number for pack in index.packs()]
    assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize("database", ["footers", "packs"])
def test_pack_that_rotted_in_the_index_is_not_taken_for_damage_of_the_repository(tmp_path, database):
    """What the index holds of a pack is checked when it is read: nobody scrubs a cache."""
    with contextlib.closing(Index(tmp_path / "index")) as index:
        (number,) = index.add_packs([entered(b"p" * 32, [chunk(1), chunk(2)])])
        sound = index.entry(number)
        assert sound is not None
        assert index.footer(number) == sound[1] == footer([chunk(1), chunk(2)]).encode()
        key, db = number.to_bytes(4, "big"), index._dbs[database]
        with index._environment.read() as txn:
            rotten = bytearray(txn.get(key, db=db))
        rotten[20] ^= 1
        index._end_read()
        index._environment.write(lambda txn: txn.put(key, bytes(rotten), db=db))
        with pytest.raises(lmdb.CorruptedError):
            index.entry(number)
        assert index.footer(number) == b""
