"""Measures the stages of the data path one by one; run by `make bench`, never by the tests."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3
from pytest_benchmark.fixture import BenchmarkFixture

from respaldo import kernel
from respaldo.chunk.chunker import Chunker, ChunkerParams
from respaldo.codec.compress import Compressor, Decompressor
from respaldo.codec.keys import KeyRing
from respaldo.codec.seal import Sealer
from respaldo.core.ids import ChunkId, Kind, PackName
from respaldo.format.columns import u32_array
from respaldo.format.pack import BlockRow, Footer
from respaldo.format.tree import META, Leaf, parse_tree
from respaldo.store.index import Index

MIB = 1 << 20
KEY = bytes(range(32))


@pytest.fixture(scope="module")
def noise() -> bytes:
    """Returns 16 MiB that do not compress."""
    return random.Random(1).randbytes(16 * MIB)


@pytest.fixture(scope="module")
def text() -> bytes:
    """Returns 1 MiB of Python source, which compresses as source does."""
    found = bytearray()
    for path in sorted(Path(os.__file__).parent.glob("*.py")):
        found += path.read_bytes()
        if len(found) >= MIB:
            break
    return bytes(found[:MIB])


@pytest.fixture(scope="module")
def sealer() -> Sealer:
    """Returns a sealer under fixed keys."""
    return Sealer(KeyRing(KEY, KEY), bytes(16), os.urandom)


@pytest.fixture
def small_files(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """Yields a descriptor of a directory of 500 files of 8 KiB, and their number."""
    for number in range(500):
        (tmp_path / f"{number:04}").write_bytes(random.Random(number).randbytes(8 << 10))
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd, 500
    os.close(fd)


def test_cut(benchmark: BenchmarkFixture, noise: bytes) -> None:
    """Cuts 16 MiB of noise."""
    chunker = Chunker(KEY, ChunkerParams.standard())
    benchmark.extra_info["length_bytes"] = len(noise)
    assert sum(benchmark(chunker.lengths, noise, final=True)) == len(noise)


def test_hash(benchmark: BenchmarkFixture, noise: bytes) -> None:
    """Names chunks of 64 KiB."""
    chunks = [noise[at : at + (64 << 10)] for at in range(0, len(noise), 64 << 10)]
    benchmark.extra_info["length_bytes"] = len(noise)
    benchmark(lambda: [blake3(chunk, key=KEY).digest() for chunk in chunks])


def test_compress(benchmark: BenchmarkFixture, text: bytes) -> None:
    """Compresses a block of source."""
    benchmark.extra_info["length_bytes"] = len(text)
    assert benchmark(Compressor().compress, text)


def test_decompress(benchmark: BenchmarkFixture, text: bytes) -> None:
    """Decompresses a block of source."""
    frame = Compressor().compress(text)
    assert frame is not None
    benchmark.extra_info["length_bytes"] = len(text)
    assert benchmark(Decompressor().decompress, frame, len(text), "block") == text


def test_seal(benchmark: BenchmarkFixture, sealer: Sealer, text: bytes) -> None:
    """Seals a block."""
    benchmark.extra_info["length_bytes"] = len(text)
    benchmark(sealer.seal, "data", "", len(text), text)


def test_open(benchmark: BenchmarkFixture, sealer: Sealer, text: bytes) -> None:
    """Opens a block."""
    sealed = b"".join(sealer.seal("data", "", len(text), text))
    benchmark.extra_info["length_bytes"] = len(text)
    assert benchmark(sealer.open, "data", "", len(text), sealed, "block") == text


def _filled(index: Index, packs: int, chunks: int) -> list[ChunkId]:
    ids: list[ChunkId] = []
    for number in range(packs):
        column = blake3(number.to_bytes(4, "little")).digest(chunks * 32)
        footer = Footer(
            session=bytes(16),
            body_hash=bytes(32),
            blocks=(BlockRow(Kind.DATA, 1000, chunks, chunks, bytes(32)),),
            ids=column,
            lengths=u32_array((1).to_bytes(4, "little") * chunks),
        )
        name = PackName(blake3(column).digest())
        index.usable.update(index.add_packs([(name, 1000, footer, footer.encode())]))
        ids += [ChunkId(column[at : at + 32]) for at in range(0, len(column), 32)]
    return ids


def test_index_insert(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """Enters a pack of 10,000 chunks into an index of 100,000."""
    index = Index(tmp_path / "index")
    _filled(index, 10, 10_000)
    numbers = iter(range(1000, 1_000_000))

    def enter() -> None:
        column = os.urandom(320_000)
        footer = Footer(
            session=bytes(16),
            body_hash=bytes(32),
            blocks=(BlockRow(Kind.DATA, 1000, 10_000, 10_000, bytes(32)),),
            ids=column,
            lengths=u32_array((1).to_bytes(4, "little") * 10_000),
        )
        name = PackName(next(numbers).to_bytes(32, "little"))
        index.add_packs([(name, 1000, footer, footer.encode())])

    benchmark.extra_info["chunks"] = 10_000
    benchmark.pedantic(enter, rounds=10)
    index.close()


def test_index_find(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    """Looks 10,000 chunks up among 200,000."""
    index = Index(tmp_path / "index")
    ids = random.Random(1).sample(_filled(index, 20, 10_000), 10_000)
    benchmark.extra_info["chunks"] = len(ids)
    found = benchmark(lambda: [index.find(chunk_id, usable_only=True) for chunk_id in ids])
    assert None not in found
    index.close()


def test_scan(benchmark: BenchmarkFixture, small_files: tuple[int, int]) -> None:
    """Scans a directory of 500 files."""
    fd, count = small_files
    benchmark.extra_info["files"] = count
    assert benchmark(kernel.scan, fd, 0, 0)[0].count(b"\0") == count


def test_gather(benchmark: BenchmarkFixture, small_files: tuple[int, int]) -> None:
    """Reads 500 files of 8 KiB."""
    fd, count = small_files
    names, meta, ident = kernel.scan(fd, 0, 0)
    out = bytearray(count * (8 << 10))
    benchmark.extra_info["length_bytes"] = len(out)
    benchmark(kernel.gather, fd, names, meta, ident, out)


def test_scatter(benchmark: BenchmarkFixture, small_files: tuple[int, int], tmp_path: Path) -> None:
    """Writes 500 files of 8 KiB."""
    fd, count = small_files
    names, meta, ident = kernel.scan(fd, 0, 0)
    out = bytearray(count * (8 << 10))
    kernel.gather(fd, names, meta, ident, out)
    pieces = [memoryview(out)[at : at + (8 << 10)] for at in range(0, len(out), 8 << 10)]
    counts = (1).to_bytes(4, "little") * count
    targets = iter(range(1_000_000))

    def fresh() -> tuple[tuple[object, ...], dict[str, object]]:
        target = tmp_path / f"target{next(targets)}"
        target.mkdir()
        target_fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
        return (target_fd, names, meta, counts, pieces, b".tmp-", 0), {}

    benchmark.extra_info["length_bytes"] = len(out)
    benchmark.pedantic(kernel.scatter, setup=fresh, rounds=5)


def _leaf(count: int) -> Leaf:
    return Leaf(
        names=b"".join(b"file%06d.c\0" % number for number in range(count)),
        meta=META.pack(0o100644, 0, 0, 0, 1234, 10**18, 0) * count,
        content=os.urandom(32 * count),
    )


def test_tree_encode(benchmark: BenchmarkFixture) -> None:
    """Encodes a directory of 1,000 files."""
    leaf = _leaf(1000)
    benchmark.extra_info["entries"] = 1000
    benchmark(leaf.encode)


def test_tree_parse(benchmark: BenchmarkFixture) -> None:
    """Parses and validates a directory of 1,000 files."""
    data = _leaf(1000).encode()
    benchmark.extra_info["entries"] = 1000
    assert len(list(benchmark(parse_tree, data, "tree").entries())) == 1000
