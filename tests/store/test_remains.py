"""What remains of blocks is what they held, in bounded memory; and whoever fetches in turns opens each block rarely."""

from __future__ import annotations

import mmap
import random
import threading
from collections import Counter
from contextlib import suppress
from itertools import pairwise
from queue import Empty, SimpleQueue

import pytest
from hypothesis import given
from hypothesis import strategies as st

from respaldo.core.errors import Corruption, ObjectMissing
from respaldo.core.ids import ChunkId, Kind
from respaldo.core.seams import Cancel
from respaldo.store import fetch, remains
from respaldo.store.fetch import Fetcher
from respaldo.store.remains import SLICE_BYTES, Remains
from respaldo.store.source import Location

TEXT = bytes(random.Random(1).choices(b"abcdefgh \n", k=5 * SLICE_BYTES + 77))
NOISE = random.Random(2).randbytes(5 * SLICE_BYTES + 77)


@given(
    raw=st.sampled_from([TEXT, NOISE]),
    start=st.integers(0, len(TEXT) - 1),
    cuts=st.lists(st.integers(0, len(TEXT)), min_size=2, max_size=12),
)
def test_rest_gives_what_the_block_held(raw, start, cuts):
    """Any ascending pieces behind the first offset, several at a time; what lies before it is not here."""
    rest = Remains().cut(raw, start)
    decompressor = Remains().decompressor
    cuts = sorted(max(cut, start) for cut in cuts)
    spans = [(low, high - low) for low, high in pairwise(cuts) if high > low]
    for at in range(0, len(spans), 2):
        some = spans[at : at + 2]
        assert rest.take(decompressor, some) == [raw[offset : offset + length] for offset, length in some]
    if start:
        assert rest.take(decompressor, [(start - 1, 1)]) is None
    assert rest.take(decompressor, [(len(raw) - 1, 2)]) is None


def test_rest_shrinks_as_it_is_used():
    """What was passed takes no memory; the slice that was opened last is one more."""
    rest = Remains().cut(NOISE, 0)
    before = rest.held_bytes
    rest.take(Remains().decompressor, [(3 * SLICE_BYTES, 10)])
    assert rest.held_bytes <= before - 2 * SLICE_BYTES + 4096
    rest.take(Remains().decompressor, [(5 * SLICE_BYTES + 70, 7)])
    assert rest.held_bytes < 2 * 4096 + 77


def test_rest_gives_out_no_more_than_was_asked_for():
    """Small pieces, also those on the border of slices, do not hold the slices that they were in."""
    spans = [(at, 8 << 10) for at in range(10 << 10, 70 << 10, 10 << 10)]
    views = Remains().cut(NOISE, 0).take(Remains().decompressor, spans)
    assert [len(view.obj) for view in views] == [8 << 10] * len(spans)


def worn(limit_bytes: int) -> Remains:
    """Remains that have seen blocks opened again."""
    remains = Remains(limit_bytes)
    for number in range(100):
        remains.takes((0, number), 0, 0)
        remains.opened((0, number), 0)
    return remains


def test_remains_are_bounded_and_those_that_are_there_stay():
    """A block more than fits is not taken, until what is there has not been asked for in a long time."""
    remains = worn(3 * len(NOISE))
    for number in range(10, 20):
        if remains.takes((1, number), 0, len(NOISE)):
            remains.put((1, number), remains.cut(NOISE, 0))
    assert remains.held_bytes < 5 * len(NOISE)
    assert remains.pop((1, 10)) is not None
    assert remains.pop((1, 19)) is None
    for number in range(20, 60):
        if remains.takes((1, number), 0, len(NOISE)):
            remains.put((1, number), remains.cut(NOISE, 0))
    assert remains.pop((1, 11)) is None
    assert remains.held_bytes < 5 * len(NOISE)


def test_remains_are_not_kept_where_nothing_is_opened_again():
    """Whoever goes through blocks once pays nothing for it."""
    remains = Remains()
    for number in range(100):
        remains.opened((0, number), 0)
        assert not remains.takes((0, number), 10, 100)
    for number in range(100):  # for what was asked for before: equal files
        remains.opened((0, number), 9)
        assert not remains.takes((0, number), 10, 100)


CHUNKS, BLOCKS, CHUNK_BYTES = 12, 24, 8 << 10


