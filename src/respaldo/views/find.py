"""Finding: entries by name, path, size, time and type across snapshots, with the versions of each.

Names are looked at once for all directories with the same ones, and directories once for all snapshots that hold them:
the register (`respaldo.catalog.register`) says which. Only what leads to something found is gone through by path, with
the set of snapshots as the bits of a number.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import lmdb

from respaldo.catalog.register import NOWHERE, OTHER, RUN, UNKNOWN, Recorded, Register, handle_of
from respaldo.core.errors import ChunkMissing
from respaldo.core.ids import ChunkId
from respaldo.core.model import Entry, Mark
from respaldo.views.content import WITHOUT_CONTENT
from respaldo.views.criteria import Criteria
from respaldo.views.family import Family, Members
from respaldo.views.row import unpack, version_of
from respaldo.views.shelf import Index, Shelf, Source

_OTHER = bytes([OTHER])
Trees = dict[bytes, int]
"""Trees by handle, with the snapshots that hold them at one path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    """Is something at a path in some snapshots. ``held``: their numbers, a bit each."""

    path: bytes
    held: int

    @property
    def first(self) -> int:
        """The number of the first snapshot that holds it."""
        return (self.held & -self.held).bit_length() - 1

    @property
    def last(self) -> int:
        """The number of the last snapshot that holds it."""
        return self.held.bit_length() - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Version(_Held):
    """Is one state of a path.

    ``entry`` is without what is in a directory, whose time is that of the last of those snapshots; its ``link_group``
    says only whether it is a hard link.
    """

    entry: Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Unread(_Held):
    """Is a directory that could not be looked into. ``lost``: a repair has said so, and restoring leaves it out too."""

    reason: str
    lost: bool


class _Listed(NamedTuple):
    """Is a list of names, and which of them are looked for. ``folders``: which are directories or runs."""

    names: list[bytes]
    wanted: list[int]
    folders: list[int]


class _At(NamedTuple):
    """Is a directory to be gone through: where, how deep, its trees by snapshot, and whether it is marked as lost."""

    path: bytes
    depth: int
    trees: Trees
    lost: bool


class _Gathered(NamedTuple):
    """Is what was found in a directory: by name, rows, trees below and (where something failed) rows of directories."""

    here: dict[bytes, dict[bytes, int]]
    inside: dict[bytes, Trees]
    folders: dict[bytes, set[bytes]]


