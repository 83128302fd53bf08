"""Packs read whole: name, blocks, chunks, footer and trailer, by two threads, a few megabytes of each pack at a time.

A pack's bytes are hashed as they come, so that they are read once. Where the storage fails within a pack, each block is
tried by itself, so that one bad sector costs one block. Implements the end of docs/format.md, "Reading".
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from blake3 import blake3

from respaldo.backend.base import Backend
from respaldo.codec.seal import OVERHEAD_BYTES
from respaldo.core.errors import Corruption, ObjectMissing, StorageFailed
from respaldo.core.ids import CHUNK_ID_BYTES, Kind, PackName, pack_object
from respaldo.core.seams import Buffer, Cancel
from respaldo.flows.check.sums import PackSums
from respaldo.format.pack import PACK_BYTES_MAX, TRAILER_BYTES, Footer, parse_footer, parse_trailer
from respaldo.store.packs import open_block, open_footer
from respaldo.store.vault import Vault

WORKERS = 2
WORKERS_FAR = 4
"""Where storage is far away: half of them wait."""
PIECE_BYTES = 4 << 20
NOT_ITS_NAME = "its bytes do not have its name"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Is a pack to read: its number (0 where the index does not know it), name, length, and encoded footer.

    ``sums`` takes chunks along, where the SHA-256 of files is computed.
    """

    number: int
    name: PackName
    length_bytes: int
    encoded: bytes
    sums: PackSums | None = None


@dataclass(slots=True, kw_only=True)
class Inspection:
    """Is what reading a pack showed: reasons, and the rows that are no use with theirs."""

    target: Target
    reasons: list[str] = field(default_factory=list)
    spoilt: list[tuple[range, str]] = field(default_factory=list)
    digest: bytes = b""
    read_bytes: int = 0
    raw_bytes: int = 0
    chunks: int = 0
    gone: bool = False
    failure: StorageFailed | None = None

    @property
    def sound(self) -> bool:
        """Whether everything is as it should be."""
        return not (self.reasons or self.spoilt or self.gone or self.failure)


class Pieces:
    """Hands out an object's bytes one after another, and hashes them."""

    __slots__ = ("_at", "_backend", "_held", "_length", "_name", "_next", "hasher")

    def __init__(self, backend: Backend, name: str, length_bytes: int) -> None:
        self._backend = backend
        self._name = name
        self._length = length_bytes
        self._next = 0
        self._held = memoryview(b"")
        self._at = 0
        self.hasher = hashlib.sha256()

    def take(self, length: int) -> Buffer:
        """Returns the next bytes; fewer where the object ends before."""
        end = self._at + length
        if end > len(self._held):
            rest = self._held[self._at :]
            wanted = max(PIECE_BYTES, length) - len(rest)
            fresh = self._backend.get(self._name, self._next, max(0, min(wanted, self._length - self._next)))
            self._next += len(fresh)
            self._held = memoryview(b"".join((rest, fresh)))
            self._at, end = 0, length
        taken = self._held[self._at : end]
        self._at += len(taken)
        self.hasher.update(taken)
        return taken

    def drain(self) -> None:
        """Takes what is left."""
        while self.take(PIECE_BYTES):
            pass


