"""Several objects read at a time: in order, each failure with its own key."""

from __future__ import annotations

import threading

import pytest

from respaldo.core.errors import Corruption, ObjectMissing, StorageFailed
from respaldo.store.several import AT_ONCE, read_several


def test_results_come_in_the_order_of_the_keys():
    """Whichever arrives first."""
    last = threading.Event()

    def read(key):
        if key == AT_ONCE - 1:
            last.set()
        elif key == 0:
            assert last.wait(60)  # the first is answered after the last of its company
        return key * 2

    assert list(read_several(read, range(50))) == [(key, key * 2) for key in range(50)]


@pytest.mark.parametrize("count", [1, 40])
def test_failures_of_one_object_are_results(count):
    """What is damaged or gone takes nothing else with it."""

    def read(key):
        if key % 3 == 0:
            raise Corruption(str(key), "bent")
        if key % 3 == 1:
            raise ObjectMissing(str(key))
        return key

    for key, got in read_several(read, range(count)):
        assert type(got) is (Corruption, ObjectMissing, int)[key % 3]
        assert key % 3 == 2 or got.name == str(key)


@pytest.mark.parametrize("count", [1, 40])
def test_storage_that_fails_ends_the_reading(count):
    """And what came before it was given."""

    def read(key):
        if key == count // 2:
            raise StorageFailed("x", "no answer")
        return key

    seen = []
    with pytest.raises(StorageFailed):
        seen.extend(key for key, _ in read_several(read, range(count)))
    reader = read_several(read, range(count))
    assert [next(reader)[0] for _ in range(count // 2)] == list(range(count // 2))


def test_no_more_than_so_many_are_read_ahead():
    """Whoever stops taking stops the reading."""
    started = []
    reader = read_several(lambda key: started.append(key) or key, range(1000))
    next(reader)
    assert len(started) <= AT_ONCE
    reader.close()
    assert len(started) <= AT_ONCE


def test_nothing_is_read_of_nothing():
    """No keys, no threads, no results."""
    assert list(read_several(lambda key: key, [])) == []
