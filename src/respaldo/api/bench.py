"""Measures a repository on this machine: each stage of the data's road alone, on one thread, with data of its own.

The sample is the repository's own content, blocks taken evenly from all packs; a repository without any gets made-up
data that half compresses. Listing, planning and writing are no part of any stage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from blake3 import blake3

from respaldo.chunk.chunker import Chunker, ChunkerParams
from respaldo.core.ids import Kind, PackName, pack_object
from respaldo.core.seams import Cancel, Clock
from respaldo.format.pack import BlockRow, parse_footer
from respaldo.store.repo import Repo

_MADE_UP_BYTES = 16 << 20
_PIECE_BYTES = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Is what one stage did: raw bytes (for reading, stored bytes) and the time it took."""

    name: str
    length_bytes: int
    duration_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Is a finished measurement. ``own_data``: whether the sample was the repository's content."""

    own_data: bool
    sample_bytes: int
    stages: tuple[Stage, ...]


class _Watch:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.spent: dict[str, list[int]] = {}

    def __call__(self, name: str, action: Callable[[], bytes], length_bytes: int = 0) -> bytes:
        """Times an action; ``length_bytes`` 0 means the length of its result."""
        started_ns = self._clock.monotonic_ns()
        result = action()
        spent = self.spent.setdefault(name, [0, 0])
        spent[0] += length_bytes or len(result)
        spent[1] += self._clock.monotonic_ns() - started_ns
        return result


def measure_stages(repo: Repo, *, sample_bytes: int, cancel: Cancel) -> Bench:
    """Measures read, open and decompress on stored blocks, then cut, hash, compress and seal on what was in them."""
    watch = _Watch(repo.clock)
    raws = list(_stored(repo, watch, sample_bytes, cancel))
    own_data = bool(raws)
    if not own_data:
        raws = list(_made_up(repo))
    chunker = _chunker(repo)
    for raw in raws:
        cancel.check()
        _store(repo, chunker, raw, watch)
    order = ("read", "open", "decompress", "cut", "hash", "compress", "seal")
    return Bench(
        own_data=own_data,
        sample_bytes=sum(map(len, raws)),
        stages=tuple(
            Stage(name=name, length_bytes=watch.spent[name][0], duration_ns=watch.spent[name][1])
            for name in order
            if name in watch.spent
        ),
    )


def _chunker(repo: Repo) -> Chunker:
    low, mean, high, strict, loose = repo.config.chunker
    params = ChunkerParams(minimum=low, average=mean, maximum=high, strict=strict, loose=loose)
    return Chunker(repo.ring.chunker_secret, params)


def _stored(repo: Repo, watch: _Watch, sample_bytes: int, cancel: Cancel) -> Iterator[bytes]:
    """Yields blocks of data as they were, evenly from all packs, until the sample is full."""
    repo.synchronise()
    blocks = list(_blocks(repo))
    total = sum(row.raw_length for _, row, _ in blocks)
    share = min(1.0, sample_bytes / total) if total else 0.0
    owed = 0.0
    for name, row, offset in blocks:
        owed += share
        if owed < 1:
            continue
        owed -= 1
        cancel.check()
        yield _fetch(repo, watch, name, row, offset)


def _blocks(repo: Repo) -> Iterator[tuple[PackName, BlockRow, int]]:
    for pack in list(repo.index.packs()):
        footer = parse_footer(repo.index.footer(pack.number), pack_object(pack.name))
        for row, offset in zip(footer.blocks, footer.offsets, strict=False):
            if row.kind == Kind.DATA:
                yield pack.name, row, offset


def _fetch(repo: Repo, watch: _Watch, name: PackName, row: BlockRow, offset: int) -> bytes:
    what = pack_object(name)
    vault = repo.vault
    sealed = watch("read", lambda: repo.backend.get(what, offset, row.sealed_length))
    message = watch("open", lambda: vault.sealer.open(Kind.DATA.word, "", row.raw_length, sealed, what), row.raw_length)
    if len(message) == row.raw_length:
        return message
    return watch("decompress", lambda: vault.decompressor.decompress(message, row.raw_length, what))


def _store(repo: Repo, chunker: Chunker, raw: bytes, watch: _Watch) -> None:
    """Does to a block what a backup does, but writing it."""
    lengths: list[int] = []

    def cut() -> bytes:
        lengths.extend(chunker.lengths(raw, final=True))
        return raw

    def name_chunks() -> bytes:
        at = 0
        view = memoryview(raw)
        for length in lengths:
            blake3(view[at : at + length], key=repo.ring.id_keys[Kind.DATA]).digest()
            at += length
        return raw

    vault = repo.vault
    watch("cut", cut)
    watch("hash", name_chunks)
    message = watch("compress", lambda: vault.compressor.compress(raw) or raw, len(raw))
    watch("seal", lambda: vault.sealer.seal(Kind.DATA.word, "", len(raw), message)[0], len(raw))


def _made_up(repo: Repo) -> Iterator[bytes]:
    for _ in range(_MADE_UP_BYTES >> 20):
        pieces = [repo.random(_PIECE_BYTES) for _ in range((1 << 20) // _PIECE_BYTES // 2)]
        yield b"".join(piece + piece for piece in pieces)
