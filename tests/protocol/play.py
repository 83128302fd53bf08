"""A play: writers, collectors and a forgetter on one repository, after a seed; and the look at what is left.

The invariant: whatever is a snapshot in the end is whole and holds what its writer saw, and every snapshot that was
reported and that nobody forgot is there.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from respaldo.backend.faults import Crash
from respaldo.backend.memory import MemoryBackend
from respaldo.catalog.snapshots import load
from respaldo.core.errors import ChunkMissing, Corruption, ObjectMissing, StorageFailed
from respaldo.core.ids import SnapshotId
from respaldo.core.seams import Random, system_random
from respaldo.store.repo import Repo
from tests.protocol.collector import Collector, LostError, expire, forget
from tests.protocol.real import Real
from tests.protocol.scene import (
    OPTIONS,
    Files,
    Kept,
    back_up,
    contents,
    copy_cache,
    fresh_cache,
    make_repository,
    memory_with,
    open_repository,
    snapshot_of,
)
from tests.protocol.scheduler import Scheduler, Shared

PAYLOADS = [random.Random(number).randbytes(150 + 60 * number) for number in range(7)]
"""What files hold: few different things, so that what one writer stores another one needs."""


@dataclass(slots=True)
class Told:
    """Is what happened in a play."""

    done: dict[SnapshotId, tuple[Path, Files]] = field(default_factory=dict)
    seen: dict[Path, list[Files]] = field(default_factory=dict)
    forgotten: set[SnapshotId] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)


class Theatre:
    """Owns what plays begin with: two sources, a repository with a snapshot of each, and the writers' caches.

    Directories ``kept`` of a source never change, so that they are taken over unread; ``changing`` is written anew each
    time. A source must stay where it is, or nothing would look as it did.
    """

    def __init__(self, folder: Path, chance: Random = system_random) -> None:
        self.folder = folder
        self.collector: type[Collector | Real] = Collector
        self.sources = [folder / "one", folder / "two"]
        backend = MemoryBackend()
        make_repository(backend, chance)
        self.first: dict[SnapshotId, tuple[Path, Files]] = {}
        for number, source in enumerate(self.sources):
            for name, payloads in (("kept/deep", PAYLOADS[:3]), ("kept/side", PAYLOADS[2 + number : 5])):
                (source / name).mkdir(parents=True)
                for at, payload in enumerate(payloads):
                    (source / name / f"file{at}").write_bytes(payload)
            (source / "changing").mkdir()
            self.change(source, random.Random(number))
            with open_repository(Kept(backend), folder / f"cache{number}", chance) as repo:
                self.first[self.snapshot(repo, source)] = (source, self.files(source))
        self.objects = backend.snapshot()

    @staticmethod
    def snapshot(repo: Repo, source: Path) -> SnapshotId:
        """Makes a snapshot of a source as if it lay below the root: no directories above it to be read."""
        options = replace(OPTIONS, recorded_as=b"/" + os.fsencode(source.name))
        return snapshot_of(back_up(repo, source, options=options))

    @staticmethod
    def files(source: Path) -> Files:
        """Returns what a snapshot of a source as it is must hold."""
        return {
            b"/" + os.fsencode(path.relative_to(source.parent)): path.read_bytes()
            for path in source.rglob("*")
            if path.is_file()
        }

    @staticmethod
    def change(source: Path, rng: random.Random) -> None:
        """Writes the directory that changes."""
        for number in range(3):
            path = source / "changing" / f"file{number}"
            path.unlink(missing_ok=True)
            path.write_bytes(rng.choice(PAYLOADS))

    def play(self, seed: int) -> Told:
        """Plays after a seed; raises AssertionError where the invariant does not hold.

        The first seed of three has one writer and one collector, the next two writers, the last two of each.
        """
        rng = random.Random(seed)
        writers, collectors = ((1, 1), (2, 1), (2, 2))[seed % 3]
        crashes = rng.random() < 0.7
        storage = memory_with(self.objects)
        scheduler = Scheduler(seed)
        told = Told(done=dict(self.first))
        for source, files in self.first.values():
            told.seen[source] = [files]

        def shared(longest: int) -> Shared:
            at = rng.randrange(1, longest) if crashes and rng.random() < 0.35 else 0
            return Shared(storage, scheduler, at, after=rng.random() < 0.5)

        actions = {}
        for number in range(writers):
            actions[f"writer {number}"] = self._writer(
                number, rng.randrange(1 << 30), shared(60), scheduler, storage, told
            )
        for number in range(collectors):
            actions[f"collector {number}"] = self._collector(number, rng.randrange(1 << 30), shared(150), told)
        actions["forgetter"] = self._forgetter(rng.randrange(1 << 30), shared(60), told)
        try:
            scheduler.run(actions)
        except LostError as error:
            raise AssertionError(f"seed {seed}: a collector met {error!r}") from error
        told.counts["points"] += scheduler.points
        told.counts["switches"] += scheduler.switches
        self.look(seed, storage, told)
        return told

    def _writer(
        self, number: int, seed: int, backend: Shared, scheduler: Scheduler, storage: MemoryBackend, told: Told
    ):
        rng = random.Random(seed)
        source = self.sources[number]
        cache = copy_cache(self.folder / f"cache{number}", self.folder / f"play{number}")

        def act() -> None:
            way = backend
            for _ in range(2):
                self.change(source, rng)
                files = self.files(source)
                told.seen[source].append(files)
                try:
                    with open_repository(way, cache, rng.randbytes) as repo:
                        told.done[self.snapshot(repo, source)] = (source, files)
                    told.counts["snapshots"] += 1
                except Crash:
                    told.counts["writers crashed"] += 1
                    way = Shared(storage, scheduler)  # it is started again
                except StorageFailed as error:
                    if "again and again" not in error.reason:
                        raise
                    told.counts["gave up"] += 1

        return act

    def _collector(self, number: int, seed: int, backend: Shared, told: Told):
        rng = random.Random(seed)
        cache = fresh_cache(self.folder / f"collector{number}")

        def act() -> None:
            for _ in range(2):
                try:
                    with open_repository(backend, cache, rng.randbytes) as repo:
                        collector = self.collector(repo, rng)
                        collector.run()
                        told.counts["packs deleted"] += len(collector.victims)
                        told.counts["chunks copied"] += collector.copied
                except Crash:
                    told.counts["collectors crashed"] += 1
                    raise

        return act

    def _forgetter(self, seed: int, backend: Shared, told: Told):
        rng = random.Random(seed)
        cache = fresh_cache(self.folder / "forgetter")

        def act() -> None:
            with open_repository(backend, cache, rng.randbytes) as repo:
                for _ in range(rng.randrange(1, 4)):
                    catalogue = load(repo)
                    if catalogue.undecided and rng.random() < 0.5:
                        expire(repo, rng.choice(catalogue.undecided))
                        told.counts["expired"] += 1
                    elif catalogue.snapshots:
                        snapshot = rng.choice(catalogue.snapshots).id
                        told.forgotten.add(snapshot)
                        forget(backend, snapshot)
                        told.counts["forgotten"] += 1

        return act

    def look(self, seed: int, storage: MemoryBackend, told: Told) -> None:
        """Looks whether the invariant holds."""
        with open_repository(Kept(storage), fresh_cache(self.folder / "look")) as repo:
            repo.synchronise()
            assert not repo.damaged
            catalogue = load(repo)
            assert not catalogue.damaged
            there = {item.id for item in catalogue.snapshots}
            for snapshot in told.done.keys() - told.forgotten - there:
                raise AssertionError(f"seed {seed}: {snapshot.hex()} was reported and is not there")
            for item in catalogue.snapshots:
                source = self.folder / os.fsdecode(item.manifest.sources[0][1:])
                try:
                    files = contents(repo, item.id, catalogue)
                except (ChunkMissing, ObjectMissing, Corruption) as error:
                    raise AssertionError(f"seed {seed}: {item.hex} is not whole: {error}") from error
                known = told.done.get(item.id)
                assert files == known[1] if known else files in told.seen[source], f"seed {seed}: other content"
