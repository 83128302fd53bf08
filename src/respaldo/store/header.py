"""The header in storage: read, mended, and asked for where the storage as a whole may have gone.

Implements docs/format.md, "Header".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from respaldo.backend.base import Backend
from respaldo.core.errors import Corruption, NotARepository, ObjectMissing, StorageError, StorageFailed
from respaldo.format.header import HEADER, HEADER_BYTES_MAX, Header, parse_header

T = TypeVar("T")


def read_header(backend: Backend) -> Header:
    """Returns the header; raises `NotARepository` where there is none, `Corruption` where it is no file."""
    try:
        data = backend.get(HEADER, 0, HEADER_BYTES_MAX + 1)
    except ObjectMissing:
        raise NotARepository(backend.location, "it has no header") from None
    except StorageError:
        backend.exists(HEADER)  # says so where it is no file
        raise
    return parse_header(data, backend.location)


def still_there(backend: Backend, error: StorageFailed) -> None:
    """Raises the error again where not one object but the storage as a whole has failed.

    It is read, and not asked for: a disk that has gone is known to the kernel long after, by name and length.
    """
    try:
        backend.get(HEADER, 0, HEADER_BYTES_MAX + 1)
    except (StorageError, Corruption):
        raise error from None


def read_header_mended(backend: Backend) -> tuple[Header, Backend]:
    """Does what `read_header` does, with parity where it is damaged; returns the backend to go on with."""
    return or_healed(lambda backend: (read_header(backend), backend), backend)


def or_healed(attempt: Callable[[Backend], T], backend: Backend) -> T:
    """Returns what an attempt to open something gives, with parity where what it needs is damaged."""
    try:
        return attempt(backend)
    except (Corruption, NotARepository, StorageFailed):
        from respaldo.store.mending import healed  # noqa: PLC0415 - start-up time

        whole = healed(backend)
        if whole is None:
            raise
        return attempt(whole)
