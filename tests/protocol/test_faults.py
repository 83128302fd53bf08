"""Every call of a snapshot fails, and every call is the last one of a process that dies.

The call is that of the second snapshot of a repository. Afterwards the first one must be whole, there must be no half
one, and the next run must succeed, with the cache that the failed run left and without one.
"""

from __future__ import annotations

import errno
import random

import pytest

from respaldo.backend.faults import CHANGES, Crash, Fault, Faults, lasting_failure, passing_failure
from respaldo.backend.wrap import Retry
from respaldo.core.errors import StorageError, StorageFailed, StorageFull
from tests.protocol.scene import (
    back_up,
    below,
    committed,
    contents,
    fresh_cache,
    memory_with,
    open_repository,
    snapshot_of,
)

pytestmark = pytest.mark.usefixtures("_inline", "_saves_always")


def full(name: str) -> StorageFull:
    return StorageFull(name, "injected")


def forget_manifests(repo) -> None:
    """Makes a client read the snapshots that are there, as one does that did not make them: reading may fail, too."""
    repo.index.put_records({}, [name for name in repo.index.record_names() if name.startswith("pending/")])


def calls_of(stage) -> list[tuple[str, str]]:
    """Returns the calls of a snapshot that goes well, from the first one of the run on."""
    backend = Faults(memory_with(stage.objects))
    with open_repository(backend, stage.copy_of_cache()) as repo:
        forget_manifests(repo)
        opened = len(backend.calls)
        snapshot_of(back_up(repo, stage.source))
    return backend.calls[opened:]


def run(stage, backend, cache):
    """Opens a repository whose faults begin only now, and makes a snapshot; returns the error or None."""
    try:
        with open_repository(backend.inner, cache) as repo:
            forget_manifests(repo)
            repo.backend = repo.source._backend = backend
            snapshot_of(back_up(repo, stage.source))
    except (StorageError, Crash) as error:
        return error
    return None


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("error", [full, passing_failure, lasting_failure, Crash])
def test_no_call_that_fails_costs_a_snapshot(stage, error, after):
    """Wherever a run ends, what was committed is whole, what was not is no snapshot, and the next run succeeds."""
    calls = calls_of(stage)
    assert {verb for verb, _ in calls} >= {"put", "get", "list", "delete"}
    assert sum(name.startswith("packs/") for verb, name in calls if verb == "put") > 2
    looked_at = set()
    for at, (verb, name) in enumerate(calls, 1):
        backend = Faults(memory_with(stage.objects), [Fault(at=at, error=error, after=after)])
        cache = stage.copy_of_cache()
        raised = run(stage, backend, cache)
        assert backend.calls[at - 1][0] == verb
        if verb == "delete" and error is not Crash:
            assert raised is None, "a marker that cannot be deleted is no reason to fail"
        else:
            assert type(raised) is type(error(name)), (at, verb, name)
        objects = backend.inner.snapshot()
        assert stage.objects.items() <= objects.items()
        state = tuple(sorted(name.partition("/")[0] for name in objects))
        if state not in looked_at and error in {full, Crash}:  # the others leave what a full disk leaves
            looked_at.add(state)
            stage.check(memory_with(objects), cache)
            stage.check(memory_with(objects), fresh_cache(stage.folder / "fresh"))
    assert len(looked_at) >= sum(verb == "put" for verb, _ in calls) * (error in {full, Crash})


def test_storage_that_stays_full_stays_full(stage):
    """From the k-th change on nothing can be stored any more: the run says so, whichever change it was."""
    changes = [verb for verb, _ in calls_of(stage) if verb in CHANGES]
    for at in range(1, changes.count("put") + 1):
        fault = Fault(at=at, error=full, verbs=frozenset({"put"}), times=1 << 30)
        backend = Faults(memory_with(stage.objects), [fault])
        raised = run(stage, backend, cache := stage.copy_of_cache())
        assert isinstance(raised, StorageFull)
        stage.check(memory_with(backend.inner.snapshot()), cache)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_what_passes_is_passed_over(stage, after):
    """With retries, a call that fails once costs nothing, whether or not it had its effect."""
    calls = calls_of(stage)
    for at in range(1, len(calls) + 1):
        faults = Faults(memory_with(stage.objects), [Fault(at=at, error=passing_failure, after=after)])
        with open_repository(faults.inner, stage.copy_of_cache()) as repo:
            forget_manifests(repo)
            repo.backend = repo.source._backend = Retry(faults, sleep=lambda _seconds: None)
            made = snapshot_of(back_up(repo, stage.source))
            assert committed(repo) == {stage.first, made}
            assert below(contents(repo, made), stage.source) == stage.now


def test_threads_that_meet_a_full_disk_say_so(stage, monkeypatch):
    """With the real workers too, a full disk is the repository's and never a file's."""
    monkeypatch.undo()
    monkeypatch.setattr("respaldo.catalog.session.CHECKPOINT_NS", 0)
    puts = [verb for verb, _ in calls_of(stage)].count("put")
    for at in range(1, puts + 1):
        fault = Fault(at=at, error=full, verbs=frozenset({"put"}), times=1 << 30)
        backend = Faults(memory_with(stage.objects), [fault])
        raised = run(stage, backend, cache := stage.copy_of_cache())
        assert isinstance(raised, StorageFull)
        stage.check(memory_with(backend.inner.snapshot()), cache)


def test_full_disk_of_temporary_files_is_no_unreadable_file(stage, monkeypatch):
    """Where the list of what is relied on cannot be written, the run fails: no file is said to be unreadable."""

    class Full:
        def write(self, _data: bytes) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self) -> None:
            pass

    monkeypatch.setattr("tempfile.SpooledTemporaryFile", lambda **_options: Full())
    monkeypatch.setattr("respaldo.store.relied._ROWS_HELD", 1)
    with (
        open_repository(memory_with(stage.objects), fresh_cache(stage.folder / "fresh")) as repo,
        pytest.raises(StorageFailed, match="temporary file"),
    ):
        back_up(repo, stage.source)


@pytest.mark.parametrize("call", ["put", "stage"])
def test_error_of_the_system_that_storage_lets_through_is_no_unreadable_file(stage, monkeypatch, call):
    """Should storage let an error of the system through, against its contract, it is still not taken for a file's."""
    backend = memory_with(stage.objects)
    real = getattr(backend, call)

    def fail(name, *rest):
        if name.startswith("packs"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(name, *rest)

    monkeypatch.setattr(backend, call, fail)
    (stage.folder / "other").mkdir(exist_ok=True)
    with (stage.folder / "other" / "big").open("wb") as file:
        for part in range(300):  # beyond what is read with others, and read a second time if it seems to have changed
            file.write(random.Random(part).randbytes(4096))
    with (
        open_repository(backend, fresh_cache(stage.folder / "fresh")) as repo,
        pytest.raises(StorageFailed, match="No space left"),
    ):
        back_up(repo, stage.folder / "other")
