"""Cuts content into chunks by what it holds, under a secret: the same bytes get the same cuts wherever they are.

Where a chunk ends is decided by SipHash-2-4, a PRF, over the 64 bytes before the end; a gear hash over the same bytes
only picks the places where it is asked. Both keys come from the chunker secret. Whoever does not know it learns nothing
from a single decision; what chunk *lengths* reveal all the same is said in the threat model.

Cut points must not change: a repository would store everything once more. `tests/chunk` holds golden ones.
"""

from __future__ import annotations

import array
import struct
import sys
from dataclasses import dataclass
from typing import Final, Self

from blake3 import blake3

from respaldo import kernel
from respaldo.core.seams import Buffer

SECRET_BYTES: Final = 32
WINDOW_BYTES: Final = 64
TABLE_CONTEXT: Final = "respaldo 2026-11 chunker gear table"
SIP_CONTEXT: Final = "respaldo 2026-11 chunker sip key"
_TABLE_BYTES: Final = 256 * 8
_SIP_KEY_BYTES: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkerParams:
    """Says how long chunks get. Lengths in bytes.

    ``64 <= minimum <= average <= maximum < 2**31``. ``strict`` and ``loose`` are thresholds in [0, 2**64): at one place
    in 256 a chunk ends with probability strict / 2**64 before ``average`` and loose / 2**64 from there on. Raises
    ``ValueError``.
    """

    minimum: int
    average: int
    maximum: int
    strict: int
    loose: int

    def __post_init__(self) -> None:
        if not WINDOW_BYTES <= self.minimum <= self.average <= self.maximum < 1 << 31:
            raise ValueError("64 <= minimum <= average <= maximum < 2**31 does not hold")
        if not (0 <= self.strict < 1 << 64 and 0 <= self.loose < 1 << 64):
            raise ValueError("a threshold lies outside [0, 2**64)")

    @classmethod
    def standard(cls) -> Self:
        """Returns the parameters of every repository: 16 KiB, about 64 KiB, 256 KiB.

        With 1/256 of all places asked, strict cuts at one place in 2**18 and loose at one in 2**14.
        """
        return cls(minimum=1 << 14, average=1 << 16, maximum=1 << 18, strict=1 << 54, loose=1 << 58)


class Chunker:
    """Cuts content under a secret of 32 bytes. Holds no state between calls; thread-safe.

    Content that comes in parts is cut as it would be in one: put what a call left over before the next part, and say
    ``final`` with the last one.
    """

    __slots__ = ("_sip_key", "_table", "params")

    def __init__(self, secret: bytes, params: ChunkerParams) -> None:
        if len(secret) != SECRET_BYTES:
            raise ValueError("a chunker secret has 32 bytes")
        self.params = params
        self._table = _draw_table(secret)
        self._sip_key = blake3(secret, derive_key_context=SIP_CONTEXT).digest(length=_SIP_KEY_BYTES)

    def cut(self, data: Buffer, final: bool) -> bytes:  # noqa: FBT001 - as in the kernel
        """Returns the lengths of the chunks that data starts with, u32 little-endian each.

        Their sum is at most ``len(data)``, and equal to it with ``final``. Holds no GIL.
        """
        params = self.params
        return kernel.cut(
            data,
            self._table,
            self._sip_key,
            params.minimum,
            params.average,
            params.maximum,
            params.strict,
            params.loose,
            final,
        )

    def lengths(self, data: Buffer, *, final: bool) -> array.array[int]:
        """Returns what `cut` does as an array of unsigned 32-bit integers."""
        lengths = array.array("I", self.cut(data, final))
        if sys.byteorder == "big":
            lengths.byteswap()
        return lengths


def _draw_table(secret: bytes) -> bytes:
    """Draws a gear table for which no run of one constant byte is a candidate.

    The gear hash of 64 bytes b is table[b] * (2**64 - 1), which is -table[b] modulo 2**64. Two of three tables have
    such a byte, and a run of it then asks the PRF at every place: fifty times the time.
    """
    counter = 0
    while True:
        material = secret + counter.to_bytes(4, "little")
        table = blake3(material, derive_key_context=TABLE_CONTEXT).digest(length=_TABLE_BYTES)
        if all(-row % (1 << 64) >> 56 for row in struct.unpack("<256Q", table)):
            return table
        counter += 1
