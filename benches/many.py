"""Measures what opening a repository of very many small snapshots costs, to a client that knows it and to a new one.

Makes the repository through the product's own internals: real packs, segments, manifests, outcomes and catalogues,
sealed, named and merged as sessions would; in the end a prune merges the packs. 50,000 snapshots take some 7 GB: a pack
and a segment of 64 KiB each, of which nothing was collected yet. Prints CPU seconds where nothing is new, and wall
seconds and calls for a new client where every call takes some milliseconds.

python benches/many.py [--snapshots N] [--latency-ms MS] [--directory DIR] [--collected] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import resource
import stat
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from blake3 import blake3

from respaldo.backend.base import Backend, Listing, Names
from respaldo.backend.local import LocalBackend
from respaldo.backend.wrap import Latency, Wrapper
from respaldo.catalog.decided import Decided
from respaldo.catalog.rolls import row_of
from respaldo.catalog.snapshots import decide, load, put_pending
from respaldo.codec.slots import STANDARD, Secret
from respaldo.core.ids import (
    RANDOM_ID_BYTES,
    CatalogueName,
    ChunkId,
    Kind,
    SegmentName,
    SnapshotId,
    catalogue_object,
    segment_object,
)
from respaldo.core.seams import Buffer, Cancel, Silent, SystemClock, system_random
from respaldo.flows.gc.options import PruneOptions
from respaldo.flows.gc.run import run_prune
from respaldo.format.catalogue import Roll
from respaldo.format.config import Config
from respaldo.format.snapshot import Figures, Manifest, Verdict
from respaldo.format.tree import META, Leaf
from respaldo.store.making import create
from respaldo.store.packs import PackWriter, seal_block
from respaldo.store.repo import Repo
from respaldo.store.tiers import Extent, plan

SECRET = Secret(key=bytes(32))
CONFIG = Config(chunker=(1 << 14, 1 << 16, 1 << 18, 1 << 54, 1 << 58))
Measures = dict[str, float | int | dict[str, int]]


class Watched(Wrapper):
    """Counts what is called, by verb and folder, and stays open when a repository is closed."""

    def __init__(self, inner: Backend) -> None:
        super().__init__(inner)
        self.calls: Counter[str] = Counter()
        self.put_bytes: dict[str, int] = {}

    def put(self, name: str, pieces: Sequence[Buffer]) -> None:
        if name.startswith("segments/"):
            self.put_bytes[name] = sum(len(memoryview(piece)) for piece in pieces)
        super().put(name, pieces)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        self.calls["get " + name.partition("/")[0]] += 1
        return super().get(name, offset, length)

    def list(self, folder: str) -> Listing:
        self.calls["list " + folder] += 1
        return super().list(folder)

    def names(self, folder: str) -> Names:
        self.calls["list " + folder] += 1
        return self.inner.names(folder)

    def close(self) -> None:
        pass


class NoSync:
    """Makes nothing durable: the repository is thrown away."""

    def sync_file(self, fd: int) -> None:
        pass

    def sync_dir(self, fd: int) -> None:
        pass


def opened(backend: Backend, cache: Path) -> Repo:
    """Opens the repository with a cache."""
    return Repo.open(backend, SECRET, cache_dir=cache, clock=SystemClock(), random=system_random)


class Maker:
    """Makes snapshots as sessions do. Keeps its own listings: listing anew for each would take time squared."""

    def __init__(self, repo: Repo, watched: Watched, *, collected: bool) -> None:
        self.repo = repo
        self.watched = watched
        self.collected = collected
        self.session = system_random(RANDOM_ID_BYTES)
        self.segments: dict[SegmentName, int] = {}
        repo.segments.listed = lambda: self.segments  # type: ignore[method-assign]
        self.entries: dict[SnapshotId, Decided] = {}
        self.rolls: dict[bytes, tuple[tuple[SnapshotId, ...], tuple[CatalogueName, ...]]] = {}
        self.extents: dict[bytes, Extent] = {}
        self.roll_bytes: dict[bytes, int] = {}

    def make(self, number: int) -> None:
        """Makes one snapshot, and merges what is due."""
        repo = self.repo
        link = META.pack(stat.S_IFLNK | 0o777, 0, 0, 0, 8, 0, 0)
        raw = Leaf(names=b"link\0", meta=link, targets=b"%08d\0" % number).encode()
        chunk = ChunkId(blake3(raw, key=repo.ring.id_keys[Kind.TREE]).digest())
        with PackWriter(repo.backend, repo.vault, self.session) as writer:
            writer.add(seal_block(repo.vault, Kind.TREE, raw, chunk, len(raw).to_bytes(4, "little")))
            finished = writer.finish()
        repo.put_segments(self.session, [finished])
        self._merge_segments()
        time_ns = 1_700_000_000_000_000_000 + number * 60 * 10**9
        manifest = Manifest(
            session=self.session,
            root=chunk,
            sources=(b"/home/ana/documents", b"/etc"),
            time_ns=time_ns,
            started_ns=time_ns,
            ended_ns=time_ns + 10**9,
            host="granja",
            user="ana",
            uid=1000,
            program="respaldo",
            tags=("minutely",),
            figures=Figures(files=1000, length_bytes=10**9 + number, files_changed=2, stored_bytes=4000),
        )
        snapshot = SnapshotId(system_random(RANDOM_ID_BYTES))
        pending_hash = put_pending(repo, snapshot, manifest)
        decide(repo, snapshot, Verdict.COMMIT, pending_hash)
        self.entries[snapshot] = Decided(
            committed=True, time_ns=time_ns, started_ns=time_ns, pending_hash=pending_hash, manifest=manifest.encode()
        )
        self.extents[snapshot] = Extent(1, len(manifest.encode()))
        self._merge_rolls()

    def _merge_segments(self) -> None:
        segments = self.repo.segments
        for made, length_bytes in self.watched.put_bytes.items():
            self.segments[SegmentName(bytes.fromhex(made.partition("/")[2]))] = length_bytes
        self.watched.put_bytes.clear()
        name = segments.merge(self.session)
        if name is not None and self.collected:
            gone = segments.read(name).supersedes
            self.repo.backend.discard(map(segment_object, gone))
            self.repo.index.note_segments([], gone)
            for segment in gone:
                del self.segments[segment]

    def _merge_rolls(self) -> None:
        chosen = plan(self.extents) if len(self.extents) >= 16 else []
        if not chosen:
            return
        members: list[SnapshotId] = []
        supersedes: list[CatalogueName] = []
        for name in chosen:
            del self.extents[name]
            if name in self.rolls:
                snapshots, before = self.rolls.pop(name)
                members += snapshots
                supersedes += [CatalogueName(name), *(() if self.collected else before)]
            else:
                members.append(SnapshotId(name))
        rows = tuple(row_of(snapshot, self.entries[snapshot]) for snapshot in sorted(members))
        made = Roll(rows=rows, supersedes=tuple(supersedes))
        longest = max((self.roll_bytes[name] for name in chosen if name in self.roll_bytes), default=0)
        made_name, data = self.repo.vault.seal_catalogue(made.encode(), longer_than=longest)
        self.roll_bytes[made_name] = len(data)
        self.repo.backend.put(catalogue_object(made_name), [data])
        if self.collected:
            self.repo.backend.discard(map(catalogue_object, supersedes))
        self.rolls[made_name] = tuple(members), tuple(supersedes)
        self.extents[made_name] = Extent(len(rows), sum(len(row.manifest) for row in rows))


def measured(name: str, action: Callable[[], object], watched: Watched) -> Measures:
    """Runs an action; returns wall and CPU seconds and the calls it made."""
    watched.calls.clear()
    start_s, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    action()
    after = resource.getrusage(resource.RUSAGE_SELF)
    wall_s = time.perf_counter() - start_s
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    calls = dict(sorted(watched.calls.items()))
    print(f"{name:<58} {wall_s:7.2f} s wall {cpu_s:7.2f} s CPU   {sum(calls.values())} calls: {calls}", flush=True)
    return {"wall_s": wall_s, "cpu_s": cpu_s, "calls": calls}


def run(folder: Path, snapshots: int, latency_s: float, *, collected: bool) -> dict[str, Measures]:
    """Makes the repository in an empty directory and measures."""
    backend = LocalBackend(folder / "repository", create=True, fsync=NoSync())
    create(
        backend, secret=SECRET, kdf=STANDARD, config=CONFIG, clock=SystemClock(), random=system_random, label="bench"
    )
    start_s = time.perf_counter()
    watched = Watched(backend)
    with opened(watched, folder / "maker") as repo:
        maker = Maker(repo, watched, collected=collected)
        for number in range(snapshots):
            maker.make(number)
            if number % 5000 == 4999:
                print(f"  made {number + 1} snapshots in {time.perf_counter() - start_s:.0f} s", flush=True)
    results: dict[str, Measures] = {}

    def listing(backend: Backend, cache: str) -> None:
        with opened(backend, folder / cache) as repo:
            found = load(repo)
            if len(found.snapshots) != snapshots or found.damaged or found.undecided:
                raise SystemExit(f"{len(found.snapshots)} snapshots of {snapshots} were found")

    def opening(backend: Backend, cache: str) -> None:
        with opened(backend, folder / cache) as repo:
            seen = repo.synchronise()
            found = load(repo)
            if len(seen.packs) != snapshots or len(found.snapshots) != snapshots or repo.damaged:
                raise SystemExit(f"{len(found.snapshots)} snapshots and {len(seen.packs)} packs were found")

    def after(backend: Backend, cache: str) -> None:
        with opened(backend, folder / cache) as repo:
            seen = repo.synchronise()
            found = load(repo)
            if len(found.snapshots) != snapshots or found.damaged or repo.damaged:
                raise SystemExit(f"{len(found.snapshots)} snapshots and {len(seen.packs)} packs were found")

    def new(name: str, action: Callable[[Backend, str], None], cache: str) -> None:
        watched = Watched(Latency(backend, latency_s))
        results[name] = measured(name, lambda: action(watched, cache), watched)

    new("new client lists snapshots, with latency", listing, "lists")
    new("new client opens to write, with latency", opening, "opens")
    for name, action, cache in (
        ("list snapshots, nothing new", listing, "lists"),
        ("open to write, nothing new", opening, "opens"),
    ):
        results[name] = measured(name, lambda action=action, cache=cache: action(watched, cache), watched)  # type: ignore[misc]

    def prune(backend: Backend, cache: str) -> None:
        with opened(backend, folder / cache) as repo:
            done = run_prune(repo, PruneOptions(), progress=Silent(), cancel=Cancel())
            print(f"  {done.plan.packs} packs: {done.deleted_packs} merged into {done.new_packs}; swept {done.swept}")

    for name in ("prune merges small packs", "prune once more, nothing to do"):
        results[name] = measured(name, lambda: prune(watched, "opens"), watched)
    results["open to write after prune, nothing new"] = measured(
        "open to write after prune, nothing new", lambda: after(watched, "opens"), watched
    )
    new("new client opens to write after prune, with latency", after, "after")
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--snapshots", type=int, default=50_000)
    parser.add_argument("--latency-ms", type=float, default=20.0)
    parser.add_argument("--directory", type=Path, help="where to make it (a file system with room)")
    parser.add_argument("--collected", action="store_true", help="delete what is superseded, as a collector would")
    parser.add_argument("--json", type=Path, help="write the figures here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="respaldo-many-", dir=arguments.directory) as folder:
        results = run(Path(folder), arguments.snapshots, arguments.latency_ms / 1000, collected=arguments.collected)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
