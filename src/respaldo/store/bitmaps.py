"""Bitmaps over positions: which rows of which packs are live, at a bit each. 20 million chunks take 2.5 MB."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Position = tuple[int, int]
"""Pack number and row of its footer."""


class Bitmaps:
    """Is a set of positions."""

    __slots__ = ("rows",)

    def __init__(self) -> None:
        self.rows: dict[int, bytearray] = {}
        """Pack number → bits, row 0 first; as long as the highest row needs, so that loops may look into them."""

    def add(self, position: Position) -> bool:
        """Puts a position in; returns whether it was new."""
        number, row = position
        bits = self.rows.get(number)
        if bits is None:
            bits = self.rows[number] = bytearray()
        at, bit = row >> 3, 1 << (row & 7)
        if at >= len(bits):
            bits.extend(bytes(at + 1 - len(bits)))
        new = not bits[at] & bit
        bits[at] |= bit
        return new

    def add_run(self, number: int, row: int, count: int) -> None:
        """Puts positions of one pack in whose rows follow one another."""
        bits = self.rows.get(number)
        if bits is None:
            bits = self.rows[number] = bytearray()
        start, end = row >> 3, (row + count + 7) >> 3
        if end > len(bits):
            bits.extend(bytes(end - len(bits)))
        if end - start == 1:
            bits[start] |= ((1 << count) - 1) << (row & 7)
        else:
            value = int.from_bytes(bits[start:end], "little") | ((1 << count) - 1) << (row & 7)
            bits[start:end] = value.to_bytes(end - start, "little")

    def add_rows(self, number: int, rows: Sequence[int]) -> None:
        """Puts positions of one pack in; ``rows`` is not empty."""
        bits = self.rows.get(number)
        if bits is None:
            bits = self.rows[number] = bytearray()
        end = (max(rows) >> 3) + 1
        if end > len(bits):
            bits.extend(bytes(end - len(bits)))
        for row in rows:
            bits[row >> 3] |= 1 << (row & 7)

    def remove(self, position: Position) -> None:
        """Takes a position out."""
        number, row = position
        bits = self.rows.get(number, b"")
        if row >> 3 < len(bits):
            self.rows[number][row >> 3] &= ~(1 << (row & 7))

    def __contains__(self, position: Position) -> bool:
        number, row = position
        bits = self.rows.get(number, b"")
        return row >> 3 < len(bits) and bool(bits[row >> 3] >> (row & 7) & 1)

    def number(self, pack: int) -> int:
        """Returns the rows of a pack as a number whose bit n is row n."""
        return int.from_bytes(self.rows.get(pack, b""), "little")

    def fill(self, pack: int, rows: int) -> None:
        """Puts all rows of a pack in."""
        self.rows[pack] = bytearray(((1 << rows) - 1).to_bytes((rows + 7) // 8, "little"))

    def drop(self, packs: Iterable[int]) -> None:
        """Takes all rows of packs out."""
        for pack in packs:
            self.rows.pop(pack, None)


def set_bits(number: int, length: int) -> bytes:
    """Returns the lowest bits of a number as bytes of 0 and 1, bit 0 first."""
    return f"{number:0{length}b}"[: -length - 1 : -1].encode().translate(_BITS) if length else b""


_BITS = bytes.maketrans(b"01", b"\0\1")
