"""Reading ahead: the contents of many files in a row, their blocks decoded by threads while others are written.

Whoever walks gives entries and takes them out again in the same order; what is in them is ordered meanwhile. Of a file
that is there in one part, it is known before anything of it is written whether it can be had. Memory is bounded by what
`respaldo.store.fetch` holds, whatever is read. One thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from respaldo.catalog.trees import Reader, TreeReader
from respaldo.core.errors import ChunkMissing, Corruption, RespaldoError, StorageError
from respaldo.core.ids import ChunkId, Kind
from respaldo.core.model import Entry
from respaldo.core.seams import Buffer
from respaldo.format.content import HOLE
from respaldo.store.blocks import Blocks, Location
from respaldo.store.fetch import Fetcher, Order
from respaldo.views.content import WITHOUT_CONTENT, Contents, Member, too_long, too_short

PART_BYTES = 2 << 20
PART_PIECES = 64
_TOGETHER = 256
"""So many entries are looked up together."""
_UNITS_MIN, _UNITS_MAX = 256, 1024


@dataclass(slots=True)
class _Part:
    """Is pieces of a file: their lengths, and whether they are ordered or holes."""

    order: Order = field(default_factory=Order)
    pieces: list[tuple[int, bool]] = field(default_factory=list)
    length: int = 0

    @property
    def full(self) -> bool:
        return self.length >= PART_BYTES or len(self.pieces) >= PART_PIECES


class _End(NamedTuple):
    """Ends a file. ``error``: why there is no more of it."""

    error: RespaldoError | None


class Ahead(Contents):
    """Reads what files consist of; of those that `members` has just given, what was decoded meanwhile."""

    def __init__(self, reader: Reader, trees: TreeReader, blocks: Blocks, fetcher: Fetcher) -> None:
        super().__init__(reader, trees)
        self._list_rows = trees.list_rows
        self._blocks = blocks
        self._fetcher = fetcher
        self._coming: Iterator[Member | _Part | _End] = iter(())
        self._units: deque[Member | _Part | _End] = deque()
        self._open: Entry | None = None

    def members(self, found: Iterator[tuple[bytes, Entry]]) -> Iterator[Member]:
        """Yields entries in their order; what is in one can be read, once, until the next is asked for."""
        self._coming = self._planned(found)
        while (unit := self._next()) is not None:
            if isinstance(unit, Member):
                error = unit.error
                if error is None and _is_read(unit.entry):
                    error, self._open = self._trouble(), unit.entry
                yield Member(unit.name, unit.entry, error)
                self._open = None
            elif isinstance(unit, _Part):  # of a file that nobody wanted to read
                self._fetcher.wait(list(unit.order.together))
                unit.order.release(self._fetcher)

    def _trouble(self) -> RespaldoError | None:
        """Returns why the content of the file that comes cannot be had, if that can be known without writing it."""
        while len(self._units) < 2 and (unit := next(self._coming, None)) is not None:
            self._units.append(unit)
        part, end = self._units[0], self._units[1] if len(self._units) > 1 else None
        if isinstance(part, _End):
            return part.error
        if not isinstance(part, _Part) or not isinstance(end, _End):
            return None
        if end.error is not None:
            return end.error
        self._fetcher.wait(list(part.order.together))
        places = zip(part.order.tasks, part.order.slots, strict=True)
        return next((task.bad[slot] for task, slot in places if slot in task.bad), None)

    def _next(self) -> Member | _Part | _End | None:
        units, fetcher = self._units, self._fetcher
        if len(units) < _UNITS_MIN:
            while len(units) < _UNITS_MAX and not (fetcher.full and len(units) > 2):
                unit = next(self._coming, None)
                if unit is None:
                    break
                units.append(unit)
        return units.popleft() if units else None

    def pieces(self, entry: Entry) -> Iterator[tuple[int, Buffer | None]]:
        """Yields the pieces of a file, None for a hole of that length; raises what `read` does."""
        if entry is not self._open:
            yield from super().pieces(entry)
            return
        self._open = None
        while isinstance(unit := self._next(), _Part):
            order = unit.order
            self._fetcher.wait(list(order.together))
            places = zip(order.tasks, order.slots, strict=True)
            for length, is_hole in unit.pieces:
                if is_hole:
                    yield length, None
                    continue
                task, slot = next(places)
                if slot in task.bad:
                    raise task.bad[slot]
                if len(task.views[slot]) != length:
                    raise Corruption(f"data chunk {task.ids[slot].hex()[:16]}", "its length is not the one of its file")
                yield length, task.views[slot]
            order.release(self._fetcher)
        if isinstance(unit, _End) and unit.error is not None:
            raise unit.error

    def _planned(self, found: Iterator[tuple[bytes, Entry]]) -> Iterator[Member | _Part | _End]:
        """Orders what is needed, and yields it in the order of its writing."""
        while some := list(islice(found, _TOGETHER)):
            direct = [entry for _, entry in some if _is_read(entry) and not entry.content.level]
            places = iter(self._blocks.locate_each(b"".join([entry.content.ids for entry in direct])))
            for name, entry in some:
                if not _is_read(entry):
                    yield Member(name, entry)
                elif entry.content.level:
                    yield Member(name, entry)
                    yield from self._listed(entry)
                else:
                    rows = list(zip(entry.content, islice(places, len(entry.content)), strict=True))
                    error = self._error(entry, rows)
                    yield Member(name, entry, error)
                    if error is None:
                        sure = ((chunk, at) for chunk, at in rows if at is not None)
                        yield from self._parts((chunk, at.length, at) for chunk, at in sure)
                        yield _End(None)

    def _error(self, entry: Entry, rows: list[tuple[ChunkId, Location | None]]) -> RespaldoError | None:
        total = 0
        for place, (chunk_id, at) in enumerate(rows):
            if at is None:
                try:
                    at = self._blocks.locate(Kind.DATA, chunk_id)  # noqa: PLW2901 - found where it is now
                except (ChunkMissing, Corruption, StorageError) as error:
                    return error
                rows[place] = (chunk_id, at)
            total += at.length
        if total != entry.size:
            return too_long(entry) if total > entry.size else too_short(entry)
        return None

    def _listed(self, entry: Entry) -> Iterator[_Part | _End]:
        try:
            yield from self._parts(self._located(entry))
        except (ChunkMissing, Corruption, StorageError) as error:
            yield _End(error)
        else:
            yield _End(None)

    def _located(self, entry: Entry) -> Iterator[tuple[ChunkId, int, Location | None]]:
        left = entry.size
        for chunk_id, length in self._list_rows(entry.content):
            left -= length
            if left < 0:
                raise too_long(entry)
            yield chunk_id, length, None if chunk_id == HOLE else self._blocks.locate(Kind.DATA, chunk_id)
        if left:
            raise too_short(entry)

    def _parts(self, rows: Iterator[tuple[ChunkId, int, Location | None]]) -> Iterator[_Part]:
        part = _Part()
        for chunk_id, length, at in rows:
            part.pieces.append((length, at is None))
            if at is not None:
                part.order.add(self._fetcher, chunk_id, at)
                part.length += length
            if part.full:
                yield part
                part = _Part()
        if part.pieces:
            yield part


def _is_read(entry: Entry) -> bool:
    return entry.is_regular and len(entry.content) > 0 and entry.mark not in WITHOUT_CONTENT
