"""Turns the arguments of the verbs into plain values, and refuses what the C kernel refuses, with the same errors."""

from __future__ import annotations

import operator
from typing import SupportsIndex

from respaldo.core.seams import Buffer


def read_bytes(buffer: Buffer) -> bytes:
    """Returns what a contiguous buffer holds. Raises ``TypeError``, ``BufferError``."""
    view = memoryview(buffer)
    if not view.c_contiguous:
        raise BufferError("buffer is not contiguous")
    return view.tobytes()


def writable(buffer: bytearray | memoryview) -> memoryview:
    """Returns a contiguous buffer to write to, as bytes. Raises ``TypeError``, ``BufferError``."""
    view = memoryview(buffer)
    if view.readonly or not view.c_contiguous:
        raise BufferError("buffer is read-only or not contiguous")
    return view if view.nbytes == 0 else view.cast("B")


def integer(value: SupportsIndex, low: int, high: int) -> int:
    """Returns an integer in [low, high). Raises ``TypeError``, ``ValueError``."""
    number = operator.index(value)
    if not low <= number < high:
        raise ValueError(f"integer outside [{low}, {high})")
    return number


def descriptor(value: SupportsIndex) -> int:
    """Returns a file descriptor; AT_FDCWD is none."""
    return integer(value, 0, 1 << 31)


def flags(value: SupportsIndex, known: int) -> int:
    """Returns options, all of them known."""
    number = operator.index(value)
    if number < 0 or number & ~known:
        raise ValueError("unknown options")
    return number


def split_names(joined: bytes) -> list[bytes]:
    """Returns names that were joined with a NUL behind each. Raises ``ValueError``."""
    if joined and not joined.endswith(b"\0"):
        raise ValueError("a name lacks its NUL")
    return joined.split(b"\0")[:-1]


def name_is_safe(name: bytes) -> bool:
    """Says whether a name stays in its directory."""
    return name not in (b"", b".", b"..") and b"/" not in name
