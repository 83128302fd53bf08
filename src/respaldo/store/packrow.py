"""A pack in the index: its row, its footer with a check behind it, and the values that go in and out.

Never touches the database. What rotted in a cache, which nobody scrubs, must not pass for damage of the repository.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from blake3 import blake3

from respaldo.core.ids import CHUNK_ID_BYTES, PackName
from respaldo.core.seams import Buffer
from respaldo.format.pack import Footer

PACK = struct.Struct(">32sQII")
"""Name, length in bytes, offset of the ids in the encoded footer, number of chunks."""
CHECK_BYTES = 16
"""A BLAKE3 of row and footer of a pack behind the footer: one that rotted would pass for damage of the repository."""

Entering = tuple[PackName, int, Footer, bytes]
"""A durable pack to be entered: name, length in bytes, footer, encoded footer."""


class Indexed(NamedTuple):
    """Is a pack as the index knows it: number, name, length in bytes."""

    number: int
    name: PackName
    length_bytes: int


def check(packed: Buffer, encoded: bytes) -> bytes:
    """Returns what stands behind the encoded footer of a pack's row."""
    return blake3(packed).update(encoded).digest(CHECK_BYTES)


class Hint:
    """Is the place behind the chunk found last: what was stored in a row is mostly looked up in a row.

    One comparison instead of a look-up in the tree, which gives up the interpreter's lock twice.
    """

    __slots__ = ("at", "end", "footer", "number", "start")

    def __init__(self, number: int, footer: memoryview, start: int, end: int, at: int) -> None:
        self.number = number
        self.footer = footer
        self.start = start
        self.end = end
        self.at = at

    def run(self, ids: bytes, at: int) -> int:
        """Returns how many of the ids from an offset on lie one behind the other from here on; goes behind them."""
        limit = min(len(ids) - at, self.end - self.at)
        done, step, grows = 0, CHUNK_ID_BYTES, True
        while done < limit:
            size = min(step, limit - done)
            here = self.at + done
            if bytes(self.footer[here : here + size]) == ids[at + done : at + done + size]:
                done += size
                step *= 4 if grows else 1
            elif size == CHUNK_ID_BYTES:
                break
            else:
                grows = False
                step = max(size // (4 * CHUNK_ID_BYTES), 1) * CHUNK_ID_BYTES
        self.at += done
        return done // CHUNK_ID_BYTES