class Blocks:
    """Has blocks of chunks that each are one letter; knows how often each was opened. Some are damaged."""

    at_once = 2

    def __init__(self, damaged_blocks=(), damaged_chunks=()) -> None:
        self.opened: Counter[int] = Counter()
        self.damaged_blocks = damaged_blocks
        self.damaged_chunks = damaged_chunks

    def chunk(self, block: int, row: int) -> bytes:
        return bytes([block, row]) * (CHUNK_BYTES // 2)

    def block(self, pack, block):
        self.opened[block] += 1
        if block in self.damaged_blocks:
            raise Corruption("block", "damaged")
        good = [self.chunk(block, row) for row in range(CHUNKS)]
        return b"".join(
            bytes(CHUNK_BYTES) if (block, row) in self.damaged_chunks else raw for row, raw in enumerate(good)
        )

    def check(self, kind, chunk_id, raw):
        if bytes(raw[:2]) != chunk_id[:2]:
            raise Corruption("chunk", "damaged")

    def damaged(self, pack, ids): ...

    def copy(self, kind, chunk_id):
        raise Corruption("chunk", "damaged elsewhere")


@pytest.fixture
def few_kept(monkeypatch):
    monkeypatch.setattr(fetch, "KEPT_BYTES", 4 * CHUNKS * CHUNK_BYTES)


def in_turns(blocks, order):
    """Fetches (block, row) one after the other; returns the bytes of each, or None for a damaged one."""
    found = []
    with Fetcher(blocks, Cancel()) as fetcher:
        for block, row in order:
            at = Location(0, block, row * CHUNK_BYTES, CHUNK_BYTES)
            task, slot = fetcher.want(ChunkId(bytes([block, row]) + bytes(30)), at)
            task.users += 1
            fetcher.wait([task])
            found.append(None if slot in task.bad else bytes(task.views[slot]))
            fetcher.release(task)
    return found


TURNS = [(block, row) for row in range(CHUNKS) for block in range(BLOCKS)]


@pytest.mark.usefixtures("few_kept")
def test_fetcher_opens_blocks_that_come_in_turns_a_few_times():
    """Of 24 blocks, of which memory holds four, each is opened twice or so for its twelve chunks."""
    blocks = Blocks()
    assert in_turns(blocks, TURNS) == [blocks.chunk(*at) for at in TURNS]
    assert sum(blocks.opened.values()) <= 3 * BLOCKS


@pytest.mark.usefixtures("few_kept")
def test_fetcher_gives_what_is_asked_for_in_any_order():
    """Against the order of a block it is no faster, and as right."""
    draw = random.Random(3)
    order = [draw.choice(TURNS) for _ in range(600)]
    blocks = Blocks()
    assert in_turns(blocks, order) == [blocks.chunk(*at) for at in order]


@pytest.mark.usefixtures("few_kept")
def test_fetcher_names_exactly_what_is_damaged():
    """A damaged chunk costs itself, a damaged block its own chunks, whether they come out of it or of what remains."""
    lost = {(5, 0), (5, 7), (6, 11)}
    blocks = Blocks(damaged_blocks={9}, damaged_chunks=lost)
    found = in_turns(blocks, TURNS)
    for at, raw in zip(TURNS, found, strict=True):
        assert raw == (None if at in lost or at[0] == 9 else blocks.chunk(*at)), at


class Bare(mmap.mmap):
    """Is memory whose pages cannot be given back, as where a process has locked its own."""

    def madvise(self, *_args):
        raise OSError(22, "Invalid argument")


def none_left(*_args):
    raise OSError(12, "Cannot allocate memory")


@pytest.mark.usefixtures("few_kept")
@pytest.mark.parametrize("memory", [Bare, none_left])
@pytest.mark.parametrize("moved", [False, True])
def test_fetcher_opens_blocks_again_where_memory_takes_no_remains(monkeypatch, memory, moved):
    """It costs time, and no file; also where packs have moved and chunks are looked up one by one."""
    monkeypatch.setattr(remains.mmap, "mmap", memory)
    monkeypatch.setattr(remains.mmap, "PAGESIZE", 1)

    class Moved(Blocks):
        def refresh(self): ...

        def locate(self, kind, chunk_id):
            return Location(1, chunk_id[0], chunk_id[1] * CHUNK_BYTES, CHUNK_BYTES)

        def block(self, pack, block):
            if not pack:
                raise ObjectMissing("packs/0")
            return super().block(pack, block)

    blocks = Moved() if moved else Blocks()
    assert in_turns(blocks, TURNS) == [blocks.chunk(*at) for at in TURNS]


def test_fetcher_that_is_broken_off_waits_for_no_task(monkeypatch):
    """A worker may take the last task between a look at the queue and an attempt to empty it."""

    class Raced(SimpleQueue):
        def empty(self):
            found = super().empty()
            try:
                while True:
                    self.get_nowait()
            except Empty:
                return found

    monkeypatch.setattr(fetch, "SimpleQueue", Raced)

    def broken_off():
        with suppress(KeyboardInterrupt), Fetcher(Slow(), Cancel()) as fetcher:
            for block in range(BLOCKS):
                fetcher.want(ChunkId(bytes([block, 0]) + bytes(30)), Location(0, block, 0, CHUNK_BYTES))
            raise KeyboardInterrupt

    class Slow(Blocks):
        def block(self, pack, block):
            held.wait()
            return super().block(pack, block)

    held = threading.Event()
    thread = threading.Thread(target=broken_off, daemon=True)
    thread.start()
    held.set()
    thread.join(20)
    assert not thread.is_alive()


def test_kinds_are_those_of_data():
    """The fetcher checks what it gives out as data, whatever asked for it."""
    kinds = []

    class Noting(Blocks):
        def check(self, kind, chunk_id, raw):
            kinds.append(kind)

    in_turns(Noting(), TURNS[:3])
    assert kinds == [Kind.DATA] * 3
