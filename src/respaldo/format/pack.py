"""The footer and the trailer of a pack: which blocks it holds, which chunks they hold.

``pack = block … ‖ sealed footer ‖ sealed trailer``. Blocks lie one behind the other from offset 0, chunks lie one
behind the other in a block, so that lengths alone say where everything is and no offset can lie. Implements
docs/format.md, "Pack".
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import NamedTuple

from respaldo.core.errors import Corruption
from respaldo.core.ids import CHUNK_ID_BYTES, RANDOM_ID_BYTES, ChunkId, Kind
from respaldo.format import canonical
from respaldo.format.columns import u32_array, u32_bytes

BLOCK_ROW = struct.Struct("<B3xIII32s")
"""Kind, sealed length, raw length, number of chunks, commitment."""

TRAILER = struct.Struct("<QQ")
"""Offset of the footer's seal, zero."""

_PADDING = (1, 2, 3)
_KINDS = frozenset(int(kind) for kind in Kind)
SEAL_BYTES = 72
TRAILER_BYTES = TRAILER.size + SEAL_BYTES
BLOCK_RAW_BYTES_MAX = 16 << 20
PACK_BYTES_MAX = 256 << 20
FOOTER_RAW_BYTES_MAX = 128 << 20


class BlockRow(NamedTuple):
    """Describes one block: its kind, lengths in bytes, number of chunks, and its seal's commitment (32 bytes)."""

    kind: int
    sealed_length: int
    raw_length: int
    chunks: int
    commitment: bytes


class Place(NamedTuple):
    """Says where in a pack a chunk lies: block number, offset and length in the block's raw bytes."""

    block: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Footer:
    """Lists a pack's blocks and chunks. Validated: every length is consistent with every other.

    ``ids`` holds 32 bytes a chunk, ``lengths`` the chunks' lengths, both in the order of the blocks. ``body_hash`` is
    the SHA-256 of all pack bytes before the footer.
    """

    session: bytes
    body_hash: bytes
    blocks: tuple[BlockRow, ...]
    ids: bytes
    lengths: array[int]
    offsets: tuple[int, ...] = field(init=False, compare=False, repr=False)
    first_rows: tuple[int, ...] = field(init=False, compare=False, repr=False)
    _before: array[int] = field(init=False, compare=False, repr=False)
    """Bytes of chunks before each; made when first asked for, since most footers are only listed."""

    def __post_init__(self) -> None:
        offsets = tuple(accumulate((block.sealed_length for block in self.blocks), initial=0))
        first_rows = tuple(accumulate((block.chunks for block in self.blocks), initial=0))
        object.__setattr__(self, "offsets", offsets)
        object.__setattr__(self, "first_rows", first_rows)
        object.__setattr__(self, "_before", array("Q"))

    @property
    def body_length(self) -> int:
        """The number of bytes that the blocks take, which is the footer's offset."""
        return self.offsets[-1]

    def chunk_id(self, row: int) -> ChunkId:
        """Returns the id in a row."""
        return ChunkId(self.ids[row * CHUNK_ID_BYTES : (row + 1) * CHUNK_ID_BYTES])

    def place(self, row: int) -> Place:
        """Returns where the chunk of a row lies. A block may hold a hundred thousand of them: nothing is added up."""
        block = bisect_right(self.first_rows, row) - 1
        before = self._bytes_before()
        return Place(block, before[row] - before[self.first_rows[block]], self.lengths[row])

    def places(self, row: int, count: int) -> Iterator[tuple[int, int, int]]:
        """Yields what `place` says of a row and those behind it, as plain (block, offset, length)."""
        for block, spans in self.spans(row, count):
            for offset, length in spans:
                yield block, offset, length

    def spans(self, row: int, count: int) -> Iterator[tuple[int, list[tuple[int, int]]]]:
        """Yields (block, offsets and lengths in it) of a row and those behind it, a block at a time."""
        before, lengths, first_rows = self._bytes_before(), self.lengths, self.first_rows
        block = bisect_right(first_rows, row) - 1
        end = row + count
        while row < end:
            limit = min(first_rows[block + 1], end)
            held = lengths[row:limit]
            yield (
                block,
                list(zip(accumulate(held, initial=before[row] - before[first_rows[block]]), held, strict=False)),
            )
            row, block = limit, block + 1

    def _bytes_before(self) -> array[int]:
        if not self._before:
            object.__setattr__(self, "_before", array("Q", accumulate(self.lengths, initial=0)))
        return self._before

    def encode(self) -> bytes:
        """Returns the canonical bytes."""
        rows = b"".join(BLOCK_ROW.pack(*block) for block in self.blocks)
        return canonical.pack([1, self.session, self.body_hash, rows, self.ids, u32_bytes(self.lengths)])


def parse_footer(data: bytes, what: str) -> Footer:
    """Parses and validates a footer; raises `Corruption` naming ``what``."""
    match canonical.unpack(data, what):
        case [1, bytes(session), bytes(body_hash), bytes(rows), bytes(ids), bytes(raw_lengths)]:
            pass
        case _:
            raise Corruption(what, "not a footer of this format")
    if (
        len(session) != RANDOM_ID_BYTES
        or len(body_hash) != CHUNK_ID_BYTES
        or len(rows) % BLOCK_ROW.size
        or len(ids) % CHUNK_ID_BYTES
        or len(raw_lengths) != len(ids) // CHUNK_ID_BYTES * 4
    ):
        raise Corruption(what, "the columns of its footer have impossible lengths")
    lengths = u32_array(raw_lengths)
    blocks = tuple(BlockRow._make(row) for row in BLOCK_ROW.iter_unpack(rows))
    first = 0
    for block in blocks:
        held = lengths[first : first + block.chunks]
        first += block.chunks
        if (
            block.kind not in _KINDS
            or not SEAL_BYTES < block.sealed_length <= block.raw_length + SEAL_BYTES
            or not 0 < block.raw_length <= BLOCK_RAW_BYTES_MAX
            or len(held) != block.chunks
            or sum(held) != block.raw_length
            or 0 in held
        ):
            raise Corruption(what, "the lengths in its footer are impossible")
    if first != len(lengths):
        raise Corruption(what, "its footer has chunks outside every block")
    if sum(block.sealed_length for block in blocks) > PACK_BYTES_MAX:
        raise Corruption(what, "its blocks are longer than a pack")
    if b"".join(rows[at :: BLOCK_ROW.size] for at in _PADDING).strip(b"\0"):
        raise Corruption(what, "not a canonical footer")
    return Footer(session=session, body_hash=body_hash, blocks=blocks, ids=ids, lengths=lengths)


def pack_trailer(footer_offset: int) -> bytes:
    """Returns the plaintext of a trailer."""
    return TRAILER.pack(footer_offset, 0)


def parse_trailer(data: bytes, pack_length: int, what: str) -> int:
    """Returns the footer's offset; raises `Corruption` naming ``what`` where it cannot be one."""
    if len(data) != TRAILER.size:
        raise Corruption(what, "its trailer has the wrong length")
    offset, zero = TRAILER.unpack(data)
    if zero or offset + SEAL_BYTES + TRAILER_BYTES > pack_length:
        raise Corruption(what, "its trailer points outside the pack")
    return int(offset)
