"""Walks: all that lies below a tree, in the order of names, a directory before what is in it.

Holds one directory a level in memory, whatever the tree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from respaldo.catalog.trees import TreeReader
from respaldo.core.errors import ChunkMissing, Corruption
from respaldo.core.ids import ChunkId
from respaldo.core.model import Entry, Mark


def tree_of(entry: Entry) -> ChunkId | None:
    """Returns the id of a directory's tree, None where it has none (not a directory, or left out)."""
    return next(iter(entry.content), None) if entry.is_dir else None


Failed = Callable[[bytes, Corruption | ChunkMissing, bool], object]
"""Takes the path of a directory that cannot be read whole, why, and whether a repair has given it up."""


def walk(
    trees: TreeReader, entry: Entry, above: bytes = b"", *, recursive: bool = True, failed: Failed | None = None
) -> Iterator[tuple[bytes, Entry]]:
    """Yields (path, entry) of what is in a directory, paths beginning with ``above``; everything below if asked.

    Goes on past a directory that cannot be read whole where ``failed`` is there to be told, else raises; one that a
    repair has given up is empty.
    """
    stack = [_children(trees, entry, above, failed)]
    while stack:
        for path, child in stack[-1]:
            yield path, child
            if recursive and child.is_dir:
                stack.append(_children(trees, child, path + b"/", failed))
                break
        else:
            stack.pop()


def _children(trees: TreeReader, entry: Entry, above: bytes, failed: Failed | None) -> Iterator[tuple[bytes, Entry]]:
    tree = tree_of(entry)
    if tree is not None:
        try:
            for child in trees.entries(tree):
                yield above + child.name, trees.found(child)
        except (ChunkMissing, Corruption) as error:
            lost = entry.mark is Mark.LOST and isinstance(error, ChunkMissing)
            if failed is not None:
                failed(above.rstrip(b"/"), error, lost)
            elif not lost:
                raise
