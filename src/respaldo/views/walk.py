"""Walks: all that lies below a tree, in the order of names, a directory before what is in it.

Holds one directory a level in memory, whatever the tree.
"""

from __future__ import annotations

from collections.abc import Iterator

from respaldo.catalog.trees import TreeReader
from respaldo.core.errors import ChunkMissing
from respaldo.core.ids import ChunkId
from respaldo.core.model import Entry, Mark


def tree_of(entry: Entry) -> ChunkId | None:
    """Returns the id of a directory's tree, None where it has none (not a directory, or left out)."""
    return next(iter(entry.content), None) if entry.is_dir else None


def walk(
    trees: TreeReader, entry: Entry, above: bytes = b"", *, recursive: bool = True
) -> Iterator[tuple[bytes, Entry]]:
    """Yields (path, entry) of what is in a directory, paths beginning with ``above``; everything below if asked."""
    stack = [_children(trees, entry, above)]
    while stack:
        for path, child in stack[-1]:
            yield path, child
            if recursive and child.is_dir:
                stack.append(_children(trees, child, path + b"/"))
                break
        else:
            stack.pop()


def _children(trees: TreeReader, entry: Entry, above: bytes) -> Iterator[tuple[bytes, Entry]]:
    tree = tree_of(entry)
    if tree is not None:
        try:
            for child in trees.entries(tree):
                yield above + child.name, trees.found(child)
        except ChunkMissing:
            if entry.mark is not Mark.LOST:
                raise
