"""Remains: what of opened blocks is likely to be asked for later, compressed, when memory lets the blocks go.

Whoever reads a snapshot in the order of its paths asks each block for its chunks in ascending order, because snapshots
store them in that order, too. Of a hundred snapshots, a hundred blocks are in use at once: more than memory holds, and
each would be opened once for every file in it. So when a block is let go, what lies behind the last chunk that was
asked for stays, in slices, each compressed by itself, and is given out, and dropped, as the reader comes by. A guess:
what was not kept is in the block, which can be opened again; what is given out is checked like anything else.

Memory is bounded by ``limit_bytes``. When it is full, what is there stays and what comes is not taken: it is used up
sooner so than if each pushed another out. Belongs to one thread at a time, but for `cut` and `Rest.take`.
"""

from __future__ import annotations

import mmap
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from itertools import accumulate

from respaldo.codec.compress import Compressor, Decompressor
from respaldo.core.seams import Buffer
from respaldo.store.reopened import Key, Reopened

REMAINS_BYTES = 32 << 20
SLICE_BYTES = 16 << 10
_LEVEL = -1
_OVERHEAD_BYTES = 4 << 10
_AGAIN_MIN = 8
"""So many blocks have to be opened again, for what was not asked for before, until anything is kept of others; and no
more are kept than were opened again, or taken from: what is asked for twice, as equal files are, is not here."""
_UNUSED_FOR = 4
"""What was not touched while so many times as many blocks were let go as are kept here is not needed any more."""


class Rest:
    """Is the end of one block, from ``start`` on, which moves as it is used up.

    Its slices lie in pages of its own, which go back to the system one by one: as many small objects they would leave
    holes in memory that blocks do not fit in.
    """

    __slots__ = ("_bounds", "_first", "_freed", "_map", "_opened", "end", "start", "touched")

    def __init__(self, raw: bytes, start: int, compressor: Compressor) -> None:
        view = memoryview(raw)
        slices: list[Buffer] = []
        for at in range(start, len(raw), SLICE_BYTES):
            piece = view[at : at + SLICE_BYTES]
            slices.append(compressor.compress(piece) or piece)
        self.start = start
        self.end = len(raw)
        self.touched = 0
        self._bounds = array("I", accumulate(map(len, slices), initial=0))
        self._first = self._freed = 0
        self._opened: tuple[int, bytes] | None = None
        """The slice that was opened last, in which the next piece begins, and its number."""
        self._map = mmap.mmap(-1, self._bounds[-1], mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        for data in slices:
            self._map.write(data)

    @property
    def held_bytes(self) -> int:
        """How much memory it takes."""
        return self._bounds[-1] - self._freed + _OVERHEAD_BYTES + (SLICE_BYTES if self._opened else 0)

    def take(self, decompressor: Decompressor, spans: Sequence[tuple[int, int]]) -> list[memoryview] | None:
        """Returns pieces (offset and length in the block), None unless all are here; drops what lies before them."""
        views = []
        for offset, length in spans:
            if offset < self.start or offset + length > self.end:
                return None
            self._drop_before(offset)
            raw = self._slices(decompressor, offset + length)
            # As copies: a view would hold its slices, which may be several times as much, for as long as it waits.
            views.append(memoryview(raw[offset - self.start : offset - self.start + length]))
        offset, length = spans[-1]
        self._drop_before(offset + length)
        return views

    def _slices(self, decompressor: Decompressor, end: int) -> bytes:
        """Returns what is here, up to the slice in which an offset ends."""
        parts: list[bytes] = []
        at, number = self.start, self._first
        with memoryview(self._map) as view:
            while at < end:
                raw_length = min(SLICE_BYTES, self.end - at)
                with view[self._bounds[number] : self._bounds[number + 1]] as data:
                    if self._opened is None or self._opened[0] != number:
                        packed = len(data) < raw_length
                        raw = decompressor.decompress(data, raw_length, "remains") if packed else bytes(data)
                        self._opened = (number, raw)
                    parts.append(self._opened[1])
                at, number = at + raw_length, number + 1
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _drop_before(self, offset: int) -> None:
        while self.start < self.end and min(self.start + SLICE_BYTES, self.end) <= offset:
            self.start = min(self.start + SLICE_BYTES, self.end)
            self._first += 1
        if self._opened is not None and self._opened[0] < self._first:
            self._opened = None
        unused = self._bounds[self._first] // mmap.PAGESIZE * mmap.PAGESIZE - self._freed
        if unused:
            self._map.madvise(mmap.MADV_DONTNEED, self._freed, unused)
            self._freed += unused


class Remains:
    """Keeps the ends of blocks."""

    def __init__(self, limit_bytes: int = REMAINS_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._rests: OrderedDict[Key, Rest] = OrderedDict()
        self._reopened = Reopened()
        self._let_go = 0
        self._left = 0
        self._taken = 0
        self.held_bytes = 0
        self._compressor = Compressor(_LEVEL)
        self.decompressor = Decompressor()

    def pop(self, key: Key) -> Rest | None:
        """Returns what is here of a block, and forgets it: whoever has taken from it puts it back."""
        rest = self._rests.pop(key, None)
        if rest is not None:
            self.held_bytes -= rest.held_bytes
        return rest

    def put(self, key: Key, rest: Rest, *, taken: int = 0) -> None:
        """Keeps what is left of a block."""
        self._taken += taken
        if rest.start < rest.end:
            rest.touched = self._let_go
            self._rests[key] = rest
            self.held_bytes += rest.held_bytes

    def opened(self, key: Key, offset: int) -> None:
        """Takes note that a block was opened for what lies at an offset."""
        self._reopened.opened(key, offset)

    def takes(self, key: Key, start: int, end: int) -> bool:
        """Takes note that a block is let go; returns whether to `cut` what it holds between two offsets, for here."""
        self._let_go += 1
        self._reopened.let_go(key, start)
        again = self._reopened.count
        if start >= end or again < _AGAIN_MIN or self._left > again + self._taken:
            return False
        while self.held_bytes >= self._limit_bytes:
            oldest, rest = next(iter(self._rests.items()))
            if self._let_go - rest.touched < _UNUSED_FOR * len(self._rests):
                return False
            self.pop(oldest)
        self._left += 1
        return True

    def cut(self, raw: bytes, start: int) -> Rest:
        """Returns the end of a block. Any thread."""
        return Rest(raw, start, self._compressor)
