"""Packs: written block by block as a stream, closed with footer and trailer, and read back from their end.

Invariant: a pack that is finished is durable under the SHA-256 of its bytes before anybody hears its name; a pack that
is not finished leaves nothing. Implements docs/format.md, "Pack".
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from respaldo.backend.base import Backend, Stage
from respaldo.codec.padding import STEP_BYTES, padded
from respaldo.codec.seal import HEAD_BYTES, OVERHEAD_BYTES
from respaldo.core.errors import Corruption, ObjectExists
from respaldo.core.ids import CHUNK_ID_BYTES, Kind, PackName, pack_object
from respaldo.core.seams import Buffer
from respaldo.format import frame
from respaldo.format.columns import u32_array, u32_bytes
from respaldo.format.pack import (
    BLOCK_ROW,
    FOOTER_RAW_BYTES_MAX,
    PACK_BYTES_MAX,
    TRAILER_BYTES,
    BlockRow,
    Footer,
    pack_trailer,
    parse_footer,
    parse_trailer,
)
from respaldo.store.vault import Vault

_ROW_BYTES = CHUNK_ID_BYTES + 4
_FOOTER_MARGIN_BYTES = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Is one sealed block on its way into a pack: head and body of its seal, and the chunks it holds."""

    kind: Kind
    head: bytes
    body: bytes
    raw_length: int
    ids: bytes
    lengths: bytes

    @property
    def sealed_length(self) -> int:
        """The number of bytes it takes in the pack."""
        return len(self.head) + len(self.body)


