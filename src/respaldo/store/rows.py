"""Rows of the index in bulk: collected, sorted and split, a million a second, in flat memory.

A row says that a chunk has an ordinal: the first 4 bytes of its id, and a number of 4 bytes. No step of Python is taken
for a single row. They are sorted as doubles: 8 bytes whose first is 0x3f are a finite positive double whatever the
others are, such doubles have the order of their bytes, and Python compares floats in C, as it does nothing else that
holds so much. One word holds 7 bytes: either 4 of the id and the 3 lower ones of the ordinal (in a run, whose rows
share the upper one), or 3 of the id and the whole ordinal (in a partition, whose rows share the first byte of the id).
Beyond a batch, sorted runs wait in a temporary file.
"""

from __future__ import annotations

import os
import sys
import tempfile
from array import array
from bisect import bisect_left
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from respaldo.core.errors import StorageFailed
from respaldo.core.ids import CHUNK_ID_BYTES

PARTITIONS = 256
"""Rows are partitioned by the first byte of the id, and in a partition by the second one into buckets."""
BUCKETS = 256
ORDINALS_IN_RUN = 1 << 24
"""Ordinals of a run differ in their lower 3 bytes only; no pack's ordinals may lie on both sides of a multiple."""
ROWS_IN_BATCH = 1 << 17
_TOP = b"\x3f"
_WORD = 8
_BIG = sys.byteorder == "big"


class Bucket(NamedTuple):
    """Is what a bucket of a partition holds: keys of 2 bytes (u16) and ordinals (u32), in the order of the keys."""

    number: int
    keys: bytes
    ordinals: bytes


def native(code: str, data: bytes | bytearray | memoryview) -> bytes | bytearray | memoryview:
    """Turns a column of little-endian numbers into the machine's own order, and back."""
    if not _BIG:
        return data
    numbers = array(code, bytes(data))
    numbers.byteswap()
    return numbers.tobytes()


def words_of_ids(ids: bytes, numbers: array[int]) -> bytearray:
    """Returns the words of ids, each with 4 bytes of the id and the 3 lower ones of a number, in no order."""
    words = bytearray(_TOP) * (len(numbers) * _WORD)
    column = native("I", numbers.tobytes())
    for byte in range(4):
        words[6 - byte :: 8] = ids[byte::CHUNK_ID_BYTES]
    for byte in range(3):
        words[byte::8] = column[byte::4]
    return words


