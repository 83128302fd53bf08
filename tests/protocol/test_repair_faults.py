"""Every call of a repair fails, and every one is the last of a process that dies; and others are at work meanwhile.

Afterwards nothing is worse than before, nothing was taken away for good, and the next repair comes to its end with the
same things lost as one that nobody disturbs.
"""

from __future__ import annotations

import contextlib
from functools import cache
from pathlib import Path

import pytest

from respaldo.backend.faults import CHANGES, Crash, Fault, Faults, lasting_failure
from respaldo.backend.wrap import Wrapper
from respaldo.catalog.snapshots import forget, load, outcome_name, pending_name
from respaldo.catalog.trees import TreeReader
from respaldo.core.errors import ChunkMissing, Corruption, StorageError
from respaldo.core.ids import Kind, SegmentName, pack_object
from respaldo.core.seams import Cancel, Silent
from respaldo.flows.gc.options import PruneOptions
from respaldo.flows.gc.run import run_prune
from respaldo.format.pack import parse_footer
from tests.flows.repair.ward import (
    LOST,
    Ward,
    content_of,
    differs,
    flipped,
    lay,
    read_all,
    repair,
    repair_in,
    state_of,
    verify,
)
from tests.protocol.scene import Kept, back_up, fresh_cache, inline_workers, memory_with, open_repository

pytestmark = pytest.mark.usefixtures("_inline")


@pytest.fixture(scope="module")
def ward(quick):
    """A sound repository. Nobody may write to it: it is copied."""
    with pytest.MonkeyPatch.context() as patch:
        inline_workers(patch)
        (quick / "ward").mkdir()
        return lay(quick / "ward", length_bytes=200, long_bytes=9_000)


@cache
def choose(folder: Path, objects: tuple[tuple[str, bytes], ...]) -> tuple[str, int, str, str]:
    """Returns a pack and where a block of data lies in it, another pack, and a segment that does not list that one."""
    backend = memory_with(dict(objects))
    with open_repository(Kept(backend), fresh_cache(folder / "choose")) as repo:
        repo.synchronise()
        footers = {
            pack_object(pack.name): parse_footer(repo.index.footer(pack.number), "pack") for pack in repo.index.packs()
        }
        data, other, *_ = sorted(footers, key=lambda name: -len(footers[name].lengths))
        block = next(number for number, block in enumerate(footers[data].blocks) if block.kind == Kind.DATA)
        segments = [name for name, _ in objects if name.startswith("segments/")]
        listed = {name: repo.read_segment(SegmentName(bytes.fromhex(name[9:]))).packs for name in segments}
        segment = next(name for name in segments if other not in {pack_object(item.pack) for item in listed[name]})
    return data, footers[data].offsets[block] + 70, other, segment


def harmed(ward: Ward):
    """Returns a repository with damage of every kind that repair does something about."""
    data, at, other, segment = choose(ward.folder, tuple(sorted(ward.objects.items())))
    manifest, outcome = pending_name(ward.snapshots[0]), outcome_name(ward.snapshots[1])
    return ward.backend(
        **{
            data: flipped(ward.objects[data], at),
            other: flipped(ward.objects[other], -1),
            manifest: ward.objects[manifest][:100],
            outcome: flipped(ward.objects[outcome], 3),
            segment: flipped(ward.objects[segment], 3),
            "trash/" + "e" * 32: b"torn",
        }
    )


def run(backend, cache):
    """Opens a repository whose faults begin only now, and repairs; returns the error or None."""
    try:
        with open_repository(Kept(backend.inner), cache) as repo:
            repo.backend = repo.source._backend = backend
            repair_in(repo)
    except (StorageError, Crash) as error:
        return error
    return None


def readable(backend, cache) -> dict:
    """Returns what can be read of every snapshot that is shown, damage or not, by time and path."""
    found = {}
    with open_repository(Kept(backend), cache) as repo:
        repo.synchronise(lenient=True)
        for item in load(repo).snapshots:
            found.update(read_one(repo, item))
    return found


