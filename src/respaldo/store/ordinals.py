"""Which ordinals a chunk may have: rows of 4 bytes of its id and an ordinal, in a base and a recent database.

The base holds a column of keys and one of ordinals for each two bytes that ids begin with, sorted by key, so that a row
takes little more than its 6 bytes. The recent database takes what comes one pack after the other, two bytes of id as
key, the rest as ``dupfixed`` values. When it outgrows its share it is merged into the base, partition by partition,
each in one transaction: whoever is killed in between leaves an index that is right, other processes see every row
before and after, and no more than a partition is in memory. Rows of packs that are gone stay until a merge finds too
many of them. Whether a row tells the truth is for the caller to find out.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import compress, count
from operator import eq

import lmdb

from respaldo.format.columns import u32_array
from respaldo.store.local import Environment
from respaldo.store.rows import (
    BUCKETS,
    PARTITIONS,
    Bucket,
    Rows,
    buckets_of,
    columns_of_ids,
    native,
    ordinals_of,
    rows_of_words,
    sort_words,
    words_of_buckets,
    words_of_rows,
)

ROWS_PER_TRANSACTION = 2000
DATABASES = {"base": False, "recent": True}
RECENT_ROWS_MIN = 400_000
"""Up to so many rows nothing is merged: a snapshot of a hundred thousand files is none the slower for it."""
RECENT_SHARE = 8
"""Beyond, the recent database holds at most one row for so many of the base."""
_STALE_SHARE = 2
"""A merge drops rows of packs that are gone where there are more than so many rows for one that is not."""
_KEY = 2
_ROW = 6
_COUNT = b"base rows"
_COUNT_BYTES = 8


class Ordinals:
    """Holds rows. One thread at a time; other processes may use the same environment."""

    def __init__(self, environment: Environment, counters: str) -> None:
        self._environment = environment
        self._counters = counters
        self.recent_rows_min = RECENT_ROWS_MIN

    def begin(self, txn: lmdb.Transaction) -> Reader:
        """Returns what looks rows up in a read transaction."""
        dbs = self._environment.dbs
        return Reader(txn, dbs["base"], dbs["recent"])

    def count(self, txn: lmdb.Transaction) -> int:
        """Returns the number of rows, those of packs that are gone included."""
        return self._base_count(txn) + int(txn.stat(self._environment.dbs["recent"])["entries"])

    def _base_count(self, txn: lmdb.Transaction) -> int:
        found = txn.get(_COUNT, db=self._environment.dbs[self._counters])
        return 0 if found is None else int.from_bytes(found, "big")

    def insert(self, rows: Rows, live: Iterable[tuple[int, int]], limit: int) -> None:
        """Adds rows; merges where the recent database would outgrow its share.

        ``live``: (first ordinal, end) of every pack, ascending, read only where rows are merged; ordinals from
        ``limit`` on are live whatever it says.
        """
        if not rows.count:
            return
        with self._environment.read() as txn:
            base = self._base_count(txn)
            recent = self.count(txn) - base
        if recent + rows.count > max(self.recent_rows_min, base // RECENT_SHARE):
            known = _Gone(list(live), limit)
            stale = base + recent + rows.count > _STALE_SHARE * known.live + self.recent_rows_min
            gone = known if stale else None
            for number in range(PARTITIONS):
                self._environment.write(partial(self._merge, number, rows.partition(number), gone))
            return
        held: list[tuple[bytes, bytes]] = []
        for number in range(PARTITIONS):
            words = rows.partition(number)
            if words:
                held += rows_of_words(number, sort_words(words))
            if held and (len(held) >= ROWS_PER_TRANSACTION or number == PARTITIONS - 1):
                for first in range(0, len(held), ROWS_PER_TRANSACTION):
                    self._environment.write(partial(self._put, held[first : first + ROWS_PER_TRANSACTION]))
                held = []

    def _put(self, rows: list[tuple[bytes, bytes]], txn: lmdb.Transaction) -> None:
        txn.cursor(self._environment.dbs["recent"]).putmulti(rows, dupdata=True)

    def _merge(self, number: int, fresh: bytes, gone: _Gone | None, txn: lmdb.Transaction) -> None:
        """Writes a partition anew, of what is in the base, what is in the recent database, and fresh words."""
        dbs = self._environment.dbs
        base, recent = txn.cursor(dbs["base"]), txn.cursor(dbs["recent"])
        if not fresh and gone is None and not (recent.set_range(bytes((number, 0))) and recent.key()[0] == number):
            return
        before = _read_buckets(base, number)
        keys = [bytes((number, second)) for second in range(BUCKETS)]
        rows = recent.getmulti(keys, dupdata=True, dupfixed_bytes=_ROW, keyfixed=True)
        words: bytes | bytearray = b"".join((words_of_buckets(before), words_of_rows(bytes(rows)), fresh))
        if gone is not None:
            words = gone.drop(words)
        after = buckets_of(sort_words(words))
        for key in keys if rows else ():
            if recent.set_key(key):
                recent.delete(dupdata=True)
        for emptied in {bucket.number for bucket in before} - {bucket.number for bucket in after}:
            txn.delete(keys[emptied], db=dbs["base"])
        # Appended, pages are full; what is written again finds its place among the others.
        append = not base.last() or bytes(base.key()) < keys[0]
        for bucket in after:
            value = bytes(native("H", bucket.keys)) + bytes(native("I", bucket.ordinals))
            base.put(keys[bucket.number], value, append=append)
        had = sum(len(bucket.keys) for bucket in before) // _KEY
        total = self._base_count(txn) - had + len(words) // 8
        txn.put(_COUNT, total.to_bytes(_COUNT_BYTES, "big"), db=dbs[self._counters])


def _read_buckets(cursor: lmdb.Cursor, number: int) -> list[Bucket]:
    found = []
    more = cursor.set_range(bytes((number, 0)))
    while more:
        key, value = bytes(cursor.key()), bytes(cursor.value())
        if key[0] != number:
            break
        middle = _middle(len(value))
        found.append(Bucket(key[1], bytes(native("H", value[:middle])), bytes(native("I", value[middle:]))))
        more = cursor.next()
    return found


def _middle(length_bytes: int) -> int:
    """Returns where in a bucket the ordinals begin; raises `lmdb.CorruptedError` for what no bucket is as long as."""
    if length_bytes % _ROW:
        raise lmdb.CorruptedError("a bucket of the index is not what was entered")
    return length_bytes // _ROW * _KEY


class _Gone:
    """Knows which ordinals belong to no pack any more. No ordinal is given twice: what is gone stays so."""

    def __init__(self, live: list[tuple[int, int]], limit: int) -> None:
        self._firsts = [first for first, _ in live]
        self._ends = [end for _, end in live]
        self._limit = limit
        self.live = sum(self._ends) - sum(self._firsts)

    def drop(self, words: bytes | bytearray) -> bytes | bytearray:
        """Returns the words whose ordinals are not gone."""
        kept = []
        for at, ordinal in enumerate(ordinals_of(words)):
            pack = bisect_right(self._firsts, ordinal) - 1
            if ordinal >= self._limit or (pack >= 0 and ordinal < self._ends[pack]):
                kept.append(words[8 * at : 8 * at + 8])
        return b"".join(kept)


class Reader:
    """Looks rows up in one read transaction, whose values are buffers."""

    __slots__ = ("_base", "_recent", "_txn")

    def __init__(self, txn: lmdb.Transaction, base: lmdb._Database, recent: lmdb._Database) -> None:
        self._txn = txn
        # An empty database costs a look-up like any other, and most have one of the two.
        self._base = base if txn.stat(base)["entries"] else None
        self._recent = txn.cursor(db=recent) if txn.stat(recent)["entries"] else None

    def find(self, chunk_id: bytes) -> list[int]:
        """Returns the ordinals that a chunk may have."""
        found: list[int] = []
        if self._base is not None:
            held = self._txn.get(chunk_id[:_KEY], db=self._base)
            if held is not None:
                bucket = memoryview(held)
                middle = _middle(len(bucket))
                keys = bucket[:middle].cast("H")
                wanted = chunk_id[2] << 8 | chunk_id[3]
                at = bisect_left(keys, wanted)
                while at < len(keys) and keys[at] == wanted:
                    found.append(bucket[middle:].cast("I")[at])
                    at += 1
        cursor = self._recent
        if cursor is not None:
            prefix = chunk_id[_KEY : 2 * _KEY]
            more = cursor.set_range_dup(chunk_id[:_KEY], prefix)
            while more:
                value = cursor.value()
                if value[:_KEY] != prefix:
                    break
                found.append(int.from_bytes(value[_KEY:], "big"))
                more = cursor.next_dup()
        return found

    def find_sorted(self, asked: bytes) -> tuple[array[int], array[int]]:
        """Looks up sorted words of ids; returns ordinals that they may have, and the numbers of the words they are of.

        One beside the other: every row that begins as an id does is there once for each word of it.
        """
        prefixes, wanted, numbers = columns_of_ids(asked)
        found, of = array("I"), array("I")
        at = 0
        while at < len(prefixes):
            prefix = prefixes[at]
            end = bisect_right(prefixes, prefix, at)
            for column, ordinals in self._columns(prefix.to_bytes(_KEY, "big")):
                last = len(column)
                row = 0
                for key, number in zip(wanted[at:end], numbers[at:end], strict=True):
                    row = bisect_left(column, key, row)
                    same = row
                    while same < last and column[same] == key:
                        found.append(ordinals[same])
                        of.append(number)
                        same += 1
            at = end
        return found, of

    def _columns(self, key: bytes) -> Iterator[tuple[array[int], array[int]]]:
        """Yields keys and ordinals of one bucket, sorted: of the base, of the recent database."""
        held = self._txn.get(key, db=self._base) if self._base is not None else None
        if held is not None:
            middle = _middle(len(held))
            yield array("H", bytes(native("H", held[:middle]))), array("I", bytes(native("I", held[middle:])))
        if self._recent is not None and self._recent.set_key(key):
            rows = bytes(self._recent.getmulti([key], dupdata=True, dupfixed_bytes=_ROW, keyfixed=True))
            column, numbers = bytearray(len(rows) // 4), bytearray(len(rows) // 2)
            for byte in range(2):
                column[byte::2] = rows[3 - byte :: 8]
            for byte in range(4):
                numbers[byte::4] = rows[7 - byte :: 8]
            yield array("H", bytes(native("H", column))), array("I", bytes(native("I", numbers)))

    def _recent_rows(self, number: int) -> bytes:
        """Returns a partition's rows of the recent database, which mostly holds few: its keys are not guessed."""
        cursor = self._recent
        if cursor is None or not cursor.set_range(bytes((number, 0))):
            return b""
        keys: list[bytes] = []
        while (key := bytes(cursor.key()))[0] == number:
            if len(key) == 2:
                keys.append(key)
            if not cursor.next_nodup():
                break
        return bytes(cursor.getmulti(keys, dupdata=True, dupfixed_bytes=_ROW, keyfixed=True)) if keys else b""

    def shared(self) -> Iterator[list[int]]:
        """Yields the ordinals of all rows that have the same 4 bytes of an id, where they are several."""
        for number in range(PARTITIONS):
            words = bytearray()
            if self._base is not None:
                words += words_of_buckets(_read_buckets(self._txn.cursor(db=self._base), number))
            words += words_of_rows(self._recent_rows(number))
            if not words:  # most partitions of a small repository
                continue
            ordered = sort_words(words)
            prefixes = u32_array(ordered)[1::2]
            ordinals = ordinals_of(ordered)
            end = 0
            for at in compress(count(), map(eq, prefixes, prefixes[1:])):
                if at < end:
                    continue
                end = bisect_right(prefixes, prefixes[at], at)
                yield ordinals[at:end].tolist()
