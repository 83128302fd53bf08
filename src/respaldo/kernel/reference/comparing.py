"""`differing` in Python: the rows of two columns that are not the same."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from respaldo.core.seams import Buffer
from respaldo.kernel.reference.arguments import integer, read_bytes


def differing(one: Buffer, other: Buffer, width: int) -> bytes:
    """Returns which rows of two columns differ; see `respaldo.kernel`."""
    width = integer(width, 1, 1 << 31)
    left, right = read_bytes(one), read_bytes(other)
    if len(left) != len(right) or len(left) % width or len(left) // width >= 1 << 32:
        raise ValueError("columns have different lengths, or no whole number of rows")
    rows = list(_rows(left, right, width))
    return struct.pack(f"<{len(rows)}I", *rows)


def _rows(one: bytes, other: bytes, width: int) -> Iterator[int]:
    """Yields the rows that differ, by halves: mostly few do."""
    stack = [(0, len(one) // width)]
    while stack:
        low, high = stack.pop()
        if one[low * width : high * width] == other[low * width : high * width]:
            continue
        if high - low == 1:
            yield low
            continue
        middle = (low + high) // 2
        stack += [(middle, high), (low, middle)]
