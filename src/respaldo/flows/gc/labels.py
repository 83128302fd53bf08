"""Labels over positions: of every row of every pack, which root met it first, and whether another met it, too.

Two bytes a chunk (four beyond 32,000 roots): 20 million chunks take 40 MB, whatever the number of snapshots. Roots are
met one after the other: a label is the number of the first, and a bit says that there was a second. A tree is
therefore gone through twice at most: when it is met first, and when what is below it turns out to be shared.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, groupby

from respaldo.format.pack import Footer
from respaldo.store.bitmaps import Bitmaps, Position

SHARED = 1
"""The lowest bit: more than one root holds it. Above it stands the number of the first root."""


class Labels:
    """Is a label for each position that was met. ``root``: the number, from 1 on, of the root that meets what comes."""

    __slots__ = ("_code", "_size", "root", "rows")

    def __init__(self, roots: int) -> None:
        self._code = "H" if roots < 1 << 15 else "I"
        self._size = array(self._code).itemsize
        self.root = 0
        self.rows: dict[int, array[int]] = {}
        """Pack number → a label a row, 0 where nothing met it; as long as the highest row needs."""

    def _reaching(self, number: int, end: int) -> array[int]:
        labels = self.rows.get(number)
        if labels is None:
            labels = self.rows[number] = array(self._code)
        if end > len(labels):
            labels.frombytes(bytes((end - len(labels)) * self._size))
        return labels

    def add(self, position: Position) -> bool:
        """Meets a position; returns whether that says anything new of it, and thus of what lies below."""
        number, row = position
        labels = self._reaching(number, row + 1)
        old = labels[row]
        if not old:
            labels[row] = self.root << 1
            return True
        if old & SHARED or old >> 1 == self.root:
            return False
        labels[row] = old | SHARED
        return True

    def add_run(self, number: int, row: int, count: int) -> None:
        """Meets positions of one pack whose rows follow one another."""
        labels = self._reaching(number, row + count)
        part = labels[row : row + count]
        first = part[0]
        if part == array(self._code, (first,)) * count:  # mostly all are new, or all came together
            if not first:
                labels[row : row + count] = array(self._code, (self.root << 1,)) * count
            elif not first & SHARED and first >> 1 != self.root:
                labels[row : row + count] = array(self._code, (first | SHARED,)) * count
            return
        own = self.root << 1
        labels[row : row + count] = array(self._code, [(old | (old >> 1 != self.root) if old else own) for old in part])

    def add_rows(self, number: int, rows: Sequence[int]) -> None:
        """Meets positions of one pack; ``rows`` is not empty."""
        self._reaching(number, max(rows) + 1)
        for row in rows:
            self.add((number, row))

    def join(self, copies: Iterable[Position], keep: Position) -> None:
        """Gives one copy of a chunk the label of all of them together, and takes it from the others."""
        found = []
        for number, row in copies:
            labels = self.rows.get(number)
            if labels is not None and row < len(labels) and labels[row]:
                found.append(labels[row])
                labels[row] = 0
        if found:
            shared = any(label & SHARED for label in found) or len({label >> 1 for label in found}) > 1
            self._reaching(keep[0], keep[1] + 1)[keep[1]] = min(found) & ~SHARED | shared

    def live(self, last: int) -> Bitmaps:
        """Returns what is met by the roots up to a number."""
        bits = Bitmaps()
        for number, labels in self.rows.items():
            top = max(labels)
            if not top:
                continue
            ends = bytearray(b"1" * (top + 1))
            ends[0:1] = b"0"
            gone = slice((last + 1) << 1, top + 1)
            ends[gone] = b"0" * len(range(*gone.indices(len(ends))))
            value = int(bytes(map(ends.__getitem__, reversed(labels))), 2)
            if value:
                bits.rows[number] = bytearray(value.to_bytes((len(labels) + 7) // 8, "little"))
        return bits


def weigh_labels(footer: Footer, labels: array[int], weights: Counter[int]) -> None:
    """Adds the sealed bytes of a pack to those of the labels of its rows.

    A row's share of its block is where its end would fall in the sealed bytes less where its start would: so shares are
    whole numbers, and add up to the block.
    """
    end = len(labels)
    for block, first in zip(footer.blocks, footer.first_rows, strict=False):
        if first >= end:
            return
        for label, length_bytes in _shares(
            labels[first : first + block.chunks],
            footer.lengths[first : first + block.chunks],
            block.sealed_length,
            block.raw_length,
        ):
            weights[label] += length_bytes


def _shares(labels: array[int], lengths: array[int], sealed: int, raw: int) -> Iterator[tuple[int, int]]:
    if len(labels) == len(lengths) and labels == array(labels.typecode, labels[:1]) * len(labels):
        yield labels[0], sealed
        return
    ends = list(accumulate(lengths))
    at = start = 0
    for label, group in groupby(labels):
        at += sum(1 for _ in group)
        stop = sealed * ends[at - 1] // raw
        yield label, stop - start
        start = stop
