"""Whom a collector tells what it does: nobody where all writers read condemnations themselves.

The client of an area cannot: `respaldo.store.owned` tells it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from respaldo.core.ids import PackName
from respaldo.store.packs import Finished


class Telling:
    """Tells nobody anything."""

    trusted = True
    """Whether what writers say that their packs hold may be believed unread."""

    def of_condemnation(self, leaf: bytes, packs: Sequence[PackName], moved: Sequence[Finished]) -> None:
        """Says what a condemnation names that is about to be put; ``moved``: packs that hold what was in others."""

    def of_moves(self, moved: Iterable[Finished]) -> None:
        """Says, with no condemnation, which packs hold what was in others."""

    def merge(self) -> int:
        """Makes one of many tellings that are over; returns how many are gone."""
        return 0
