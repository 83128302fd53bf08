"""Learning from what was copied before: for a client that has forgotten, or never knew, what became of what."""

from __future__ import annotations

import stat

from respaldo.catalog.trees import TreeReader
from respaldo.core.ids import ChunkId
from respaldo.core.model import Content
from respaldo.flows.copying.known import Known
from respaldo.flows.copying.needs import GONE
from respaldo.format.tree import references

_Files = dict[bytes, tuple[int, int, Content]]


def learn(known: Known, trees: TreeReader, there: TreeReader, pair: tuple[ChunkId, ChunkId]) -> None:
    """Goes through the roots of a snapshot and of its copy together, and notes what became of files' content.

    Reads trees alone, and learns nothing of them: a copy may have been rewritten since. What does not fit together is
    passed over.
    """
    stack = [pair]
    seen: set[tuple[ChunkId, ChunkId]] = set()
    while stack:
        both = stack.pop()
        if both in seen:
            continue
        seen.add(both)
        ours, theirs = both
        try:
            after = _referring(there, theirs)
            for name, (mode, size, content) in _referring(trees, ours).items():
                other = after.get(name)
                if other is None or other[:2] != (mode, size):
                    continue
                if stat.S_ISDIR(mode):
                    stack.append((ChunkId(content.ids), ChunkId(other[2].ids)))
                else:
                    known.put_content(content, other[2])
        except GONE:
            continue


def _referring(trees: TreeReader, tree: ChunkId) -> _Files:
    """Returns what a directory refers to, by name."""
    found: _Files = {}
    for leaf in trees.leaves(tree):
        names = leaf.names.split(b"\0")
        found |= {
            names[row]: (mode, size, Content(level=level, ids=ids)) for row, mode, size, level, ids in references(leaf)
        }
    return found
