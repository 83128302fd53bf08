"""Real disks that are full to the last block: snapshots stay whole, and a prune alone gets them back to work."""

from __future__ import annotations

import os
import random

import pytest

from respaldo.backend.local import LocalBackend
from respaldo.catalog.snapshots import forget
from respaldo.core.errors import StorageFull
from respaldo.core.seams import system_random
from respaldo.flows.gc.options import PruneOptions
from respaldo.store.ballast import BALLAST, keep_ballast
from tests.fidelity.disks import mounted, reachable
from tests.protocol.ground import prune
from tests.protocol.scene import (
    back_up,
    below,
    committed,
    contents,
    fresh_cache,
    make_repository,
    on_disk,
    open_repository,
    snapshot_of,
)

DISK_BYTES = 24 << 20


class Place:
    """Is a repository on a disk that fills up, a source beside it, and what its snapshots must hold."""

    def __init__(self, disk, folder) -> None:
        self.disk = disk
        self.source = folder / "source"
        self.source.mkdir()
        self.cache = folder / "cache"
        self.folder = folder
        self.there = {}
        self._seed = 0
        make_repository(backend := LocalBackend(disk / "repository", create=True))
        assert keep_ballast(backend, system_random)
        backend.close()

    def open(self, cache=None):
        return open_repository(LocalBackend(self.disk / "repository"), cache or self.cache)

    def snapshot(self) -> None:
        """Makes a snapshot of which a file is new; another is so every third time only."""
        self._seed += 1
        (self.source / "new").write_bytes(random.Random(self._seed).randbytes(1_500_000))
        (self.source / "old").write_bytes(random.Random(self._seed // 3 + 1000).randbytes(900_000))
        with self.open() as repo:
            self.there[snapshot_of(back_up(repo, self.source))] = on_disk(self.source)

    def snapshots(self, count: int) -> None:
        for _ in range(count):
            self.snapshot()

    def fill(self) -> None:
        """Takes the disk's last byte."""
        for number, size in enumerate((1 << 20, 4096, 1)):
            with (self.disk / f"junk{len(list(self.disk.iterdir()))}-{number}").open("wb", buffering=0) as file:
                try:
                    while file.write(os.urandom(size)) == size:
                        os.fsync(file.fileno())
                except OSError:
                    continue

    def forget(self, count: int) -> None:
        for snapshot in list(self.there)[:count]:
            with self.open() as repo:
                forget(repo, snapshot)
            del self.there[snapshot]

    def check(self) -> None:
        with self.open(fresh_cache(self.folder / "fresh")) as repo:
            repo.synchronise()
            assert committed(repo) == self.there.keys()
            for snapshot, files in self.there.items():
                assert below(contents(repo, snapshot), self.source) == files


@pytest.fixture(params=["ext4", "tmpfs"])
def place(request, tmp_path):
    with reachable() as parent, mounted(request.param, parent, length_bytes=DISK_BYTES) as disk:
        yield Place(disk, tmp_path)


@pytest.mark.root
def test_full_disk_gets_back_to_work_with_prune_alone(place):
    """A snapshot meets the end of the disk; after forgetting, a prune frees space and the next succeeds."""
    with pytest.raises(StorageFull):
        place.snapshots(100)
    assert len(place.there) > 3
    place.check()
    place.forget(2)
    place.fill()
    with place.open() as repo:
        result = prune(repo, PruneOptions(max_repack_bytes=0))
    assert result.deleted_packs
    assert result.ballast
    place.check()
    with place.open() as repo:
        prune(repo)
    place.check()
    place.snapshot()
    place.check()
    assert (place.disk / "repository" / BALLAST).stat().st_size == 1 << 20


@pytest.mark.root
@pytest.mark.slow
def test_full_disk_without_anything_dead_stays_as_it_is(place):
    """Where nothing is to be deleted a prune of a full disk succeeds, and where copies do not fit it says so."""
    with pytest.raises(StorageFull):
        place.snapshots(100)
    place.fill()
    with place.open() as repo:
        prune(repo)
    place.check()
    with place.open() as repo:
        prune(repo, PruneOptions(repack_below=1.0))
    place.check()
