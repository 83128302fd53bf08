"""A repository in memory that can lose power, for tests that enumerate every point at which it may.

What is put or deleted is visible at once and durable only when synced, as on a disk. `power_cut` decides, change by
change, what became of those that were not.

Invariant: keeps what the contract promises and nothing that it does not: an object that nobody was told is durable may
be lost, kept or (where the medium is said to tear) cut short.

Never: loses what was synced.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Final, Literal

from respaldo.backend.base import Backend, Listing, check_folder, check_name, check_range, flat
from respaldo.backend.faults import Crash
from respaldo.core.errors import ObjectExists, ObjectMissing
from respaldo.core.seams import Buffer

Fate = Literal["lost", "kept", "torn"]
# (verb, name) of a change that was not synced: what the medium shows of it afterwards. "torn" is for puts.
Fates = Callable[[str, str], Fate]

LOST: Final[Fates] = lambda _verb, _name: "lost"  # noqa: E731
KEPT: Final[Fates] = lambda _verb, _name: "kept"  # noqa: E731
TORN: Final[Fates] = lambda verb, _name: "torn" if verb == "put" else "lost"  # noqa: E731


class DurabilityModel(Backend):
    """Keeps what is visible and what is durable apart. Thread-safe.

    ``steps`` counts the points passed so far: two in a put and in a delete (before it is visible; visible and not
    durable). A run without `crash_at` tells how many there are; one with `crash_at` = k (from 1) raises `Crash` at the
    k-th, and in every call after it, until `power_cut` brings the medium back.
    """

    def __init__(self, *, crash_at: int | None = None, sync: bool = True, list_syncs: bool = True) -> None:
        """Makes an empty medium; without `sync` nothing is durable until `sync` is called (a disk that lies).

        `list_syncs`: as the contract says, what a listing shows is durable; False is for showing what depends on it.
        """
        self.location = "durability model"
        self.crash_at = crash_at
        self.steps = 0
        self.dead = False
        self._sync = sync
        self._list_syncs = list_syncs
        self._lock = threading.RLock()
        self._visible: dict[str, bytes] = {}
        self._durable: dict[str, bytes] = {}

    def put(self, name: str, pieces: Sequence[Buffer]) -> None:
        check_name(name)
        content = b"".join(flat(piece) for piece in pieces)
        with self._lock:
            self._step(name)
            if name in self._visible:
                if self._sync:
                    self._settle(name)
                raise ObjectExists(name)
            self._visible[name] = content
            self._step(name)
            if self._sync:
                self._settle(name)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        check_name(name)
        check_range(offset, length)
        with self._lock:
            self._alive(name)
            content = self._visible.get(name)
        if content is None:
            raise ObjectMissing(name)
        return content[offset:] if length is None else content[offset : offset + length]

    def list(self, folder: str) -> Listing:
        prefix = check_folder(folder) + "/"
        with self._lock:
            self._alive(folder)
            if self._list_syncs and self._sync:
                for name in self.volatile():
                    if name.startswith(prefix):
                        self._settle(name)
            return [(name, len(content)) for name, content in self._visible.items() if name.startswith(prefix)]

    def delete(self, name: str) -> None:
        check_name(name)
        with self._lock:
            self._step(name)
            if self._visible.pop(name, None) is None:
                if self._sync:
                    self._settle(name)
                raise ObjectMissing(name)
            self._step(name)
            if self._sync:
                self._settle(name)

    def exists(self, name: str) -> int | None:
        check_name(name)
        with self._lock:
            self._alive(name)
            content = self._visible.get(name)
        return None if content is None else len(content)

    def sync(self) -> None:
        """Makes everything durable."""
        with self._lock:
            self._durable = dict(self._visible)

    def volatile(self) -> set[str]:
        """Returns the names of which a power cut may show something else than what is visible."""
        with self._lock:
            names = self._visible.keys() | self._durable.keys()
            return {name for name in names if self._visible.get(name) != self._durable.get(name)}

    def power_cut(self, fates: Fates = LOST) -> None:
        """Loses, keeps or tears what was not synced, and is there again as after a reboot, without `crash_at`."""
        with self._lock:
            for name in sorted(self.volatile()):
                content = self._visible.get(name)
                fate = fates("delete" if content is None else "put", name)
                if fate == "kept":
                    self._settle(name)
                elif fate == "torn" and content is not None:
                    self._durable[name] = content[: len(content) // 2]
            self._visible = dict(self._durable)
            self.crash_at = None
            self.dead = False

    def snapshot(self) -> dict[str, bytes]:
        """Returns a copy of what is visible."""
        with self._lock:
            return dict(self._visible)

    def _step(self, name: str) -> None:
        self._alive(name)
        self.steps += 1
        if self.steps == self.crash_at:
            self.dead = True
            raise Crash(name)

    def _alive(self, name: str) -> None:
        if self.dead:
            raise Crash(name)

    def _settle(self, name: str) -> None:
        content = self._visible.get(name)
        if content is None:
            self._durable.pop(name, None)
        else:
            self._durable[name] = content
