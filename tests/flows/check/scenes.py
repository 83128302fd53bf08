"""A repository to damage: two snapshots, a pack that none needs, and what reading every file says about it."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from respaldo.backend.memory import MemoryBackend
from respaldo.backend.wrap import ReadOnly
from respaldo.catalog.snapshots import load
from respaldo.catalog.trees import TreeReader
from respaldo.core.errors import ChunkMissing, Corruption
from respaldo.core.ids import ChunkId, Kind, PackName, SnapshotId, parse_hash_leaf
from respaldo.core.seams import Cancel, Silent
from respaldo.flows.backup.options import BackupOptions
from respaldo.flows.backup.run import run_backup
from respaldo.flows.check.options import VerifyOptions
from respaldo.flows.check.result import VerifyResult
from respaldo.flows.check.run import run_verify
from respaldo.format.content import HOLE
from respaldo.format.pack import Footer
from respaldo.store.packs import read_footer
from respaldo.store.repo import Repo
from tests.store.repositories import Clock, Tape, initialise, opened, pieces, replica, store

STRUCTURE = VerifyOptions()
EVERYTHING = VerifyOptions(read_data=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Is a sound repository: its objects, its snapshots by age, the path that was backed up, and a pack none needs."""

    objects: dict[str, bytes]
    first: SnapshotId
    second: SnapshotId
    source: bytes
    idle: PackName

    def backend(self) -> MemoryBackend:
        """Returns a repository of one's own to damage."""
        return replica(self.objects)

    def names(self, folder: str) -> list[str]:
        """Returns the names of all objects of a folder."""
        return sorted(name for name in self.objects if name.startswith(folder + "/"))


def build(path: Path) -> Scene:
    """Makes the repository: files of many chunks, of one, empty; a list; directories in directories."""
    source = random.Random(1)
    top = path / "source"
    (top / "deep" / "deeper").mkdir(parents=True)
    (top / "small").mkdir()
    (top / "big").write_bytes(source.randbytes(1_500_000))  # through a list
    (top / "deep" / "middle").write_bytes(source.randbytes(120_000))
    (top / "deep" / "deeper" / "text").write_bytes(b"the same line again\n" * 1000)
    for number in range(30):
        (top / "small" / f"{number:02}").write_bytes(source.randbytes(900))
    (top / "small" / "empty").write_bytes(b"")
    backend = MemoryBackend()
    tape = Tape()  # the same keys in every run, and so the same chunks, blocks and packs
    initialise(backend, random=tape)
    with opened(backend, path / "cache", random=tape) as repo:
        made = []
        clock = repo.clock
        for _ in range(2):
            if isinstance(clock, Clock):
                clock.now += 10**9
            result = run_backup(
                repo, [bytes(top)], BackupOptions(recorded_as=b"/source"), progress=Silent(), cancel=Cancel()
            )
            made.append(result.snapshot)
            (top / "deep" / "middle").write_bytes(source.randbytes(130_000))
            (top / "new").write_bytes(source.randbytes(5000))
        _, [idle] = store(repo, pieces(40, seed=99))
    return Scene(objects=backend.snapshot(), first=made[0], second=made[1], source=b"/source", idle=idle)


def verify(backend: MemoryBackend, cache: Path, options: VerifyOptions = EVERYTHING) -> VerifyResult:
    """Checks a repository as a new client that may not write to it."""
    with opened(ReadOnly(backend), cache) as repo:
        return run_verify(repo, options, progress=Silent(), cancel=Cancel())


def unreadable(repo: Repo) -> set[tuple[SnapshotId, bytes]]:
    """Returns the snapshots and paths that cannot be read, by reading all: what a check has to say."""
    reader = TreeReader(repo.source)
    found = set()

    def directory(snapshot: SnapshotId, path: bytes, tree: ChunkId) -> None:
        try:
            entries = list(reader.entries(tree))
        except (Corruption, ChunkMissing):
            found.add((snapshot, path or b"/"))
            return
        for entry in entries:
            below = path + b"/" + entry.name
            if entry.is_dir:
                for child in entry.content:
                    directory(snapshot, below, child)
                continue
            try:
                rows = [row.id for row in reader.list_rows(entry.content)] if entry.content.level else entry.content
                for chunk_id in rows:
                    if chunk_id != HOLE:
                        repo.source.get(Kind.DATA, chunk_id)
            except (Corruption, ChunkMissing):
                found.add((snapshot, below))

    for item in load(repo).snapshots:
        directory(item.id, b"", item.manifest.root)
    return found


def footer_of(backend: MemoryBackend, cache: Path, name: str) -> Footer:
    """Returns the footer of a pack, as it says itself."""
    with opened(backend, cache) as repo:
        leaf = parse_hash_leaf(name.partition("/")[2])
        return read_footer(repo.backend, repo.vault, PackName(leaf or b""), backend.exists(name) or 0)[0]


def affected(result: VerifyResult, name: str) -> set[tuple[SnapshotId, bytes]]:
    """Returns what a check says one damaged object affects."""
    return {(item.snapshot, item.path) for damage in result.damages if damage.name == name for item in damage.affected}


def flipped(content: bytes, at: int) -> bytes:
    """Returns the bytes with one bit of one of them changed."""
    at %= len(content)
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
