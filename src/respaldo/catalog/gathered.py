"""Gathered: all trees below some others, read block by block, by whoever is about to go through them one by one.

The trees of one snapshot lie in the blocks of a hundred before it, a few in each. In the order of paths, a block is
opened for nearly every tree in it, whatever memory holds; so once blocks have been opened again a few times, what comes
is read ahead in another order: always the block of which most is known to be needed, and of it all that is, with what
that refers to in the same block. An answer is the same wherever it comes from; what cannot be read here is left to the
source, which looks elsewhere, and says what is wrong. Holds `GATHERED_BYTES` of trees. One thread.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from contextlib import suppress
from typing import Protocol

from respaldo.catalog.trees import Reader
from respaldo.core.errors import Corruption, ObjectMissing, StorageError
from respaldo.core.ids import CHUNK_ID_BYTES, ChunkId, Kind
from respaldo.core.seams import Buffer
from respaldo.format.tree import parse_references
from respaldo.store.blocks import Location
from respaldo.store.reopened import Key, Reopened

GATHERED_BYTES = 16 << 20
AGAIN_MIN = 4
"""So many blocks have to be opened again first: of most snapshots, and parts of one, none ever is."""
_OVERHEAD_BYTES = 200
_EXPECTED_MAX = 8192
_NOTED_MAX = 1 << 16
"""Of no more trees a note is made at a time, each of which takes as much memory as a small tree does."""


class Source(Protocol):
    """Finds, opens and checks chunks."""

    def locate_each(self, ids: bytes, /) -> Iterable[Location | None]: ...

    def block(self, pack: int, block: int, /) -> bytes: ...

    def check(self, kind: Kind, chunk_id: ChunkId, raw: Buffer, /) -> None: ...

    def let_go(self) -> None:
        """Lets go of blocks that are kept."""
        ...


class Gathered:
    """Reads chunks as a reader does, trees of what was gathered where they are there."""

    def __init__(
        self, source: Source, reader: Reader, reopened: Reopened, *, limit_bytes: int = GATHERED_BYTES
    ) -> None:
        """``reopened``: counts the blocks that the reader opens again."""
        self._source = source
        self._reader = reader
        self._reopened = reopened
        self._before = reopened.count
        self._limit_bytes = limit_bytes
        self._held_bytes = 0
        self._expected: dict[bytes, None] = {}
        self._trees: dict[bytes, bytes] = {}
        self._seen: set[bytes] = set()

    def expect(self, ids: Iterable[bytes]) -> None:
        """Says which trees somebody is likely to go through, with all that is below them; the last ones count."""
        for tree in ids:
            self._expected[bytes(tree)] = None
        while len(self._expected) > _EXPECTED_MAX:
            del self._expected[next(iter(self._expected))]

    def passed(self, tree: bytes) -> None:
        """Says that somebody has come to a tree: those below it are expected by themselves."""
        self._expected.pop(tree, None)

    def lacking(self, ids: bytes) -> bytes:
        """Returns those of some trees (32 bytes an id, joined) that are not here."""
        each = [ids[at : at + CHUNK_ID_BYTES] for at in range(0, len(ids), CHUNK_ID_BYTES)]
        return b"".join([tree for tree in each if tree not in self._trees])

    def get(self, kind: Kind, chunk_id: ChunkId) -> bytes:
        """Returns the bytes of a chunk, checked; raises what the reader does."""
        if kind is not Kind.TREE:
            return self._reader.get(kind, chunk_id)
        if self._expected and self._reopened.count - self._before >= AGAIN_MIN:
            self._gather()
        return self._trees.get(chunk_id) or self._reader.get(kind, chunk_id)

    def has(self, chunk_id: ChunkId) -> bool:
        """Whether a pack holds a chunk, as far as is known."""
        return self._reader.has(chunk_id)

    def _gather(self) -> None:
        """Reads what is expected and all below it, as far as there is room."""
        self._source.let_go()
        if self._held_bytes > self._limit_bytes // 2:  # of what was gone through before
            self._trees.clear()
            self._held_bytes = 0
        wanted: dict[Key, dict[bytes, tuple[int, int]]] = {}
        order: list[tuple[int, Key]] = []
        self._seen.clear()
        self._want(b"".join(self._expected), wanted, order)
        self._expected.clear()
        while order and self._held_bytes < self._limit_bytes:
            count, key = heapq.heappop(order)
            if len(wanted.get(key, ())) != -count:
                continue
            try:
                self._take(key, wanted, order)
            except (Corruption, ObjectMissing):
                continue
            except StorageError:  # for whoever asks next: a hundred more attempts would only take time
                break
        self._seen.clear()
        self._before = self._reopened.count

    def _want(self, ids: bytes, wanted: dict[Key, dict[bytes, tuple[int, int]]], order: list[tuple[int, Key]]) -> None:
        """Notes trees under the blocks that they lie in."""
        keys: dict[Key, None] = {}
        for number, at in enumerate(self._source.locate_each(ids)):
            tree = ids[number * CHUNK_ID_BYTES : (number + 1) * CHUNK_ID_BYTES]
            if at is not None and tree not in self._seen and len(self._seen) < _NOTED_MAX:
                self._seen.add(tree)
                key = (at.pack, at.block)
                keys[key] = None
                wanted.setdefault(key, {})[tree] = (at.offset, at.length)
        for key in keys:
            heapq.heappush(order, (-len(wanted[key]), key))

    def _take(self, key: Key, wanted: dict[Key, dict[bytes, tuple[int, int]]], order: list[tuple[int, Key]]) -> None:
        """Opens a block, and takes all that is wanted of it, until nothing that was taken refers to more of it."""
        found = wanted.pop(key)
        raw = self._source.block(*key)
        while found:
            below = []
            for tree, (offset, length) in found.items():
                piece = raw[offset : offset + length]
                with suppress(Corruption):
                    self._source.check(Kind.TREE, ChunkId(tree), piece)
                    below.append(parse_references(piece, "tree").trees)
                    if tree not in self._trees:
                        self._trees[tree] = piece
                        self._held_bytes += len(piece) + _OVERHEAD_BYTES
            self._want(b"".join(below), wanted, order)
            found = wanted.pop(key, {})
