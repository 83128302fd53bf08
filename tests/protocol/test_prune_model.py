"""Snapshots, forgetting, collections, crashes and fresh caches in any order, against a dict of what must be there."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from respaldo.backend.faults import Crash, Fault, Faults
from respaldo.backend.memory import MemoryBackend
from respaldo.catalog.snapshots import forget
from respaldo.core.ids import SnapshotId
from respaldo.flows.check.options import VerifyOptions
from respaldo.flows.check.run import run_verify
from respaldo.flows.gc.options import PruneOptions
from tests.protocol.ground import prune
from tests.protocol.scene import (
    Cancel,
    Files,
    Kept,
    Silent,
    back_up,
    below,
    change_tree,
    committed,
    contents,
    fresh_cache,
    inline_workers,
    make_repository,
    on_disk,
    open_repository,
    snapshot_of,
    write_tree,
)


class Model(RuleBasedStateMachine):
    """Is a repository and what it must hold."""

    def __init__(self) -> None:
        super().__init__()
        where = "/dev/shm" if Path("/dev/shm").is_dir() else None
        self.folder = Path(tempfile.mkdtemp(prefix="respaldo-test-", dir=where))
        self.source = self.folder / "source"
        self.cache = self.folder / "cache"
        self.backend = MemoryBackend()
        self.there: dict[SnapshotId, Files] = {}
        self.patch = pytest.MonkeyPatch()
        inline_workers(self.patch)

    def teardown(self) -> None:
        self.patch.undo()
        shutil.rmtree(self.folder, ignore_errors=True)

    @initialize(seed=st.integers(0, 1 << 20))
    def begin(self, seed):
        write_tree(self.source, seed, length_bytes=2500)
        make_repository(self.backend)

    @rule(seed=st.integers(0, 1 << 20), steps=st.integers(1, 6))
    def change(self, seed, steps):
        """The source changes."""
        for step in range(steps):
            change_tree(self.source, seed + step)

    @rule()
    def snapshot(self):
        """A snapshot is made."""
        with open_repository(Kept(self.backend), self.cache) as repo:
            self.there[snapshot_of(back_up(repo, self.source))] = on_disk(self.source)

    @rule(at=st.integers(1, 40), after=st.booleans())
    def snapshot_that_dies(self, at, after):
        """A process dies while it makes a snapshot."""
        self._die(at, after, lambda repo: back_up(repo, self.source))

    @precondition(lambda self: len(self.there) > 1)
    @rule(data=st.data(), by_half=st.booleans())
    def forget(self, data, by_half):
        """A snapshot is forgotten, or its manifest alone is gone."""
        snapshot = data.draw(st.sampled_from(sorted(self.there)))
        del self.there[snapshot]
        if by_half:
            self.backend.delete(f"pending/{snapshot.hex()}")
            return
        with open_repository(Kept(self.backend), self.cache) as repo:
            forget(repo, snapshot)

    @rule(below=st.sampled_from([0.0, 0.5, 0.95, 1.0]), most=st.sampled_from([None, 0, 5000, 100_000]))
    def collect(self, below, most):
        """Space is freed."""
        with open_repository(Kept(self.backend), self.cache) as repo:
            result = prune(repo, PruneOptions(repack_below=below, max_repack_bytes=most))
        assert not result.damages
        assert not result.full
        names = self.backend.snapshot()
        assert not [name for name in names if name.startswith("condemned/")]

    @rule(at=st.integers(1, 70), after=st.booleans())
    def collection_that_dies(self, at, after):
        """A process dies while it frees space."""
        self._die(at, after, lambda repo: prune(repo, PruneOptions(repack_below=0.95)))

    @rule()
    def lose_cache(self):
        """The cache is gone."""
        fresh_cache(self.cache)

    @rule()
    def markers_go(self):
        """The markers of those that died are gone."""
        for name in [name for name in self.backend.snapshot() if name.startswith("sessions/")]:
            self.backend.delete(name)

    def _die(self, at, after, act):
        faults = Faults(Kept(self.backend), [Fault(at=at, error=Crash, after=after)])
        try:
            with open_repository(Kept(self.backend), self.cache) as repo:
                repo.backend = repo.source._backend = faults
                act(repo)
        except Crash:
            pass
        with open_repository(Kept(self.backend), self.cache) as repo:
            for snapshot in committed(repo) - self.there.keys():
                self.there[snapshot] = on_disk(self.source)

    @invariant()
    def all_is_there(self):
        """Every snapshot is there and whole, with a cache and without one."""
        if not self.there:
            return
        with open_repository(Kept(self.backend), self.cache) as repo:
            repo.synchronise(lenient=True)
            assert committed(repo) == self.there.keys()
            snapshot = random.Random(len(self.backend.snapshot())).choice(sorted(self.there))
            assert below(contents(repo, snapshot), self.source) == self.there[snapshot]

    @rule()
    def restore_all(self):
        """Everything restores for a client that has no cache, and verifies."""
        with open_repository(Kept(self.backend), fresh_cache(self.folder / "fresh")) as repo:
            repo.synchronise(lenient=True)
            for snapshot, files in self.there.items():
                assert below(contents(repo, snapshot), self.source) == files
            result = run_verify(repo, VerifyOptions(read_data=True), progress=Silent(), cancel=Cancel())
            assert not result.damages, list(map(str, result.damages))


TestModel = Model.TestCase
TestModel.settings = settings(
    max_examples=max(10, settings().max_examples // 5),
    stateful_step_count=15,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
