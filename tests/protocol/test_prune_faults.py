"""Every call of a collection fails, and every call is the last one of a process that dies.

Afterwards every snapshot that was not forgotten must be whole, with the cache that the failed run left and without one,
and the next collection must come to its end and leave nothing to do.
"""

from __future__ import annotations

import pytest

from respaldo.backend.base import Backend
from respaldo.backend.faults import CHANGES, Crash, Fault, Faults, lasting_failure, passing_failure
from respaldo.backend.wrap import Retry
from respaldo.core.errors import StorageError, StorageFull
from respaldo.store.ballast import BALLAST
from tests.protocol.ground import lay_ground, prune
from tests.protocol.scene import Kept, fresh_cache, inline_workers, memory_with, open_repository

pytestmark = pytest.mark.usefixtures("_inline")


@pytest.fixture(scope="module")
def ground(quick):
    """A repository to collect. Nobody may write to it: it is copied."""
    with pytest.MonkeyPatch.context() as patch:
        inline_workers(patch)
        (quick / "ground").mkdir()
        return lay_ground(quick / "ground")


def full(name: str) -> StorageFull:
    return StorageFull(name, "injected")


def run(ground, backend, cache):
    """Opens a repository whose faults begin only now, and collects; returns the error or None."""
    try:
        with open_repository(backend.inner, cache) as repo:
            repo.backend = repo.source._backend = backend
            prune(repo)
    except (StorageError, Crash) as error:
        return error
    return None


class Disk(Kept):
    """Has so much room and no more; what is deleted makes room."""

    room_bytes = 0

    def put(self, name, pieces):
        content = b"".join(pieces)
        if len(content) > self.room_bytes:
            raise full(name)
        self.inner.put(name, [content])
        self.room_bytes -= len(content)

    def delete(self, name):
        length = self.inner.exists(name)
        self.inner.delete(name)
        self.room_bytes += length or 0

    def discard(self, names):
        return Backend.discard(self, names)

    def space(self):
        return self.room_bytes, 1 << 30


def calls_of(ground) -> list[tuple[str, str]]:
    backend = Faults(memory_with(ground.objects))
    assert run(ground, backend, ground.copy_of_cache()) is None
    return backend.calls


def test_collection_frees_all_that_it_should(ground):
    """A collection that goes well copies, deletes, clears away, and leaves every snapshot whole."""
    backend = memory_with(ground.objects)
    with open_repository(backend, ground.copy_of_cache()) as repo:
        result = prune(repo)
    assert result.plan.dead and result.plan.repack
    assert result.expired == 1
    assert result.copied_blocks and result.copied_chunks
    swept = dict(result.swept)
    assert (swept["pending"], swept["outcome"], swept["sessions"], swept["condemned"]) == (2, 1, 1, 2)
    assert swept["segments"]
    assert result.freed_bytes > 0
    assert BALLAST in backend.snapshot()
    ground.check(backend, fresh_cache(ground.folder / "fresh"))
    ground.check_clean(backend)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("error", [full, lasting_failure, Crash])
def test_no_call_that_fails_costs_a_snapshot(ground, error, after):
    """Wherever a collection ends, what is a snapshot is whole, and the next one comes to its end."""
    calls = calls_of(ground)
    assert {verb for verb, _ in calls} >= {"put", "get", "list", "delete"}
    looked_at = set()
    for at in range(1, len(calls) + 1):
        backend = Faults(memory_with(ground.objects), [Fault(at=at, error=error, after=after)])
        cache = ground.copy_of_cache()
        raised = run(ground, backend, cache)
        if error is Crash:
            assert isinstance(raised, Crash)
        objects = backend.inner.snapshot()
        kinds = tuple(sorted(name if name.startswith(("pending", "outcome")) else name[:4] for name in objects))
        if kinds in looked_at and calls[at - 1][0] not in CHANGES:
            continue
        looked_at.add(kinds)
        ground.check(backend.inner, fresh_cache(ground.folder / "fresh"))
        ground.check(backend.inner, cache)
        with open_repository(backend.inner, cache) as repo:
            prune(repo)
        ground.check(backend.inner, cache)
        ground.check_clean(backend.inner)
    assert len(looked_at) > 10


def test_what_passes_is_passed_over(ground):
    """With retries, a call that fails once costs nothing."""
    calls = calls_of(ground)
    for at in range(1, len(calls) + 1):
        for after in (False, True):
            faults = Faults(memory_with(ground.objects), [Fault(at=at, error=passing_failure, after=after)])
            with open_repository(faults.inner, ground.copy_of_cache()) as repo:
                repo.backend = repo.source._backend = Retry(faults, sleep=lambda _seconds: None)
                prune(repo)
            if at % 10 == 0:
                ground.check_clean(faults.inner)
    ground.check(faults.inner, fresh_cache(ground.folder / "fresh"))


@pytest.mark.parametrize("room", [0, 1, 2, 3])
def test_full_disk_gives_what_needs_no_copy_first(ground, room):
    """Where nothing can be put but what the ballast's space allows, packs that are dead go, and snapshots are whole."""
    with open_repository(memory_with(ground.objects), ground.copy_of_cache()) as repo:
        dead = {pack.name.hex() for pack in prune(repo).plan.dead}
    backend = Disk(memory_with(ground.objects | {BALLAST: bytes(1 << 20)}))
    backend.room_bytes = room * 4096
    cache = ground.copy_of_cache()
    with open_repository(backend, cache) as repo:
        result = prune(repo)
    left = {name.partition("/")[2] for name in backend.inner.snapshot() if name.startswith("packs/")}
    assert dead
    assert not dead & left
    assert result.deleted_packs >= len(dead)
    ground.check(backend.inner, cache)
    backend.room_bytes = 1 << 30
    with open_repository(backend, cache) as repo:
        prune(repo)
    assert BALLAST in backend.inner.snapshot()
    ground.check(backend.inner, cache)
    ground.check_clean(backend.inner)
