"""How two trees differ, in files: for the figures of a snapshot that was not compared while it was made."""

from __future__ import annotations

import stat

from respaldo.catalog.trees import TreeReader
from respaldo.core.errors import ChunkMissing, Corruption
from respaldo.core.ids import ChunkId
from respaldo.format.tree import META, Leaf, references

_Rows = dict[bytes, tuple[bytes, bytes]]


def compare(trees: TreeReader, before: ChunkId, after: ChunkId) -> tuple[int, int]:
    """Returns how many files of the second tree are new, and how many changed. Reads only what differs."""
    new = changed = 0
    stack: list[tuple[ChunkId | None, ChunkId]] = [(before, after)]
    while stack:
        old, fresh = stack.pop()
        if old == fresh:
            continue
        try:
            was = _rows(trees, old) if old is not None else {}
        except (ChunkMissing, Corruption):
            was = {}
        for name, (meta, content) in _rows(trees, fresh).items():
            mode = META.unpack(meta)[0]
            then = was.get(name)
            if stat.S_ISDIR(mode):
                if content:
                    stack.append(
                        (ChunkId(then[1]) if then and _is_dir(then[0]) and then[1] else None, ChunkId(content))
                    )
            elif stat.S_ISREG(mode):
                if then is None or not stat.S_ISREG(META.unpack(then[0])[0]):
                    new += 1
                elif then != (meta, content):
                    changed += 1
    return new, changed


def _is_dir(meta: bytes) -> bool:
    return stat.S_ISDIR(META.unpack(meta)[0])


def _rows(trees: TreeReader, tree: ChunkId) -> _Rows:
    found: _Rows = {}
    for leaf in trees.leaves(tree):
        found |= _of(leaf)
    return found


def _of(leaf: Leaf) -> _Rows:
    content = {row: ids for row, _, _, _, ids in references(leaf)}
    return {
        name: (leaf.meta[row * META.size : (row + 1) * META.size], content.get(row, b""))
        for row, name in enumerate(leaf.names.split(b"\0")[:-1])
    }
