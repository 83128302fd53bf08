"""A repository in memory: the double of the real ones in tests, and the shortest reading of the contract.

Invariant: as the contract says, at once and without exceptions: every step happens under one lock.

Never: writes anywhere, or hands out bytes that a caller could change.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from respaldo.backend.base import Backend, Listing, check_folder, check_name, check_range, flat
from respaldo.core.errors import ObjectExists, ObjectMissing
from respaldo.core.seams import Buffer


class MemoryBackend(Backend):
    """Keeps objects in a dict; they end with the process."""

    def __init__(self, location: str = "memory") -> None:
        self.location = location
        self._lock = threading.Lock()
        self._objects: dict[str, bytes] = {}

    def put(self, name: str, pieces: Sequence[Buffer]) -> None:
        check_name(name)
        content = b"".join(flat(piece) for piece in pieces)
        with self._lock:
            if name in self._objects:
                raise ObjectExists(name)
            self._objects[name] = content

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        check_name(name)
        check_range(offset, length)
        with self._lock:
            content = self._objects.get(name)
        if content is None:
            raise ObjectMissing(name)
        return content[offset:] if length is None else content[offset : offset + length]

    def list(self, folder: str) -> Listing:
        prefix = check_folder(folder) + "/"
        with self._lock:
            return [(name, len(content)) for name, content in self._objects.items() if name.startswith(prefix)]

    def delete(self, name: str) -> None:
        check_name(name)
        with self._lock:
            if self._objects.pop(name, None) is None:
                raise ObjectMissing(name)

    def replace(self, name: str, pieces: Sequence[Buffer]) -> None:
        check_name(name)
        content = b"".join(flat(piece) for piece in pieces)
        with self._lock:
            if name not in self._objects:
                raise ObjectMissing(name)
            self._objects[name] = content

    def exists(self, name: str) -> int | None:
        check_name(name)
        with self._lock:
            content = self._objects.get(name)
        return None if content is None else len(content)

    def snapshot(self) -> dict[str, bytes]:
        """Returns a copy of all there is, for tests that compare or restore a state."""
        with self._lock:
            return dict(self._objects)

    def damage(self, name: str, content: bytes) -> None:
        """Overwrites or plants an object behind the contract's back, for tests of damage and forgery."""
        with self._lock:
            self._objects[name] = content
