"""Entries that a repair has marked as lost: whether they still are, as what they refer to may have been stored again.

Asks quietly: what is missing here was missed before, and is nobody's fault. Remembers nothing from entry to entry.
"""

from __future__ import annotations

import stat

from respaldo.core.errors import Corruption
from respaldo.core.ids import CHUNK_ID_BYTES, ChunkId, Kind
from respaldo.flows.check.chunks import Chunks
from respaldo.format.content import HOLE, parse_node
from respaldo.format.tree import Branch, parse_tree

_MISSING = -1


def is_lost(chunks: Chunks, mode: int, size: int, level: int, ids: bytes) -> bool:
    """Whether something of what an entry refers to is not to be had: of a directory, its own tree is asked for."""
    chunks.quiet = True
    try:
        if stat.S_ISDIR(mode):
            return not _has_tree(chunks, ChunkId(ids))
        known: dict[tuple[ChunkId, int], int] = {}
        found = (ChunkId(ids[at : at + CHUNK_ID_BYTES]) for at in range(0, len(ids), CHUNK_ID_BYTES))
        lengths = [_length(chunks, chunk_id, level, known) for chunk_id in found]
        return _MISSING in lengths or sum(lengths) != size
    except Corruption:
        return True
    finally:
        chunks.quiet = False


def _has_tree(chunks: Chunks, tree_id: ChunkId) -> bool:
    raw = chunks.read(Kind.TREE, tree_id, [])
    if raw is None:
        return False
    tree = parse_tree(raw, "tree")
    runs = tree.runs if isinstance(tree, Branch) else ()
    return all(chunks.read(Kind.TREE, run_id, []) is not None for run_id, _ in runs)


def _length(chunks: Chunks, chunk_id: ChunkId, level: int, known: dict[tuple[ChunkId, int], int]) -> int:
    """Returns the bytes that a chunk or a list stands for; a list that is referred to twice is read once."""
    position = chunks.position(chunk_id, [])
    if position is None or not level:
        return _MISSING if position is None else chunks.length(position)
    key = (chunk_id, level)
    if key not in known:
        known[key] = _MISSING
        raw = chunks.read(Kind.LIST, chunk_id, [])
        rows = [] if raw is None else parse_node(raw, "list")
        if rows and all(row.id == HOLE or _length(chunks, row.id, level - 1, known) == row.length for row in rows):
            known[key] = sum(row.length for row in rows)
    return known[key]
