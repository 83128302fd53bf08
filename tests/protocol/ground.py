"""A repository with everything in it that a collector has to do with, for the tests of the real one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from respaldo.backend.memory import MemoryBackend
from respaldo.catalog.snapshots import decide, forget, load, outcome_name, put_pending
from respaldo.core.ids import RANDOM_ID_BYTES, SnapshotId
from respaldo.core.seams import Cancel, Silent
from respaldo.flows.gc.options import PruneOptions, PruneResult
from respaldo.flows.gc.run import run_prune
from respaldo.format.snapshot import Marker, Verdict
from respaldo.store.markers import DAY_NS
from respaldo.store.repo import Repo
from tests.protocol.scene import (
    Files,
    Kept,
    back_up,
    below,
    change_tree,
    contents,
    copy_cache,
    fresh_cache,
    make_repository,
    on_disk,
    open_repository,
    snapshot_of,
    write_tree,
)

OPTIONS = PruneOptions(repack_below=0.95)


def prune(repo: Repo, options: PruneOptions = OPTIONS) -> PruneResult:
    """Collects."""
    return run_prune(repo, options, progress=Silent(), cancel=Cancel())


def put_marker(repo: Repo, session: bytes, age_ns: int) -> str:
    """Puts a session's marker as it would be after some time."""
    name = f"sessions/{session.hex()}.0"
    marker = Marker(session=session, time_ns=repo.clock.now_ns() - age_ns)
    repo.backend.put(name, [repo.vault.seal_record("marker", name, marker.encode())])
    return name


def leave_undecided(repo: Repo, session: bytes) -> SnapshotId:
    """Leaves what a session leaves that dies before it commits: the manifest of the last snapshot, as its own."""
    snapshot = SnapshotId(repo.random(RANDOM_ID_BYTES))
    put_pending(repo, snapshot, replace(load(repo).snapshots[-1].manifest, session=session))
    return snapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """Is such a repository: its objects, a cache, and what each snapshot that is left must hold."""

    folder: Path
    source: Path
    cache: Path
    objects: dict[str, bytes]
    left: dict[SnapshotId, Files]

    def copy_of_cache(self, name: str = "same") -> Path:
        """Returns the cache as it was."""
        return copy_cache(self.cache, self.folder / name)

    def check(self, backend: MemoryBackend, cache: Path) -> None:
        """Looks whether every snapshot that is left is whole, and no other is there."""
        with open_repository(Kept(backend), cache) as repo:
            repo.synchronise(lenient=True)
            assert not repo.damaged
            catalogue = load(repo)
            assert {item.id for item in catalogue.snapshots} == self.left.keys()
            for snapshot, files in self.left.items():
                assert below(contents(repo, snapshot, catalogue), self.source) == files

    def check_clean(self, backend: MemoryBackend) -> None:
        """Looks whether a collection that came to its end left nothing to do."""
        names = backend.snapshot()
        assert not [name for name in names if name.startswith(("condemned/", "sessions/"))]
        assert sum(name.startswith("pending/") for name in names) == len(self.left)
        with open_repository(Kept(backend), fresh_cache(self.folder / "clean")) as repo:
            result = prune(repo)
            assert (result.plan.dead, result.plan.repack, result.expired) == ((), (), 0)
            assert result.plan.live_bytes > 0


def lay_ground(folder: Path) -> Ground:
    """Makes the repository.

    Of six snapshots four are forgotten, one of them by half, and one shares nothing with the others; there is one that
    was aborted, one that a dead session left, and its marker.
    """
    source, cache = folder / "source", folder / "cache"
    write_tree(source, 1, files=12, length_bytes=4000)
    backend = MemoryBackend()
    make_repository(backend)
    made: dict[SnapshotId, Files] = {}
    for number in range(5):
        with open_repository(Kept(backend), cache) as repo:
            made[snapshot_of(back_up(repo, source))] = on_disk(source)
        for step in range(3):
            change_tree(source, 10 * number + step)
    first, second, third, *_ = made
    write_tree(folder / "other", 99)
    with open_repository(Kept(backend), folder / "other cache") as repo:
        other = snapshot_of(back_up(repo, folder / "other"))
    with open_repository(Kept(backend), cache) as repo:
        put_marker(repo, b"d" * 16, 2 * DAY_NS)
        leave_undecided(repo, b"d" * 16)
        aborted = leave_undecided(repo, b"a" * 16)
        decide(repo, aborted, Verdict.ABORT, bytes(32))
        forget(repo, other)
        forget(repo, first)
        forget(repo, second)
        outcome = backend.get(outcome_name(third))
        forget(repo, third)
        backend.put(outcome_name(third), [outcome])
    for snapshot in (first, second, third):
        del made[snapshot]
    return Ground(folder=folder, source=source, cache=cache, objects=backend.snapshot(), left=made)
