"""Contents as a mount reads them: any range of a file, from a bounded cache of decoded blocks.

Invariant: a byte is given only out of a chunk that has its id; a range that touches a damaged chunk fails as a whole,
and no other range does. Memory is flat: so many bytes of blocks and so many nodes of lists are kept, whatever is read.
Any number of threads; what belongs to one thread (index, trees) is under the lock that the caller shares with it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import NamedTuple

from respaldo.catalog.trees import Reader, read_node
from respaldo.core.errors import ChunkMissing, Corruption, ObjectMissing, StorageError
from respaldo.core.ids import ChunkId, Kind
from respaldo.core.model import Content, Entry
from respaldo.format.content import HOLE, Row
from respaldo.store.blocks import Blocks
from respaldo.store.reopened import Reopened

CACHE_BYTES = 24 << 20
AHEAD_BYTES = 2 << 20
"""So far ahead of whoever reads a file in sequence its blocks are decoded."""
_NODES_KEPT = 12
_ZEROS = memoryview(bytes(1 << 20))


class Piece(NamedTuple):
    """Is a piece of a file: where it begins, its length, its chunk (`HOLE` for a hole)."""

    start: int
    length: int
    id: ChunkId


class OpenFile:
    """Is a file that is being read: its entry, and how far somebody has come who reads it in sequence."""

    __slots__ = ("entry", "lengths", "next_at", "ready_to")

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.lengths: list[int] | None = None
        """Of each of its chunks, where it refers to them directly; found when first needed."""
        self.next_at = 0
        self.ready_to = 0
        """The first byte that nobody was sent ahead for."""


class BlockCache:
    """Keeps decoded blocks, the last used ones, up to so many bytes; a block that several ask for is decoded once."""

    def __init__(self, fetch: Callable[[int, int], bytes], length_bytes: int) -> None:
        self._fetch = fetch
        self._length_bytes = length_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._under_way: dict[tuple[int, int], Future[bytes]] = {}
        self.held_bytes = 0
        self.reopened = Reopened()

    def let_go(self) -> None:
        """Drops what is kept."""
        with self._lock:
            self._kept.clear()
            self.held_bytes = 0

    def get(self, key: tuple[int, int]) -> bytes:
        """Returns a block; raises what fetching it raised, to everybody who waited for it."""
        with self._lock:
            raw = self._kept.get(key)
            if raw is not None:
                self._kept.move_to_end(key)
                return raw
            coming = self._under_way.get(key)
            mine = coming is None
            if coming is None:
                coming = self._under_way[key] = Future()
        if mine:
            self._bring(key, coming)
        return coming.result()

    def _bring(self, key: tuple[int, int], coming: Future[bytes]) -> None:
        try:
            raw = self._fetch(*key)
        except BaseException as error:  # noqa: BLE001 - handed on to whoever asks for the result
            with self._lock:
                del self._under_way[key]
            coming.set_exception(error)
            return
        with self._lock:
            del self._under_way[key]
            self.reopened.opened(key)
            self._kept[key] = raw
            self.held_bytes += len(raw)
            while self.held_bytes > self._length_bytes and len(self._kept) > 1:
                gone, block = self._kept.popitem(last=False)
                self.held_bytes -= len(block)
                self.reopened.let_go(gone)
        coming.set_result(raw)

    def has(self, key: tuple[int, int]) -> bool:
        """Whether a block is there or on its way."""
        with self._lock:
            return key in self._kept or key in self._under_way


class Contents:
    """Reads ranges of files."""

    def __init__(
        self,
        blocks: Blocks,
        reader: Reader,
        lock: AbstractContextManager[object],
        *,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self._blocks = blocks
        self._reader = reader
        self._lock = lock
        self.cache = BlockCache(blocks.block, cache_bytes)
        self._nodes: OrderedDict[tuple[ChunkId, int], list[Row]] = OrderedDict()
        self._ahead = ThreadPoolExecutor(1, thread_name_prefix="ahead")

    def close(self) -> None:
        """Stops reading ahead."""
        self._ahead.shutdown(wait=True, cancel_futures=True)

    def read(self, file: OpenFile, offset: int, length: int) -> list[memoryview]:
        """Returns the bytes of a range, cut off at the file's end, in parts.

        Raises `Corruption`, `ChunkMissing`, `StorageError` where any of them cannot be had.
        """
        end = min(offset + length, file.entry.size)
        if offset >= end:
            return []
        with self._lock:
            pieces = list(self._pieces(file, offset, end))
        parts: list[memoryview] = []
        at = offset
        for piece in pieces:
            if piece.start > at:
                break
            low, high = at - piece.start, min(end - piece.start, piece.length)
            if piece.id == HOLE:
                parts += _zeros(high - low)
            else:
                parts.append(memoryview(self._chunk(piece))[low:high])
            at = piece.start + high
        if at != end:
            raise Corruption(f"content of {_shown(file.entry.name)}", "it does not add up to the file's size")
        self._look_ahead(file, offset, end)
        return parts

    def seek(self, file: OpenFile, offset: int, *, data: bool) -> int | None:
        """Returns where the next data, or the next hole, begins from an offset on, None where there is none.

        The end of a file is a hole.
        """
        size = file.entry.size
        if offset >= size:
            return None
        if not file.entry.content.level:
            return offset if data else size
        content = file.entry.content
        for top in content:
            found = self._seek(top, content.level, 0, offset, set(), data=data)
            if found is not None:
                return found if found < size else None if data else size
        return None if data else size

    def _seek(
        self, node: ChunkId, level: int, start: int, offset: int, without: set[tuple[ChunkId, int]], *, data: bool
    ) -> int | None:
        """Returns where the next data or hole below a node begins; ``without``: nodes that have none of it at all.

        Such a one is gone through once, however often a list names it: whoever makes lists up can name it for ever.
        """
        at = start
        for row in self._rows(node, level):
            key = row.id, level - 1
            if at + row.length > offset and (level == 1 or key not in without):
                if level == 1:
                    found = max(at, offset) if (row.id != HOLE) is data else None
                else:
                    found = self._seek(row.id, level - 1, at, offset, without, data=data)
                if found is not None:
                    return found
                if at >= offset:
                    without.add(key)
            at += row.length
        return None

    def data_bytes(self, entry: Entry) -> int:
        """Returns how many bytes of a file are not holes; where its list cannot be read, its size."""
        if not entry.content.level:
            return entry.size
        try:
            held: dict[tuple[ChunkId, int], int] = {}
            return min(entry.size, sum(self._data_below(top, entry.content.level, held) for top in entry.content))
        except (ChunkMissing, Corruption, StorageError):
            return entry.size

    def _data_below(self, node: ChunkId, level: int, held: dict[tuple[ChunkId, int], int]) -> int:
        """Returns how many bytes below a node are not holes; each is added up once, however often it is named."""
        total = held.get((node, level))
        if total is None:
            rows = self._rows(node, level)
            if level == 1:
                total = sum(row.length for row in rows if row.id != HOLE)
            else:
                total = sum(self._data_below(row.id, level - 1, held) for row in rows)
            held[node, level] = total
        return total

    def _rows(self, node: ChunkId, level: int) -> list[Row]:
        """Reads the rows of a list, and lets others in between two of them."""
        with self._lock:
            return self._node(node, level)

    def _look_ahead(self, file: OpenFile, offset: int, end: int) -> None:
        """Has the next blocks decoded for whoever reads in sequence, a little apart from one another as they come."""
        in_sequence = offset <= file.next_at <= end or offset == file.next_at
        file.next_at = max(end, file.next_at) if in_sequence else end
        if not in_sequence:
            file.ready_to = end
            return
        if file.ready_to - end < AHEAD_BYTES // 2 and file.ready_to < file.entry.size and end > length_alone(file):
            first, file.ready_to = max(file.ready_to, end), min(end + AHEAD_BYTES, file.entry.size)
            self._ahead.submit(self._prepare, file, first, file.ready_to)

    def _prepare(self, file: OpenFile, first: int, end: int) -> None:
        try:
            with self._lock:
                chunks = [piece for piece in self._pieces(file, first, end) if piece.id != HOLE]
                places = [self._blocks.locate(Kind.DATA, piece.id) for piece in chunks]
            for key in dict.fromkeys((place.pack, place.block) for place in places):
                self.cache.get(key)
        except Exception:  # noqa: BLE001, S110 - whoever reads on meets the error and reports it
            pass

    def _chunk(self, piece: Piece) -> bytes | memoryview:
        """Returns a chunk, checked: from where the index says, and where that is damaged or gone, from elsewhere."""
        try:
            with self._lock:
                at = self._blocks.locate(Kind.DATA, piece.id)
            raw = memoryview(self.cache.get((at.pack, at.block)))[at.offset : at.offset + at.length]
            self._blocks.check(Kind.DATA, piece.id, raw)
        except (Corruption, ObjectMissing, ChunkMissing):
            with self._lock:
                raw = memoryview(self._blocks.copy(Kind.DATA, piece.id))
        if len(raw) != piece.length:
            raise Corruption(f"data chunk {piece.id.hex()[:16]}", "its length is not the one its file says")
        return raw

    def _pieces(self, file: OpenFile, offset: int, end: int) -> Iterator[Piece]:
        """Yields the pieces that a range touches."""
        content = file.entry.content
        if content.level:
            at = 0
            for chunk_id in content:
                yield from self._below(chunk_id, content.level, at, offset, end)
                at = end  # a list has one top node
            return
        if file.lengths is None:
            file.lengths = self._lengths(content, file.entry.size)
        at = 0
        for chunk_id, length in zip(content, file.lengths, strict=True):
            if at < end and at + length > offset:
                yield Piece(at, length, chunk_id)
            at += length

    def _lengths(self, content: Content, size: int) -> list[int]:
        if len(content) == 1:
            return [size]
        return [self._blocks.locate(Kind.DATA, chunk_id).length for chunk_id in content]

    def _below(self, node: ChunkId, level: int, start: int, offset: int, end: int) -> Iterator[Piece]:
        at = start
        for row in self._node(node, level):
            if at >= end:
                return
            if at + row.length > offset:
                if level == 1:
                    yield Piece(at, row.length, row.id)
                else:
                    yield from self._below(row.id, level - 1, at, offset, end)
            at += row.length

    def _node(self, node: ChunkId, level: int) -> list[Row]:
        kept = self._nodes.get((node, level))
        if kept is not None:
            self._nodes.move_to_end((node, level))
            return kept
        rows = read_node(self._reader, node, level)
        self._nodes[node, level] = rows
        while len(self._nodes) > _NODES_KEPT:
            self._nodes.popitem(last=False)
        return rows


def length_alone(file: OpenFile) -> int:
    """Returns up to where reading a file in sequence brings nobody ahead: one chunk is there when it was asked for."""
    return 0 if len(file.entry.content) > 1 or file.entry.content.level else file.entry.size


def _zeros(length: int) -> list[memoryview]:
    whole, rest = divmod(length, len(_ZEROS))
    return [_ZEROS] * whole + ([_ZEROS[:rest]] if rest else [])


def _shown(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
