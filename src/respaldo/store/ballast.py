"""The ballast: a megabyte kept in reserve, which a collector gives up on a full disk for its own records.

Holds random bytes, so that no file system stores it for nothing. Nothing refers to it: it may be missing at any time.
Implements docs/format.md, "Ballast".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from respaldo.backend.base import Backend
from respaldo.core.errors import ObjectExists, ObjectMissing, StorageError, StorageFull
from respaldo.core.seams import Random
from respaldo.format.header import HASH_BYTES, close_object

BALLAST = "ballast/0"
BALLAST_BYTES = 1 << 20
T = TypeVar("T")


def keep_ballast(backend: Backend, random: Random) -> bool:
    """Puts a ballast where there is none; returns whether there is one. A full disk, or a refusal, is no error here."""
    try:
        if backend.exists(BALLAST) is None:
            backend.put(BALLAST, [close_object(random(BALLAST_BYTES - HASH_BYTES))])
    except ObjectExists:
        pass
    except StorageError:
        return False
    return True


def with_ballast(backend: Backend, action: Callable[[], T]) -> T:
    """Runs an action; where storage is full, gives up the ballast and runs it once more. The action may be repeated."""
    try:
        return action()
    except StorageFull as error:
        try:
            backend.delete(BALLAST)
        except ObjectMissing:
            raise error from None
    return action()
