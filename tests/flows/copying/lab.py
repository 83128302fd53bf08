"""Two repositories in memory, one that copies go out of and one that they come into, and what must hold of a copy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from respaldo.backend.memory import MemoryBackend
from respaldo.backend.wrap import Wrapper
from respaldo.catalog.snapshots import Snapshot, load
from respaldo.codec.slots import STANDARD
from respaldo.core.ids import SnapshotId
from respaldo.core.seams import Cancel, Progress, Silent, system_random
from respaldo.flows.copying.options import CopyOptions, CopyResult
from respaldo.flows.copying.run import run_copy
from respaldo.store.making import create
from respaldo.store.repo import Repo
from tests.protocol.scene import (
    CONFIG,
    SECRET,
    AheadClock,
    back_up,
    contents,
    make_repository,
    open_repository,
    snapshot_of,
    write_tree,
)


class Counting(Wrapper):
    """Counts what is read of packs, and stays open."""

    def __init__(self, backend: MemoryBackend) -> None:
        super().__init__(backend)
        self.reads = 0

    def get(self, name: str, offset: int, length: int) -> bytes:
        self.reads += name.startswith("packs/")
        return super().get(name, offset, length)

    def close(self) -> None:
        pass


class Lab:
    """Has a source with a tree to back up, and a target that names content alike or not."""

    def __init__(self, folder: Path, *, alike: bool) -> None:
        self.folder = folder
        self.tree = folder / "tree"
        write_tree(self.tree, 1, files=9, length_bytes=4000)
        (self.tree / "sparse").touch()
        with (self.tree / "sparse").open("wb") as file:
            file.seek(1 << 20)
            file.write(b"end" * 3000)
        self.a, self.b = MemoryBackend(), MemoryBackend()
        make_repository(self.a)
        self.source = Counting(self.a)
        self.target = Counting(self.b)
        if alike:
            with self.open_source() as repo:
                config = replace(CONFIG, content_keys=repo.ring.content_keys)
            create(
                self.b, secret=SECRET, kdf=STANDARD, config=config, clock=AheadClock(), random=system_random, label=""
            )
        else:
            make_repository(self.b)
        self.caches = 0

    def open_source(self, *, apart: bool = False) -> Repo:
        """Opens the source; ``apart`` as another client, with a cache of its own."""
        repo = open_repository(self.source, self.folder / ("cache c" if apart else "cache a"))
        repo.synchronise(lenient=True)
        return repo

    def open_target(self) -> Repo:
        repo = open_repository(self.target, self.folder / f"cache b{self.caches}")
        repo.synchronise(lenient=True)
        return repo

    def forget_everything(self) -> None:
        """Gives the client of the target another cache, an empty one."""
        self.caches += 1

    def snapshot(self) -> SnapshotId:
        with self.open_source() as repo:
            return snapshot_of(back_up(repo, self.tree))

    def copy(
        self,
        *,
        cancel: Cancel | None = None,
        progress: Progress | None = None,
        choose: Callable[[Snapshot], bool] = lambda _: True,
        **options,
    ) -> CopyResult:
        with self.open_source() as source, self.open_target() as target:
            wanted = [item for item in load(source).snapshots if choose(item)]
            return run_copy(
                source,
                target,
                wanted,
                CopyOptions(**options),
                progress=progress or Silent(),
                cancel=cancel or Cancel(),
            )

    def check(self) -> None:
        """Fails unless every copy holds what its original does, and says what it said."""
        with self.open_source() as source, self.open_target() as target:
            originals = {item.id: item for item in load(source).snapshots}
            found = load(target)
            assert not found.damaged
            for item in found.snapshots:
                assert item.manifest.origin is not None
                original = originals[SnapshotId(item.manifest.origin[1])]
                assert contents(target, item.id) == contents(source, original.id)
                same = ("sources", "time_ns", "started_ns", "host", "user", "label", "tags", "kind", "reason", "rules")
                for name in same:
                    assert getattr(item.manifest, name) == getattr(original.manifest, name)
