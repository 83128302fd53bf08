"""Every call of an import fails, and every call is the last one of a process that dies.

The repository holds a snapshot of another source. Afterwards that one is whole, what was imported is whole or no
snapshot, and the next run of the same archive makes it, once.
"""

from __future__ import annotations

import io

import pytest

from respaldo.backend.faults import CHANGES, Crash, Fault, Faults, lasting_failure
from respaldo.backend.memory import MemoryBackend
from respaldo.catalog.snapshots import load
from respaldo.core.errors import StorageError, StorageFull
from respaldo.core.seams import Cancel, Silent
from respaldo.flows.check.options import VerifyOptions
from respaldo.flows.check.run import run_verify
from respaldo.flows.importing.options import ImportOptions
from respaldo.flows.importing.run import run_import
from tests.flows.importing.tars import DIRECTORY, LINK, Archive
from tests.protocol.scene import (
    Kept,
    back_up,
    committed,
    contents,
    fresh_cache,
    make_repository,
    memory_with,
    open_repository,
    snapshot_of,
    write_tree,
)

pytestmark = pytest.mark.usefixtures("_inline", "_saves_always")


def full(name: str) -> StorageFull:
    return StorageFull(name, "injected")


def archive() -> bytes:
    """Files of one chunk and of many, a link, a member that comes twice, an empty directory."""
    made = Archive()
    made.add("top", kind=DIRECTORY)
    for number in range(6):
        made.add(f"top/{number}", bytes([number]) * 50 + b"content")
    made.add("top/long", bytes(range(256)) * 80)
    made.add("top/link", kind=LINK, linkname="top/3")
    made.add("top/below/again", b"first")
    made.add("top/below/again", b"second")
    made.add("top/empty", kind=DIRECTORY)
    return made.bytes()


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    """A repository with one snapshot: its objects, that snapshot, and what it holds."""
    folder = tmp_path_factory.mktemp("import")
    write_tree(folder / "tree", 1, files=5, length_bytes=1500)
    backend = MemoryBackend()
    make_repository(backend)
    with open_repository(Kept(backend), folder / "cache") as repo:
        snapshot = snapshot_of(back_up(repo, folder / "tree"))
        return folder, backend.snapshot(), snapshot, contents(repo, snapshot)


def run(backend: Faults, cache):
    """Opens a repository whose faults begin only now, and imports; returns the error or None."""
    try:
        with open_repository(Kept(backend.inner), cache) as repo:
            repo.backend = repo.source._backend = backend
            options = ImportOptions(default_host="here")
            run_import(repo, b"test.tar", io.BytesIO(archive()), options, progress=Silent(), cancel=Cancel())
    except (StorageError, Crash) as error:
        return error
    return None


def look(ground, backend: MemoryBackend) -> int:
    """Fails unless all that is committed is whole; returns how many snapshots there are."""
    folder, _, first, before = ground
    with open_repository(Kept(backend), fresh_cache(folder / "fresh")) as repo:
        repo.synchronise()
        assert run_verify(repo, VerifyOptions(read_data=True), progress=Silent(), cancel=Cancel()).damages == ()
        assert contents(repo, first) == before
        made = committed(repo) - {first}
        for snapshot in made:
            files = contents(repo, snapshot)
            assert len(files) == 9
            assert files[b"/top/long"] == bytes(range(256)) * 80
            assert files[b"/top/link"] == files[b"/top/3"]
            assert files[b"/top/below/again"] == b"second"
        assert load(repo).damaged == ()
        return 1 + len(made)


def calls_of(ground) -> list[tuple[str, str]]:
    folder, objects, _, _ = ground
    backend = Faults(memory_with(objects))
    assert run(backend, fresh_cache(folder / "cache")) is None
    assert look(ground, backend.inner) == 2
    return backend.calls


@pytest.mark.parametrize(("error", "after"), [(lasting_failure, False), (full, False), (Crash, False), (Crash, True)])
def test_no_call_that_fails_costs_a_snapshot(ground, error, after):
    """Wherever an import ends, what is a snapshot is whole, and the next import succeeds with the same cache."""
    folder, objects, _, _ = ground
    calls = calls_of(ground)
    changes = [at for at, (verb, _) in enumerate(calls, 1) if verb in CHANGES]
    assert {calls[at - 1][1].partition("/")[0] for at in changes} >= {"packs", "segments", "pending", "outcome"}
    looked_at = set()
    # A full disk refuses to take; to die after a call that changes nothing is to die before the next one.
    for at in changes if after or error is full else range(1, len(calls) + 1):
        backend = Faults(memory_with(objects), [Fault(at=at, error=error, after=after)])
        cache = fresh_cache(folder / "cache")
        raised = run(backend, cache)
        verb, name = calls[at - 1]
        if verb == "put" or error is Crash:
            assert type(raised) is type(error(name)), (at, verb, name)
        assert objects.items() <= backend.inner.snapshot().items()
        state = tuple(sorted(name.partition("/")[0] for name in backend.inner.snapshot()))
        if state not in looked_at:
            looked_at.add(state)
            assert look(ground, backend.inner) in {1, 2}
            assert run(Faults(backend.inner), cache) is None
            assert look(ground, backend.inner) in {2, 3}
    assert len(looked_at) > 5
