"""Two writers, two real collectors, a reader and a forgetter, call by call in an order of Hypothesis' choice.

Every call that reaches storage is a point at which anybody else may go on, or the process may die. Small objects are
merged two at a time, collectors heed no marker and condemn what is needed. In the end, and whenever it is looked at,
what is a snapshot is whole, what was reported is there, and a reader finds what it wants.
"""

from __future__ import annotations

import random
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from respaldo.backend.faults import Crash
from respaldo.catalog.snapshots import load, pending_name
from respaldo.core.errors import ChunkMissing, NoSuchSnapshot, ObjectMissing, StorageFailed
from respaldo.core.ids import SnapshotId
from respaldo.store import tiers
from tests.protocol.play import Theatre, Told
from tests.protocol.real import Real, make_ruthless
from tests.protocol.scene import contents, copy_cache, fresh_cache, inline_workers, memory_with, open_repository
from tests.protocol.scheduler import Scheduler, Shared

_WAIT_S = 120
STEPS = (
    "put pending",
    "put outcome",
    "put condemned",
    "delete packs",
    "list condemned",
    "list on pending",
    "put packs",
)


class Stepper(Scheduler):
    """Lets one actor at a time make so many calls, and waits for it."""

    def __init__(self) -> None:
        super().__init__(0)
        self.budget = 0
        self.until = ""
        self.error: BaseException | None = None
        self._turns: dict[str, threading.Semaphore] = {}
        self._paused = threading.Semaphore(0)
        self._acting = ""

    def start(self, name: str, action: Callable[[], None]) -> None:
        """Adds an actor; it does nothing yet."""
        turn = self._turns[name] = threading.Semaphore(0)

        def act() -> None:
            turn.acquire()
            try:
                action()
            except Crash:
                pass
            except BaseException as error:  # noqa: BLE001 - raised again by `step`
                self.error = error
            del self._turns[name]
            self._paused.release()

        threading.Thread(target=act, daemon=True).start()

    @property
    def actors(self) -> list[str]:
        """Who has not come to an end."""
        return sorted(self._turns)

    def step(self, name: str, calls: int, until: str = "") -> None:
        """Lets an actor go on until it is about to make one call more than so many, or a certain one, or to its end."""
        self.budget = calls
        self.until = until
        self._acting = name
        self._turns[name].release()
        assert self._paused.acquire(timeout=_WAIT_S), f"{name} hangs"
        if self.error is not None:
            raise self.error

    def point(self, verb: str, name: str) -> None:
        if threading.current_thread() is threading.main_thread():
            return
        if not self.budget or f"{verb} {name.partition('/')[0]}" == self.until:
            self.until = ""
            turn = self._turns[self._acting]
            self._paused.release()
            turn.acquire()
        self.budget -= 1


