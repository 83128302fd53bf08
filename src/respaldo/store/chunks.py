"""Chunks in: content goes to a sink, which names it, finds out whether it is known, and packs what is not.

The caller's thread hashes and looks up; worker threads compress, seal and write. Bounded: so many blocks are under way
and no more, whatever the size of the source. A chunk counts as stored when its pack is durable; `flush` returns when
all are. An error in a worker is raised at the caller's next call, and nothing more is written.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Self

from blake3 import blake3

from respaldo.backend.base import Backend
from respaldo.core.ids import CHUNK_ID_BYTES, ChunkId, Kind
from respaldo.core.seams import Buffer
from respaldo.core.threads import thread_pool
from respaldo.format.pack import BLOCK_RAW_BYTES_MAX
from respaldo.store.index import Index
from respaldo.store.packs import Block, Finished, PackWriter, seal_block
from respaldo.store.relied import Relied
from respaldo.store.uploads import Uploads, of_storage
from respaldo.store.vault import Vault

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

    from respaldo.store.repo import Repo

WORKERS = 2
BLOCKS_UNDER_WAY = 6
_TREE_PACK_HELD_BYTES = 4 << 20
_ENTERED_MASK = (1 << 20) - 1


@dataclass(slots=True)
class Tally:
    """Counts what went through a sink, in chunks and bytes."""

    chunks_new: int = 0
    bytes_new: int = 0
    chunks_known: int = 0
    bytes_known: int = 0
    stored_bytes: int = 0


class _Open:
    """Is a block that still takes chunks: a buffer, and how far it is filled."""

    __slots__ = ("filled", "ids", "lengths", "view")

    def __init__(self, view: memoryview) -> None:
        self.view = view
        self.filled = 0
        self.ids = bytearray()
        self.lengths = bytearray()


class ChunkSink:
    """Stores chunks for one session. `put` and `flush` belong to one thread."""

    def __init__(
        self,
        *,
        backend: Backend,
        vault: Vault,
        index: Index,
        id_keys: dict[Kind, bytes],
        session: bytes,
        block_bytes: int,
        pack_bytes: int,
        workers: int = WORKERS,
    ) -> None:
        self._backend = backend
        self._vault = vault
        self._index = index
        self._id_keys = id_keys
        self._session = session
        self._block_bytes = block_bytes
        self._pack_bytes = pack_bytes
        # Buffers go round: a fresh one for every block costs as much in page faults as hashing what goes into it.
        self._free: list[memoryview] = []
        self._open = {kind: _Open(memoryview(b"")) for kind in Kind}
        self._fresh: set[bytes] = set()
        self._entered = bytearray(_ENTERED_MASK + 1)
        """By some bits of their ids, whether there may be chunks among those that this sink stored and entered."""
        self._lock = threading.Lock()
        self._packs = {False: self._new_pack(trees=False), True: self._new_pack(trees=True)}
        self._uploads = Uploads(distant=backend.distant, failed=self._fail)
        self._under_way: deque[Future[None]] = deque()
        self._workers = workers
        self._limit = BLOCKS_UNDER_WAY
        self._failed: BaseException | None = None
        self.relied = Relied()
        self.tally = Tally()
        self.unlisted: list[Finished] = []
        """Packs that are durable and indexed but stand in no segment yet."""
        self.wanting: set[bytes] = set()
        """Ids of chunks that are damaged or lost: of those that are stored again, account is kept."""
        self.healed = 0
        self.own_packs: set[int] = set()
        """Numbers of the packs that this sink made."""

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        """The workers; where nothing is new, there are none."""
        return thread_pool(self._workers, "seal")

    def _new_pack(self, *, trees: bool) -> PackWriter:
        held = _TREE_PACK_HELD_BYTES if trees else 0
        return PackWriter(self._backend, self._vault, self._session, stage_after_bytes=held)

    def _fail(self, error: BaseException) -> None:
        self._failed = error

    @classmethod
    def into(cls, repo: Repo, session: bytes) -> Self:
        """Returns a sink into an open repository."""
        return cls(
            backend=repo.backend,
            vault=repo.vault,
            index=repo.index,
            id_keys=repo.ring.id_keys,
            session=session,
            block_bytes=repo.config.block_bytes,
            pack_bytes=repo.config.pack_bytes,
        )

    def name(self, kind: Kind, raw: Buffer) -> ChunkId:
        """Returns the id that a chunk has or would have."""
        return ChunkId(blake3(raw, key=self._id_keys[kind]).digest())

    def knows(self, kind: Kind, chunk_id: ChunkId) -> bool:
        """Whether a chunk is stored or on its way; relies on it where it is."""
        if chunk_id in self._fresh:
            return True
        found = self._index.find(chunk_id, usable_only=True)
        if found is None:
            return False
        self.relied.add(found[0], kind, chunk_id)
        return True

    def put(self, kind: Kind, raw: Buffer) -> ChunkId:
        """Stores a chunk unless it is known; copies the bytes. Returns its id."""
        return self.put_each(kind, memoryview(raw), ((0, len(raw)),))[0]

    def put_each(self, kind: Kind, data: memoryview, spans: Sequence[tuple[int, int]]) -> list[ChunkId]:
        """Does what `put` does with every span (from, to) of a buffer; returns their ids."""
        if self._failed is not None:
            raise self._failed
        key, fresh, find, tally = self._id_keys[kind], self._fresh, self._index.find, self.tally
        block = self._open[kind]
        # Where all there is was stored by this session, a look-up is worth its time only for what may be among it.
        seen = self._entered if self._index.usable == self.own_packs else None
        ids: list[ChunkId] = []
        for start, end in spans:
            raw = data[start:end]
            chunk_id = ChunkId(blake3(raw, key=key).digest())
            ids.append(chunk_id)
            if chunk_id in fresh:
                tally.chunks_known += 1
                tally.bytes_known += end - start
                continue
            if seen is None or seen[int.from_bytes(chunk_id[:3], "little") & _ENTERED_MASK]:
                found = find(chunk_id, usable_only=True)
                if found is not None:
                    self.relied.add(found[0], kind, chunk_id)
                    tally.chunks_known += 1
                    tally.bytes_known += end - start
                    continue
            fresh.add(chunk_id)
            if self.wanting and chunk_id in self.wanting:
                self.wanting.discard(chunk_id)
                self.healed += 1
            tally.chunks_new += 1
            tally.bytes_new += end - start
            if block.filled + end - start > len(block.view):
                block = self._room(kind, end - start)
            block.view[block.filled : block.filled + end - start] = raw
            block.filled += end - start
            block.ids += chunk_id
            block.lengths += (end - start).to_bytes(4, "little")
        return ids

    def copy(self, block: Block) -> None:
        """Appends a block as it is sealed, for whoever moves it from another pack and has checked it."""
        if self._failed is not None:
            raise self._failed
        self._fresh.update(block.ids[at : at + CHUNK_ID_BYTES] for at in range(0, len(block.ids), CHUNK_ID_BYTES))
        self._wait_for_room()
        self._under_way.append(self._pool.submit(self._pass_on, block))
        if self._uploads.finished:
            self._enter()

    def _pass_on(self, block: Block) -> None:
        """Runs in a worker: appends a sealed block to a pack; finishes the pack that is full."""
        try:
            full = self._append(block, trees=block.kind is not Kind.DATA)
            if full is not None:
                self._uploads.finish(full)
        except BaseException as error:
            self._failed = error
            raise

    def _wait_for_room(self) -> None:
        while len(self._under_way) >= self._limit:
            self._under_way.popleft().result()
        while self._under_way and self._under_way[0].done():
            self._under_way.popleft().result()

    def _room(self, kind: Kind, length: int) -> _Open:
        """Submits the open block of a kind and opens one that takes a chunk of a length.

        Raises ValueError for one that no block may hold: it could be stored and never be read.
        """
        if length > BLOCK_RAW_BYTES_MAX:
            msg = f"a chunk of {length} bytes is longer than a block can be"
            raise ValueError(msg)
        if self._open[kind].filled:
            self._submit(kind)
        if length > self._block_bytes:
            view = memoryview(bytearray(length))
        else:
            view = self._free.pop() if self._free else memoryview(bytearray(self._block_bytes))
        block = self._open[kind] = _Open(view)
        return block

    def separate(self) -> None:
        """Closes the open blocks: what comes next is not compressed together with what came before."""
        for kind in Kind:
            if self._open[kind].filled:
                self._submit(kind)

    def _submit(self, kind: Kind) -> None:
        block, self._open[kind] = self._open[kind], _Open(memoryview(b""))
        self._wait_for_room()
        self._under_way.append(self._pool.submit(self._seal, kind, block))
        if self._uploads.finished:
            self._enter()

    def _seal(self, kind: Kind, block: _Open) -> None:
        """Runs in a worker: seals a block and appends it to a pack; finishes the pack that is full."""
        try:
            raw = block.view[: block.filled]
            sealed = seal_block(self._vault, kind, raw, bytes(block.ids), bytes(block.lengths))
            if len(block.view) == self._block_bytes:
                self._free.append(block.view)
            full = self._append(sealed, trees=kind is not Kind.DATA)
            if full is not None:
                self._uploads.finish(full)
        except BaseException as error:
            self._failed = error
            raise

    def _append(self, sealed: Block, *, trees: bool) -> PackWriter | None:
        """Appends a block to the pack in the making; returns the one before it where that is full."""
        full = None
        with self._lock:
            if self._failed is not None:  # the pack may lack a block that its footer would list
                raise self._failed
            pack = self._packs[trees]
            if pack.body_length and pack.estimate(sealed) > self._pack_bytes:
                full, pack = pack, self._new_pack(trees=trees)
                self._packs[trees] = pack
            try:
                self._add(pack, sealed)
            except BaseException as error:
                self._failed = error
                if full is not None:
                    full.discard()
                raise
        return full

    def _add(self, pack: PackWriter, block: Block) -> None:
        with of_storage():
            pack.add(block)
        self.tally.stored_bytes += block.sealed_length

    def _enter(self) -> None:
        """Enters the packs that are durable into the index; their chunks leave the set in memory."""
        packs = []
        while self._uploads.finished:
            packs.append(self._uploads.finished.popleft())
        if not packs:
            return
        numbers = self._index.add_packs((item.name, item.length_bytes, item.footer, item.encoded) for item in packs)
        self._index.usable.update(numbers)
        self.own_packs.update(numbers)
        self.unlisted += packs
        for item in packs:
            ids = item.footer.ids
            for at in range(0, len(ids), CHUNK_ID_BYTES):
                self._fresh.discard(ids[at : at + CHUNK_ID_BYTES])
                self._entered[int.from_bytes(ids[at : at + 3], "little") & _ENTERED_MASK] = 1

    def flush(self) -> None:
        """Returns when every chunk that was put is durable and indexed."""
        if self._failed is not None:
            raise self._failed
        try:
            self._flush()
        except BaseException as error:
            self._failed = error
            raise

    def _flush(self) -> None:
        self.separate()
        while self._under_way:
            self._under_way.popleft().result()
        data, trees = self._packs[False], self._packs[True]
        if trees.held and data.body_length:
            for block in trees.held:
                if data.body_length and data.estimate(block) > self._pack_bytes:
                    self._uploads.finish(data)
                    data = self._packs[False] = self._new_pack(trees=False)
                data.add(block)
            trees.held.clear()
            trees = self._packs[True] = self._new_pack(trees=True)
        for pack in (data, trees):
            if pack.body_length:
                self._uploads.finish(pack)
        self._packs = {False: self._new_pack(trees=False), True: self._new_pack(trees=True)}
        self._uploads.wait()
        self._enter()

    def close(self) -> None:
        """Stops the workers and drops what is not finished."""
        if "_pool" in self.__dict__:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._uploads.close()
        for pack in self._packs.values():
            pack.discard()
        self.relied.close()