class Find:
    """Looks through the trees of some snapshots, numbered by their place in ``roots``.

    ``living``: the roots of all snapshots that there are, of which the register may forget others.
    """

    def __init__(
        self,
        source: Source,
        index: Index,
        register: Register,
        roots: Sequence[ChunkId],
        criteria: Criteria,
        *,
        living: Collection[ChunkId] = (),
    ) -> None:
        self._roots = roots
        self._register = register
        self._criteria = criteria
        self._living = frozenset(map(handle_of, living))
        self._shelf = Shelf(source, index, register)
        self._listed: dict[bytes, _Listed] = {}
        self._leads: dict[bytes, bool] = {NOWHERE: False, UNKNOWN: True}
        self._shapes: dict[bytes, tuple[bytes, list[bytes]]] = {}
        self._leading_places: dict[bytes, list[int]] = {}
        self.unread: list[Unread] = []
        """What could not be looked into, in the order of paths; whole when `run` is."""

    @property
    def trees(self) -> int:
        """How many trees were read, because nobody looked through them before."""
        return self._shelf.trees

    def run(self) -> Iterator[Version]:
        """Yields what is found in the order of paths, the versions of one path by their first snapshots."""
        if self._living:
            self._register.keep(self._living)
        self._shelf.read(self._roots)
        top: Trees = {}
        for number, root in enumerate(self._roots):
            top[handle_of(root)] = top.get(handle_of(root), 0) | 1 << number
        for tree in top:
            self._mark(tree)
        stack = [self._at(_At(b"", 0, top, lost=False))]
        while stack:
            step = next(stack[-1], None)
            if step is None:
                stack.pop()
            elif isinstance(step, Version):
                yield step
            else:
                stack.append(self._at(step))

    def _mark(self, tree: bytes) -> None:
        """Notes which shapes lead to something found: those of subdirectories before what they are in."""
        root = self._register.tree(tree)
        leads = self._leads
        stack = [] if root is None else [root.shape]
        while stack:
            shape = stack[-1]
            if shape in leads:
                stack.pop()
                continue
            names, below = self._shape(shape)
            waiting = [child for child in below if child not in leads]
            if waiting:
                stack += waiting
                continue
            leads[shape] = bool(self._list(names).wanted) or any(map(leads.__getitem__, below))
            stack.pop()

    def _shape(self, key: bytes) -> tuple[bytes, list[bytes]]:
        known = self._shapes.get(key)
        if known is None:
            known = self._shapes[key] = self._register.shape(key)
        return known

    def _list(self, key: bytes) -> _Listed:
        listed = self._listed.get(key)
        if listed is None:
            joined, kinds = self._register.names(key)
            names = joined.split(b"\0")[:-1]
            wanted = [] if RUN in kinds else self._criteria.among(joined, names)
            folders = [row for row, kind in enumerate(kinds) if kind != OTHER] if kinds.strip(_OTHER) else []
            listed = self._listed[key] = _Listed(names, wanted, folders)
        return listed

    def _at(self, at: _At) -> Iterator[Version | _At]:
        """Yields what was found directly in a directory, and the subdirectories that lead to more, by name."""
        gathered = _Gathered({}, {}, {})
        waiting = at.trees
        while waiting:
            groups: dict[tuple[bytes, bytes], list[tuple[Recorded, int]]] = {}
            for tree, held in waiting.items():
                found = self._register.tree(tree)
                if found is None:
                    error = self._shelf.failed.get(tree)
                    lost = at.lost and isinstance(error, ChunkMissing)
                    reason = WITHOUT_CONTENT[Mark.LOST] if lost else str(error)
                    self.unread.append(Unread(path=at.path, held=held, reason=reason, lost=lost))
                elif self._leads[found.shape]:
                    groups.setdefault((self._shape(found.shape)[0], found.base), []).append((found, held))
            waiting = {}
            for (names, base), members in groups.items():
                self._gather(self._list(names), Family(self._register, base), members, gathered, waiting)
        for name in sorted({*gathered.here, *gathered.inside}):
            where = at.path + b"/" + name
            if not self._criteria.leads_on(where, at.depth + 1):
                continue
            if name in gathered.here and self._criteria.fits_path(where):
                yield from self._versions(where, name, gathered.here[name])
            if name in gathered.inside:
                lost = any(self._entry(row).mark is Mark.LOST for row in gathered.folders.get(name, ()))
                yield _At(where, at.depth + 1, gathered.inside[name], lost)

    def _gather(self, listed: _Listed, family: Family, members: Members, gathered: _Gathered, runs: Trees) -> None:
        """Adds what trees with one base hold: of all of them what stands in that, and of each where it differs."""
        if listed.wanted:
            for row, packed, held in family.rows(members, listed.wanted):
                _add(gathered.here, listed.names[row], packed, held)
        below = {place for shape in {found.shape for found, _ in members} for place in self._leading(shape)}
        if not below:
            return
        for place, tree, held in family.below(members, sorted(below)):
            name = listed.names[listed.folders[place]]
            if not name:
                runs[tree] = runs.get(tree, 0) | held
            elif tree != NOWHERE:
                _add(gathered.inside, name, tree, held)
        if self._shelf.failed:
            places = [listed.folders[place] for place in below if listed.names[listed.folders[place]]]
            for row, packed, _ in family.rows(members, places) if places else ():
                gathered.folders.setdefault(listed.names[row], set()).add(packed)

    def _leading(self, shape: bytes) -> list[int]:
        """Returns which of the directories and runs in a shape lead to something found."""
        known = self._leading_places.get(shape)
        if known is None:
            below = self._shape(shape)[1]
            known = self._leading_places[shape] = [place for place, child in enumerate(below) if self._leads[child]]
        return known

    def _versions(self, path: bytes, name: bytes, rows: dict[bytes, int]) -> list[Version]:
        """Returns the versions of a path out of the rows that snapshots have there."""
        found: dict[bytes, tuple[int, int, bytes]] = {}
        for key, held in rows.items():
            fitting = self._fitting(key)
            if fitting is not None:
                known = found.get(fitting, (0, 0, key))
                newest = key if held.bit_length() > known[1] else known[2]
                found[fitting] = (known[0] | held, max(held.bit_length(), known[1]), newest)
        versions = [Version(path=path, entry=self._entry(key, name), held=held) for held, _, key in found.values()]
        return sorted(versions, key=lambda version: version.first)

    @staticmethod
    def _entry(packed: bytes, name: bytes = b"") -> Entry:
        try:
            return unpack(packed, name)
        except (ValueError, TypeError, struct.error) as error:
            raise lmdb.CorruptedError(f"a row of the register is none: {error}") from None

    def _fitting(self, packed: bytes) -> bytes | None:
        """Returns what makes a row a version, None where it is not looked for."""
        fits = self._criteria.any_entry or self._criteria.fits(self._entry(packed))
        return version_of(packed) if fits else None


def _add(found: dict[bytes, dict[bytes, int]], name: bytes, key: bytes, held: int) -> None:
    at = found.setdefault(name, {})
    at[key] = at.get(key, 0) | held
