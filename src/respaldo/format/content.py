"""Lists: the nodes through which a long file refers to its chunks, and to its holes.

A node is rows of 40 bytes: id ‖ length in bytes (u64) of what lies below it. At level 1 ids are those of data chunks,
or all zero for a hole of that length; above, those of nodes one level down. Implements docs/format.md, "List".
"""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import NamedTuple

from respaldo.core.errors import Corruption
from respaldo.core.ids import CHUNK_ID_BYTES, ChunkId

ROW = struct.Struct("<32sQ")
HOLE = ChunkId(bytes(CHUNK_ID_BYTES))
DIRECT_CHUNKS_MAX = 32
"""A file of more chunks than this, or with holes, refers to them through a list: 8192 such files fit into a tree."""
NODE_ROWS_MIN = 64
NODE_ROWS_MAX = 1024
BOUNDARY_MASK = 0xFF
NODE_BYTES_MAX = NODE_ROWS_MAX * ROW.size


class Row(NamedTuple):
    """Is one row of a node."""

    id: ChunkId
    length: int


def parse_node(data: bytes, what: str) -> list[Row]:
    """Parses and validates a node; raises `Corruption` naming ``what``."""
    if not data or len(data) > NODE_BYTES_MAX or len(data) % ROW.size:
        raise Corruption(what, "not a list node of this format")
    rows = [Row(ChunkId(name), length) for name, length in ROW.iter_unpack(data)]
    if any(row.length == 0 for row in rows) or sum(row.length for row in rows) >> 63:
        raise Corruption(what, "a row of its list has an impossible length")
    if any(one.id == HOLE and other.id == HOLE for one, other in pairwise(rows)):
        raise Corruption(what, "two holes are adjacent in it")
    return rows


def parse_node_ids(data: bytes, what: str) -> bytes:
    """Returns the ids of a node's rows joined, holes left out; raises `Corruption`.

    No object is made for a row. Of a node that `parse_node` refuses it may return anything.
    """
    if not data or len(data) > NODE_BYTES_MAX or len(data) % ROW.size:
        raise Corruption(what, "not a list node of this format")
    ids = [data[at : at + CHUNK_ID_BYTES] for at in range(0, len(data), ROW.size)]
    return b"".join([row_id for row_id in ids if row_id != HOLE] if HOLE in ids else ids)


def ends_node(row_id: bytes, rows: int) -> bool:
    """Whether a node ends after a row, being ``rows`` long with it: by the id's first byte, within bounds."""
    if rows >= NODE_ROWS_MAX:
        return True
    return rows >= NODE_ROWS_MIN and row_id[0] & BOUNDARY_MASK == 0 and row_id != HOLE
