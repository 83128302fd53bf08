"""Chunks out: where a chunk lies, the block it lies in, and its bytes, checked against its id.

`locate` belongs to one thread; `block` and `check` may be called by many. A pack that has gone since the index was read
makes the reader look again for a copy elsewhere, and again where that has gone by then. Never returns bytes that do not
have the id asked for.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from blake3 import blake3

from respaldo.backend.base import Backend
from respaldo.core.errors import ChunkMissing, Corruption, ObjectMissing, StorageFailed
from respaldo.core.ids import CHUNK_ID_BYTES, ChunkId, Kind, PackName, pack_object
from respaldo.core.seams import Buffer
from respaldo.format.pack import Footer, parse_footer
from respaldo.store.index import Index
from respaldo.store.packs import open_block
from respaldo.store.reopened import Reopened
from respaldo.store.vault import Vault

OPENED_AT_ONCE = 2
FETCHED_AT_ONCE = 8
"""So many blocks are under way where storage is far away."""
LOOKS = 6
"""So often packs are listed anew for one chunk: each time in vain only if a collector moved it meanwhile."""
_VAIN_MAX = 3
_FOOTERS_KEPT = 32
_FOOTERS_BYTES = 4 << 20
"""So many footers are kept, and more while their ids take less than this: those of small packs, of which one snapshot
may need hundreds at a time, each for a few chunks."""
KEPT_BYTES = 8 << 20
"""Of blocks with trees and lists, so much is kept decompressed."""
KEPT_BYTES_MANY = 48 << 20
"""And so much by whoever goes through a whole snapshot: its trees lie in the blocks of a hundred others. Of the Linux
source, blocks are opened 1,000 times for 3,100. Less than what deriving the key has taken, and given back, by then."""


class Location(NamedTuple):
    """Says where a chunk lies: pack number, block number in it, offset and length in the block's raw bytes."""

    pack: int
    block: int
    offset: int
    length: int


class Run(NamedTuple):
    """Is chunks one behind the other in a block: pack number (negative: no pack holds them), block, where each lies."""

    pack: int
    block: int
    spans: list[tuple[int, int]]
    """Offset and length in the block's raw bytes."""


_NOWHERE = Run(-1, 0, [(0, 0)])


class _Opened(NamedTuple):
    name: PackName
    footer: Footer


