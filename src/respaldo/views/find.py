"""Finding: entries by name, path, size, time and type across snapshots, with the versions of each.

Every tree is read once (`respaldo.views.shelf`); then only those that lead to something found are gone through again,
by path, with the set of snapshots as the bits of a number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from respaldo.core.errors import RespaldoError
from respaldo.core.ids import ChunkId
from respaldo.core.model import Entry
from respaldo.fs.match import glob_regex
from respaldo.views.shelf import Index, Look, Shelf, Source, signature, split_ids


@dataclass(frozen=True, slots=True, kw_only=True)
class Criteria:
    """Says what is looked for. ``pattern``: a glob of names, with a slash in it of paths; one at its end: directories.

    In a path ``**`` stands for any number of directories, and a slash at its beginning for the root. Sizes are those
    of regular files. ``types``: the type bits of modes, none for all.
    """

    pattern: str = "*"
    ignore_case: bool = False
    size_min: int | None = None
    size_max: int | None = None
    newer_ns: int | None = None
    older_ns: int | None = None
    types: frozenset[int] = frozenset()

    def by_name(self) -> re.Pattern[str]:
        """Returns what names match: the last part of a path."""
        last = self.pattern.rstrip("/").rpartition("/")[2]
        return re.compile(glob_regex("*" if last in {"", "**"} else last), self._flags)

    def by_path(self) -> re.Pattern[str] | None:
        """Returns what whole paths match, None where the name decides."""
        bare = self.pattern.rstrip("/")
        if "/" not in bare:
            return None
        above = "/" if bare.startswith("/") else "(?:/[^/]+)*/"
        return re.compile(above + f"(?:{glob_regex(bare.lstrip('/'))})", self._flags)

    @property
    def _flags(self) -> re.RegexFlag:
        return re.IGNORECASE if self.ignore_case else re.RegexFlag(0)

    def fits(self, entry: Entry) -> bool:
        """Whether all but the name fits."""
        if self.pattern.endswith("/") and not entry.is_dir:
            return False
        if self.types and entry.mode & 0o170000 not in self.types:
            return False
        if (self.size_min is not None or self.size_max is not None) and not entry.is_regular:
            return False
        return (
            (self.size_min is None or entry.size >= self.size_min)
            and (self.size_max is None or entry.size <= self.size_max)
            and (self.newer_ns is None or entry.mtime_ns >= self.newer_ns)
            and (self.older_ns is None or entry.mtime_ns <= self.older_ns)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """Is one state of a path. ``held``: the numbers of the snapshots that hold it, a bit each."""

    path: bytes
    entry: Entry
    held: int

    @property
    def first(self) -> int:
        """The number of the first snapshot that holds it."""
        return (self.held & -self.held).bit_length() - 1

    @property
    def last(self) -> int:
        """The number of the last snapshot that holds it."""
        return self.held.bit_length() - 1


class Find:
    """Looks through the trees of some snapshots, numbered by their place in ``roots``."""

    def __init__(self, source: Source, index: Index, roots: Sequence[ChunkId], criteria: Criteria) -> None:
        self._roots = roots
        self._path = criteria.by_path()
        name = criteria.by_name()
        anywhere = re.compile(rf"\0(?:{name.pattern})(?=\0)", name.flags)

        def among(names: bytes) -> bool:
            return anywhere.search("\0" + _text(names)) is not None

        def fits(one: bytes) -> bool:
            return name.fullmatch(_text(one)) is not None

        self._shelf = Shelf(source, index, Look(among, fits, criteria.fits))
        self._leads: dict[bytes, bool] = {}

    @property
    def failed(self) -> dict[bytes, RespaldoError]:
        """Trees that could not be read, and why: what is below them was not looked at."""
        return self._shelf.failed

    @property
    def trees(self) -> int:
        """How many trees were read."""
        return self._shelf.trees

    def run(self) -> Iterator[Version]:
        """Yields what is found in the order of paths, the versions of one path by their first snapshots."""
        self._shelf.read(self._roots)
        self._mark()
        top: dict[bytes, int] = {}
        for number, root in enumerate(self._roots):
            top[bytes(root)] = top.get(bytes(root), 0) | 1 << number
        stack = [self._at(b"", top)]
        while stack:
            step = next(stack[-1], None)
            if step is None:
                stack.pop()
            elif isinstance(step, Version):
                yield step
            else:
                stack.append(self._at(*step))

    def _mark(self) -> None:
        """Notes which trees lead to something found: subdirectories before what they are in."""
        leads, shelf = self._leads, self._shelf
        stack = [bytes(root) for root in self._roots]
        while stack:
            tree = stack[-1]
            if tree in leads:
                stack.pop()
                continue
            children = split_ids(shelf.below[tree][1]) if tree in shelf.below else []
            waiting = [child for child in children if child not in leads]
            if waiting:
                stack += waiting
                continue
            leads[tree] = tree in shelf.found or any(map(leads.__getitem__, children))
            stack.pop()

    def _at(self, path: bytes, trees: dict[bytes, int]) -> Iterator[Version | tuple[bytes, dict[bytes, int]]]:
        """Yields what was found directly in a directory, and the subdirectories that lead to more, by name."""
        here: dict[bytes, dict[tuple[object, ...], tuple[Entry, int]]] = {}
        inside: dict[bytes, dict[bytes, int]] = {}
        queue = list(trees.items())
        while queue:
            tree, held = queue.pop()
            if not self._leads.get(tree):
                continue
            for entry in self._shelf.found.get(tree, ()):
                versions = here.setdefault(entry.name, {})
                key = signature(entry)
                known = versions.get(key)
                versions[key] = (entry, held | known[1] if known else held)
            names, ids = self._shelf.below.get(tree, ([], b""))
            for name, child in zip(names, split_ids(ids), strict=True):
                if not name:  # a run of this directory
                    queue.append((child, held))
                elif self._leads[child]:
                    below = inside.setdefault(name, {})
                    below[child] = below.get(child, 0) | held
        for name in sorted({*here, *inside}):
            where = path + b"/" + name
            if name in here and (self._path is None or self._path.fullmatch(_text(where))):
                versions_here = [Version(path=where, entry=entry, held=held) for entry, held in here[name].values()]
                yield from sorted(versions_here, key=lambda version: version.first)
            if name in inside:
                yield where, inside[name]


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
