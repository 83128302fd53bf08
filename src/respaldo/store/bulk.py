"""Look-ups in bulk: where many chunks lie that are asked for in no order, at a fraction of what each alone would cost.

What is asked for is sorted and goes through the index from its first bucket to its last, and what that says goes
through the footers from the first pack to the last: no page is met twice. Works in one read transaction, in which
nothing may be written. What counts as found is what `Index.find` finds, a chunk whose whole id stands in a footer;
which of several copies it is, may differ.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

import lmdb

from respaldo.core.ids import CHUNK_ID_BYTES
from respaldo.store.ordinals import Reader
from respaldo.store.packrow import PACK
from respaldo.store.rows import sort_by_ordinal, sort_words, words_of_ids

BULK_IDS_MAX = 1 << 19
"""So many are looked up at a time: some 70 MB of memory, and a few for each bucket and each pack of a big index."""
_FEW = 32
"""Of so few chunks of a footer each is taken out alone, of more all ids together."""
Found = Callable[[int, list[int]], None]
"""Takes a pack number and rows of its footer."""


class _Place(NamedTuple):
    """Is where the ids of a pack's footer lie: pack number, offset in bytes, number of chunks."""

    number: int
    ids_at: int
    chunks: int


class Bulk(NamedTuple):
    """Looks up in one read transaction with buffers, by the index's databases; ``usable`` packs are preferred."""

    txn: lmdb.Transaction
    reader: Reader
    dbs: Mapping[str, lmdb._Database]
    usable: Collection[int]

    def find(self, ids: bytes, found: Found) -> list[int]:
        """Calls ``found`` with one position of every chunk that there is; returns the numbers of the ids that are not.

        At most `BULK_IDS_MAX` ids, joined. What is asked for twice may be found twice.
        """
        numbers = array("I", range(len(ids) // CHUNK_ID_BYTES))
        ordinals, of = sort_by_ordinal(*self.reader.find_sorted(sort_words(words_of_ids(ids, numbers))))
        missing = bytearray(b"\1") * len(numbers)
        spare: dict[int, tuple[int, int]] = {}
        cursor = self.txn.cursor(db=self.dbs["packs"])
        at = 0
        while at < len(ordinals):
            place = self._place(cursor, ordinals[at])
            if place is None:
                at += 1
                continue
            end = bisect_left(ordinals, place.number + place.chunks, at)
            held = self._ids(place, few=end - at < _FEW)
            rows = []
            for ordinal, which in zip(ordinals[at:end], of[at:end], strict=True):
                if missing[which]:
                    row = ordinal - place.number
                    here, there = row * CHUNK_ID_BYTES, which * CHUNK_ID_BYTES
                    if held[here : here + CHUNK_ID_BYTES] == ids[there : there + CHUNK_ID_BYTES]:
                        if place.number in self.usable:
                            missing[which] = 0
                            rows.append(row)
                        else:
                            spare[which] = place.number, row
            if rows:
                found(place.number, rows)
            at = end
        for which, (number, row) in spare.items():
            if missing[which]:
                missing[which] = 0
                found(number, [row])
        return _set(missing)

    def _place(self, cursor: lmdb.Cursor, ordinal: int) -> _Place | None:
        """Returns the pack that an ordinal belongs to, None where that is not (or no longer) entered."""
        key = ordinal.to_bytes(4, "big")
        if not (cursor.set_range(key) and cursor.key() == key) and not cursor.prev():
            return None
        number = int.from_bytes(cursor.key(), "big")
        name, _, ids_at, count = PACK.unpack(cursor.value())
        if ordinal >= number + count or self.txn.get(name, db=self.dbs["names"]) != cursor.key():
            return None
        return _Place(number, ids_at, count)

    def _ids(self, place: _Place, *, few: bool) -> bytes | memoryview:
        """Returns the ids of a pack, for a few look-ups as they lie there."""
        footer = self.txn.get(place.number.to_bytes(4, "big"), db=self.dbs["footers"])
        if footer is None:
            return b""
        ids = footer[place.ids_at : place.ids_at + place.chunks * CHUNK_ID_BYTES]
        return ids if few else bytes(ids)


def _set(flags: bytearray) -> list[int]:
    """Returns where flags are set."""
    found = []
    at = flags.find(1)
    while at >= 0:
        found.append(at)
        at = flags.find(1, at + 1)
    return found
