"""Canonical msgpack: one encoding for each value, so that equal values have equal bytes and ids.

Arrays, strings, bytes and integers, each in its shortest form; maps have string keys that ascend by their bytes. No
nil, booleans (which Python takes for 0 and 1), floats and extensions. What does not re-encode to its own bytes is
refused. Invariant: a megabyte of input costs less than a hundred of memory, and what is no tree less than two hundred
and a few times its length. Implements docs/format.md, "Canonical
msgpack".
"""

from __future__ import annotations

from collections.abc import Callable
from operator import lt
from typing import Final

import msgpack

from respaldo.core.errors import Corruption

Value = int | str | bytes | list["Value"] | dict[str, "Value"]

ARRAY_ITEMS_MAX: Final = 1 << 20
ITEMS_MAX: Final = 1 << 20
"""In all arrays and maps together. Of what may be long, trees alone have many: the rest is long byte strings."""
ARRAYS_FREE: Final = 1 << 16
ARRAY_BYTES_MIN: Final = 4
"""An empty array takes one byte here and eighty in memory: beyond so many, each must stand for so many bytes."""
MAPS_MAX: Final = 1 << 10

_TYPES: Final = frozenset({int, str, bytes, list, dict})
_TEXT: Final = frozenset({str})
_I64: Final = range(-1 << 63, 1 << 63)


def is_time(number: int) -> bool:
    """Whether a number is a time that every reader can hold: i64 nanoseconds."""
    return number in _I64


def _key_bytes(key: str) -> bytes:
    return key.encode("utf-8", "surrogateescape")


def _ordered(value: object) -> object:
    match value:
        case bool():
            pass
        case dict():
            return {key: _ordered(value[key]) for key in sorted(value, key=_key_bytes)}
        case list() | tuple():
            return [_ordered(item) for item in value]
        case int() | str() | bytes() | bytearray() | memoryview():
            return value
    msg = f"{type(value).__name__} has no canonical encoding"
    raise TypeError(msg)


def pack_ordered(value: list[object]) -> bytes:
    """Returns the canonical encoding of arrays of bytes, texts and numbers: nothing there needs an order.

    Trees are made of nothing else, and looking at every value of one costs as much as hashing it.
    """
    packed: bytes = msgpack.packb(value, use_bin_type=True, unicode_errors="surrogateescape")
    return packed


def pack(value: object) -> bytes:
    """Returns the canonical encoding; raises TypeError for types that have none, OverflowError beyond 64 bits."""
    packed: bytes = msgpack.packb(_ordered(value), use_bin_type=True, unicode_errors="surrogateescape")
    return packed


def _hooks(
    length_bytes: int, items_max: int
) -> tuple[Callable[[list[Value]], list[Value]], Callable[[list[tuple[str, Value]]], dict[str, Value]]]:
    """Returns what looks at every array and map as soon as it is read, before there are too many of them."""
    arrays = maps = count = 0
    arrays_max = max(ARRAYS_FREE, length_bytes // ARRAY_BYTES_MIN)

    def array(items: list[Value]) -> list[Value]:
        nonlocal arrays, count
        arrays += 1
        count += len(items)
        if arrays > arrays_max or count > items_max or not _TYPES.issuperset(map(type, items)):
            raise ValueError
        return items

    def pairs(items: list[tuple[str, Value]]) -> dict[str, Value]:
        nonlocal maps, count
        maps += 1
        count += len(items)
        if maps > MAPS_MAX or count > items_max:
            raise ValueError
        held = dict(items)
        if not _TEXT.issuperset(map(type, held)) or not _TYPES.issuperset(map(type, held.values())):
            raise ValueError
        # Of ASCII, bytes have the order of characters, and the keys of every record are that.
        names = list(held) if "".join(held).isascii() else list(map(_key_bytes, held))
        if len(names) != len(items) or not all(map(lt, names, names[1:])):
            raise ValueError
        return held

    return array, pairs


def unpack(data: bytes, what: str, *, items_max: int = ITEMS_MAX) -> Value:
    """Returns the value of a canonical encoding; raises `Corruption` naming ``what`` for anything else."""
    array, pairs = _hooks(len(data), items_max)
    refused = ""
    try:
        value: Value = msgpack.unpackb(
            data,
            list_hook=array,
            object_pairs_hook=pairs,
            strict_map_key=True,
            unicode_errors="surrogateescape",
            max_array_len=min(len(data), ARRAY_ITEMS_MAX),
            max_map_len=min(len(data), ARRAY_ITEMS_MAX),
            max_ext_len=0,
        )
        again = msgpack.packb(value, use_bin_type=True, unicode_errors="surrogateescape")
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
        # Not `msgpack.PackException`, which is another name of Exception: an interruption would be damage.
        refused = type(error).__name__
    if refused:  # out there, so that what is raised does not hold what was refused, which holds the bytes
        raise Corruption(what, f"not canonical msgpack ({refused})")
    if type(value) not in _TYPES or again != data:
        raise Corruption(what, "not canonical msgpack")
    return value
