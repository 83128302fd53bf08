"""Trees as a mount reads them: out of a few blocks that are kept, and the blocks of what is likely to be next.

Who lists a directory mostly goes on with those in it: the blocks that their trees lie in are fetched and opened ahead,
several at once, which is what a far or slow storage takes. Where that is not enough, because the trees of a snapshot
lie in the blocks of many, all that are below what was listed are gathered (`respaldo.catalog.gathered`): who asked
waits for it, a second or so. `get`, `has` and `prepare` belong to one thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from respaldo.catalog.gathered import Gathered
from respaldo.catalog.trees import Reader
from respaldo.core.errors import ChunkMissing, Corruption, ObjectMissing, RespaldoError
from respaldo.core.ids import CHUNK_ID_BYTES, ChunkId, Kind
from respaldo.store.blocks import Blocks, Location
from respaldo.views.contents import BlockCache

CACHE_BYTES = 24 << 20
"""The trees of a snapshot lie in the blocks of a hundred before it: with 8 MiB, listing all of the Linux source took
half as much CPU time again."""
_PLACES_KEPT = 8192
_AT_ONCE = 4
_AHEAD_MAX = 6
"""So many blocks are brought for one directory at most: more would push one another out."""


class TreeBlocks:
    """Reads trees and lists."""

    def __init__(self, blocks: Blocks, reader: Reader) -> None:
        self._blocks = blocks
        self._cache = BlockCache(blocks.block, CACHE_BYTES)
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="trees")
        self._cached = _Cached(blocks, reader, self._cache)
        self._gathered = Gathered(_Uncached(blocks, self._cache), self._cached, self._cache.reopened)

    def close(self) -> None:
        """Stops reading ahead."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def get(self, kind: Kind, chunk_id: ChunkId) -> bytes:
        """Returns the bytes of one chunk, checked; from elsewhere where it is damaged or gone in its place."""
        self._gathered.passed(chunk_id)
        return self._gathered.get(kind, chunk_id)

    def has(self, chunk_id: ChunkId) -> bool:
        """Whether a pack holds a chunk, as far as is known."""
        return self._gathered.has(chunk_id)

    def prepare(self, ids: bytes) -> None:
        """Has the blocks that some trees (32 bytes an id, joined) lie in brought, if they are not there."""
        self._gathered.expect(ids[at : at + CHUNK_ID_BYTES] for at in range(0, len(ids), CHUNK_ID_BYTES))
        lacking = self._gathered.lacking(ids)
        places = self._blocks.locate_each(lacking)
        self._cached.note(lacking, places)
        keys = dict.fromkeys((at.pack, at.block) for at in places if at is not None)
        missing = [key for key in keys if not self._cache.has(key)]
        for key in missing[:_AHEAD_MAX]:
            self._pool.submit(self._bring, key)

    def _bring(self, key: tuple[int, int]) -> None:
        with suppress(RespaldoError):  # whoever asks for it meets the error and reports it
            self._cache.get(key)


class _Cached:
    """Reads chunks out of blocks that are kept."""

    def __init__(self, blocks: Blocks, reader: Reader, cache: BlockCache) -> None:
        self._blocks = blocks
        self._reader = reader
        self._cache = cache
        self._places: dict[bytes, Location] = {}

    def note(self, ids: bytes, places: Sequence[Location | None]) -> None:
        """Keeps where some trees (32 bytes an id, joined) lie until they are asked for, the last ones."""
        for number, at in enumerate(places):
            if at is not None:
                self._places[ids[number * CHUNK_ID_BYTES : (number + 1) * CHUNK_ID_BYTES]] = at
        while len(self._places) > _PLACES_KEPT:
            del self._places[next(iter(self._places))]

    def get(self, kind: Kind, chunk_id: ChunkId) -> bytes:
        with suppress(Corruption, ObjectMissing, ChunkMissing):
            # Where a place is no longer right, another is found as for any chunk that is damaged in its own.
            at = self._places.pop(chunk_id, None) or self._blocks.locate(kind, chunk_id)
            raw = self._cache.get((at.pack, at.block))[at.offset : at.offset + at.length]
            self._blocks.check(kind, chunk_id, raw)
            return raw
        return self._reader.get(kind, chunk_id)

    def has(self, chunk_id: ChunkId) -> bool:
        return self._reader.has(chunk_id)


class _Uncached:
    """Opens blocks that are needed once, and lets go of those that are kept."""

    def __init__(self, blocks: Blocks, cache: BlockCache) -> None:
        self.locate_each = blocks.locate_each
        self.block = blocks.block
        self.check = blocks.check
        self.let_go = cache.let_go
