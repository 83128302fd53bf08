"""Repositories in memory for tests: small blocks and packs, a secret that costs nothing, a clock that stands still."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from respaldo.backend.base import Backend
from respaldo.backend.memory import MemoryBackend
from respaldo.codec.slots import STANDARD, Secret
from respaldo.core.ids import ChunkId, Kind, PackName, SessionId
from respaldo.format.config import Config
from respaldo.store.chunks import ChunkSink
from respaldo.store.making import create
from respaldo.store.repo import Repo

SECRET = Secret(key=b"k" * 32)
OTHER = Secret(key=b"o" * 32)
SESSION = SessionId(b"S" * 16)
# Chunks of about a kilobyte, blocks of 64 KiB, the smallest packs there can be: a few megabytes make a repository.
CONFIG = Config(chunker=(256, 1024, 4096, 1 << 58, 1 << 60), block_bytes=64 << 10, pack_bytes=1 << 20)


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_780_000_000_000_000_000

    def now_ns(self) -> int:
        return self.now

    def monotonic_ns(self) -> int:
        return self.now


class Tape:
    """Draws bytes that differ from call to call and are the same in every run."""

    def __init__(self, seed: bytes = b"") -> None:
        self.seed = seed
        self.calls = 0

    def __call__(self, length_bytes: int, /) -> bytes:
        from blake3 import blake3

        self.calls += 1
        return blake3(self.seed + self.calls.to_bytes(8, "little")).digest(length_bytes)


def initialise(backend: Backend, *, random=os.urandom, config: Config = CONFIG) -> None:
    """Makes a repository."""
    create(backend, secret=SECRET, kdf=STANDARD, config=config, clock=Clock(), random=random, label="first")


def opened(backend: Backend, cache: Path, *, secret: Secret = SECRET, pinned: bytes = b"", random=os.urandom) -> Repo:
    """Opens a repository, brought up to date."""
    repo = Repo.open(backend, secret, cache_dir=cache, clock=Clock(), random=random, pinned=pinned)
    repo.synchronise(lenient=True)
    return repo


@pytest.fixture
def backend() -> MemoryBackend:
    """The storage of a new repository."""
    made = MemoryBackend()
    initialise(made)
    return made


@pytest.fixture
def repo(backend: MemoryBackend, tmp_path: Path) -> Iterator[Repo]:
    """A new repository, opened."""
    with opened(backend, tmp_path / "cache") as made:
        yield made


def replica(objects: dict[str, bytes]) -> MemoryBackend:
    """Returns a backend with these objects."""
    backend = MemoryBackend()
    for name, content in objects.items():
        backend.damage(name, content)
    return backend


def sink(repo: Repo, backend: Backend | None = None, *, workers: int = 2, session: bytes = SESSION) -> ChunkSink:
    """Returns a sink into a repository."""
    return ChunkSink(
        backend=backend or repo.backend,
        vault=repo.vault,
        index=repo.index,
        id_keys=repo.ring.id_keys,
        session=session,
        block_bytes=repo.config.block_bytes,
        pack_bytes=repo.config.pack_bytes,
        workers=workers,
    )


def store(
    repo: Repo, chunks: Iterable[tuple[Kind, bytes]], *, segment: bool = True
) -> tuple[list[ChunkId], list[PackName]]:
    """Stores chunks, durable and indexed; returns their ids and the packs that were made."""
    there = sink(repo)
    try:
        ids = [there.put(kind, raw) for kind, raw in chunks]
        there.flush()
        if segment:
            repo.put_segments(SESSION, there.unlisted)
        return ids, [pack.name for pack in there.unlisted]
    finally:
        there.close()


def pieces(count: int, length: int = 3000, seed: int = 0) -> Iterator[tuple[Kind, bytes]]:
    """Yields data chunks that neither compress nor repeat."""
    import random

    source = random.Random(seed)
    for _ in range(count):
        yield Kind.DATA, source.randbytes(length)
