"""Clocks that jump by a year, the client's and the storage's: nothing alive is swept, nothing committed is lost."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest

from respaldo.backend.local import LocalBackend
from respaldo.catalog.runs import put_tree
from respaldo.catalog.session import Session
from respaldo.catalog.snapshots import load, put_pending
from respaldo.core.ids import RANDOM_ID_BYTES, SnapshotId
from respaldo.core.seams import Silent, SystemClock, system_random
from respaldo.format.snapshot import Manifest
from respaldo.format.tree import META, Leaf
from respaldo.store.repo import Repo
from tests.disks.client import Client
from tests.flows.backup.world import SECRET, World, assert_equal, walk_model
from tests.protocol.ground import prune

YEAR_S = 365 * 24 * 3600
JUMPS = [-YEAR_S, YEAR_S]


def shift_times(repository: Path, by_s: int) -> None:
    """Makes everything arrive earlier or later, as if the storage's clock had been wrong until now."""
    for folder, _, files in os.walk(repository):
        for name in files:
            path = os.path.join(folder, name)
            found = os.stat(path).st_mtime_ns + by_s * 10**9
            os.utime(path, ns=(found, found))


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A world on a disk, with a snapshot, whose clocks are right."""
    made = World(tmp_path, backend=LocalBackend(tmp_path / "repository", create=True))
    made.clock.shift_ns = 0
    (made.source / "file").write_bytes(os.urandom(300_000))
    made.check()
    return made


class Alive:
    """Is a session at work in another process: a marker, a pack in no snapshot, a pending snapshot, a temporary."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.repo = Repo.open(
            LocalBackend(world.path / "repository"),
            SECRET,
            cache_dir=world.path / "other",
            clock=SystemClock(),
            random=system_random,
        )
        self.session = Session(self.repo, Silent())
        self.session.begin()
        link = META.pack(stat.S_IFLNK | 0o777, 0, 0, 0, 32, 0, 0)
        leaf = Leaf(names=b"link\0", meta=link, targets=os.urandom(16).hex().encode() + b"\0")
        self.root = put_tree(self.session.sink, leaf, bytes(32))
        self.session.save()
        now_ns = self.repo.clock.now_ns()
        self.snapshot = SnapshotId(system_random(RANDOM_ID_BYTES))
        manifest = Manifest(
            session=self.session.id,
            root=self.root,
            sources=(b"/x",),
            time_ns=now_ns,
            started_ns=now_ns,
            ended_ns=now_ns,
            host="other",
            user="user",
            uid=0,
        )
        put_pending(self.repo, self.snapshot, manifest)
        (world.path / "repository" / "packs" / ".tmp-alive").write_bytes(b"x")
        self.there = self.objects()

    def objects(self) -> set[str]:
        """Returns all files of the repository."""
        return {
            os.path.join(folder, name)
            for folder, _, names in os.walk(self._world.path / "repository")
            for name in names
        }

    def assert_spared(self) -> None:
        """Fails where anything of it is gone, or was decided about."""
        assert self.there <= self.objects()
        assert self.snapshot in load(self._world.repo).undecided


@pytest.mark.parametrize("jump_s", JUMPS)
def test_prune_by_a_clock_that_is_wrong_by_a_year_spares_what_is_alive(world, jump_s):
    """Storage knows better: its clock says that the session, and what it is writing, came a moment ago."""
    alive = Alive(world)
    world.clock.shift_ns = jump_s * 10**9
    world.reopen()
    result = prune(world.repo)
    assert (result.expired, result.deleted_packs) == (0, 0)
    assert dict(result.swept)["temporary"] == dict(result.swept)["sessions"] == 0
    alive.assert_spared()
    world.backup()  # which sweeps, too
    alive.assert_spared()
    alive.repo.close()


@pytest.mark.parametrize("jump_s", JUMPS)
def test_prune_by_a_storage_whose_clock_jumped_spares_what_is_alive(world, jump_s):
    """The client knows better: all that arrived a year ago, or will in a year, says itself that it is of now."""
    alive = Alive(world)
    temporary = str(world.path / "repository" / "packs" / ".tmp-alive")
    if jump_s < 0:
        alive.there.remove(temporary)  # last written to a year ago, for all that anybody knows
    shift_times(world.path / "repository", jump_s)
    world.reopen()
    result = prune(world.repo)
    assert (result.expired, result.deleted_packs) == (0, 0)
    assert dict(result.swept)["sessions"] == 0
    alive.assert_spared()
    alive.repo.close()


@pytest.mark.parametrize("jump_s", JUMPS)
def test_what_is_dead_goes_once_both_clocks_say_so(world, jump_s):
    """A session that died is swept a day later, even if one of the clocks was wrong when it began."""
    alive = Alive(world)
    alive.repo.close()
    shift_times(world.path / "repository", -2 * 24 * 3600 + min(jump_s, 0))
    world.clock.shift_ns = 2 * 24 * 3600 * 10**9 + max(jump_s, 0) * 10**9
    world.reopen()
    result = prune(world.repo)
    assert result.expired == 1
    assert result.deleted_packs == 1
    assert dict(result.swept)["sessions"] == dict(result.swept)["temporary"] == 1
    world.reopen(forget=True)
    assert_equal(world.model(world.backup()), walk_model(world.source))


@pytest.mark.parametrize("jump_s", JUMPS)
@pytest.mark.parametrize("whose", ["client", "storage", "both"])
def test_whole_life_across_a_jump_loses_nothing(tmp_path, monkeypatch, jump_s, whose):
    """Snapshots before and after, policies, forgetting and pruning: what no rule let go restores."""
    client = Client(tmp_path / "client", tmp_path / "repository")
    for seed in range(3):
        client.write(seed)
        client.take()
    before = set(client.kept)
    if whose in {"storage", "both"}:
        shift_times(client.repository, -jump_s)
    if whose in {"client", "both"}:
        now_ns = SystemClock.now_ns
        monkeypatch.setattr(SystemClock, "now_ns", lambda self: now_ns(self) + jump_s * 10**9)
    client.write(3)
    client.take()
    client.check()
    client.run("verify", "--read-data")
    # Whatever the clocks say: the newest of before was not doubted by anybody when it was made.
    client.run("prune", "--keep-daily", "3")
    left = client.listed()
    assert left & before
    assert left - before, "the newest snapshot was forgotten"
    for gone in client.kept.keys() - left:
        del client.kept[gone]
    client.check(Client(tmp_path / "other", client.repository))
    client.run("verify", "--read-data")
    client.write(4)
    client.take()
    client.run("prune")
    client.check()


def test_clock_of_a_disk_is_asked_for_without_a_trace(world):
    """A collector that only plans changes nothing, not even the time of a directory."""
    root = world.path / "repository"
    before = os.stat(root).st_mtime_ns, sorted(os.listdir(root))
    time.sleep(0.02)
    assert abs(world.backend.now_ns() - time.time_ns()) < 3600 * 10**9
    assert (os.stat(root).st_mtime_ns, sorted(os.listdir(root))) == before
