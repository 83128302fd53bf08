"""Reed–Solomon coding over GF(2¹⁶): recovery shards out of data shards, and lost shards back from any that are left.

The work is done by the library reed-solomon-leopard (bindings to the Rust crate reed-solomon-simd, O(n log n)), which
is an optional dependency and is loaded when it is first needed. Any k of k + m shards give the others; which ones are
damaged has to be known from elsewhere. Never looks into a shard. Implements docs/format.md, "Parity" (code).
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Final, Protocol, cast

from respaldo.core.errors import UsageError

_LIBRARY: Final = "reed_solomon_leopard"


class _Library(Protocol):
    def encode(self, data: Sequence[bytes], recovery_count: int, /) -> Sequence[bytes]: ...

    def decode(
        self, count: int, recovery_count: int, data: Mapping[int, bytes], recovery: Mapping[int, bytes], /
    ) -> Mapping[int, bytes]: ...


def _library() -> _Library:
    try:
        return cast("_Library", importlib.import_module(_LIBRARY))
    except ImportError as error:
        raise UsageError(
            f"parity needs a library that is not here ({error})", hint="install it with: pip install 'respaldo[parity]'"
        ) from None


def require() -> None:
    """Raises `UsageError` unless the library is there."""
    _library()


def is_available() -> bool:
    """Tells whether the library is there."""
    try:
        require()
    except UsageError:
        return False
    return True


def encode(shards: Sequence[bytes], count: int) -> list[bytes]:
    """Returns so many recovery shards of data shards, all of one even length. Raises `UsageError` without the library.

    At most 32,768 of either. Holds the GIL: 32 MiB take 0.05 s.
    """
    return list(_library().encode(shards, count))


def decode(
    count: int, recovery_count: int, shards: Mapping[int, bytes], recovery: Mapping[int, bytes]
) -> dict[int, bytes]:
    """Returns the data shards that are missing among ``shards`` (by number); at least ``count`` of all must be there.

    Raises ValueError where there are fewer, `UsageError` without the library.
    """
    if len(shards) + len(recovery) < count:
        msg = f"{len(shards) + len(recovery)} of {count} shards"
        raise ValueError(msg)
    if len(shards) == count:
        return {}
    return dict(_library().decode(count, recovery_count, shards, recovery))