def columns_of_ids(words: bytes) -> tuple[array[int], array[int], array[int]]:
    """Returns of the words of ids the first 2 bytes, the next 2 bytes, and the number, as columns."""
    columns = []
    for high, low in ((6, 5), (4, 3)):
        column = bytearray(len(words) // 4)
        column[0::2], column[1::2] = words[low::8], words[high::8]
        columns.append(array("H", bytes(native("H", column))))
    numbers = bytearray(len(words) // 2)
    for byte in range(3):
        numbers[byte::4] = words[byte::8]
    return columns[0], columns[1], array("I", bytes(native("I", numbers)))


def sort_by_ordinal(ordinals: array[int], numbers: array[int]) -> tuple[array[int], array[int]]:
    """Sorts two columns by the first; of the second, the 3 lower bytes count."""
    words = bytearray(_TOP) * (len(ordinals) * _WORD)
    first, second = native("I", ordinals.tobytes()), native("I", numbers.tobytes())
    for byte in range(4):
        words[3 + byte :: 8] = first[byte::4]
    for byte in range(3):
        words[byte::8] = second[byte::4]
    held = sort_words(words)
    sorted_ordinals, sorted_numbers = bytearray(len(first)), bytearray(len(second))
    for byte in range(4):
        sorted_ordinals[byte::4] = held[3 + byte :: 8]
    for byte in range(3):
        sorted_numbers[byte::4] = held[byte::8]
    return array("I", bytes(native("I", sorted_ordinals))), array("I", bytes(native("I", sorted_numbers)))


def sort_words(words: bytes | bytearray) -> bytes:
    """Returns the words (little-endian, 8 bytes each) sorted."""
    numbers = array("d")
    numbers.frombytes(words)
    if _BIG:
        numbers.byteswap()
    held = numbers.tolist()
    held.sort()
    numbers = array("d", held)
    if _BIG:
        numbers.byteswap()
    return numbers.tobytes()


def _bounds(words: bytes) -> array[int]:
    """Returns where, in sorted words, each value of the byte below the top one begins, and the end: 257 numbers."""
    numbers = array("Q")
    numbers.frombytes(words)
    if _BIG:
        numbers.byteswap()
    low = 0
    bounds = array("I")
    for value in range(256):
        low = bisect_left(numbers, _TOP[0] << 56 | value << 48, low)
        bounds.append(low)
    bounds.append(len(numbers))
    return bounds


def words_of_buckets(buckets: list[Bucket]) -> bytearray:
    """Returns the words of a partition's buckets, in no order."""
    keys = b"".join(bucket.keys for bucket in buckets)
    ordinals = b"".join(bucket.ordinals for bucket in buckets)
    words = bytearray(_TOP) * (len(keys) // 2 * _WORD)
    words[6::8] = b"".join(bytes((bucket.number,)) * (len(bucket.keys) // 2) for bucket in buckets)
    words[5::8], words[4::8] = keys[1::2], keys[0::2]
    for byte in range(4):
        words[byte::8] = ordinals[byte::4]
    return words


def words_of_rows(rows: bytes) -> bytearray:
    """Returns the words of a partition's rows as the recent database holds them: 4 bytes of id, big-endian ordinal."""
    words = bytearray(_TOP) * len(rows)
    for byte in range(7):
        words[byte::8] = rows[7 - byte :: 8]
    return words


def rows_of_words(partition: int, words: bytes) -> list[tuple[bytes, bytes]]:
    """Returns the rows of a partition's words as the recent database holds them: (key, value)."""
    rows = bytearray(len(words))
    rows[0::8] = bytes((partition,)) * (len(words) // _WORD)
    for byte in range(7):
        rows[7 - byte :: 8] = words[byte::8]
    held = bytes(rows)
    return [(held[at : at + 2], held[at + 2 : at + 8]) for at in range(0, len(held), _WORD)]


def ordinals_of(words: bytes | bytearray) -> array[int]:
    """Returns the ordinals of a partition's words."""
    column = bytearray(len(words) // 2)
    for byte in range(4):
        column[byte::4] = words[byte::8]
    return array("I", bytes(native("I", column)))


def buckets_of(words: bytes) -> list[Bucket]:
    """Splits the sorted words of a partition; leaves empty buckets out."""
    bounds = _bounds(words)
    keys = bytearray(len(words) // 4)
    keys[0::2], keys[1::2] = words[4::8], words[5::8]
    ordinals = bytearray(len(words) // 2)
    for byte in range(4):
        ordinals[byte::4] = words[byte::8]
    return [
        Bucket(number, bytes(keys[2 * low : 2 * high]), bytes(ordinals[4 * low : 4 * high]))
        for number in range(BUCKETS)
        if (low := bounds[number]) < (high := bounds[number + 1])
    ]


class _Run(NamedTuple):
    """Is a sorted run: the upper byte of its ordinals, where its partitions begin (in words), and where it lies."""

    high: int
    bounds: array[int]
    words: bytes
    """Empty where the run lies in the file."""
    at: int


class Rows:
    """Collects rows and gives them back by partition. A context manager; one thread."""

    def __init__(self, folder: Path, *, batch: int = ROWS_IN_BATCH) -> None:
        self._folder = folder
        self._batch = batch
        self._ids: list[bytes] = []
        self._ordinals = array("I")
        self._runs: list[_Run] = []
        self._fd = -1
        self._end = 0
        self.count = 0

    def add(self, ids: bytes, first: int) -> None:
        """Adds the chunks of a pack (32 bytes an id), whose ordinals count from a first one."""
        if not ids:
            return
        if self._ordinals and (
            len(self._ordinals) >= self._batch or self._ordinals[0] // ORDINALS_IN_RUN != first // ORDINALS_IN_RUN
        ):
            self._sort()
        count = len(ids) // CHUNK_ID_BYTES
        self._ids.append(ids)
        self._ordinals.extend(range(first, first + count))
        self.count += count

    def _sort(self) -> None:
        """Makes a run of what was collected; only the last run stays in memory."""
        if not self._ordinals:
            return
        words = words_of_ids(b"".join(self._ids), self._ordinals)
        high = self._ordinals[0] // ORDINALS_IN_RUN
        self._ids.clear()
        self._ordinals = array("I")
        held = sort_words(words)
        if self._runs:
            self._spill()
        self._runs.append(_Run(high, _bounds(held), held, 0))

    def _spill(self) -> None:
        last = self._runs[-1]
        if not last.words:
            return
        try:
            if self._fd < 0:
                self._fd, name = tempfile.mkstemp(dir=self._folder, prefix="rows-")
                os.unlink(name)  # whoever is killed leaves nothing
            view = memoryview(last.words)
            at = self._end
            while view:
                written = os.pwrite(self._fd, view, self._end)
                self._end += written
                view = view[written:]
        except OSError as error:
            raise StorageFailed(str(self._folder), f"local cache: {error.strerror}") from None
        self._runs[-1] = last._replace(words=b"", at=at)

    def partition(self, number: int) -> bytes:
        """Returns the words of a partition, in no order. Nothing may be added afterwards."""
        self._sort()
        parts: dict[int, list[bytes]] = {}
        for run in self._runs:
            low, high = run.bounds[number] * _WORD, run.bounds[number + 1] * _WORD
            if low < high:
                piece = run.words[low:high] if run.words else self._read(run.at + low, high - low)
                parts.setdefault(run.high, []).append(piece)
        found = []
        for upper, pieces in parts.items():
            words = bytearray(b"".join(pieces))
            words[6::8], words[5::8], words[4::8] = words[5::8], words[4::8], words[3::8]
            words[3::8] = bytes((upper,)) * (len(words) // _WORD)
            found.append(words)
        return b"".join(found)

    def _read(self, at: int, length: int) -> bytes:
        try:
            data = os.pread(self._fd, length, at)
        except OSError as error:
            raise StorageFailed(str(self._folder), f"local cache: {error.strerror}") from None
        if len(data) != length:
            raise StorageFailed(str(self._folder), "local cache: a temporary file lost its end")
        return data

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
