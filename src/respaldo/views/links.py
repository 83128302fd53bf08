"""Hard links: how many names the files of a snapshot have, which no tree records.

What is counted are names in the snapshot. A file that was linked from elsewhere too counts as having two at least, so
that whoever copies looks for the others.
"""

from __future__ import annotations

from collections import Counter

from respaldo.catalog.snapshots import Snapshot
from respaldo.core.errors import ChunkMissing, Corruption
from respaldo.core.ids import ChunkId, SnapshotId
from respaldo.views.directories import Directories

_TREES_MAX = 20_000
"""Names are counted in so many directories of a snapshot at most: what is asked is to be answered."""


class LinkCounts:
    """Counts the names of hard-linked files, of each snapshot once, when first asked. One thread."""

    def __init__(self, directories: Directories) -> None:
        self._directories = directories
        self._known: dict[SnapshotId, Counter[bytes]] = {}

    def names_of(self, snapshot: Snapshot, group: bytes) -> int:
        """Returns how many names a hard-linked file has in its snapshot, 2 at least."""
        counts = self._known.get(snapshot.id)
        if counts is None:
            counts = self._known[snapshot.id] = self._count(snapshot.manifest.root)
        return max(counts[group], 2)

    def _count(self, root: ChunkId) -> Counter[bytes]:
        counts: Counter[bytes] = Counter()
        waiting = [root]
        for _ in range(_TREES_MAX):
            if not waiting:
                break
            try:
                groups, trees = self._directories.links_and_trees(waiting.pop())
            except (ChunkMissing, Corruption):
                continue
            counts.update(groups)
            waiting += trees
        return counts
