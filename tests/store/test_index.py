"""The index against a dict, through additions, removals, crashes and other processes."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import random
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

from respaldo.core.errors import StorageFailed
from respaldo.core.ids import ChunkId, PackName, SegmentName
from respaldo.format.pack import BlockRow, Footer, parse_footer
from respaldo.store.index import Index
from respaldo.store.packrow import Indexed


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


def open_index(path, recent=None):
    """An index, which merges as soon as more rows than ``recent`` are in its recent database."""
    made = Index(path)
    if recent is not None:
        made.ordinals.recent_rows_min = recent
    return made


class IndexMachine(RuleBasedStateMachine):
    """Adds and forgets packs, closes, reopens, crashes; a dict of packs says what must be found."""

    packs = Bundle("packs")
    recent: int | None = None

    def __init__(self):
        super().__init__()
        self.path = Path(tempfile.mkdtemp(prefix="respaldo-index-"))
        self.index = open_index(self.path / "index", self.recent)
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
        publish, self.index._gate.publish = self.index._gate.publish, None
        with pytest.raises(TypeError):
            self.index.add_packs([entered(b"n" * 32, [chunk(number) for number in numbers])])
        self.index._gate.publish = publish

    @rule(numbers=st.lists(st.integers(0, 300), min_size=1, max_size=30), writes=st.integers(1, 300))
    def dies_at_a_write(self, numbers, writes):
        """Dies after some transactions, in the middle of a merge perhaps: a pack is there whole or not at all."""
        left = itertools.repeat(True, writes)
        write = self.index._environment.write

        def dying(action):
            if not next(left, False):
                raise InterruptedError
            return write(action)

        self.index._environment.write = dying
        ids = [chunk(number) for number in numbers]
        name = PackName(hashlib.sha256(b"pack %d" % next(self.serial)).digest())
        try:
            self.index.add_packs([entered(name, ids)])
            self.model[name] = ids
        except InterruptedError:
            pass
        finally:
            self.index._environment.write = write

    @rule()
    def reopen(self):
        """Closes and opens again: everything is still there."""
        self.index.close()
        self.index = open_index(self.path / "index", self.recent)

    @rule()
    def machine_crashes(self):
        """The machine loses power while the index is written: it begins empty."""
        self.index.close()
        (self.path / "index" / "dirty-1").write_bytes(b"another boot")
        self.index = open_index(self.path / "index", self.recent)
        self.model.clear()

    @rule(name=packs)
    def use_only(self, name):
        """Leaves one pack usable: only its chunks count as known to a writer."""
        if name in self.model:
            self.index.usable = {self.index.number_of(name)}
            self.finds_many_at_once()
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

    @invariant()
    def finds_many_at_once(self):
        """In bulk the same is found and the same is missed, by choice where it is usable, whatever the order."""
        asked = random.Random(len(self.model)).choices(range(301), k=200)
        found = []
        missing = self.index.find_many(
            b"".join(map(chunk, asked)), lambda number, rows: found.extend((number, row) for row in rows)
        )
        there = {
            (self.index.number_of(name), row): chunk_id
            for name, ids in self.model.items()
            for row, chunk_id in enumerate(ids)
        }
        assert [asked[at] for at in missing] == [n for n in asked if chunk(n) not in there.values()]
        assert {there[position] for position in found} == {chunk(n) for n in asked} & set(there.values())
        usable = {chunk_id for (number, _), chunk_id in there.items() if number in self.index.usable}
        assert all(number in self.index.usable for number, row in found if there[number, row] in usable)


class MergingMachine(IndexMachine):
    """Is the same with an index that merges all the time."""

    recent = 25


for machine, examples in ((IndexMachine, 15), (MergingMachine, 6)):
    machine.TestCase.settings = settings(max_examples=examples, stateful_step_count=12, deadline=None)
test_index_agrees_with_a_dict = IndexMachine.TestCase
test_index_that_merges_agrees_with_a_dict = MergingMachine.TestCase


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
    assert index.segments() == {two}
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


def rows(index):
    """How many rows the base and the recent database hold."""
    with index._environment.read() as txn:
        return index.ordinals._base_count(txn), txn.stat(index._dbs["recent"])["entries"]


def test_recent_rows_are_merged_when_they_outgrow_their_share(tmp_path):
    """Rows go to the recent database until it is full, then all of them into the base; all are found all along."""
    index = open_index(tmp_path / "index", recent=100)
    numbers = index.add_packs([entered(b"a" * 32, [chunk(number) for number in range(80)])])
    assert rows(index) == (0, 80)
    numbers += index.add_packs([entered(b"b" * 32, [chunk(number) for number in range(80, 160)])])
    assert rows(index) == (160, 0)
    numbers += index.add_packs([entered(b"c" * 32, [chunk(number) for number in range(100)])])
    assert rows(index) == (160, 100)
    assert index.chunk_count() == 260
    index.close()
    index = open_index(tmp_path / "index")
    assert rows(index) == (160, 100)
    assert index.copies(chunk(7)) == [(numbers[0], 7), (numbers[2], 7)]
    assert index.copies(chunk(90)) == [(numbers[1], 10), (numbers[2], 90)]
    index.close()


def test_merge_drops_rows_of_packs_that_are_gone(tmp_path):
    """Once most rows are of forgotten packs, a merge leaves them out, and only them."""
    index = open_index(tmp_path / "index", recent=50)
    names = [PackName(b"%032d" % number) for number in range(20)]
    given = index.add_packs(
        [entered(name, [chunk(serial * 20 + row) for row in range(20)]) for serial, name in enumerate(names)]
    )
    assert rows(index) == (400, 0)
    index.forget_packs([Indexed(number, name, 65536) for name, number in zip(names[5:], given[5:], strict=True)])
    index.add_packs([entered(b"z" * 32, [chunk(number) for number in range(1000, 1060)])])
    assert rows(index) == (160, 0)
    for number in [*range(100), *range(1000, 1060)]:
        assert len(index.copies(chunk(number))) == 1
    assert index.copies(chunk(100)) == []
    index.close()


def test_what_was_entered_and_not_published_is_cleared_away(tmp_path):
    """Footers that a failed run left behind go with the next one, those of a process that runs stay."""
    index = open_index(tmp_path / "index")
    with pytest.raises(ZeroDivisionError):
        index.add_packs(itertools.chain([entered(b"a" * 32, [chunk(1)])] * 2, (1 // 0 for _ in "x")))
    part = [entered(b"b" * 32, [chunk(2)])]
    [ours] = index._environment.write(lambda txn: index._gate.put(part, txn))
    [theirs] = index._environment.write(lambda txn: index._gate.put(part, txn))
    parent = b"%d" % os.getppid()
    index._environment.write(lambda txn: txn.put(theirs.to_bytes(4, "big"), parent, db=index._dbs["pending"]))
    index.add_packs([entered(b"c" * 32, [chunk(3)])])
    assert index.pack(ours) is None
    assert index.footer(ours) == b""
    assert index.footer(theirs) == part[0][3]
    assert [pack.name for pack in index.packs()] == [b"c" * 32]
    assert index.number_of(PackName(b"b" * 32)) is None
    index.close()


def test_packs_that_were_taken_for_abandoned_do_not_come_to_exist(index):
    """Whoever clears a pack that is still being entered makes its process fail, not enter a pack without a footer."""

    def packs():
        name, length, made, encoded = entered(b"a" * 32, [chunk(1)])
        yield name, length, made, encoded + bytes(2 << 20)
        index._environment.write(index._gate.clear_abandoned)

    with pytest.raises(StorageFailed, match="took this one for dead"):
        index.add_packs(packs())
    assert index.number_of(PackName(b"a" * 32)) is None
    assert index.find(chunk(1), usable_only=False) is None


def advance(index, number):
    """Makes the next pack get a number."""
    index._environment.write(lambda txn: txn.put(b"next", number.to_bytes(4, "big"), db=index._dbs["counters"]))


@pytest.mark.parametrize("recent", [0, 1000])
def test_ordinals_beyond_three_bytes(tmp_path, recent):
    """Chunks are found whatever the ordinal, and no pack lies across a multiple of 2^24."""
    index = open_index(tmp_path / "index", recent=recent)
    firsts = [(1 << 24) - 20, (3 << 24) + 5, (1 << 32) - 100]
    for serial, first in enumerate(firsts):
        advance(index, first)
        for part in range(2):
            ids = [chunk(serial * 100 + part * 15 + row) for row in range(15)]
            [number] = index.add_packs([entered(b"%d%d" % (serial, part) + b"x" * 30, ids)])
            assert number == ((1 << 24) if (serial, part) == (0, 1) else first + 15 * part)
            assert [index.find(item, usable_only=False) for item in ids] == [(number, row) for row in range(15)]
    with pytest.raises(StorageFailed, match="no numbers left"):
        index.add_packs([entered(b"y" * 32, [chunk(number) for number in range(100)])])
    assert index.number_of(PackName(b"y" * 32)) is None
    index.close()


def test_sizes_are_told_apart(index):
    """What the index takes on disk, and what footers and records beside it take."""
    before = index.length_bytes()
    index.add_packs([entered(b"a" * 32, [ChunkId(hashlib.sha256(b"%d" % row).digest()) for row in range(5000)])])
    index.put_records({"pending/x": bytes(100_000)})
    after = index.length_bytes()
    assert after[1] - before[1] >= 5000 * 36 + 100_000
    assert after[0] - before[0] > 5000 * 6


OTHER = """
import sys, pathlib
sys.path.insert(0, {root!r})
from tests.store.test_index import chunk, entered
from tests.store.test_index import open_index
index = open_index(pathlib.Path(sys.argv[1]), int(sys.argv[3]))
for number in range(int(sys.argv[2]), int(sys.argv[2]) + 40):
    index.add_packs([entered(b'%032d' % number, [chunk(number)])])
    index.add_packs([entered(b's%031d' % (number % 40), [chunk(1000 + number % 40)])])
    print(number, flush=True)
