"""Setting aside: a copy of an object in ``lost+found/``, before whoever repairs takes the object away.

Never deletes anything, and never overwrites what was set aside before. Implements docs/format.md, "Lost and found".
"""

from __future__ import annotations

from respaldo.backend.base import LOST_FOUND, Backend
from respaldo.core.errors import ObjectExists, StorageFailed

_PIECE_BYTES = 4 << 20
_COPIES_MAX = 1000


def set_aside(backend: Backend, name: str, data: bytes | None = None) -> str:
    """Copies an object, durably; returns the copy's name. One that is there with the same bytes is as good.

    ``data``: what could be read of it, where storage cannot copy all of it.
    """
    plain = f"{LOST_FOUND}/{name.replace('/', '.')}"
    for number in range(1, _COPIES_MAX):
        target = plain if number == 1 else f"{plain}.{number}"
        try:
            if data is None:
                backend.copy(name, target)
            else:
                backend.put(target, [data])
        except ObjectExists:
            if not (_same(backend, name, target) if data is None else _holds(backend, target, data)):
                continue
        return target
    raise StorageFailed(plain, f"it was set aside {_COPIES_MAX} times already", hint="look at what is in lost+found")


def _holds(backend: Backend, name: str, data: bytes) -> bool:
    return backend.exists(name) == len(data) and backend.get(name) == data


def _same(backend: Backend, one: str, other: str) -> bool:
    length = backend.exists(one)
    if length is None or length != backend.exists(other):
        return False
    try:
        return all(
            backend.get(one, at, _PIECE_BYTES) == backend.get(other, at, _PIECE_BYTES)
            for at in range(0, length, _PIECE_BYTES)
        )
    except StorageFailed:
        return False
