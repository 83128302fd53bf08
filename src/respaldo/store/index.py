"""The index: chunk → (pack, row of its footer), kept locally in LMDB; derived from footers, disposable.

Every chunk of every pack has an ordinal; a pack's number is that of its first chunk, the others count on, and none is
ever given twice. `Ordinals` says which ordinals a chunk may have by some bytes of its id; a chunk counts as known only
when its full id stands in the footer that an ordinal leads to, so that a shared prefix can never lose data. A pack is
entered last under its name, so that a pack whose rows are half written does not exist; until then it is noted as
pending for its process, and cleared away when that is gone. Never says that a chunk is there before its pack is
durable: who adds a pack has put it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

import lmdb

from respaldo.core.ids import CHUNK_ID_BYTES, ChunkId, PackName, SegmentName
from respaldo.store.bulk import Bulk, Found
from respaldo.store.gate import NUMBER, VERSION, Gate
from respaldo.store.local import Environment
from respaldo.store.ordinals import DATABASES, Ordinals, Reader
from respaldo.store.packrow import CHECK_BYTES, PACK, Entering, Hint, Indexed, check
from respaldo.store.rows import Rows
from respaldo.store.table import Table

LAYOUT = "index 4"
_ENTERED_BYTES = 1 << 20
"""Footers are written in transactions of about so many bytes: they are memory until then."""
_PUBLISHED = 1000


class Index:
    """Looks chunks up. One thread at a time; other processes may use the same environment."""

    def __init__(self, path: Path) -> None:
        plain = ("packs", "names", "pending", "footers", "segments", "records", "counters")
        databases = {**DATABASES, **dict.fromkeys(plain, False)}
        self._environment = Environment(path, layout=LAYOUT, databases=databases)
        self._dbs = self._environment.dbs
        self._path = path
        self.ordinals = Ordinals(self._environment, "counters")
        self._gate = Gate(self._environment, str(path))
        self._txn: lmdb.Transaction | None = None
        self._reader: Reader | None = None
        self._ids_at: dict[int, tuple[int, int]] = {}
        self._numbers: list[int] = []
        """The keys of `_ids_at`, ascending."""
        self._table = Table()
        self._hints: list[Hint] = []
        """The last one and the one before: files and the trees over them stand in different packs."""
        self.usable: set[int] = set()
        """Numbers of the packs that new data may be deduplicated against: listed, whole, not condemned."""
        self.spoilt: dict[int, int] = {}
        """Rows of packs that are damaged, a bit each, by number: no new data is deduplicated against them."""

    @property
    def thrown_away(self) -> bool:
        """Whether the one that was there could not be used, and this one is made anew."""
        return self._environment.thrown_away

    def close(self) -> None:
        """Ends reading and makes the environment durable."""
        self._end_read()
        self._environment.close()

    def discard(self) -> None:
        """Throws the index away, to be built anew."""
        self._end_read()
        self._ids_at.clear()
        self._numbers.clear()
        self._table = Table()
        self.usable.clear()
        self._environment.discard()
        self._dbs = self._environment.dbs

    def length_bytes(self) -> tuple[int, int]:
        """Returns what the index takes on disk, and what the footers and manifests that are cached beside it take."""
        txn = self._read()
        cached = 0
        for name in ("footers", "records"):
            stat = txn.stat(self._dbs[name])
            cached += stat["psize"] * (stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"])
        return max(self._environment.length_bytes() - cached, 0), cached

    # --- reading -------------------------------------------------------------------------------------------------

    def _read(self) -> lmdb.Transaction:
        if self._txn is None:
            self._txn = self._environment.begin_read()
            self._reader = self.ordinals.begin(self._txn)
        return self._txn

    def _end_read(self) -> None:
        self._hints.clear()
        if self._txn is not None:
            self._reader = None
            self._txn.abort()
            self._txn = None

    def find(self, chunk_id: ChunkId, *, usable_only: bool) -> tuple[int, int] | None:
        """Returns (pack number, row) of a chunk, None where no pack holds it; ``usable_only``: among `usable` packs.

        One that is known to be damaged is returned where there is no other, and not ``usable_only``.
        """
        for hint in self._hints:
            at = hint.at
            if (
                bytes(hint.footer[at : at + CHUNK_ID_BYTES]) == chunk_id
                and at < hint.end
                and hint.number not in self.spoilt
                and (not usable_only or hint.number in self.usable)
            ):
                hint.at = at + CHUNK_ID_BYTES
                if hint is not self._hints[0]:
                    self._hints.reverse()
                return hint.number, (at - hint.start) // CHUNK_ID_BYTES
        txn = self._read()
        damaged: tuple[int, int] | None = None
        for ordinal in self._reader.find(chunk_id) if self._reader is not None else ():
            number = self._number_at(txn, ordinal)
            if number in self.usable or (number >= 0 and not usable_only):
                at, end = self._ids_at[number]
                start = at + (ordinal - number) * CHUNK_ID_BYTES
                footer = txn.get(NUMBER.pack(number), db=self._dbs["footers"])
                if footer is not None and footer[start : start + CHUNK_ID_BYTES] == chunk_id:
                    if self.spoilt and self.spoilt.get(number, 0) >> (ordinal - number) & 1:
                        damaged = damaged or (number, ordinal - number)
                        continue
                    self._hints[1:] = self._hints[:1]
                    self._hints[:1] = [Hint(number, memoryview(footer), at, end, start + CHUNK_ID_BYTES)]
                    return number, ordinal - number
        return None if usable_only else damaged

    def find_run(self, ids: bytes, at: int, *, usable_only: bool = True) -> tuple[int, int, int] | None:
        """Returns (pack number, row, number) of the ids from an offset on that lie together in one pack, as `find`."""
        found = self.find(ChunkId(ids[at : at + CHUNK_ID_BYTES]), usable_only=usable_only)
        if found is None:
            return None
        if found[0] in self.spoilt:  # some of it: each row has to be asked for
            return (*found, 1)
        return (*found, 1 + self._hints[0].run(ids, at + CHUNK_ID_BYTES))

    def find_many(self, ids: bytes, found: Found) -> list[int]:
        """Looks up many at once; what comes back and what ``found`` is called with, `Bulk.find` says."""
        txn = self._read()

        def place(ordinal: int) -> tuple[int, int, int]:
            number = self._number_at(txn, ordinal)
            return number, *self._ids_at.get(number, (0, 0))

        return Bulk(txn, self._dbs["footers"], self.ordinals.begin(txn), place, self.usable).find(ids, found)

    def copies(self, chunk_id: ChunkId) -> list[tuple[int, int]]:
        """Returns (pack number, row) of every copy of a chunk, for whoever met one that is damaged."""
        txn = self._read()
        ordinals = self._reader.find(chunk_id) if self._reader is not None else []
        return [position for found, position in self._at(txn, ordinals) if found == chunk_id]

    def _at(self, txn: lmdb.Transaction, ordinals: Iterable[int]) -> Iterator[tuple[bytes, tuple[int, int]]]:
        """Yields the whole id and the position of each ordinal of a pack that is entered."""
        for ordinal in ordinals:
            number = self._number_at(txn, ordinal)
            footer = txn.get(NUMBER.pack(number), db=self._dbs["footers"]) if number >= 0 else None
            if footer is not None:
                start = self._ids_at[number][0] + (ordinal - number) * CHUNK_ID_BYTES
                yield bytes(footer[start : start + CHUNK_ID_BYTES]), (number, ordinal - number)

    def duplicates(self) -> Iterator[list[tuple[int, int]]]:
        """Yields (pack number, row) of all copies of every chunk that has several; nothing may be written meanwhile."""
        txn = self._read()
        for ordinals in self._reader.shared() if self._reader is not None else ():
            by_id: dict[bytes, list[tuple[int, int]]] = {}
            for chunk_id, position in self._at(txn, ordinals):
                by_id.setdefault(chunk_id, []).append(position)
            yield from (copies for copies in by_id.values() if len(copies) > 1)

    def _number_at(self, txn: lmdb.Transaction, ordinal: int) -> int:
        """Returns the number of the pack that an ordinal belongs to, -1 where that is not (or no longer) entered."""
        at = bisect_right(self._numbers, ordinal) - 1
        if at >= 0:
            number = self._numbers[at]
            first, end = self._ids_at[number]
            if (ordinal - number) * CHUNK_ID_BYTES < end - first:
                return number
        cursor = txn.cursor(db=self._dbs["packs"])
        key = NUMBER.pack(ordinal)
        if not (cursor.set_range(key) and cursor.key() == key) and not cursor.prev():
            return -1  # with no key at or above it, a cursor is at the end, and `prev` goes to the last one
        number = int(NUMBER.unpack(cursor.key())[0])
        name, _, first, count = PACK.unpack(cursor.value())
        if ordinal >= number + count or txn.get(name, db=self._dbs["names"]) != cursor.key():
            return -1
        self._numbers.insert(bisect_right(self._numbers, number), number)
        self._ids_at[number] = (int(first), int(first) + int(count) * CHUNK_ID_BYTES)
        return number

    def pack(self, number: int) -> Indexed | None:
        """Returns the pack of a number."""
        packed = self._read().get(NUMBER.pack(number), db=self._dbs["packs"])
        if packed is None:
            return None
        return Indexed(number, *PACK.unpack(packed)[:2])

    def footer(self, number: int) -> bytes:
        """Returns the encoded footer of a pack, empty where it is not entered, or is not any more what was entered."""
        try:
            found = self._entry(self._read(), number)
        except lmdb.CorruptedError:
            return b""
        return found[1] if found else b""

    def entry(self, number: int) -> tuple[Indexed, bytes] | None:
        """Returns a pack and its encoded footer, None where it is not entered. For any thread, unlike all else here.

        Raises `lmdb.CorruptedError` where they are not any more what was entered.
        """
        with self._environment.read() as txn:
            return self._entry(txn, number)

    def _entry(self, txn: lmdb.Transaction, number: int) -> tuple[Indexed, bytes] | None:
        key = NUMBER.pack(number)
        packed, stored = txn.get(key, db=self._dbs["packs"]), txn.get(key, db=self._dbs["footers"])
        if packed is None or stored is None:
            return None
        encoded = bytes(stored[:-CHECK_BYTES])
        if stored[-CHECK_BYTES:] != check(packed, encoded):
            raise lmdb.CorruptedError("a footer is not what was entered")
        return Indexed(number, *PACK.unpack(packed)[:2]), encoded

    def packs(self) -> list[Indexed]:
        """Returns the packs that are entered, in the order of their numbers."""
        return self._packs().packs()

    def lengths(self) -> Mapping[PackName, int]:
        """Returns the lengths in bytes of the packs that are entered; good until packs are added or forgotten."""
        return self._packs().lengths

    def use(self, there: Mapping[PackName, int], condemned: Collection[PackName]) -> None:
        """Makes `usable` what is listed with the length it was entered with, and not condemned."""
        self.usable = self._packs().usable(there, condemned)

    def _packs(self) -> Table:
        txn = self._read()
        version = bytes(txn.get(VERSION, b"", db=self._dbs["counters"]))
        if not version or version != self._table.version:
            pending = {bytes(key) for key in txn.cursor(db=self._dbs["pending"]).iternext(values=False)}
            self._table.read(version, txn.cursor(db=self._dbs["packs"]), pending)
        return self._table

    def number_of(self, name: PackName) -> int | None:
        """Returns the number of a pack, None where it is not entered."""
        found = self._read().get(name, db=self._dbs["names"])
        return None if found is None else int(NUMBER.unpack(found)[0])

    def chunk_count(self) -> int:
        """Returns the number of rows, copies and rows of packs that are gone included."""
        return self.ordinals.count(self._read())

    # --- writing -------------------------------------------------------------------------------------------------

    def add_packs(self, packs: Iterable[Entering]) -> list[int]:
        """Enters packs that are durable; returns their numbers. Takes any number of them, one after the other."""
        self._end_read()
        entered: list[tuple[int, PackName]] = []
        with Rows(self._path.parent) as rows:
            part: list[Entering] = []
            held = 0
            for pack in packs:
                part.append(pack)
                if not held and not entered:  # not where there is nothing to enter: a mark costs a sync
                    self._end_read()
                    self._environment.write(self._gate.clear_abandoned)
                held += len(pack[3])
                if held >= _ENTERED_BYTES:
                    entered += self._enter(part, rows)
                    part, held = [], 0
            entered += self._enter(part, rows)
            self._end_read()  # whoever yields packs may have looked something up
            self.ordinals.insert(rows, self._live(), entered[0][0] if entered else 0)
        numbers: list[int] = []
        for first in range(0, len(entered), _PUBLISHED):
            made = self._environment.write(partial(self._gate.publish, entered[first : first + _PUBLISHED]))
            self._table.add(*made.versions, made.fresh)
            numbers += made.numbers
        return numbers

    def _live(self) -> Iterator[tuple[int, int]]:
        """Yields where the ordinals of every pack begin and end, pending ones included."""
        with self._environment.read() as txn:
            for key, packed in txn.cursor(db=self._dbs["packs"]):
                number = int(NUMBER.unpack(key)[0])
                yield number, number + int(PACK.unpack(packed)[3])

    def _enter(self, part: list[Entering], rows: Rows) -> list[tuple[int, PackName]]:
        if not part:
            return []
        self._end_read()
        numbers = self._environment.write(partial(self._gate.put, part))
        for number, (_, _, footer, _) in zip(numbers, part, strict=True):
            rows.add(footer.ids, number)
        return [(number, pack[0]) for number, pack in zip(numbers, part, strict=True)]

    def forget_packs(self, packs: Iterable[Indexed]) -> None:
        """Takes packs out that are no longer listed; their rows stay behind and point nowhere."""
        self._end_read()
        gone = list(packs)
        self._environment.write(partial(self._gate.drop, gone))
        for number in (item.number for item in gone):
            if self._ids_at.pop(number, None) is not None:
                del self._numbers[bisect_left(self._numbers, number)]
            self.usable.discard(number)

    def note_segments(self, applied: Iterable[SegmentName], gone: Iterable[SegmentName] = ()) -> None:
        """Remembers segments as applied, and forgets those that are no longer listed."""
        self._replace("segments", dict.fromkeys(map(bytes, applied), b""), map(bytes, gone))

    def _replace(self, database: str, fresh: Mapping[bytes, bytes], gone: Iterable[bytes]) -> None:
        self._end_read()
        names = list(gone)  # an action may run twice

        def replace(txn: lmdb.Transaction) -> None:
            for name, value in fresh.items():
                txn.put(name, value, db=self._dbs[database])
            for name in names:
                txn.delete(name, db=self._dbs[database])

        self._environment.write(replace)

    def segments(self) -> set[SegmentName]:
        """Returns the segments that were applied."""
        return {SegmentName(bytes(key)) for key in self._read().cursor(self._dbs["segments"]).iternext(values=False)}

    # --- immutable records, cached ---------------------------------------------------------------------------------

    def record(self, name: str) -> bytes | None:
        """Returns a cached record."""
        found = self._read().get(name.encode(), db=self._dbs["records"])
        return None if found is None else bytes(found)

    def records(self, prefix: str) -> Iterator[tuple[str, memoryview]]:
        """Yields (name, record) of the cached records whose names begin so; valid until something is written."""
        cursor = self._read().cursor(db=self._dbs["records"])
        if not cursor.set_range(prefix.encode()):
            return
        for key, record in cursor.iternext():
            name = str(key, "ascii")
            if not name.startswith(prefix):
                return
            yield name, memoryview(record)

    def put_records(self, records: dict[str, bytes], gone: Iterable[str] = ()) -> None:
        """Caches immutable records, and forgets those that are gone."""
        self._replace("records", {name.encode(): data for name, data in records.items()}, map(str.encode, gone))

    def record_names(self) -> list[str]:
        """Returns the names of all cached records."""
        return [bytes(key).decode() for key in self._read().cursor(self._dbs["records"]).iternext(values=False)]
