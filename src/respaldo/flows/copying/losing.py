"""Which paths lost content on the way: what is marked as lost in a copy and is not in the original."""

from __future__ import annotations

from respaldo.catalog.trees import TreeReader
from respaldo.core.errors import ChunkMissing
from respaldo.core.ids import ChunkId
from respaldo.core.model import Mark
from respaldo.flows.copying.options import LOST_KEPT
from respaldo.store.repo import Repo


def lost_paths(source: Repo, target: Repo, before: ChunkId, after: ChunkId) -> tuple[tuple[bytes, ...], int]:
    """Returns the first paths that were newly marked as lost, and how many there are. Reads changed trees alone."""
    old, new = TreeReader(source.source), TreeReader(target.source)
    paths: list[bytes] = []
    count = 0
    stack = [(b"", before, after)]
    while stack:
        above, one, other = stack.pop()
        was = {entry.name: entry for entry in _entries(old, one)}
        for entry in _entries(new, other):
            path = above + b"/" + entry.name
            then = was.get(entry.name)
            if entry.mark is Mark.LOST and (then is None or then.mark is not Mark.LOST):
                count += 1
                if len(paths) < LOST_KEPT:
                    paths.append(path)
            elif entry.is_dir and entry.content and then is not None and then.content.ids != entry.content.ids:
                stack.append((path, ChunkId(then.content.ids), ChunkId(entry.content.ids)))
    return tuple(paths), count


def _entries(trees: TreeReader, tree: ChunkId) -> list:  # type: ignore[type-arg]
    try:
        return list(trees.entries(tree))
    except ChunkMissing:
        return []
