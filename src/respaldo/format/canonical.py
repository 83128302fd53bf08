"""Canonical msgpack: one encoding for each value, so that equal values have equal bytes and ids.

Arrays, strings, bytes, booleans, nil and 64-bit integers, each in its shortest form; maps have string keys in ascending order.
No floats, no extensions. What does not re-encode to its own bytes is refused. Implements docs/format.md, "Canonical
msgpack".
"""

from __future__ import annotations

import msgpack

from respaldo.core.errors import Corruption

Value = None | bool | int | str | bytes | list["Value"] | dict[str, "Value"]

ARRAY_ITEMS_MAX = 1 << 20


def _ordered(value: object) -> object:
    match value:
        case dict():
            return {key: _ordered(value[key]) for key in sorted(value)}
        case list() | tuple():
            return [_ordered(item) for item in value]
        case None | bool() | int() | str() | bytes() | bytearray() | memoryview():
            return value
        case _:
            msg = f"{type(value).__name__} has no canonical encoding"
            raise TypeError(msg)


def pack(value: object) -> bytes:
    """Returns the canonical encoding; raises TypeError for types that have none, OverflowError beyond 64 bits."""
    packed: bytes = msgpack.packb(_ordered(value), use_bin_type=True, unicode_errors="surrogateescape")
    return packed


def unpack(data: bytes, what: str) -> Value:
    """Returns the value of a canonical encoding; raises `Corruption` naming ``what`` for anything else."""
    try:
        value: Value = msgpack.unpackb(
            data,
            use_list=True,
            strict_map_key=True,
            unicode_errors="surrogateescape",
            max_array_len=ARRAY_ITEMS_MAX,
            max_map_len=ARRAY_ITEMS_MAX,
            max_ext_len=0,
        )
        again = pack(value)
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException, msgpack.PackException) as error:
        raise Corruption(what, f"not canonical msgpack ({type(error).__name__})") from None
    if again != data:
        raise Corruption(what, "not canonical msgpack")
    return value
