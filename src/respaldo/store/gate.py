"""How packs come into the index's databases and leave them, each step in one transaction.

A pack is put first, pending under the number of its process, and published last, so that one whose rows are half
written does not exist. Every change of what exists gets a version of its own, for whoever holds a copy. Never looks a
chunk up.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import lmdb

from respaldo.core.errors import StorageFailed
from respaldo.core.ids import CHUNK_ID_BYTES, PackName
from respaldo.store.local import Environment, alive
from respaldo.store.packrow import PACK, Entering, Indexed, check
from respaldo.store.rows import ORDINALS_IN_RUN

ORDINALS_MAX: Final = 1 << 32
NUMBER: Final = struct.Struct(">I")
VERSION: Final = b"packs version"
_NEXT: Final = b"next"


class Published(NamedTuple):
    """Is what became of packs: their numbers, those that are new, the versions before and after."""

    numbers: list[int]
    fresh: list[Indexed]
    versions: tuple[bytes, bytes]


class Gate:
    """Writes ``packs``, ``names``, ``footers``, ``pending`` and ``counters``."""

    def __init__(self, environment: Environment, where: str) -> None:
        self._environment = environment
        self._where = where

    def put(self, packs: Iterable[Entering], txn: lmdb.Transaction) -> list[int]:
        """Gives packs numbers and puts them as pending; returns the numbers."""
        dbs = self._environment.dbs
        numbers = []
        next_number = int(NUMBER.unpack(txn.get(_NEXT, NUMBER.pack(1), db=dbs["counters"]))[0])
        process = b"%d" % os.getpid()
        for name, length_bytes, footer, encoded in packs:
            count = len(footer.ids) // CHUNK_ID_BYTES
            number = next_number
            if number // ORDINALS_IN_RUN != (number + max(count, 1) - 1) // ORDINALS_IN_RUN:
                number = (number // ORDINALS_IN_RUN + 1) * ORDINALS_IN_RUN
            next_number = number + max(count, 1)
            if next_number >= ORDINALS_MAX:
                hint = "remove it; it is made again from the repository"
                raise StorageFailed(self._where, "local cache: the index has no numbers left", hint=hint)
            ids_at = encoded.find(footer.ids) if footer.ids else 0
            key = NUMBER.pack(number)
            packed = PACK.pack(name, length_bytes, ids_at, count)
            txn.put(key, packed, db=dbs["packs"])
            txn.put(key, encoded + check(packed, encoded), db=dbs["footers"])
            txn.put(key, process, db=dbs["pending"])
            numbers.append(number)
        txn.put(_NEXT, NUMBER.pack(next_number), db=dbs["counters"])
        return numbers

    def publish(self, entered: Sequence[tuple[int, PackName]], txn: lmdb.Transaction) -> Published:
        """Makes pending packs exist; where another process was first with one, its number stands, ours is dropped."""
        dbs = self._environment.dbs
        numbers: list[int] = []
        fresh: list[Indexed] = []
        for number, name in entered:
            key = NUMBER.pack(number)
            if not txn.delete(key, db=dbs["pending"]):
                raise StorageFailed(self._where, "local cache: another process took this one for dead")
            first = txn.get(name, db=dbs["names"])
            if first is None:
                txn.put(name, key, db=dbs["names"])
                fresh.append(Indexed(number, *PACK.unpack(txn.get(key, b"", db=dbs["packs"]))[:2]))
            else:
                txn.delete(key, db=dbs["packs"])
                txn.delete(key, db=dbs["footers"])
            numbers.append(int(NUMBER.unpack(first or key)[0]))
        return Published(numbers, fresh, self._change(txn))

    def clear_abandoned(self, txn: lmdb.Transaction) -> None:
        """Takes out what processes that are gone, or this one when it failed, entered and did not publish."""
        dbs = self._environment.dbs
        for key, process in list(txn.cursor(db=dbs["pending"])):
            if int(process) == os.getpid() or not alive(int(process)):
                for database in ("pending", "packs", "footers"):
                    txn.delete(key, db=dbs[database])

    def drop(self, packs: Iterable[Indexed], txn: lmdb.Transaction) -> None:
        """Takes packs out."""
        dbs = self._environment.dbs
        for item in packs:
            key = NUMBER.pack(item.number)
            txn.delete(item.name, db=dbs["names"])
            txn.delete(key, db=dbs["packs"])
            txn.delete(key, db=dbs["footers"])
        self._change(txn)

    def _change(self, txn: lmdb.Transaction) -> tuple[bytes, bytes]:
        """Says that packs have come or gone; returns the versions before and after."""
        counters = self._environment.dbs["counters"]
        before = bytes(txn.get(VERSION, b"", db=counters))
        after = (int.from_bytes(before, "big") + 1).to_bytes(8, "big")
        txn.put(VERSION, after, db=counters)
        return before, after
