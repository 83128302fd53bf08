"""Re-encryption, cut off at every change of storage; and beside writers, with the new key and with the old."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import shutil
from datetime import UTC

import pytest

from respaldo.api.reencrypting import reencrypt
from respaldo.api.retention import plan_retention
from respaldo.backend.base import FOLDERS
from respaldo.backend.faults import CHANGES, Crash, Fault, Faults
from respaldo.backend.memory import MemoryBackend
from respaldo.catalog import protection
from respaldo.catalog.retention import Policy
from respaldo.catalog.snapshots import load
from respaldo.codec.keys import KeyRing
from respaldo.core.errors import KeyRotated
from respaldo.core.seams import Cancel, Silent
from respaldo.flows.reencrypt import run as carried
from respaldo.flows.reencrypt.run import _Run, carry_over
from respaldo.format.epoch import retiring_name
from respaldo.format.header import close_object
from respaldo.store import rotating
from respaldo.store.census import take_census
from respaldo.store.repo import Repo
from respaldo.store.vault import make_vault
from tests.protocol.scene import (
    SECRET,
    AheadClock,
    Kept,
    back_up,
    contents,
    fresh_cache,
    inline_workers,
    make_repository,
    memory_with,
    snapshot_of,
    write_tree,
)

pytestmark = pytest.mark.usefixtures("_inline")


def open_repository(backend, folder, *, seed=None):
    """Opens a repository with a log, with a cache of its own."""
    chance = os.urandom if seed is None else random.Random(seed).randbytes
    cache = fresh_cache(folder / "cache")
    return Repo.open(
        Kept(backend), SECRET, cache_dir=cache, clock=AheadClock(), random=chance, state_dir=folder / "state"
    )


class Ground:
    """Is a repository with two snapshots whose key was rotated then; and what opens what was there before."""

    def __init__(self, folder):
        self.folder = folder
        storage = MemoryBackend()
        make_repository(storage)
        self.tree = folder / "tree"
        write_tree(self.tree, 1)
        self.files = []
        with open_repository(storage, folder) as repo:
            for seed in (2, 3):
                snapshot = snapshot_of(back_up(repo, self.tree))
                self.files.append(contents(repo, snapshot))
                (self.tree / "more").write_bytes(random.Random(seed).randbytes(3000))
            self.old = make_vault(KeyRing(repo.ring.master, repo.header.hash), repo.header, 3, os.urandom)
            rotating.rotate(repo, rotating.plan_rotation(repo, (), {}))
        names = ["header", *(name for part in FOLDERS for name, _ in storage.list(part))]
        self.objects = {name: storage.get(name) for name in names}
        (folder / "state").rename(folder / "state of then")

    def storage(self):
        """Returns storage as it was then, and lets the client remember what it did then."""
        shutil.rmtree(self.folder / "state", ignore_errors=True)
        shutil.copytree(self.folder / "state of then", self.folder / "state")
        return memory_with(self.objects)

    def check(self, storage, *, also=()):
        """Fails unless all snapshots are there, whole; returns whether each is there once, and not twice on the way."""
        with open_repository(storage, self.folder) as repo:
            repo.synchronise()
            found = load(repo)
            assert not found.damaged
            assert repo.log.follow().findings == []
            whole = [contents(repo, item.id, found) for item in found.snapshots]
        for files in (*self.files, *also):
            assert files in whole
        return len(whole) == len(self.files) + len(also)

    def left(self, storage):
        """Returns what opens under the old key."""
        return [item for parts in take_census(storage, self.old).by_epoch.values() for item in parts]


@pytest.fixture(scope="module")
def ground(quick):
    with pytest.MonkeyPatch.context() as patch:
        inline_workers(patch)
        return Ground(quick / "ground")


def sealed_anew(repo):
    return reencrypt(repo, progress=Silent(), cancel=Cancel())


@pytest.mark.parametrize("stride", [6, pytest.param(1, marks=pytest.mark.slow)])
def test_cut_off_anywhere_it_loses_nothing_and_goes_on(ground, stride):
    """After every change of storage: all snapshots are whole; the next run comes to the end, and leaves each once."""
    twice = 0
    for at in itertools.count(1, stride):
        storage = ground.storage()
        faults = Faults(storage, [Fault(at=at, verbs=CHANGES)])
        with contextlib.suppress(Crash), open_repository(faults, ground.folder, seed=at) as repo:
            sealed_anew(repo)
        if at > 1 and not faults.crashed:
            break
        twice += not ground.check(storage)
        with open_repository(storage, ground.folder) as repo:
            if repo.epoch.in_use:
                done = sealed_anew(repo)
                assert done.retired.epochs == (0,), done.retired
        assert ground.check(storage)
        assert ground.left(storage) == []
    assert at > 30
    assert twice


@pytest.mark.parametrize("kept", [1, 2])
def test_a_policy_counts_what_is_carried_over_once(ground, kept, monkeypatch):
    """While snapshots are there twice, a policy keeps as many as it says, and takes both or none of each."""
    storage = ground.storage()

    def plan(repo):
        repo.synchronise()
        return plan_retention(repo, load(repo), Policy(keep={"last": kept}), zone=UTC)

    with open_repository(storage, ground.folder) as repo:
        before = plan(repo)
    monkeypatch.setattr(_Run, "forget", lambda _self, _items: None)
    with open_repository(storage, ground.folder) as repo:
        carry_over(repo, progress=Silent(), cancel=Cancel())
        found = plan(repo)
    assert len(found.items) == 2 * len(before.items)
    assert len(found.forgotten) == 2 * len(before.forgotten) == 2 * (2 - kept)
    roots = [[item.snapshot.manifest.root for item in plan.items if item.decision.kept] for plan in (before, found)]
    assert sorted(roots[0] * 2) == sorted(roots[1])


@pytest.mark.parametrize("folder", ["pins", "trash"])
def test_what_is_pinned_or_forgotten_after_it_was_carried_over_is_so_still(ground, folder, monkeypatch):
    """Until the old snapshot goes, others pin it or put it into the trash, and mean the one that stays."""
    storage = ground.storage()
    first = carried.announce_forgetting

    def meanwhile(repo, items):
        first(repo, items)
        for item in items:
            if folder == "pins":
                protection.pin(repo, item)
            else:
                protection.put_in_trash(repo, item, 1 << 40)

    monkeypatch.setattr(carried, "announce_forgetting", meanwhile)
    with open_repository(storage, ground.folder) as repo:
        new = carry_over(repo, progress=Silent(), cancel=Cancel()).snapshots.values()
    assert set(storage.names(folder)) == {f"{folder}/{item.hex()}" for item in new}


def test_what_is_brought_back_after_it_was_carried_over_is_not_in_the_trash(ground, monkeypatch):
    """What `undo` has brought back under its old id must not go when the time of grace of the new one is over."""
    storage = ground.storage()
    first = carried.announce_forgetting

    def meanwhile(repo, items):
        first(repo, items)
        assert len(storage.names("trash")) == 2 * len(items)
        for item in items:
            protection.take_back(repo, item)

    with open_repository(storage, ground.folder) as repo:
        for item in load(repo).snapshots:
            protection.put_in_trash(repo, item.id, 1 << 60)
        monkeypatch.setattr(carried, "announce_forgetting", meanwhile)
        carry_over(repo, progress=Silent(), cancel=Cancel())
    assert storage.names("trash") == []
    ground.check(storage)


def test_writer_under_the_old_key_aborts_where_it_comes_too_late(ground):
    """The sign is there before its outcome is: no snapshot, no trace that hinders anybody; else it is carried over."""
    storage = ground.storage()
    with open_repository(storage, ground.folder) as repo:
        storage.put(retiring_name(repo.epoch.number), [close_object(b"")])
        with pytest.raises(KeyRotated):
            back_up(repo, ground.tree)
        assert len(storage.list("pending")) == len(ground.files)
    ground.check(storage)


def test_pack_of_an_epoch_that_is_retiring_is_not_relied_on(ground):
    """Its content is stored again by whoever needs it, and prune copies it out."""
    storage = ground.storage()
    storage.put(retiring_name(0), [close_object(b"")])
    with open_repository(storage, ground.folder) as repo:
        old = set(storage.names("packs"))
        snapshot = snapshot_of(back_up(repo, ground.tree))
        files = contents(repo, snapshot)
        listing = repo.list_packs()
        assert {f"packs/{name.hex()}" for name in listing.condemned} == old
    for name in old:
        storage.delete(name)
    with open_repository(storage, ground.folder) as repo:
        repo.synchronise()
        assert contents(repo, snapshot) == files