def block_of(footer: Footer, number: int, head: bytes, body: bytes) -> Block:
    """Returns a block of another pack, under a seal that it has there or has been given, to go into one as it is."""
    row, first = footer.blocks[number], footer.first_rows[number]
    end = first + row.chunks
    return Block(
        kind=Kind(row.kind),
        head=head,
        body=body,
        raw_length=row.raw_length,
        ids=footer.ids[first * CHUNK_ID_BYTES : end * CHUNK_ID_BYTES],
        lengths=u32_bytes(footer.lengths[first:end]),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """Is a pack that is durable."""

    name: PackName
    length_bytes: int
    footer: Footer
    encoded: bytes


class PackWriter:
    """Collects blocks into one pack. Not thread-safe; writing and hashing release the GIL."""

    def __init__(self, backend: Backend, vault: Vault, session: bytes, *, stage_after_bytes: int = 0) -> None:
        self._backend = backend
        self._vault = vault
        self._session = session
        self._stage_after = stage_after_bytes
        self._stage: Stage | None = None
        self._hash = hashlib.sha256()
        self.held: list[Block] = []
        """Blocks that are kept in memory because the pack is still small."""
        self._rows: list[BlockRow] = []
        self._ids = bytearray()
        self._lengths = bytearray()
        self.body_length = 0

    def estimate(self, block: Block | None = None) -> int:
        """Returns the length, before padding, that the pack would have with one more block: never too little."""
        chunks = len(self._ids) // CHUNK_ID_BYTES
        length = self.body_length + len(self._rows) * BLOCK_ROW.size
        if block is not None:
            chunks += len(block.ids) // CHUNK_ID_BYTES
            length += block.sealed_length + BLOCK_ROW.size
        return length + chunks * _ROW_BYTES + OVERHEAD_BYTES + TRAILER_BYTES + _FOOTER_MARGIN_BYTES

    def add(self, block: Block) -> None:
        """Appends a block."""
        self._rows.append(
            BlockRow(
                block.kind, block.sealed_length, block.raw_length, len(block.ids) // CHUNK_ID_BYTES, block.head[24:]
            )
        )
        self._ids += block.ids
        self._lengths += block.lengths
        self.body_length += block.sealed_length
        if self._stage is None and self.body_length <= self._stage_after:
            self.held.append(block)
            return
        if self._stage is None:
            self._stage = self._backend.stage("packs")
        for held in self.held:
            self._write(held)
        self.held.clear()
        self._write(block)

    def _write(self, block: Block) -> None:
        if self._stage is not None:
            for piece in (block.head, block.body):
                self._hash.update(piece)
                self._stage.write(piece)

    def finish(self) -> Finished:
        """Writes footer and trailer and makes the pack durable under its name."""
        stage = self._stage = self._stage or self._backend.stage("packs")
        for held in self.held:
            self._write(held)
        self.held.clear()
        footer = Footer(
            session=self._session,
            body_hash=self._hash.digest(),
            blocks=tuple(self._rows),
            ids=bytes(self._ids),
            lengths=u32_array(bytes(self._lengths)),
        )
        encoded = footer.encode()
        head, body = frame.squeeze(encoded, self._vault.compressor)
        around = self.body_length + OVERHEAD_BYTES + TRAILER_BYTES
        length = padded(around + len(head) + len(body), STEP_BYTES) - around
        sealer = self._vault.sealer
        pieces = (
            *sealer.seal("footer", "", length, frame.build(head, body, length)),
            *sealer.seal("trailer", "", TRAILER_BYTES - OVERHEAD_BYTES, pack_trailer(self.body_length)),
        )
        for piece in pieces:
            self._hash.update(piece)
            stage.write(piece)
        name = PackName(self._hash.digest())
        try:
            stage.commit(pack_object(name))
        except ObjectExists:
            stage.discard()
        self._stage = None
        return Finished(name=name, length_bytes=around + length, footer=footer, encoded=encoded)

    def discard(self) -> None:
        """Leaves nothing behind."""
        if self._stage is not None:
            self._stage.discard()
            self._stage = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()


def read_footer(backend: Backend, vault: Vault, name: PackName, length_bytes: int) -> tuple[Footer, bytes]:
    """Reads a pack's footer from its end; returns it parsed and encoded. Raises `Corruption` naming the pack."""
    what = pack_object(name)
    if not OVERHEAD_BYTES + TRAILER_BYTES < length_bytes <= PACK_BYTES_MAX:
        raise Corruption(what, "its length is impossible")
    trailer = backend.get(what, length_bytes - TRAILER_BYTES, TRAILER_BYTES)
    opened = vault.sealer.open("trailer", "", TRAILER_BYTES - OVERHEAD_BYTES, trailer, what)
    offset = parse_trailer(opened, length_bytes, what)
    sealed = backend.get(what, offset, length_bytes - TRAILER_BYTES - offset)
    return open_footer(vault, sealed, offset, what)


def open_footer(vault: Vault, sealed: bytes, offset: int, what: str) -> tuple[Footer, bytes]:
    """Opens a sealed footer that begins at an offset of its pack; returns it parsed and encoded."""
    length = len(sealed) - OVERHEAD_BYTES
    opened = vault.sealer.open("footer", "", length, sealed, what)
    encoded = frame.unbuild(opened, vault.decompressor, what, raw_length_max=FOOTER_RAW_BYTES_MAX)
    footer = parse_footer(encoded, what)
    if footer.body_length != offset:
        raise Corruption(what, "its footer does not stand where its blocks end")
    return footer, encoded


def seal_block(vault: Vault, kind: Kind, raw: Buffer, ids: bytes, lengths: bytes) -> Block:
    """Compresses and seals the raw bytes of a block. Thread-safe; most of it runs without the GIL."""
    message = vault.compressor.compress(raw)
    head, body = vault.sealer.seal(kind.word, "", len(raw), raw if message is None else message)
    return Block(kind=kind, head=head, body=body, raw_length=len(raw), ids=ids, lengths=lengths)


def open_block(vault: Vault, row: BlockRow, sealed: bytes | memoryview, what: str) -> bytes:
    """Opens and decompresses a block that a footer describes; raises `Corruption` naming ``what``."""
    if len(sealed) != row.sealed_length or sealed[24:HEAD_BYTES] != row.commitment:
        raise Corruption(what, "a block is not the one that the footer describes")
    message = vault.sealer.open(Kind(row.kind).word, "", row.raw_length, sealed, what)
    if len(message) == row.raw_length:
        return message
    return vault.decompressor.decompress(message, row.raw_length, what)
