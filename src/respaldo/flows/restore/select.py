"""Selection: which entries of a snapshot are restored, and which names that it does not have are spared by a deletion.

Patterns are matched against paths below what is restored. With ``include``, only what matches, what is below it, and
the directories above it; ``exclude`` takes away from that.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence
from enum import IntEnum

from respaldo.core.model import Mark
from respaldo.fs.match import Rules
from respaldo.fs.recorded import recorded_limit, recorded_rules

SPARING_MARKS = frozenset({Mark.UNREADABLE, Mark.MOUNT, Mark.EXCLUDED, Mark.PARTIAL, Mark.LOST})
"""Directories whose entries are not all in the snapshot: what it lacks may never have been looked at."""


class Take(IntEnum):
    """Says what becomes of an entry."""

    NO = 0
    YES = 1
    ONLY_ON_THE_WAY = 2
    """A directory that matters only if something below it is selected."""


class Selection:
    """Decides by the patterns of a restore. A value."""

    def __init__(self, include: Sequence[str], exclude: Sequence[str]) -> None:
        self._include = Rules(include)
        self._exclude = Rules(exclude)
        self._all = not include

    def take(
        self, directory: bytes, names: Sequence[bytes], is_dir: Sequence[bool], *, inside: bool
    ) -> list[Take] | None:
        """Returns what becomes of the entries of a directory; None where all are restored, whole.

        ``inside``: the directory, or one above it, is included.
        """
        kept = self._exclude.kept(directory, names, is_dir)
        if self._all or inside:
            return None if kept is None else [Take(keep) for keep in kept]
        unmatched = self._include.kept(directory, names, is_dir) or [True] * len(names)
        takes = []
        for number, name_is_dir in enumerate(is_dir):
            if kept is not None and not kept[number]:
                takes.append(Take.NO)
            elif not unmatched[number]:
                takes.append(Take.YES)
            else:
                takes.append(Take.ONLY_ON_THE_WAY if name_is_dir else Take.NO)
        return takes

    @property
    def takes_all(self) -> bool:
        """Whether everything is restored."""
        return self._all and not self._exclude

    def left_out(self, directory: bytes, names: Sequence[bytes], is_dir: Sequence[bool]) -> list[bool] | None:
        """Returns which names were asked to be left out, None for none."""
        kept = self._exclude.kept(directory, names, is_dir)
        return None if kept is None else [not keep for keep in kept]


class Spared:
    """Decides by what the snapshot itself left out: a file that was never backed up is not deleted for being absent."""

    def __init__(self, rules: Sequence[str], sources: Sequence[bytes]) -> None:
        self._rules = recorded_rules(rules)
        self._sources = sorted(sources, key=len, reverse=True)
        self._larger_bytes = recorded_limit(rules)

    def spares(self, path: bytes, names: Sequence[bytes], rows: Sequence[tuple[int, int]]) -> list[bool]:
        """Returns which names of a directory (absolute, as recorded) are spared. ``rows``: mode and size of each."""
        is_dir = [stat.S_ISDIR(mode) for mode, _ in rows]
        relative = self._relative(path)
        kept = None if relative is None else self._rules.kept(relative, names, is_dir)
        return [
            bool(relative is None)
            or (kept is not None and not kept[number])
            or (0 < self._larger_bytes < size and stat.S_ISREG(mode))
            for number, (mode, size) in enumerate(rows)
        ]

    def _relative(self, path: bytes) -> bytes | None:
        """Returns a directory's path below its source, None where it lies in none."""
        for source in self._sources:
            if source in {path, b"/"}:
                return path[len(source) :].strip(b"/")
            if path.startswith(source + b"/"):
                return path[len(source) + 1 :]
        return None
