"""The seams through which the outside reaches the library: clock, randomness, progress, cancellation.

Nothing in the library reads a clock, draws randomness, prints, or handles a signal except through these.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Protocol, runtime_checkable

from respaldo.core.errors import Interrupted

Buffer = bytes | bytearray | memoryview


@runtime_checkable
class Clock(Protocol):
    """Tells the time."""

    def now_ns(self) -> int:
        """Returns the wall clock, ns since the epoch, UTC."""
        ...

    def monotonic_ns(self) -> int:
        """Returns a clock that never goes back, ns since an unspecified moment."""
        ...


class SystemClock:
    """Is the clock of the machine."""

    def now_ns(self) -> int:
        return time.time_ns()

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()


def awake_or_asleep_s() -> float:
    """Returns a clock that goes on while the machine sleeps and that nobody sets, in seconds since it was started."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Random(Protocol):
    """Draws random bytes fit for keys."""

    def __call__(self, length_bytes: int, /) -> bytes: ...


def system_random(length_bytes: int, /) -> bytes:
    """Draws from the kernel's generator."""
    return os.urandom(length_bytes)


class Progress(Protocol):
    """Is told how a run gets on. Called from one thread; cheap enough to be called once a directory."""

    @property
    def level(self) -> int:
        """The highest level of notes that anybody hears: what it costs to word the others can be saved."""
        ...

    def total(self, *, files: int, length_bytes: int) -> None:
        """Announces how much there is in all, once that is known (it may grow)."""
        ...

    def advance(self, *, files: int = 0, length_bytes: int = 0) -> None:
        """Adds to what is done."""
        ...

    def at(self, path: bytes) -> None:
        """Says what is being worked on."""
        ...

    def note(self, level: int, text: str, path: bytes = b"") -> None:
        """Says something about a path: level -1 a warning, 0 for everybody, 1 for ``-v``, 2 for ``-vv``."""
        ...


class Silent:
    """Is the progress that nobody watches."""

    level: int = -2

    def total(self, *, files: int, length_bytes: int) -> None:
        pass

    def advance(self, *, files: int = 0, length_bytes: int = 0) -> None:
        pass

    def at(self, path: bytes) -> None:
        pass

    def note(self, level: int, text: str, path: bytes = b"") -> None:
        pass


class Cancel:
    """Carries a request to stop from a signal handler to the loops that can stop cleanly. Thread-safe."""

    __slots__ = ("_event", "signal_name")

    def __init__(self) -> None:
        self._event = threading.Event()
        self.signal_name = ""

    def request(self, signal_name: str = "") -> None:
        """Asks for a stop; safe in a signal handler."""
        self.signal_name = signal_name
        self._event.set()

    @property
    def requested(self) -> bool:
        """Whether a stop was asked for."""
        return self._event.is_set()

    def check(self) -> None:
        """Raises `Interrupted` when a stop was asked for."""
        if self._event.is_set():
            raise Interrupted(self.signal_name)
