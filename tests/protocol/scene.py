"""What the tests of the protocol share: small sources, quick repositories, and the look whether a snapshot is whole.

Chunks, blocks and packs are as small as the format lets them be, so that few bytes give many of them. Time runs ahead
of the file system's clock: nothing that a test has just written counts as too recent to be trusted.
"""

from __future__ import annotations

import os
import random
import shutil
import stat
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from respaldo.backend.memory import MemoryBackend
from respaldo.backend.wrap import Wrapper
from respaldo.catalog.snapshots import Catalogue, load
from respaldo.catalog.trees import TreeReader
from respaldo.codec.slots import STANDARD, Secret
from respaldo.core.ids import ChunkId, Kind, SnapshotId
from respaldo.core.model import Content
from respaldo.core.seams import Cancel, Random, Silent, SystemClock, system_random
from respaldo.flows.backup.options import BackupOptions, BackupResult
from respaldo.flows.backup.run import run_backup
from respaldo.format.config import Config
from respaldo.format.content import HOLE, Row, parse_node
from respaldo.format.snapshot import Manifest
from respaldo.store.making import create
from respaldo.store.repo import Repo

if TYPE_CHECKING:
    from respaldo.backend.base import Backend

SECRET = Secret(key=bytes(range(32)))
CONFIG = Config(chunker=(64, 256, 1024, 1 << 63, (1 << 64) - 1), block_bytes=2048, pack_bytes=1 << 20)
OPTIONS = BackupOptions(host="host", user="user", program="test")
AHEAD_NS = 3600 * 10**9

Files = dict[bytes, bytes]


class AheadClock(SystemClock):
    """Is an hour ahead, so that every file is old."""

    def now_ns(self) -> int:
        return super().now_ns() + AHEAD_NS


class Kept(Wrapper):
    """Stays open when the repository is closed, to be opened again."""

    def close(self) -> None:
        pass


class InlineExecutor:
    """Runs what is submitted at once, in the caller's thread: the same calls come in the same order every time."""

    def __init__(self, *_arguments: object, **_options: object) -> None:
        pass

    def submit(self, action, *arguments):
        future: Future[object] = Future()
        try:
            future.set_result(action(*arguments))
        except Exception as error:  # noqa: BLE001 - as an executor does; a Crash goes up at once
            future.set_exception(error)
        return future

    def shutdown(self, **_options: object) -> None:
        pass


def inline_workers(monkeypatch) -> None:
    """Makes sinks seal and put, and what is read several at a time be read, in the thread that uses them."""
    for module in ("chunks", "several"):
        monkeypatch.setattr(f"respaldo.store.{module}.thread_pool", InlineExecutor)


def make_repository(backend: Backend, chance: Random = system_random) -> None:
    """Makes an empty repository with the smallest chunks that there are."""
    create(backend, secret=SECRET, kdf=STANDARD, config=CONFIG, clock=AheadClock(), random=chance, label="test")


def open_repository(backend: Backend, cache: Path, chance: Random = system_random) -> Repo:
    """Opens it, with a cache of the caller's choice. With seeded chance, packs have the same names every time."""
    return Repo.open(backend, SECRET, cache_dir=cache, clock=AheadClock(), random=chance)


def back_up(repo: Repo, *sources: Path, options: BackupOptions = OPTIONS) -> BackupResult:
    """Makes a snapshot of directories."""
    paths = [os.fsencode(source) for source in sources]
    return run_backup(repo, paths, options, progress=Silent(), cancel=Cancel())


def tree_of(repo: Repo, manifest: Manifest, source: Path) -> ChunkId:
    """Returns the tree of a source: those above it are of directories that others write to."""
    trees, tree = TreeReader(repo.source), manifest.root
    for name in os.fsencode(source).strip(b"/").split(b"/"):
        entry = trees.find(tree, name)
        assert entry is not None
        tree = ChunkId(entry.content.ids)
    return tree


def snapshot_of(result: BackupResult) -> SnapshotId:
    """Returns the id of a snapshot that was made and missed nothing."""
    assert result.complete, result.manifest.failed
    assert result.snapshot is not None
    return result.snapshot


def write_tree(source: Path, seed: int, *, files: int = 6, length_bytes: int = 700) -> None:
    """Writes directories and files that follow from a seed."""
    rng = random.Random(seed)
    for number in range(files):
        folder = source / ("abc"[number % 3])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"file{number}").write_bytes(rng.randbytes(rng.randrange(1, 2 * length_bytes)))
    (source / "empty").touch()


