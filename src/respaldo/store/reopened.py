"""Reopened: counts blocks that are opened again after they were let go, which says that memory held too few of them.

Remembers the last `_GONE_MAX` that were let go. Belongs to one thread at a time.
"""

from __future__ import annotations

from collections import OrderedDict

_GONE_MAX = 4096
Key = tuple[int, int]


class Reopened:
    """Counts. ``count``: how many so far."""

    __slots__ = ("_gone", "count")

    def __init__(self) -> None:
        self._gone: OrderedDict[Key, None] = OrderedDict()
        self.count = 0

    def let_go(self, key: Key) -> None:
        """Takes note that a block is held no more."""
        self._gone[key] = None
        self._gone.move_to_end(key)
        if len(self._gone) > _GONE_MAX:
            self._gone.popitem(last=False)

    def opened(self, key: Key) -> None:
        """Takes note that a block was opened."""
        self.count += key in self._gone
