"""Stages: the data's road, back out and in, each stage alone on one thread, with the repository's own content.

The sample is blocks taken evenly from packs that are taken evenly; a repository without any gets made-up data that half
compresses. Listing and planning are no part of any stage; writing is one file, until it is on the disk.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple, Self, TypeVar

from blake3 import blake3

from respaldo.api.bench.made import piece
from respaldo.api.bench.values import Timing
from respaldo.chunk.chunker import Chunker, ChunkerParams
from respaldo.core.errors import Corruption, TargetError
from respaldo.core.ids import ChunkId, Kind, PackName, pack_object
from respaldo.core.seams import Cancel, Clock
from respaldo.format.pack import BlockRow, Footer, parse_footer
from respaldo.store.repo import Repo

T = TypeVar("T")

RESTORING = ("read", "open", "decompress", "hash", "write")
STORING = ("cut", "hash", "compress", "seal", "write")
PACKS_MAX = 64
_MADE_UP_BLOCKS = 16
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """Is what the stages took. ``own_data``: whether the sample was the repository's content."""

    own_data: bool
    sample_bytes: int
    restoring: tuple[Timing, ...]
    storing: tuple[Timing, ...]
    damaged: int


class _Block(NamedTuple):
    name: PackName
    footer: Footer
    number: int

    @property
    def row(self) -> BlockRow:
        return self.footer.blocks[self.number]


class _Watch:
    """Adds up what each stage of a road took."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._spent: dict[str, list[int]] = {}

    def __call__(self, name: str, length: int, action: Callable[[], T]) -> T:
        started_ns = self._clock.monotonic_ns()
        try:
            return action()
        finally:
            spent = self._spent.setdefault(name, [0, 0])
            spent[0] += length
            spent[1] += self._clock.monotonic_ns() - started_ns

    def timings(self, order: tuple[str, ...]) -> tuple[Timing, ...]:
        return tuple(
            Timing(name=name, length_bytes=self._spent[name][0], duration_ns=self._spent[name][1])
            for name in order
            if name in self._spent
        )


class _File:
    """Is a file that is written to the disk, piece by piece, and removed again."""

    def __init__(self, folder: str, name: str) -> None:
        self._path = os.path.join(folder, name)

    def __enter__(self) -> Self:
        self._file = open(self._path, "xb", buffering=0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        os.unlink(self._path)

    def write(self, data: bytes) -> None:
        self._file.write(data)

    def finish(self) -> None:
        os.fsync(self._file.fileno())


def measure_stages(repo: Repo, *, sample_bytes: int, restored: str, stored: str, cancel: Cancel) -> Stages:
    """Takes blocks back out, then stores what was in them, into files in the two directories that go again.

    Raises `TargetError` where these cannot be written. A damaged block is counted and passed over.
    """
    out, back = _Watch(repo.clock), _Watch(repo.clock)
    chunker = _chunker(repo)
    sample = damaged = 0
    own_data = False
    try:
        with _File(restored, "target") as target, _File(stored, "pack") as pack:
            for block in choose(repo, sample_bytes):
                cancel.check()
                own_data = True
                try:
                    raw = _restore(repo, block, target, out)
                except Corruption:
                    damaged += 1
                    continue
                sample += len(raw)
                _store(repo, chunker, raw, pack, back)
            for _ in range(0 if own_data else _MADE_UP_BLOCKS):
                cancel.check()
                raw = piece(repo.random, _BLOCK_BYTES)
                sample += len(raw)
                _store(repo, chunker, raw, pack, back)
            out("write", 0, target.finish)
            back("write", 0, pack.finish)
    except OSError as error:
        raise TargetError(os.fsencode(restored), error.strerror or str(error)) from None
    return Stages(
        own_data=own_data,
        sample_bytes=sample,
        restoring=out.timings(RESTORING) if own_data else (),
        storing=back.timings(STORING),
        damaged=damaged,
    )


def packs_of(repo: Repo) -> list[PackName]:
    """Returns the packs that the sample is taken from: of many, some, evenly."""
    return [name for name, _ in _packs(repo)]


def _packs(repo: Repo) -> list[tuple[PackName, int]]:
    packs = repo.index.packs()
    step = max(1, -(-len(packs) // PACKS_MAX))
    return [(pack.name, pack.number) for pack in packs[::step]]


def choose(repo: Repo, sample_bytes: int) -> Iterator[_Block]:
    """Yields blocks of data, evenly, until the sample is full."""
    blocks: list[_Block] = []
    for name, number in _packs(repo):
        footer = parse_footer(repo.index.footer(number), pack_object(name))
        blocks += (_Block(name, footer, at) for at, row in enumerate(footer.blocks) if row.kind == Kind.DATA)
    total = sum(block.row.raw_length for block in blocks)
    share = min(1.0, sample_bytes / total) if total else 0.0
    owed = 0.5  # of few blocks, at least one
    for block in blocks:
        owed += share
        if owed >= 1:
            owed -= 1
            yield block


def _chunker(repo: Repo) -> Chunker:
    low, mean, high, strict, loose = repo.config.chunker
    params = ChunkerParams(minimum=low, average=mean, maximum=high, strict=strict, loose=loose)
    return Chunker(repo.ring.chunker_secret, params)


def _restore(repo: Repo, block: _Block, target: _File, watch: _Watch) -> bytes:
    """Does to a block what a restore does."""
    what, row = pack_object(block.name), block.row
    raw_length, vault = row.raw_length, repo.vault
    offset = block.footer.offsets[block.number]
    sealed = watch("read", row.sealed_length, lambda: repo.backend.get(what, offset, row.sealed_length))
    raw = watch("open", raw_length, lambda: vault.sealer.open(Kind.DATA.word, "", raw_length, sealed, what))
    if len(raw) != raw_length:
        message = raw
        raw = watch("decompress", raw_length, lambda: vault.decompressor.decompress(message, raw_length, what))
    watch("hash", raw_length, lambda: _check(repo, block, raw))
    watch("write", raw_length, lambda: target.write(raw))
    return raw


def _check(repo: Repo, block: _Block, raw: bytes) -> None:
    """Compares every chunk with its id."""
    footer, view = block.footer, memoryview(raw)
    first = footer.first_rows[block.number]
    for at, (_, offset, length) in enumerate(footer.places(first, block.row.chunks), first):
        repo.source.check(Kind.DATA, ChunkId(footer.chunk_id(at)), view[offset : offset + length])


def _store(repo: Repo, chunker: Chunker, raw: bytes, pack: _File, watch: _Watch) -> None:
    """Does to a block what a snapshot does."""
    key, vault = repo.ring.id_keys[Kind.DATA], repo.vault

    def name_chunks() -> None:
        at, view = 0, memoryview(raw)
        for length in lengths:
            blake3(view[at : at + length], key=key).digest()
            at += length

    lengths = watch("cut", len(raw), lambda: chunker.lengths(raw, final=True))
    watch("hash", len(raw), name_chunks)
    message = watch("compress", len(raw), lambda: vault.compressor.compress(raw)) or raw
    head, body = watch("seal", len(raw), lambda: vault.sealer.seal(Kind.DATA.word, "", len(raw), message))
    watch("write", len(head), lambda: pack.write(head))
    watch("write", len(body), lambda: pack.write(body))
