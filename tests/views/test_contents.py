from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from respaldo.core.errors import Corruption
from respaldo.views.contents import BlockCache


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
