"""Columns of numbers: little-endian on every machine."""

from __future__ import annotations

import sys
from array import array


def u32_array(data: bytes | memoryview) -> array[int]:
    """Returns the u32 numbers of a little-endian column; raises ValueError unless it is whole."""
    numbers = array("I")
    numbers.frombytes(data)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def u32_bytes(numbers: array[int]) -> bytes:
    """Returns the little-endian column of u32 numbers."""
    if sys.byteorder == "big":
        numbers = array("I", numbers)
        numbers.byteswap()
    return numbers.tobytes()


def differing(one: bytes, other: bytes, width: int) -> bytes:
    """Returns which rows of ``width`` bytes differ in two columns of one length, ascending, as a column of u32.

    By halves, since mostly few do: what is alike costs a comparison of memory. Raises ValueError where the columns have
    different lengths, or no whole number of rows.
    """
    if width < 1 or len(one) != len(other) or len(one) % width or len(one) // width >= 1 << 32:
        msg = "columns have different lengths, or no whole number of rows"
        raise ValueError(msg)
    rows = array("I")
    parts = [(0, len(one))]
    while parts:
        low, high = parts.pop()
        if one[low:high] == other[low:high]:
            continue
        if high - low == width:
            rows.append(low // width)
            continue
        middle = low + (high - low) // width // 2 * width
        parts += [(middle, high), (low, middle)]
    return u32_bytes(rows)