class PackReader:
    """Reads packs whole. Thread-safe."""

    def __init__(self, backend: Backend, vault: Vault, id_keys: dict[Kind, bytes], cancel: Cancel) -> None:
        self._backend = backend
        self._vault = vault
        self._id_keys = id_keys
        self._cancel = cancel

    def inspect(self, target: Target) -> Inspection:
        """Reads one pack; raises nothing but `Interrupted` and errors of the storage as a whole."""
        seen = Inspection(target=target)
        what = pack_object(target.name)
        footer = None
        try:
            if target.encoded:
                footer = parse_footer(target.encoded, what)
            self._stream(seen, footer, what)
        except ObjectMissing:
            seen.gone = True
        except StorageFailed as error:
            seen.failure = error
            seen.reasons.append(f"it cannot be read ({error.reason})")
            if footer is not None:
                self._one_by_one(seen, footer, what)
        except Corruption as error:
            seen.reasons.append(error.reason)
            if footer is not None:
                seen.spoilt.append((range(len(footer.lengths)), error.reason))
        finally:
            if target.sums is not None:
                target.sums.finish()
        return seen

    def _stream(self, seen: Inspection, footer: Footer | None, what: str) -> None:
        target = seen.target
        if target.length_bytes > PACK_BYTES_MAX:
            raise Corruption(what, f"it is {target.length_bytes} bytes long, more than such an object can be")
        pieces = Pieces(self._backend, what, target.length_bytes)
        reasons: list[str] = []
        if footer is None:
            pieces.drain()
        else:
            for number, block in enumerate(footer.blocks):
                self._cancel.check()
                self._block(seen, footer, number, pieces.take(block.sealed_length), what, target.sums)
            if pieces.hasher.digest() != footer.body_hash:
                reasons.append("its blocks do not have the hash in its footer")
            sealed = pieces.take(max(0, target.length_bytes - TRAILER_BYTES - footer.body_length))
            trailer = pieces.take(TRAILER_BYTES)
            reasons += self._end(target, footer, sealed, trailer, what)
            pieces.drain()
        seen.read_bytes = target.length_bytes
        seen.digest = pieces.hasher.digest()
        if seen.digest != target.name:
            reasons.insert(0, NOT_ITS_NAME)
        seen.reasons += reasons

    def _end(self, target: Target, footer: Footer, sealed: Buffer, trailer: Buffer, what: str) -> Iterator[str]:
        """Yields what is wrong with footer and trailer."""
        try:
            opened = self._vault.sealer.open("trailer", "", TRAILER_BYTES - OVERHEAD_BYTES, trailer, what)
            if parse_trailer(opened, target.length_bytes, what) != footer.body_length:
                yield "its trailer points elsewhere than where its blocks end"
        except Corruption as error:
            yield f"its trailer: {error.reason}"
        try:
            if open_footer(self._vault, bytes(sealed), footer.body_length, what)[1] != target.encoded:
                yield "its footer is not the one that a segment repeats"
        except Corruption as error:
            yield f"its footer: {error.reason}"

    def _block(
        self,
        seen: Inspection,
        footer: Footer,
        number: int,
        sealed: Buffer,
        what: str,
        sums: PackSums | None = None,
    ) -> None:
        """Opens a block and compares every chunk in it with its id."""
        block = footer.blocks[number]
        first = footer.first_rows[number]
        seen.chunks += block.chunks
        try:
            raw = memoryview(open_block(self._vault, block, memoryview(sealed), what))
        except Corruption as error:
            reason = f"block {number + 1} of {len(footer.blocks)}: {error.reason}"
            seen.spoilt.append((range(first, first + block.chunks), reason))
            return
        key, ids = self._id_keys[Kind(block.kind)], footer.ids
        seen.raw_bytes += len(raw)
        at = 0
        for row, length in enumerate(footer.lengths[first : first + block.chunks], first):
            piece, chunk_id = raw[at : at + length], ids[row * CHUNK_ID_BYTES : (row + 1) * CHUNK_ID_BYTES]
            if blake3(piece, key=key).digest() == chunk_id:
                if sums is not None:
                    sums.take(row, chunk_id, piece)
            else:
                reason = f"block {number + 1} of {len(footer.blocks)}: a chunk does not have its id"
                seen.spoilt.append((range(row, row + 1), reason))
            at += length

    def _one_by_one(self, seen: Inspection, footer: Footer, what: str) -> None:
        """Tries every block by itself."""
        seen.chunks = 0
        seen.spoilt.clear()
        for number, block in enumerate(footer.blocks):
            self._cancel.check()
            try:
                sealed = self._backend.get(what, footer.offsets[number], block.sealed_length)
            except (Corruption, StorageFailed) as error:
                reason = f"block {number + 1} of {len(footer.blocks)}: it cannot be read ({error.reason})"
                first = footer.first_rows[number]
                seen.spoilt.append((range(first, first + block.chunks), reason))
                continue
            seen.read_bytes += len(sealed)
            self._block(seen, footer, number, sealed, what)


def inspect_all(reader: PackReader, targets: Iterable[Target], workers: int = WORKERS) -> Iterator[Inspection]:
    """Yields inspections in the order of the targets, which the caller's thread draws as there is room for them."""
    under_way: deque[Future[Inspection]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="verify") as pool:
        try:
            for target in targets:
                under_way.append(pool.submit(reader.inspect, target))
                if len(under_way) >= 2 * workers:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            for future in under_way:
                future.cancel()