index.close()
"""


@pytest.mark.parametrize("recent", [1000, 10])
def test_two_processes_write_one_index(tmp_path, recent):
    """Processes that add packs at once, some of them the same ones, lose nothing and enter each pack once.

    With few recent rows, all of them merge all the time.
    """
    index = open_index(tmp_path / "index", recent)
    script = OTHER.format(root=str(Path(__file__).parents[2]))
    others = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path / "index"), str(first), str(recent)], stdout=subprocess.DEVNULL
        )
        for first in (100, 200)
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
    index.close()


@pytest.mark.parametrize(("after", "recent"), [(1, 1000), (5, 1000), (2, 0), (6, 0)])
def test_killed_process_leaves_an_index_that_is_right(tmp_path, after, recent):
    """What a process that is killed said it had entered is there, and the rest whole or not at all."""
    script = OTHER.format(root=str(Path(__file__).parents[2]))
    command = [sys.executable, "-c", script, str(tmp_path / "index"), "100", str(recent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        said = [int(process.stdout.readline()) for _ in range(after)]
        process.kill()
    index = open_index(tmp_path / "index", recent)
    names = {pack.name for pack in index.packs()}
    for number in said:
        assert len(index.copies(chunk(number))) == 1
        assert {b"%032d" % number, b"s%031d" % (number % 40)} <= names
    for number in range(100, 140):
        assert (index.find(chunk(number), usable_only=False) is not None) == (b"%032d" % number in names)
    index.add_packs([entered(b"z" * 32, [chunk(1)])])
    with index._environment.read() as txn:
        held = {name: txn.stat(index._dbs[name])["entries"] for name in ("packs", "names", "footers", "pending")}
    assert held == {"packs": len(names) + 1, "names": len(names) + 1, "footers": len(names) + 1, "pending": 0}
    index.close()


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


@pytest.mark.parametrize("recent", [0, 1 << 20])
def test_find_many_finds_what_find_finds(tmp_path, recent):
    """Thousands at once, in no order, with strangers among them, from ids of all beginnings, whether merged or not."""
    index = open_index(tmp_path / "index", recent)
    source = random.Random(4)
    packs = [[ChunkId(source.randbytes(32)) for _ in range(500)] for _ in range(40)]
    packs += [[ChunkId(bytes((first,)) * 32) for first in (0, 255)], packs[3][:100]]
    index.add_packs(entered(source.randbytes(32), ids) for ids in packs)
    strangers = [ChunkId(source.randbytes(32)) for _ in range(100)]
    asked = [*itertools.chain(*packs), *strangers, ChunkId(packs[0][0][:6] + bytes(26))]
    source.shuffle(asked)
    found = {}
    footers = {pack.number: parse_footer(index.footer(pack.number), "x") for pack in index.packs()}

    def take(number, rows):
        found.update((footers[number].ids[32 * row : 32 * row + 32], (number, row)) for row in rows)

    missing = index.find_many(b"".join(asked), take)
    assert [asked[at] for at in missing] == [one for one in asked if index.find(one, usable_only=False) is None]
    assert found.keys() == set(itertools.chain(*packs))
    assert index.find_many(b"", take) == []
    index.close()
