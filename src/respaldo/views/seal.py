"""Seals: the SHA-256 of a file that somebody reads from its beginning to its end, taken on the way.

The kernel reads ahead, with several requests at once: what comes too early is kept for a while, a little of it.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence

_EARLY_MAX = 24


class Seal:
    """Hashes a file as it is read. Any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hash = hashlib.sha256()
        self._at = 0
        self._early: dict[int, list[bytes]] = {}
        self.sha256 = ""
        """Empty until all was read, from the beginning and in sequence."""

    def note(self, offset: int, parts: Sequence[memoryview], length: int) -> bool:
        """Takes what was read at an offset of a file of a length; whether it is sealed by that."""
        with self._lock:
            if self.sha256 or offset < self._at:
                return False
            if offset > self._at:
                if offset - self._at < _EARLY_MAX << 18 and len(self._early) < _EARLY_MAX:
                    self._early[offset] = [bytes(part) for part in parts]
                return False
            self._take(parts)
            while self._at in self._early:
                self._take(self._early.pop(self._at))
            if self._at == length:
                self.sha256 = self._hash.hexdigest()
                self._early.clear()
            return bool(self.sha256)

    def _take(self, parts: Sequence[memoryview | bytes]) -> None:
        for part in parts:
            self._hash.update(part)
            self._at += len(part)
