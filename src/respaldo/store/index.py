"""The index: chunk → (pack, row of its footer), kept locally in LMDB; derived from footers, disposable.

A chunk counts as known only when its full id stands in the footer that a row points to, so that a shared prefix can
never lose data. Rows are packed without node headers: key = first 2 bytes of the id, values = 6 more bytes, pack number
and row (14 bytes, ``dupfixed``). A pack is entered last under its name, so that a pack whose rows are half written does
not exist. Never says that a chunk is there before its pack is durable: who adds a pack has put it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import lmdb
from blake3 import blake3

from respaldo.core.ids import CHUNK_ID_BYTES, ChunkId, PackName, SegmentName
from respaldo.core.seams import Buffer
from respaldo.format.pack import Footer
from respaldo.store.local import Environment

LAYOUT = "index 3"
ROWS_PER_TRANSACTION = 2000
_KEY_BYTES = 2
_PREFIX_BYTES = 6
_ROW = struct.Struct(">II")
_NUMBER = struct.Struct(">I")
_PACK = struct.Struct(">32sQII")
"""Name, length in bytes, offset of the ids in the encoded footer, number of chunks."""
_NEXT = b"next"
_CHECK_BYTES = 16
"""A BLAKE3 of row and footer of a pack behind the footer: one that rotted would pass for damage of the repository."""


class Indexed(NamedTuple):
    """Is a pack as the index knows it: number, name, length in bytes."""

    number: int
    name: PackName
    length_bytes: int


def _check(packed: Buffer, encoded: bytes) -> bytes:
    return blake3(packed).update(encoded).digest(_CHECK_BYTES)


class _Hint:
    """Is the place behind the chunk found last: what was stored in a row is mostly looked up in a row.

    One comparison instead of a look-up in the tree, which gives up the interpreter's lock twice.
    """

    __slots__ = ("at", "end", "footer", "number", "start")

    def __init__(self, number: int, footer: memoryview, start: int, end: int, at: int) -> None:
        self.number = number
        self.footer = footer
        self.start = start
        self.end = end
        self.at = at


class Index:
    """Looks chunks up. One thread at a time; other processes may use the same environment."""

    def __init__(self, path: Path) -> None:
        self._environment = Environment(
            path,
            layout=LAYOUT,
            databases={
                "chunks": True,
                "packs": False,
                "names": False,
                "footers": False,
                "segments": False,
                "records": False,
                "counters": False,
            },
        )
        self._dbs = self._environment.dbs
        self._txn: lmdb.Transaction | None = None
        self._cursor: lmdb.Cursor | None = None
        self._ids_at: dict[int, tuple[int, int]] = {}
        self._hint: _Hint | None = None
        self.usable: set[int] = set()
        """Numbers of the packs that new data may be deduplicated against: listed, whole, not condemned."""

    def close(self) -> None:
        """Ends reading and makes the environment durable."""
        self._end_read()
        self._environment.close()

    def discard(self) -> None:
        """Throws the index away, to be built anew."""
        self._end_read()
        self._ids_at.clear()
        self.usable.clear()
        self._environment.discard()
        self._dbs = self._environment.dbs

    def length_bytes(self) -> int:
        """Returns what the index takes on disk, cached footers and manifests included."""
        return self._environment.length_bytes()

    # --- reading -------------------------------------------------------------------------------------------------

    def _read(self) -> lmdb.Transaction:
        if self._txn is None:
            self._txn = self._environment.begin_read()
            self._cursor = self._txn.cursor(db=self._dbs["chunks"])
        return self._txn

    def _end_read(self) -> None:
        self._hint = None
        if self._txn is not None:
            self._cursor = None
            self._txn.abort()
            self._txn = None

    def find(self, chunk_id: ChunkId, *, usable_only: bool) -> tuple[int, int] | None:
        """Returns (pack number, row) of a chunk, None where no pack holds it; ``usable_only``: among `usable` packs."""
        hint = self._hint
        if (
            hint is not None
            and bytes(hint.footer[hint.at : hint.at + CHUNK_ID_BYTES]) == chunk_id
            and hint.at < hint.end
            and (hint.number in self.usable or not usable_only)
        ):
            row = (hint.at - hint.start) // CHUNK_ID_BYTES
            hint.at += CHUNK_ID_BYTES
            return hint.number, row
        txn = self._read()
        cursor = self._cursor
        if cursor is None:  # pragma: no cover - _read made it
            return None
        prefix = chunk_id[_KEY_BYTES : _KEY_BYTES + _PREFIX_BYTES]
        if not cursor.set_range_dup(chunk_id[:_KEY_BYTES], prefix):
            return None
        footers = self._dbs["footers"]
        while True:
            value = cursor.value()
            if value[:_PREFIX_BYTES] != prefix:
                return None
            number, row = _ROW.unpack_from(value, _PREFIX_BYTES)
            if number in self.usable or not usable_only:
                at, end = self._ids_at.get(number) or self._find_ids(txn, number)
                if at >= 0:
                    footer = txn.get(_NUMBER.pack(number), db=footers)
                    start = at + row * CHUNK_ID_BYTES
                    if footer is not None and footer[start : start + CHUNK_ID_BYTES] == chunk_id:
                        self._hint = _Hint(number, memoryview(footer), at, end, start + CHUNK_ID_BYTES)
                        return number, row
            if not cursor.next_dup():
                return None

    def copies(self, chunk_id: ChunkId) -> list[tuple[int, int]]:
        """Returns (pack number, row) of every copy of a chunk, for whoever met one that is damaged."""
        txn = self._read()
        cursor = txn.cursor(db=self._dbs["chunks"])
        prefix = chunk_id[_KEY_BYTES : _KEY_BYTES + _PREFIX_BYTES]
        found: list[tuple[int, int]] = []
        more = cursor.set_range_dup(chunk_id[:_KEY_BYTES], prefix)
        while more and cursor.value()[:_PREFIX_BYTES] == prefix:
            number, row = _ROW.unpack_from(cursor.value(), _PREFIX_BYTES)
            at, _ = self._find_ids(txn, number)
            start = at + row * CHUNK_ID_BYTES
            footer = txn.get(_NUMBER.pack(number), db=self._dbs["footers"])
            if at >= 0 and footer is not None and footer[start : start + CHUNK_ID_BYTES] == chunk_id:
                found.append((number, row))
            more = cursor.next_dup()
        return found

    def _find_ids(self, txn: lmdb.Transaction, number: int) -> tuple[int, int]:
        """Returns where the ids begin and end in a pack's footer, -1 where the pack is not (or no longer) entered."""
        packed = txn.get(_NUMBER.pack(number), db=self._dbs["packs"])
        if packed is None:
            return -1, -1
        name, _, at, count = _PACK.unpack(packed)
        if txn.get(name, db=self._dbs["names"]) != _NUMBER.pack(number):
            return -1, -1
        found = self._ids_at[number] = (int(at), int(at) + int(count) * CHUNK_ID_BYTES)
        return found

    def pack(self, number: int) -> Indexed | None:
        """Returns the pack of a number."""
        packed = self._read().get(_NUMBER.pack(number), db=self._dbs["packs"])
        if packed is None:
            return None
        name, length_bytes, _, _ = _PACK.unpack(packed)
        return Indexed(number, PackName(name), length_bytes)

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
        key = _NUMBER.pack(number)
        packed, stored = txn.get(key, db=self._dbs["packs"]), txn.get(key, db=self._dbs["footers"])
        if packed is None or stored is None:
            return None
        encoded = bytes(stored[:-_CHECK_BYTES])
        if stored[-_CHECK_BYTES:] != _check(packed, encoded):
            raise lmdb.CorruptedError("a footer is not what was entered")
        name, length_bytes, *_ = _PACK.unpack(packed)
        return Indexed(number, PackName(name), length_bytes), encoded

    def packs(self) -> Iterator[Indexed]:
        """Yields the packs that are entered."""
        txn = self._read()
        for name, number in list(txn.cursor(db=self._dbs["names"])):
            packed = txn.get(number, db=self._dbs["packs"])
            if packed is not None:
                yield Indexed(_NUMBER.unpack(number)[0], PackName(bytes(name)), _PACK.unpack(packed)[1])

    def number_of(self, name: PackName) -> int | None:
        """Returns the number of a pack, None where it is not entered."""
        found = self._read().get(name, db=self._dbs["names"])
        return None if found is None else int(_NUMBER.unpack(found)[0])

    def has_segment(self, name: SegmentName) -> bool:
        """Whether a segment was applied."""
        return self._read().get(name, db=self._dbs["segments"]) is not None

    def chunk_count(self) -> int:
        """Returns the number of rows, copies and rows of packs that are gone included."""
        return int(self._read().stat(self._dbs["chunks"])["entries"])

    # --- writing -------------------------------------------------------------------------------------------------

    def add_packs(self, packs: Iterable[tuple[PackName, int, Footer, bytes]]) -> list[int]:
        """Enters packs that are durable: (name, length in bytes, footer, encoded footer). Returns their numbers."""
        self._end_read()
        entered: list[tuple[int, PackName]] = []
        rows: list[tuple[bytes, bytes]] = []
        for name, length_bytes, footer, encoded in packs:
            number = self._environment.write(partial(self._enter, (name, length_bytes, footer, encoded)))
            entered.append((number, name))
            ids = footer.ids
            rows += [
                (ids[at : at + _KEY_BYTES], ids[at + _KEY_BYTES : at + 8] + _ROW.pack(number, row))
                for row, at in enumerate(range(0, len(ids), CHUNK_ID_BYTES))
            ]
        rows.sort()
        for first in range(0, len(rows), ROWS_PER_TRANSACTION):
            self._environment.write(partial(self._put_rows, rows[first : first + ROWS_PER_TRANSACTION]))
        return self._environment.write(partial(self._publish, entered))

    def _publish(self, entered: list[tuple[int, PackName]], txn: lmdb.Transaction) -> list[int]:
        """Makes entered packs exist; where another process was first with one, its number stands, ours is dropped."""
        numbers: list[int] = []
        for number, name in entered:
            key = _NUMBER.pack(number)
            first = txn.get(name, db=self._dbs["names"])
            if first is None:
                txn.put(name, key, db=self._dbs["names"])
            else:
                txn.delete(key, db=self._dbs["packs"])
                txn.delete(key, db=self._dbs["footers"])
            numbers.append(int(_NUMBER.unpack(first or key)[0]))
        return numbers

    def _put_rows(self, rows: list[tuple[bytes, bytes]], txn: lmdb.Transaction) -> None:
        txn.cursor(self._dbs["chunks"]).putmulti(rows, dupdata=True)

    def _enter(self, pack: tuple[PackName, int, Footer, bytes], txn: lmdb.Transaction) -> int:
        name, length_bytes, footer, encoded = pack
        counters = self._dbs["counters"]
        number = int(_NUMBER.unpack(txn.get(_NEXT, _NUMBER.pack(1), db=counters))[0])
        txn.put(_NEXT, _NUMBER.pack(number + 1), db=counters)
        ids_at = encoded.find(footer.ids) if footer.ids else 0
        packed = _PACK.pack(name, length_bytes, ids_at, len(footer.ids) // CHUNK_ID_BYTES)
        txn.put(_NUMBER.pack(number), packed, db=self._dbs["packs"])
        txn.put(_NUMBER.pack(number), encoded + _check(packed, encoded), db=self._dbs["footers"])
        return number

    def forget_packs(self, packs: Iterable[Indexed]) -> None:
        """Takes packs out that are no longer listed; their rows stay behind and point nowhere."""
        self._end_read()
        gone = list(packs)

        def drop(txn: lmdb.Transaction) -> None:
            for item in gone:
                key = _NUMBER.pack(item.number)
                txn.delete(item.name, db=self._dbs["names"])
                txn.delete(key, db=self._dbs["packs"])
                txn.delete(key, db=self._dbs["footers"])

        self._environment.write(drop)
        for item in gone:
            self._ids_at.pop(item.number, None)
            self.usable.discard(item.number)

    def note_segments(self, applied: Iterable[SegmentName], gone: Iterable[SegmentName] = ()) -> None:
        """Remembers segments as applied, and forgets those that are no longer listed."""
        self._end_read()

        def note(txn: lmdb.Transaction) -> None:
            for name in applied:
                txn.put(name, b"", db=self._dbs["segments"])
            for name in gone:
                txn.delete(name, db=self._dbs["segments"])

        self._environment.write(note)

    def segments(self) -> set[SegmentName]:
        """Returns the segments that were applied."""
        keys = self._read().cursor(db=self._dbs["segments"]).iternext(values=False)
        return {SegmentName(bytes(key)) for key in keys}

    # --- immutable records, cached ---------------------------------------------------------------------------------

    def record(self, name: str) -> bytes | None:
        """Returns a cached record."""
        found = self._read().get(name.encode(), db=self._dbs["records"])
        return None if found is None else bytes(found)

    def records(self, prefix: str) -> Iterator[tuple[str, memoryview]]:
        """Yields (name, record) of the cached records whose names begin so; valid until something is written."""
        start = prefix.encode()
        cursor = self._read().cursor(db=self._dbs["records"])
        if not cursor.set_range(start):
            return
        for key, record in cursor.iternext():
            if key[: len(start)] != start:
                return
            yield str(key, "ascii"), memoryview(record)

    def put_records(self, records: dict[str, bytes], gone: Iterable[str] = ()) -> None:
        """Caches immutable records, and forgets those that are gone."""
        self._end_read()

        def put(txn: lmdb.Transaction) -> None:
            for name, data in records.items():
                txn.put(name.encode(), data, db=self._dbs["records"])
            for name in gone:
                txn.delete(name.encode(), db=self._dbs["records"])

        self._environment.write(put)

    def record_names(self) -> list[str]:
        """Returns the names of all cached records."""
        keys = self._read().cursor(db=self._dbs["records"]).iternext(values=False)
        return [bytes(key).decode() for key in keys]
