"""Packs that are finished behind the back of those that seal: how many at once, and what becomes of failures."""

from __future__ import annotations

import random
import threading

import pytest

from respaldo.backend.memory import MemoryBackend
from respaldo.core.errors import StorageFailed
from respaldo.core.ids import Kind
from respaldo.store.packs import PackWriter
from respaldo.store.uploads import AT_ONCE, Uploads
from tests.store.repositories import CONFIG, initialise, opened, sink

WAIT_S = 60


class Pack(PackWriter):
    """Is a pack that is finished when it is told so."""

    def __init__(self, number: int, *, error: Exception | None = None) -> None:
        self.number = number
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.discarded = False
        self._error = error

    def finish(self):
        self.begun.set()
        assert self.go_on.wait(WAIT_S)
        if self._error is not None:
            raise self._error
        return self.number

    def discard(self):
        self.discarded = True


@pytest.fixture
def failures():
    return []


@pytest.fixture
def uploads(failures):
    uploads = Uploads(distant=True, failed=failures.append)
    yield uploads
    uploads.close()


def test_near_storage_finishes_at_once(failures):
    """Whoever finishes a pack has it when the call returns."""
    uploads = Uploads(distant=False, failed=failures.append)
    pack = Pack(1)
    pack.go_on.set()
    uploads.finish(pack)
    assert list(uploads.finished) == [1]
    uploads.close()


def test_several_are_under_way_and_no_more(uploads):
    """So many go on at once; one more waits until there is room."""
    packs = [Pack(number) for number in range(AT_ONCE + 1)]
    for pack in packs[:AT_ONCE]:
        uploads.finish(pack)
    assert all(pack.begun.wait(WAIT_S) for pack in packs[:AT_ONCE])
    last = threading.Thread(target=uploads.finish, args=(packs[-1],))
    last.start()
    assert not packs[-1].begun.is_set()
    packs[2].go_on.set()
    assert packs[-1].begun.wait(WAIT_S)
    last.join()
    assert list(uploads.finished) == [2]
    for pack in packs:
        pack.go_on.set()
    uploads.wait()
    assert sorted(uploads.finished) == list(range(AT_ONCE + 1))


def test_failure_is_told_at_once_and_raised_when_waited_for(uploads, failures):
    """Nothing counts as finished that failed, and the others are."""
    good, bad = Pack(1), Pack(2, error=OSError(5, "unplugged"))
    for pack in (bad, good):
        pack.go_on.set()
        uploads.finish(pack)
    with pytest.raises(StorageFailed):
        uploads.wait()
    uploads.wait()
    assert [type(failure) for failure in failures] == [StorageFailed]
    assert list(uploads.finished) == [1]
    assert bad.discarded


def test_what_has_not_begun_is_discarded(failures):
    """A run that ends leaves nothing half written behind."""
    uploads = Uploads(distant=True, failed=failures.append)
    pack = Pack(1, error=StorageFailed("x", "too late"))
    pack.go_on.set()
    uploads.finish(pack)
    uploads.close()
    assert pack.discarded
    assert list(uploads.finished) == []


class Far(MemoryBackend):
    """Is a backend far away, whose packs arrive once several are under way; the last one fails where told so."""

    distant = True

    def __init__(self) -> None:
        super().__init__()
        self.together = threading.Barrier(3)
        self.fails = False

    def put(self, name, pieces):
        if name.startswith("packs/"):
            order = self.together.wait(WAIT_S)
            if self.fails and order == 0:
                raise StorageFailed(name, "no answer")
        super().put(name, pieces)


@pytest.mark.parametrize("fails", [False, True])
def test_a_sink_has_several_packs_under_way(tmp_path, fails):
    """Sealing goes on while packs are on their way; a flush returns when all are durable, or says which is not."""
    backend = Far()
    initialise(backend)
    backend.fails = fails
    chunks = [random.Random(number).randbytes(60_000) for number in range(5 * CONFIG.pack_bytes // (2 * 60_000))]
    with opened(backend, tmp_path / "cache") as repo:
        there = sink(repo)
        ids = []
        try:
            ids += [there.put(Kind.DATA, chunk) for chunk in chunks]
            there.flush()
        except StorageFailed:
            assert fails
            with pytest.raises(StorageFailed):
                there.put(Kind.DATA, b"more")
        else:
            assert not fails
            assert [repo.source.get(Kind.DATA, chunk_id) for chunk_id in ids] == chunks
        there.close()
        assert len(backend.list("packs")) == (2 if fails else 3)
