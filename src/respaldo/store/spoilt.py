"""What this client found damaged: rows of packs that nothing is deduplicated against, until they were stored again.

Remembered in the local cache, because whoever reads must work where nothing can be written. Disposable: a client that
forgets relies on what it reads, and finds the damage again. Never says that something is sound.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from respaldo.core.errors import Corruption
from respaldo.core.ids import ChunkId, PackName, pack_object, parse_hash_leaf
from respaldo.format.pack import Footer, parse_footer
from respaldo.store.index import Index

_FOLDER = "spoilt/"


@dataclass(slots=True)
class Wanting:
    """Is what has no sound copy as far as this client knows: rows by pack, a bit each, and the ids of the chunks."""

    rows: dict[PackName, int] = field(default_factory=dict)
    ids: set[bytes] = field(default_factory=set)

    def beyond(self, seen: Mapping[PackName, int]) -> bool:
        """Whether any of it is not among rows that were seen before."""
        return any(bits & ~seen.get(name, 0) for name, bits in self.rows.items())


class Spoilt:
    """Remembers rows in the records of an index. One thread."""

    def __init__(self, index: Index) -> None:
        self._index = index

    def load(self) -> dict[PackName, int]:
        """Returns what is remembered: a bit a row, bit 0 first."""
        found = {}
        for name, bits in self._index.records(_FOLDER):
            leaf = parse_hash_leaf(name.removeprefix(_FOLDER))
            if leaf is not None:
                found[PackName(leaf)] = int.from_bytes(bits, "little")
        return found

    def note(self, rows: Mapping[PackName, int], sound: Iterable[PackName] = ()) -> None:
        """Remembers rows besides those that are remembered, and forgets packs that turned out sound."""
        known = self.load()
        fresh = {name: known.get(name, 0) | bits for name, bits in rows.items() if bits}
        changed = {name: bits for name, bits in fresh.items() if bits != known.get(name)}
        gone = [name for name in sound if name in known and name not in fresh]
        if changed or gone:
            records = {_name(name): _bytes(bits) for name, bits in changed.items()}
            self._index.put_records(records, map(_name, gone))
            self.apply()

    def note_chunks(self, pack: int, ids: Iterable[bytes]) -> None:
        """Remembers chunks of a pack, by its number, as damaged."""
        footer = self._footer(pack)
        entered = self._index.pack(pack)
        if footer is None or entered is None:
            return
        wanted = set(ids)
        rows = (row for row in range(len(footer.lengths)) if footer.chunk_id(row) in wanted)
        self.note({entered.name: sum(1 << row for row in rows)})

    def apply(self) -> None:
        """Lets the index know; forgets packs that are not there any more."""
        known = self.load()
        numbers = {name: self._index.number_of(name) for name in known}
        gone = [name for name, number in numbers.items() if number is None]
        if gone:
            self._index.put_records({}, map(_name, gone))
        self._index.spoilt = {number: known[name] for name, number in numbers.items() if number is not None}

    def wanting(self) -> Wanting:
        """Returns the rows whose chunks have no other copy that can be used."""
        found = Wanting()
        for number, bits in self._index.spoilt.items():
            footer, pack = self._footer(number), self._index.pack(number)
            if footer is None or pack is None:
                continue
            rows = 0
            for row in range(min(bits.bit_length(), len(footer.lengths))):
                chunk_id = footer.chunk_id(row)
                if bits >> row & 1 and self._index.find(ChunkId(chunk_id), usable_only=True) is None:
                    rows |= 1 << row
                    found.ids.add(chunk_id)
            if rows:
                found.rows[pack.name] = rows
        return found

    def _footer(self, number: int) -> Footer | None:
        encoded = self._index.footer(number)
        try:
            return parse_footer(encoded, "pack") if encoded else None
        except Corruption:
            return None


def _bytes(bits: int) -> bytes:
    return bits.to_bytes((bits.bit_length() + 7) // 8, "little")


def _name(pack: PackName) -> str:
    return _FOLDER + pack_object(pack).partition("/")[2]
