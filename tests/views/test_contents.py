from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from respaldo.core.errors import Corruption
from respaldo.core.model import Content
from respaldo.format.content import HOLE, Row
from respaldo.views.contents import BlockCache, Contents, OpenFile


def test_block_cache_holds_no_more_than_it_may():
    """The last used blocks stay, in so many bytes and no more; one that is longer alone stays alone."""
    fetched = []

    def fetch(pack: int, block: int) -> bytes:
        fetched.append((pack, block))
        return bytes(100 if pack < 9 else 5000)

    cache = BlockCache(fetch, 300)
    for number in (1, 2, 3, 1, 4):
        cache.get((0, number))
    assert cache.held_bytes == 300
    cache.get((0, 1))
    assert fetched == [(0, 1), (0, 2), (0, 3), (0, 4)]
    cache.get((0, 2))
    assert fetched[-1] == (0, 2)
    cache.get((9, 0))
    assert cache.held_bytes == 5000


def test_block_cache_fetches_once_for_many():
    """Threads that want one block wait for one fetch; its failure is everybody's, and is tried again later."""
    going, fail, calls = threading.Event(), [True], []

    def fetch(pack: int, block: int) -> bytes:
        calls.append(1)
        going.wait(60)
        if fail[0]:
            raise Corruption("block", "broken")
        return b"fine"

    cache = BlockCache(fetch, 100)
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(cache.get, (1, 1)) for _ in range(4)]
        while not calls:
            pass
        going.set()
        for item in waiting:
            with pytest.raises(Corruption):
                item.result()
    assert 1 <= len(calls) <= 4
    fail[0] = False
    assert cache.get((1, 1)) == b"fine"


class Lists(Contents):
    """Has lists of its own, by name, and counts how often one is read."""

    def __init__(self, lists):
        super().__init__(SimpleNamespace(block=None), None, contextlib.nullcontext())
        self.lists = lists
        self.reads = 0

    def _node(self, node, level):
        self.reads += 1
        return self.lists[node]


def file_of(top, level, size):
    return SimpleNamespace(content=Content(level=level, ids=top), size=size, name=b"file")


@given(st.lists(st.lists(st.tuples(st.booleans(), st.integers(1, 5)), min_size=1, max_size=4), min_size=1, max_size=4))
def test_size_and_holes_are_what_the_pieces_say(rows):
    """Of lists of two levels: as if every piece were looked at."""
    lists = {
        bytes([number + 1]) * 32: [Row(HOLE if hole else b"d" * 32, length) for hole, length in row]
        for number, row in enumerate(rows)
    }
    lists[b"t" * 32] = [Row(name, sum(row.length for row in part)) for name, part in lists.items()]
    layout = b"".join(bytes([row.id != HOLE]) * row.length for part in list(lists.values())[:-1] for row in part)
    contents = Lists(lists)
    entry = file_of(b"t" * 32, 2, len(layout))
    assert contents.data_bytes(entry) == layout.count(1)
    for offset in range(len(layout)):
        data, hole = layout.find(1, offset), layout.find(0, offset)
        assert contents.seek(OpenFile(entry), offset, data=True) == (data if data >= 0 else None)
        assert contents.seek(OpenFile(entry), offset, data=False) == (hole if hole >= 0 else len(layout))
    contents.close()


def test_lists_that_name_one_another_for_ever_are_read_once():
    """An exabyte in five lists: whoever looks at its attributes, or for its holes, does not wait for ever."""
    lists, length = {b"0" * 32: [Row(b"d" * 32, 1)] * 1024}, 1024
    for number in range(1, 5):
        lists[b"%d" % number * 32] = [Row(b"%d" % (number - 1) * 32, length)] * 1024
        length *= 1024
    contents = Lists(lists)
    entry = file_of(b"4" * 32, 5, length)
    assert contents.data_bytes(entry) == length
    assert contents.seek(OpenFile(entry), 7, data=False) == length
    assert contents.seek(OpenFile(entry), length // 2 + 1, data=True) == length // 2 + 1
    assert contents.reads < 100
    contents.close()
