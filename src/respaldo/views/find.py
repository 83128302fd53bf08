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
from respaldo.views.family import Family, Members, Trees
from respaldo.views.row import Row, version_of
from respaldo.views.shelf import Index, Shelf, Source

_OTHER = bytes([OTHER])


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
    """Is one state of a path. ``row``: of a directory as it is in the last of those snapshots."""

    row: Row

    @property
    def entry(self) -> Entry:
        """The entry, without what is in a directory; its ``link_group`` says only whether it is a hard link.

        Made at each look: who lists a hundred thousand asks `brief`.
        """
        return _entry(self.row, self.path.rpartition(b"/")[2])

    @property
    def brief(self) -> tuple[int, int, int]:
        """Mode, size (of a device none) and time of change, as `entry` has them."""
        return self.row.brief


@dataclass(frozen=True, slots=True, kw_only=True)
class Unread(_Held):
    """Is a directory that could not be looked into. ``lost``: a repair has said so, and restoring leaves it out too."""

    reason: str
    lost: bool


class _Listed(NamedTuple):
    """Is a list of names (none where nobody asks), and which of them are looked for. ``folders``: directories, runs."""

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

    here: dict[bytes, dict[Row, int]]
    inside: dict[bytes, Trees]
    folders: dict[bytes, set[Row]]


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
            wanted = [] if RUN in kinds else self._criteria.among(joined)
            folders = [row for row, kind in enumerate(kinds) if kind != OTHER] if kinds.strip(_OTHER) else []
            listed = self._listed[key] = _Listed(joined.split(b"\0") if wanted or folders else [], wanted, folders)
        return listed

    def _at(self, at: _At) -> Iterator[Version | _At]:
        """Yields what was found directly in a directory, and the subdirectories that lead to more, by name."""
        gathered = _Gathered({}, {}, {})
        waiting, leads = at.trees, self._leads
        while waiting:
            groups: dict[bytes, list[tuple[Recorded, int]]] = {}
            for tree, held, found in self._register.trees(waiting):
                if found is None:
                    error = self._shelf.failed.get(tree)
                    lost = at.lost and isinstance(error, ChunkMissing)
                    reason = WITHOUT_CONTENT[Mark.LOST] if lost else str(error)
                    self.unread.append(Unread(path=at.path, held=held, reason=reason, lost=lost))
                elif leads[found.shape]:
                    # Trees with one base have the same names; branches, which have none, where shapes are the same.
                    key = found.shape if found.base == NOWHERE else found.base
                    groups.setdefault(key, []).append((found, held))
            waiting = {}
            for members in groups.values():
                one = members[0][0]
                names = self._list(self._shape(one.shape)[0])
                self._gather(names, Family(self._register, one.base), members, gathered, waiting)
        here, inside = gathered.here, gathered.inside
        criteria, depth = self._criteria, at.depth + 1
        every_name, every_path = criteria.leads_everywhere(depth), criteria.any_path
        for name in sorted({**here, **inside} if inside else here):
            where = at.path + b"/" + name
            if not (every_name or criteria.leads_on(where, depth)):
                continue
            if name in here and (every_path or criteria.fits_path(where)):
                yield from self._versions(where, here[name])
            if name in inside:
                lost = any(_entry(row).mark is Mark.LOST for row in gathered.folders.get(name, ()))
                yield _At(where, depth, inside[name], lost)

    def _gather(self, listed: _Listed, family: Family, members: Members, gathered: _Gathered, runs: Trees) -> None:
        """Adds what trees with one base hold: of all of them what stands in that, and of each where it differs."""
        if listed.wanted:
            for row, packed, held in family.rows(members, listed.wanted):
                versions = gathered.here.setdefault(listed.names[row], {})
                versions[packed] = versions.get(packed, 0) | held
        below = {place for shape in {found.shape for found, _ in members} for place in self._leading(shape)}
        if not below:
            return
        for place, trees in family.below(members, sorted(below)):
            name = listed.names[listed.folders[place]]
            if name:
                trees.pop(NOWHERE, None)
            if trees:
                into = gathered.inside.setdefault(name, {}) if name else runs
                for tree, held in trees.items():
                    into[tree] = into.get(tree, 0) | held
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

    def _versions(self, path: bytes, rows: dict[Row, int]) -> list[Version]:
        """Returns the versions of a path out of the rows that snapshots have there."""
        criteria = self._criteria
        if not criteria.any_entry:
            rows = {row: held for row, held in rows.items() if criteria.fits(_entry(row))}
        if len(rows) == 1:
            return [Version(path=path, row=row, held=held) for row, held in rows.items()]
        if not any(row.is_dir for row in rows):  # then each is a version
            return [Version(path=path, row=row, held=held) for row, held in sorted(rows.items(), key=_first)]
        found: dict[Row, tuple[int, int, Row]] = {}
        for row, held in rows.items():
            key = version_of(row)
            known = found.get(key, (0, 0, row))
            newest = row if held.bit_length() > known[1] else known[2]
            found[key] = (known[0] | held, max(held.bit_length(), known[1]), newest)
        versions = [Version(path=path, row=row, held=held) for held, _, row in found.values()]
        return sorted(versions, key=lambda version: version.first)


def _first(item: tuple[Row, int]) -> int:
    """Returns the lowest bit of a row's snapshots."""
    return item[1] & -item[1]


def _entry(row: Row, name: bytes = b"") -> Entry:
    try:
        return row.entry(name)
    except (ValueError, struct.error) as error:
        raise lmdb.CorruptedError(f"a row of the register is none: {error}") from None