def read_one(repo, item) -> dict:
    """Returns what can be read of one snapshot."""
    trees = TreeReader(repo.source)
    found = {}
    stack = [(b"", item.manifest.root)]
    while stack:
        path, tree = stack.pop()
        with contextlib.suppress(Corruption, ChunkMissing):
            for entry in trees.entries(tree):
                here = path + b"/" + entry.name
                if entry.is_dir:
                    stack += [(here, child) for child in entry.content]
                    continue
                with contextlib.suppress(Corruption, ChunkMissing):
                    found[item.manifest.time_ns, here] = content_of(repo, trees, entry)
    return found


@pytest.fixture(scope="module")
def expected(ward):
    """What is lost in the end, and what could be read before, as new clients see it."""
    with pytest.MonkeyPatch.context() as patch:
        inline_workers(patch)
        backend = harmed(ward)
        before = readable(backend, fresh_cache(ward.folder / "expected"))
        result = repair(backend, ward.copy_of_cache("expected"))
        assert result.left == ()
        lost = differs(state_of(backend, fresh_cache(ward.folder / "expected")), ward.state)
        assert lost
        assert before
        return lost, before


def calls_of(ward):
    backend = Faults(harmed(ward))
    assert run(backend, ward.copy_of_cache()) is None
    return backend.calls


@pytest.mark.parametrize(("error", "after"), [(lasting_failure, False), (Crash, False), (Crash, True)])
def test_no_call_that_fails_makes_it_worse(ward, expected, error, after):
    """Wherever a repair ends, what could be read can be read, and the next one comes to the same end."""
    lost, before = expected
    calls = calls_of(ward)
    changes = [at for at, (verb, _) in enumerate(calls, 1) if verb in CHANGES]
    looked_at = set()
    # To die at a call that changes nothing is to die before the next one that does; to be refused may be heard.
    for at in range(1, len(calls) + 1) if error is lasting_failure else changes:
        backend = Faults(harmed(ward), [Fault(at=at, error=error, after=after)])
        cache = ward.copy_of_cache()
        raised = run(backend, cache)
        assert raised is None or isinstance(raised, StorageError if error is lasting_failure else Crash)
        objects = backend.inner.snapshot()
        shape = tuple(sorted(name.partition("/")[0] for name in objects))
        if shape in looked_at and at not in changes:
            continue
        looked_at.add(shape)
        now = readable(backend.inner, fresh_cache(ward.folder / "fresh"))
        assert {path: content for path, content in before.items() if now.get(path) != content} == {}
        for name, content in harmed(ward).snapshot().items():
            kept = {data for each, data in objects.items() if each == name or each.startswith("lost+found/")}
            assert content in kept or name.startswith(("trash/", "pins/")), f"{name} is gone for good"
        result = repair(backend.inner, cache)
        assert result.left == ()
        assert verify(backend.inner, fresh_cache(ward.folder / "fresh")).damages == ()
        assert differs(state_of(backend.inner, cache), ward.state) == lost
        assert repair(backend.inner, cache).plan.steps == ()
    assert len(looked_at) > 10


class Meddling(Wrapper):
    """Lets somebody else do something before the k-th call that lists or changes something."""

    def __init__(self, inner, at, action):
        super().__init__(inner)
        self.left = at
        self.action = action

    def _count(self):
        self.left -= 1
        if self.left == 0:
            self.action()

    def put(self, name, pieces):
        self._count()
        self.inner.put(name, pieces)

    def delete(self, name):
        self._count()
        self.inner.delete(name)

    def discard(self, names):
        self._count()
        return self.inner.discard(names)

    def list(self, folder):
        self._count()
        return self.inner.list(folder)


def a_snapshot(ward, backend, cache):
    """Another client backs up, twice."""
    for _ in range(2):
        with open_repository(Kept(backend), cache) as repo:
            back_up(repo, ward.source)


def a_collection(_ward, backend, cache):
    """Another client collects, as hard as it can; where something is damaged, it does nothing, and says so."""
    with open_repository(Kept(backend), cache) as repo, contextlib.suppress(Corruption, ChunkMissing):
        run_prune(repo, PruneOptions(repack_below=1.0), progress=Silent(), cancel=Cancel())