class Interleaved(RuleBasedStateMachine):
    """Is a repository, and who works on it."""

    def __init__(self) -> None:
        super().__init__()
        where = "/dev/shm" if Path("/dev/shm").is_dir() else None
        self.folder = Path(tempfile.mkdtemp(prefix="respaldo-test-", dir=where))
        self.patch = pytest.MonkeyPatch()
        inline_workers(self.patch)
        make_ruthless(self.patch)
        self.patch.setattr(tiers, "FANOUT", 2)
        self.patch.setattr("respaldo.catalog.snapshots.FANOUT", 2)
        self.theatre = Theatre(self.folder, random.Random(0).randbytes)
        self.begun = 0
        self.stepper = Stepper()
        self.storage = memory_with(self.theatre.objects)
        self.ways: dict[str, Shared] = {}
        self.told = Told(done=dict(self.theatre.first))
        for source, files in self.theatre.first.values():
            self.told.seen[source] = [files]
        self.caches = [copy_cache(self.folder / f"cache{number}", self.folder / f"own{number}") for number in range(2)]
        self.collector_caches = [fresh_cache(self.folder / f"collector{number}") for number in range(2)]

    def teardown(self) -> None:
        try:
            for name in self.stepper.actors:
                self.finish(name)
            self.look()
        finally:
            for name in self.stepper.actors:  # only where something is wrong
                self.ways[name].dead = True
                self.stepper.error = None
                self.stepper.step(name, 1 << 30)
            self.patch.undo()
            shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self, name: str, action: Callable[[Shared], None]) -> None:
        way = self.ways[name] = Shared(self.storage, self.stepper)
        self.stepper.start(name, lambda: action(way))

    def _staying(self) -> list[SnapshotId]:
        """Returns what was reported and is not forgotten, in the order in which it was made."""
        return [snapshot for snapshot in self.told.done if snapshot not in self.told.forgotten]

    def _free(self, kind: str) -> list[int]:
        return [number for number in range(2) if f"{kind} {number}" not in self.stepper.actors]

    def _chance(self, seed: int) -> random.Random:
        """Returns a generator for somebody who begins: no two have the same one, whatever the seed."""
        self.begun += 1
        return random.Random(f"{seed} {self.begun}")

    # --- who begins --------------------------------------------------------------------------------------------------

    @initialize(seed=st.integers(0, 1 << 20))
    def begin(self, seed):
        for source in self.theatre.sources:
            self.theatre.change(source, random.Random(seed))

    @precondition(lambda self: self._free("writer"))
    @rule(data=st.data(), seed=st.integers(0, 1 << 20))
    def write(self, data, seed):
        """A writer begins: its source has changed."""
        number = data.draw(st.sampled_from(self._free("writer")))
        source, rng = self.theatre.sources[number], self._chance(seed)
        self.theatre.change(source, rng)
        files = self.theatre.files(source)
        self.told.seen[source].append(files)

        def act(way: Shared) -> None:
            try:
                with open_repository(way, self.caches[number], rng.randbytes) as repo:
                    self.told.done[self.theatre.snapshot(repo, source)] = (source, files)
            except StorageFailed as error:
                if "again and again" not in error.reason:
                    raise

        self._start(f"writer {number}", act)

    @precondition(lambda self: self._free("collector"))
    @rule(data=st.data(), seed=st.integers(0, 1 << 20))
    def collect(self, data, seed):
        """A collector begins."""
        number = data.draw(st.sampled_from(self._free("collector")))
        rng = self._chance(seed)

        def act(way: Shared) -> None:
            with open_repository(way, self.collector_caches[number], rng.randbytes) as repo:
                Real(repo, rng).run()

        self._start(f"collector {number}", act)

    @precondition(lambda self: "reader 0" not in self.stepper.actors and self._staying())
    @rule(data=st.data(), fresh=st.booleans())
    def read(self, data, fresh):
        """A reader begins; it may fail only where its snapshot is forgotten before it has come to its end."""
        snapshot = data.draw(st.sampled_from(self._staying()))
        cache = self.folder / "reader"
        if fresh or not cache.exists():
            fresh_cache(cache)

        def act(way: Shared) -> None:
            try:
                with open_repository(way, cache) as repo:
                    repo.synchronise(lenient=True)
                    catalogue = load(repo)
                    if snapshot not in {item.id for item in catalogue.snapshots}:
                        raise NoSuchSnapshot(snapshot.hex())
                    files = contents(repo, snapshot, catalogue)
            except (ChunkMissing, ObjectMissing, NoSuchSnapshot):
                assert snapshot in self.told.forgotten, "a reader did not find what is there"
            else:
                assert files == self.told.done[snapshot][1]

        self._start("reader 0", act)

    # --- who goes on -------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.stepper.actors)
    @rule(data=st.data(), calls=st.integers(1, 40))
    def step(self, data, calls):
        """Somebody makes some calls."""
        self.stepper.step(data.draw(st.sampled_from(self.stepper.actors)), calls)

    @precondition(lambda self: self.stepper.actors)
    @rule(data=st.data(), until=st.sampled_from(STEPS))
    def step_to(self, data, until):
        """Somebody goes on to where a step of the protocol is next."""
        self.stepper.step(data.draw(st.sampled_from(self.stepper.actors)), 1 << 30, until)

    @precondition(lambda self: self.stepper.actors)
    @rule(data=st.data())
    def finish_one(self, data):
        """Somebody goes on to the end."""
        self.finish(data.draw(st.sampled_from(self.stepper.actors)))

    def finish(self, name: str) -> None:
        self.stepper.step(name, 1 << 30)

    @precondition(lambda self: self.stepper.actors)
    @rule(data=st.data())
    def crash(self, data):
        """Somebody's process dies."""
        name = data.draw(st.sampled_from(self.stepper.actors))
        self.ways[name].dead = True
        self.finish(name)

    @precondition(lambda self: len(self._staying()) > 1)
    @rule(data=st.data())
    def forget(self, data):
        """A snapshot is forgotten, and whoever does so dies before the second step: collectors do it."""
        snapshot = data.draw(st.sampled_from(self._staying()))
        self.told.forgotten.add(snapshot)
        self.storage.delete(pending_name(snapshot))

    @rule()
    def look(self):
        """Everything is looked at, by somebody who sees storage as it is now."""
        self.theatre.look(0, self.storage, self.told)


TestInterleaved = Interleaved.TestCase
TestInterleaved.settings = settings(
    max_examples=max(12, settings().max_examples // 4),
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
