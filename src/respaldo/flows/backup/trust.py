"""Trust: what may be taken over from earlier runs, and on what grounds.

A subtree that a committed snapshot holds is taken over unread, and the snapshot is noted: whoever commits looks whether
its manifest is still there (docs/format.md, W4). Anything else that is remembered counts only if every chunk of it is
found in a usable pack.
"""

from __future__ import annotations

from collections.abc import Container

from respaldo.catalog.trees import Sink, TreeReader
from respaldo.core.errors import RespaldoError
from respaldo.core.ids import Kind, SnapshotId
from respaldo.core.model import Content
from respaldo.flows.backup.memo import Memo


class Trust:
    """Decides for one run. ``snapshots`` are the committed ones that were listed when the run began."""

    def __init__(
        self,
        *,
        sink: Sink,
        trees: TreeReader,
        memo: Memo | None,
        snapshots: Container[SnapshotId],
    ) -> None:
        self._sink = sink
        self._trees = trees
        self._memo = memo
        self._snapshots = snapshots
        self._runs: dict[int, bool] = {}
        self.relied: set[SnapshotId] = set()
        """Snapshots that subtrees or content were taken over from."""

    def taken_over(self, run: int) -> bool:
        """Whether what a run remembered is in a committed snapshot that was there at the start; relies on it."""
        known = self._runs.get(run)
        if known is None:
            snapshot = self._memo.snapshot_of(run) if self._memo is not None else None
            known = snapshot is not None and snapshot in self._snapshots
            if known and snapshot is not None:
                self.relied.add(snapshot)
            self._runs[run] = known
        return known

    def has(self, content: Content) -> bool:
        """Whether every chunk that content refers to is stored."""
        if content.level == 0:
            return all(self._sink.knows(Kind.DATA, chunk_id) for chunk_id in content)
        try:
            for level, chunk_id in self._trees.nodes(content):
                if not self._sink.knows(Kind.LIST if level else Kind.DATA, chunk_id):
                    return False
        except RespaldoError:
            return False
        return True