def a_forgetting(ward, backend, cache):
    """Another client forgets the last snapshot, whatever its id is by now, and collects."""
    with open_repository(Kept(backend), cache) as repo:
        last = max(time_ns for time_ns, _ in ward.state)
        for item in load(repo).snapshots:
            if item.manifest.time_ns == last:
                forget(repo, item.id)
    a_collection(ward, backend, cache)


def a_repair(_ward, backend, cache):
    """Another client repairs."""
    repair(backend, cache)


@pytest.mark.parametrize("action", [a_snapshot, a_collection, a_forgetting, a_repair])
def test_others_may_be_at_work(ward, expected, action):
    """Whatever somebody else does before any call: nothing is lost but what is, and all comes to a clean end."""
    lost, _ = expected
    verbs = [verb for verb, _ in calls_of(ward) if verb in {"put", "delete", "list"}]
    last = max(time_ns for time_ns, _ in ward.state)
    # What somebody does makes a difference before a change, and before the first look after one.
    points = [at for at, verb in enumerate(verbs, 1) if at == 1 or verb in CHANGES or verbs[at - 2] in CHANGES]
    for at in points:
        backend = harmed(ward)
        other = ward.copy_of_cache("other")
        meddling = Meddling(backend, at, lambda: action(ward, backend, other))  # noqa: B023 - called in this turn
        cache = ward.copy_of_cache()
        with open_repository(Kept(backend), cache) as repo:
            repo.backend = repo.source._backend = meddling
            with contextlib.suppress(StorageError):
                repair_in(repo)
        assert repair(backend, cache).left == ()
        a_collection(ward, backend, fresh_cache(ward.folder / "third"))
        assert verify(backend, fresh_cache(ward.folder / "fresh")).damages == ()
        a_snapshot(ward, backend, fresh_cache(ward.folder / "third"))
        with open_repository(Kept(backend), fresh_cache(ward.folder / "fresh")) as repo:
            repo.synchronise()
            times = {item.manifest.time_ns for item in load(repo).snapshots}
            now = read_all(repo)
        expected_times = {time_ns for time_ns, _ in ward.state} - ({last} if action is a_forgetting else set())
        assert expected_times <= times
        state = {path: content for path, content in ward.state.items() if path[0] in times}
        mine = {path: content for path, content in now.items() if path[0] in {each for each, _ in ward.state}}
        assert differs(mine, state) <= lost
        # What was made meanwhile may have relied on what was damaged: what is on the disk has healed it.
        assert LOST not in {content for path, content in now.items() if path not in mine}


def two_repairs(ward, at: int, inner_at: int, error, *, after: bool = False):
    """Lets another repair begin before the k-th call of one, and die at a call of its own; both end, then a third."""
    backend = harmed(ward)
    other = ward.copy_of_cache("other")

    def begin() -> None:
        with contextlib.suppress(Crash, StorageError), open_repository(Kept(backend), other) as repo:
            repo.backend = repo.source._backend = Faults(backend, [Fault(at=inner_at, error=error, after=after)])
            repair_in(repo)

    cache = ward.copy_of_cache()
    with open_repository(Kept(backend), cache) as repo:
        repo.backend = repo.source._backend = Meddling(backend, at, begin)
        repair_in(repo)
    assert repair(backend, cache).left == ()
    return backend, cache


def test_two_repairs_leave_a_snapshot_once(ward, expected):
    """Whatever one has come to when the other begins, and wherever that one dies: no snapshot is there twice."""
    lost, _ = expected
    calls = calls_of(ward)
    seen = [name for verb, name in calls if verb in {"put", "delete", "list"}]
    puts = ("pending/", "outcome/", "pins/", "lost+found/pending.")
    points = [at for at, name in enumerate(seen, 1) if name.startswith(puts)]
    decided = [at for at, (verb, name) in enumerate(calls, 1) if verb == "put" and name.startswith("outcome/")]
    assert len(points) > 3
    for at in points:
        for inner_at in (decided[0], 1 << 30):  # what it has begun is there, and undecided; all of it is done
            backend, cache = two_repairs(ward, at, inner_at, Crash)
            assert differs(state_of(backend, cache), ward.state) <= lost  # fails where one is there twice
