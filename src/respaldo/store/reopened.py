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
        self._gone: OrderedDict[Key, int] = OrderedDict()
        self.count = 0

    def let_go(self, key: Key, asked_to: int = 0) -> None:
        """Takes note that a block is held no more, of which nothing behind an offset was asked for."""
        self._gone[key] = asked_to
        self._gone.move_to_end(key)
        if len(self._gone) > _GONE_MAX:
            self._gone.popitem(last=False)

    def opened(self, key: Key, offset: int = 0) -> None:
        """Takes note that a block was opened for what lies at an offset; counts it where that is asked for anew."""
        self.count += offset >= self._gone.get(key, offset + 1)
