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