class ChunkSource:
    """Reads chunks of one repository."""

    def __init__(
        self, *, backend: Backend, vault: Vault, index: Index, id_keys: dict[Kind, bytes], reload: Callable[[], None]
    ) -> None:
        self._backend = backend
        self._vault = vault
        self._index = index
        self._id_keys = id_keys
        self._reload = reload
        self._footers: OrderedDict[int, _Opened] = OrderedDict()
        self._footers_bytes = 0
        self._blocks: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._blocks_bytes = 0
        self.reopened = Reopened()
        """Counts the blocks that `get` opens and has kept before."""
        self.kept_bytes = KEPT_BYTES
        """How much `get` keeps of the blocks that it opened; `KEPT_BYTES_MANY` for whoever goes through all trees."""
        self._lock = threading.Lock()
        self._opening = threading.Semaphore(OPENED_AT_ONCE)
        self._vain = 0
        """How many looks in a row did not find a chunk that no pack held: for what is gone, few are enough. A listing
        that runs while chunks move may show neither where one was nor where it is."""

    def locate(self, kind: Kind, chunk_id: ChunkId) -> Location:
        """Returns where a chunk lies; raises `ChunkMissing` where no pack holds it."""
        found = self._index.find(chunk_id, usable_only=False)
        if found is None:
            raise ChunkMissing(kind.word, chunk_id)
        return self.locate_row(*found)

    def locate_row(self, pack: int, row: int) -> Location:
        """Returns where the chunk in a row of a pack lies; raises `ObjectMissing` where the pack is not entered."""
        return Location(pack, *self._opened(pack).footer.place(row))

    def locate_each(self, ids: bytes) -> list[Location | None]:
        """Returns where each of some chunks (32 bytes an id, joined) lies, None for one that no pack holds."""
        places: list[Location | None] = []
        for run in self.locate_runs(ids):
            if run.pack < 0:
                places += [None] * len(run.spans)
            else:
                places += [Location(run.pack, run.block, offset, length) for offset, length in run.spans]
        return places

    def locate_runs(self, ids: bytes) -> list[Run]:
        """Returns where some chunks (32 bytes an id, joined) lie, in their order, as runs of one block each.

        What was stored together is found together: one look-up and a comparison for a whole run.
        """
        runs: list[Run] = []
        at = 0
        while at < len(ids):
            found = self._index.find_run(ids, at, usable_only=False)
            if found is None:
                runs.append(_NOWHERE)
                at += CHUNK_ID_BYTES
                continue
            number, row, count = found
            at += count * CHUNK_ID_BYTES
            try:
                footer = self._opened(number).footer
            except (ObjectMissing, Corruption):  # gone since it was found, or damaged in the cache
                runs += [_NOWHERE] * count
                continue
            runs += [Run(number, block, spans) for block, spans in footer.spans(row, count)]
        return runs

    def _opened(self, number: int) -> _Opened:
        with self._lock:
            opened = self._footers.get(number)
            if opened is not None:
                self._footers.move_to_end(number)
                return opened
        entry = self._index.entry(number)
        if entry is None:
            raise ObjectMissing(f"pack {number}")
        pack, encoded = entry
        opened = _Opened(pack.name, parse_footer(encoded, pack_object(pack.name)))
        with self._lock:
            if number not in self._footers:
                self._footers[number] = opened
                self._footers_bytes += len(opened.footer.ids)
            while len(self._footers) > _FOOTERS_KEPT and self._footers_bytes > _FOOTERS_BYTES:
                self._footers_bytes -= len(self._footers.popitem(last=False)[1].footer.ids)
        return opened

    def sealed_block(self, pack: int, block: int) -> tuple[PackName, Footer, bytes]:
        """Fetches a block as it is stored."""
        opened = self._opened(pack)
        row = opened.footer.blocks[block]
        data = self._backend.get(pack_object(opened.name), opened.footer.offsets[block], row.sealed_length)
        return opened.name, opened.footer, data

    def block(self, pack: int, block: int, *, as_stored: bool = False) -> bytes:
        """Fetches, opens and decompresses one block; raises `Corruption` or a storage error.

        One that is damaged is had from parity where there is any (`Backend.mend`), unless it counts ``as_stored``.
        Any number of threads may wait for storage; a few open what came, since each of them takes memory and a core.
        """
        try:
            return self._block(pack, block)
        except (Corruption, StorageFailed):
            if as_stored or not self._backend.mend(pack_object(self._opened(pack).name)):
                raise
            return self._block(pack, block)

    def _block(self, pack: int, block: int) -> bytes:
        name, footer, data = self.sealed_block(pack, block)
        with self._opening:
            return open_block(self._vault, footer.blocks[block], data, pack_object(name))

    def check(self, kind: Kind, chunk_id: ChunkId, raw: Buffer) -> None:
        """Raises `Corruption` unless the bytes have the id."""
        if blake3(raw, key=self._id_keys[kind]).digest() != chunk_id:
            raise Corruption(f"{kind.word} chunk {chunk_id.hex()[:16]}", "its bytes do not have its id")

    def holds(self, pack: int, row: int) -> bool:
        """Whether what a pack holds in a row has the id that it gives it; False also where that cannot be read now."""
        try:
            footer = self._opened(pack).footer
            at = Location(pack, *footer.place(row))
            raw = memoryview(self.block(pack, at.block, as_stored=True))
            kind = Kind(footer.blocks[at.block].kind)
            self.check(kind, footer.chunk_id(row), raw[at.offset : at.offset + at.length])
        except (Corruption, ObjectMissing):
            return False
        return True

    def has(self, chunk_id: ChunkId) -> bool:
        """Whether a pack holds a chunk, as far as the index knows."""
        return self._index.find(chunk_id, usable_only=False) is not None

    def get(self, kind: Kind, chunk_id: ChunkId) -> bytes:
        """Returns the bytes of one chunk, checked. For trees and lists; keeps the last few blocks. One thread."""
        missed: set[str] = set()
        for look in range(LOOKS):
            try:
                found = self._get(kind, chunk_id)
            except ObjectMissing as error:
                if error.name in missed:  # listed, and not there: nobody moves it
                    raise
                missed.add(error.name)
                self._vain = 0
            except ChunkMissing:
                if self._vain >= _VAIN_MAX:
                    raise
                self._vain += 1
            else:
                self._vain = 0 if look else self._vain
                return found
            self.forget_positions()
            self._reload()
        return self._get(kind, chunk_id)

    def _get(self, kind: Kind, chunk_id: ChunkId) -> bytes:
        try:
            return self._read(kind, chunk_id, self.locate(kind, chunk_id))
        except Corruption as error:
            damaged = error
        for number, row in self._index.copies(chunk_id):  # one damaged copy is no loss while another is sound
            try:
                return self._read(kind, chunk_id, Location(number, *self._opened(number).footer.place(row)))
            except Corruption:
                continue
        raise damaged

    def _read(self, kind: Kind, chunk_id: ChunkId, at: Location) -> bytes:
        key = (at.pack, at.block)
        raw = self._blocks.get(key)
        if raw is None:
            raw = self.block(*key)
            self.reopened.opened(key)
            self._blocks[key] = raw
            self._blocks_bytes += len(raw)
            while self._blocks_bytes > self.kept_bytes and len(self._blocks) > 1:
                gone, block = self._blocks.popitem(last=False)
                self._blocks_bytes -= len(block)
                self.reopened.let_go(gone)
        else:
            self._blocks.move_to_end(key)
        chunk = raw[at.offset : at.offset + at.length]
        self.check(kind, chunk_id, chunk)
        return chunk

    def let_go(self) -> None:
        """Drops the blocks that `get` kept, because they are not needed any more."""
        self._blocks.clear()
        self._blocks_bytes = 0

    def forget_positions(self) -> None:
        """Drops cached footers and blocks, because packs have gone."""
        with self._lock:
            self._footers.clear()
            self._footers_bytes = 0
        self.let_go()