def change_tree(source: Path, seed: int) -> None:
    """Changes a file, adds one in a directory of its own, and removes one if there is one to be spared."""
    rng = random.Random(seed)
    files = sorted(path for path in source.rglob("*") if path.is_file() and path.stat().st_size)
    rng.choice(files).write_bytes(rng.randbytes(rng.randrange(1, 2000)))
    new = source / f"new{seed % 5}" / "inner"
    new.mkdir(parents=True, exist_ok=True)
    (new / "file").write_bytes(rng.randbytes(rng.randrange(1, 1000)))
    if len(files) > 4:
        rng.choice(files).unlink(missing_ok=True)


def on_disk(source: Path) -> Files:
    """Returns every regular file below a directory: path as it is recorded → content."""
    return {os.fsencode(path): path.read_bytes() for path in source.rglob("*") if path.is_file()}


def contents(repo: Repo, snapshot: SnapshotId, catalogue: Catalogue | None = None) -> Files:
    """Reassembles every file of a snapshot. Raises what reading raises: nothing is passed over."""
    found = {item.id: item for item in (catalogue or load(repo)).snapshots}
    trees, get = TreeReader(repo.source), repo.source.get
    files: Files = {}
    stack = [(b"", found[snapshot].manifest.root)]
    while stack:
        path, tree = stack.pop()
        for entry in trees.entries(tree):
            here = path + b"/" + entry.name
            if entry.is_dir:
                stack += [(here, child) for child in entry.content]
            elif stat.S_ISREG(entry.mode):
                pieces: list[bytes] = []
                for row in rows_of(repo, entry.content):
                    pieces.append(bytes(row.length) if row.id == HOLE else get(Kind.DATA, row.id))
                    assert row.length in {0, len(pieces[-1])}
                files[here] = b"".join(pieces)
                assert len(files[here]) == entry.size
    return files


def rows_of(repo: Repo, content: Content) -> list[Row]:
    """Returns the chunks and holes of a file; the length of a chunk that no list names is 0."""
    rows = [Row(chunk_id, 0) for chunk_id in content]
    for _ in range(content.level):
        rows = [row for node in rows for row in parse_node(repo.source.get(Kind.LIST, node.id), "list")]
    return rows


def below(files: Files, source: Path) -> Files:
    """Returns the files below a source."""
    prefix = os.fsencode(source) + b"/"
    return {path: content for path, content in files.items() if path.startswith(prefix)}


def committed(repo: Repo) -> set[SnapshotId]:
    """Returns the ids of all snapshots; damage among them is an error."""
    catalogue = load(repo)
    assert not catalogue.damaged
    return {item.id for item in catalogue.snapshots}


def fresh_cache(folder: Path) -> Path:
    """Returns an empty directory for a cache."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def copy_cache(cache: Path, to: Path) -> Path:
    """Copies a cache as it is, so that many runs can begin with the same one."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(cache, to, ignore=shutil.ignore_patterns("lock.mdb"))
    return to


def memory_with(objects: dict[str, bytes]) -> MemoryBackend:
    """Returns storage that holds some objects."""
    backend = MemoryBackend()
    for name, content in objects.items():
        backend.damage(name, content)
    return backend


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Is a repository with a first snapshot, the cache that made it, and a source that has changed since."""

    folder: Path
    source: Path
    objects: dict[str, bytes]
    cache: Path
    first: SnapshotId
    first_files: Files
    now: Files

    def copy_of_cache(self, name: str = "same") -> Path:
        """Returns the cache as it was after the first snapshot."""
        return copy_cache(self.cache, self.folder / name)

    def check(self, backend: Backend, cache: Path) -> None:
        """Looks whether the first snapshot and every other one is whole, then makes another and looks at that."""
        backend = Kept(backend)
        with open_repository(backend, cache) as repo:
            repo.synchronise(lenient=True)
            there = committed(repo)
            assert self.first in there
            for snapshot in there:
                expected = self.first_files if snapshot == self.first else self.now
                assert below(contents(repo, snapshot), self.source) == expected
        with open_repository(backend, cache) as repo:
            again = snapshot_of(back_up(repo, self.source))
            assert below(contents(repo, again), self.source) == self.now
            assert committed(repo) == there | {again}


def set_stage(folder: Path) -> Stage:
    """Makes a repository with one snapshot, then changes the source."""
    source, cache = folder / "source", folder / "cache"
    write_tree(source, 1)
    with (source / "a" / "holes").open("wb") as file:  # its content stands in a list
        file.write(random.Random(7).randbytes(4096))
        file.seek(64 << 10)
        file.write(b"end")
    backend = MemoryBackend()
    make_repository(backend)
    with open_repository(backend, cache) as repo:
        first = snapshot_of(back_up(repo, source))
    first_files = on_disk(source)
    change_tree(source, 2)
    return Stage(
        folder=folder,
        source=source,
        objects=backend.snapshot(),
        cache=cache,
        first=first,
        first_files=first_files,
        now=on_disk(source),
    )
