"""Moves chunks between repositories that name content alike, block by block, without cutting or naming anything anew.

Invariant: every chunk that goes over was compared with its id. A block that is wanted whole is sealed again as it was
compressed; of any other, the chunks that are wanted are taken out and compressed anew, apart from those of every other
block, because blocks never mix sources. Threads read, open, check and seal; so many blocks are under way and no more.
Implements docs/format.md, "Copies".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

from blake3 import blake3

from respaldo.codec.seal import HEAD_BYTES
from respaldo.core.errors import Corruption, ObjectMissing, StorageFailed
from respaldo.core.ids import ChunkId, Kind, pack_object
from respaldo.core.seams import Cancel, Progress
from respaldo.flows.copying.needs import GONE
from respaldo.format.pack import Footer, parse_footer
from respaldo.store.bitmaps import Bitmaps, set_bits
from respaldo.store.chunks import ChunkSink
from respaldo.store.header import still_there
from respaldo.store.packs import Block, block_of
from respaldo.store.repo import Repo
from respaldo.store.source import FETCHED_AT_ONCE

_AT_ONCE = 4
_THREADS = 2


class _Task(NamedTuple):
    """Is a block of the source of which something is wanted."""

    what: str
    footer: Footer
    block: int
    rows: tuple[int, ...]

    @property
    def whole(self) -> bool:
        return len(self.rows) == self.footer.blocks[self.block].chunks

    @property
    def raw_bytes(self) -> int:
        if self.whole:
            return self.footer.blocks[self.block].raw_length
        return sum(self.footer.lengths[row] for row in self.rows)

    @property
    def sealed_bytes(self) -> int:
        return self.footer.blocks[self.block].sealed_length


class SourceMovedError(Exception):
    """Says that a collector moved things in the source: what is needed is to be looked for anew."""


class _Part(NamedTuple):
    """Is an opened block, of which some chunks are wanted."""

    raw: bytes


@dataclass(slots=True)
class Moved:
    """Counts what goes over. ``stored_bytes``: of the blocks that go over as they are."""

    chunks: int = 0
    raw_bytes: int = 0
    read_bytes: int = 0
    stored_bytes: int = 0
    blocks: int = 0
    blocks_kept: int = 0

    def add(self, task: _Task) -> None:
        """Counts a block."""
        self.chunks += len(task.rows)
        self.raw_bytes += task.raw_bytes
        self.read_bytes += task.sealed_bytes
        self.blocks += 1
        if task.whole:
            self.blocks_kept += 1
            self.stored_bytes += task.sealed_bytes


class Mover:
    """Moves into one sink. `move` belongs to one thread."""

    def __init__(
        self, source: Repo, target: Repo, *, progress: Progress, cancel: Cancel, checkpoint: Callable[[], object]
    ) -> None:
        self._source = source
        self._target = target
        self._progress = progress
        self._cancel = cancel
        self._checkpoint = checkpoint

    def measure(self, wanted: Bitmaps) -> Moved:
        """Counts what `move` would move."""
        moved = Moved()
        for task in self._tasks(wanted):
            moved.add(task)
        return moved

    def move(self, wanted: Bitmaps, sink: ChunkSink) -> tuple[Moved, set[bytes]]:
        """Moves what is wanted and forgets it; returns counts, and the ids of what the source does not have sound."""
        moved = Moved()
        lost: set[bytes] = set()
        under_way: deque[tuple[_Task, Future[Block | _Part]]] = deque()
        limit = FETCHED_AT_ONCE if self._source.backend.distant else _AT_ONCE
        with ThreadPoolExecutor(limit if self._source.backend.distant else _THREADS, "move") as pool:
            try:
                for task in self._tasks(wanted):
                    self._cancel.check()
                    under_way.append((task, pool.submit(self._fetch, task)))
                    if len(under_way) >= limit:
                        self._put(*under_way.popleft(), sink, moved, lost)
                while under_way:
                    self._cancel.check()
                    self._put(*under_way.popleft(), sink, moved, lost)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        wanted.rows.clear()
        return moved, lost

    def _tasks(self, wanted: Bitmaps) -> Iterator[_Task]:
        """Yields blocks in the order in which they lie."""
        for number in sorted(wanted.rows):
            entry = self._source.index.entry(number)
            if entry is None:
                raise SourceMovedError
            what = pack_object(entry[0].name)
            footer = parse_footer(entry[1], what)
            bits = wanted.number(number)
            for at, block in enumerate(footer.blocks):
                first = footer.first_rows[at]
                part = (bits >> first) & ((1 << block.chunks) - 1)
                if part:
                    rows = (row for row, bit in enumerate(set_bits(part, block.chunks), first) if bit)
                    yield _Task(what, footer, at, tuple(rows))

    # --- in a thread -----------------------------------------------------------------------------------------------

    def _fetch(self, task: _Task) -> Block | _Part:
        try:
            return self._open(task)
        except (Corruption, StorageFailed):
            if not self._source.backend.mend(task.what):
                raise
            return self._open(task)

    def _open(self, task: _Task) -> Block | _Part:
        footer, row = task.footer, task.footer.blocks[task.block]
        kind = Kind(row.kind)
        sealed = self._source.backend.get(task.what, footer.offsets[task.block], row.sealed_length)
        if len(sealed) != row.sealed_length or sealed[24:HEAD_BYTES] != row.commitment:
            raise Corruption(task.what, "a block is not the one that the footer describes")
        message = self._source.vault.sealer.open(kind.word, "", row.raw_length, sealed, task.what)
        raw = message
        if len(message) != row.raw_length:
            raw = self._source.vault.decompressor.decompress(message, row.raw_length, task.what)
        if not task.whole:
            return _Part(raw)
        key, view, at = self._source.ring.id_keys[kind], memoryview(raw), 0
        for number in task.rows:
            length = footer.lengths[number]
            if blake3(view[at : at + length], key=key).digest() != footer.chunk_id(number):
                raise Corruption(task.what, "a chunk does not have its id")
            at += length
        head, body = self._target.vault.sealer.seal(kind.word, "", row.raw_length, message)
        return block_of(footer, task.block, head, body)

    # --- in the caller's -------------------------------------------------------------------------------------------

    def _put(self, task: _Task, future: Future[Block | _Part], sink: ChunkSink, moved: Moved, lost: set[bytes]) -> None:
        try:
            got = future.result()
        except (Corruption, ObjectMissing, StorageFailed) as error:
            if isinstance(error, StorageFailed):
                still_there(self._source.backend, error)
            self._one_by_one(task, sink, moved, lost)
        else:
            moved.add(task)
            if isinstance(got, Block):
                sink.copy(got)
                sink.tally.chunks_new += len(task.rows)
                sink.tally.bytes_new += task.raw_bytes
            else:
                self._part(task, got.raw, sink, lost)
        self._progress.advance(length_bytes=task.raw_bytes)
        self._checkpoint()

    def _part(self, task: _Task, raw: bytes, sink: ChunkSink, lost: set[bytes]) -> None:
        """Puts some chunks of a block, checked one by one."""
        kind, view = Kind(task.footer.blocks[task.block].kind), memoryview(raw)
        for row in task.rows:
            _, offset, length = task.footer.place(row)
            chunk_id, chunk = task.footer.chunk_id(row), view[offset : offset + length]
            try:
                self._source.source.check(kind, chunk_id, chunk)
            except Corruption:
                lost.add(chunk_id)
                continue
            sink.put(kind, chunk)
        sink.separate()

    def _one_by_one(self, task: _Task, sink: ChunkSink, moved: Moved, lost: set[bytes]) -> None:
        """Puts what is to be had of a block that is damaged, or has gone: chunks that lie elsewhere, too."""
        kind = Kind(task.footer.blocks[task.block].kind)
        moved.blocks += 1
        moved.read_bytes += task.sealed_bytes
        for row in task.rows:
            chunk_id = ChunkId(task.footer.chunk_id(row))
            try:
                raw = self._source.source.get(kind, chunk_id)
            except (*GONE, StorageFailed) as error:
                if isinstance(error, StorageFailed):
                    still_there(self._source.backend, error)
                lost.add(chunk_id)
                continue
            moved.chunks += 1
            moved.raw_bytes += len(raw)
            sink.put(kind, raw)
        sink.separate()
