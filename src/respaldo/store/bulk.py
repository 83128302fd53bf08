"""Look-ups in bulk: where many chunks lie that are asked for in no order, at a fraction of what each alone would cost.

What is asked for is sorted and goes through the index from its first bucket to its last, and what that says goes
through the footers from the first pack to the last: no page is met twice. Works in one read transaction, in which
nothing may be written. What counts as found is what `Index.find` finds, a chunk whose whole id stands in a footer;
which of several copies it is, may differ.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Collection
from itertools import repeat
from operator import sub
from typing import NamedTuple

import lmdb

from respaldo.core.ids import CHUNK_ID_BYTES
from respaldo.store.ordinals import Reader
from respaldo.store.rows import sort_by_ordinal, sort_words, words_of_ids

BULK_IDS_MAX = 1 << 19
"""So many are looked up at a time: some 70 MB of memory, and a few for each bucket and each pack of a big index."""
_FEW = 6
"""Of so few chunks of a footer each is taken out alone, of more all ids together."""
Found = Callable[[int, list[int]], None]
"""Takes a pack number and rows of its footer."""


class Bulk(NamedTuple):
    """Looks up in one read transaction with buffers.

    ``place`` returns of an ordinal the number of its pack, and where the ids begin and end in that pack's footer; of
    one that belongs to no pack a negative number. ``usable`` packs are preferred.
    """

    txn: lmdb.Transaction
    footers: lmdb._Database
    reader: Reader
    place: Callable[[int], tuple[int, int, int]]
    usable: Collection[int]

    def find(self, ids: bytes, found: Found) -> list[int]:
        """Calls ``found`` with one position of every chunk that there is; returns the numbers of the ids that are not.

        At most `BULK_IDS_MAX` ids, joined. What is asked for twice may be found twice.
        """
        numbers = array("I", range(len(ids) // CHUNK_ID_BYTES))
        ordinals, of = sort_by_ordinal(*self.reader.find_sorted(sort_words(words_of_ids(ids, numbers))))
        missing = bytearray(b"\1") * len(numbers)
        spare: dict[int, tuple[int, int]] = {}
        at = 0
        while at < len(ordinals):
            number, start, stop = self.place(ordinals[at])
            if number < 0:
                at += 1
                continue
            end = bisect_left(ordinals, number + (stop - start) // CHUNK_ID_BYTES, at)
            footer = self.txn.get(number.to_bytes(4, "big"), db=self.footers)
            held = b"" if footer is None else footer[start:stop]
            if end - at > _FEW:
                held = bytes(held)
            alike = [
                (row, which)
                for row, which in zip(map(sub, ordinals[at:end], repeat(number)), of[at:end], strict=True)
                if missing[which]
                and held[row * CHUNK_ID_BYTES : row * CHUNK_ID_BYTES + CHUNK_ID_BYTES]
                == ids[which * CHUNK_ID_BYTES : which * CHUNK_ID_BYTES + CHUNK_ID_BYTES]
            ]
            at = end
            if alike and number in self.usable:
                for _, which in alike:
                    missing[which] = 0
                found(number, [row for row, _ in alike])
            else:
                spare.update((which, (number, row)) for row, which in alike)
        for which, (number, row) in spare.items():
            if missing[which]:
                missing[which] = 0
                found(number, [row])
        return _set(missing)


def _set(flags: bytearray) -> list[int]:
    """Returns where flags are set."""
    found = []
    at = flags.find(1)
    while at >= 0:
        found.append(at)
        at = flags.find(1, at + 1)
    return found
