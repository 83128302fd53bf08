"""The packs that an index holds, in memory: numbers and lengths by name, read in one pass and kept up to date.

A run looks at all of them half a dozen times, and compares them with listings of tens of thousands of packs. Never
outlives its version: whoever holds one compares that with the index's before he believes it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import repeat

import lmdb

from respaldo.core.ids import PackName
from respaldo.store.gate import NUMBER
from respaldo.store.packrow import PACK, Indexed


class Table:
    """Is the packs that are entered, in the order of their numbers. ``version`` empty: nothing was read yet."""

    def __init__(self) -> None:
        self.version = b""
        self.numbers: dict[PackName, int] = {}
        self.lengths: dict[PackName, int] = {}
        """In bytes."""

    def read(self, version: bytes, packs: lmdb.Cursor, pending: Collection[bytes]) -> None:
        """Reads what the database of packs holds but for pending numbers."""
        keys, values = [], []
        for key, value in packs:
            if key not in pending:
                keys.append(key)
                values.append(value)
        names, lengths, _, _ = zip(*PACK.iter_unpack(b"".join(values)), strict=True) if values else ((), (), (), ())
        self.numbers = dict(zip(names, (number for (number,) in NUMBER.iter_unpack(b"".join(keys))), strict=True))
        self.lengths = dict(zip(names, lengths, strict=True))
        self.version = version

    def add(self, before: bytes, after: bytes, packs: Iterable[Indexed]) -> None:
        """Follows the index from one version to the next, which has these packs more; not from any other."""
        if not self.version or self.version != before:
            return
        for pack in packs:
            if pack.number < next(reversed(self.numbers.values()), 0):
                self.version = b""  # entered in the order of their numbers, and shown so
                return
            self.numbers[pack.name] = pack.number
            self.lengths[pack.name] = pack.length_bytes
        self.version = after

    def packs(self) -> list[Indexed]:
        """Returns all packs."""
        return list(map(Indexed, self.numbers.values(), self.numbers, self.lengths.values()))

    def usable(self, there: Mapping[PackName, int], condemned: Collection[PackName]) -> set[int]:
        """Returns the numbers of the packs that are listed (with their lengths), whole, and not condemned."""
        if not condemned and self.lengths == there:
            return set(self.numbers.values())
        listed = map(there.get, self.lengths, repeat(-1))
        return {
            number
            for (name, number), length_bytes, found in zip(
                self.numbers.items(), self.lengths.values(), listed, strict=True
            )
            if found == length_bytes and name not in condemned
        }
