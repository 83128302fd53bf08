"""Backends around a backend, each with one concern: latency, rate, counting, read-only, retries.

Invariant: a wrapper promises what the contract says, because everything that it does not change it hands on, and a
stage ends in its own `put` or in the inner stage's `commit`.

Never: decides what is retried or limited (whoever builds the stack does), or keeps an object's bytes.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, TypeVar

from respaldo.backend.base import Backend, Listing, Litter, Names, Stage, check_folder, check_name, flat
from respaldo.backend.stages import CountedStage, SlicedStage
from respaldo.core.errors import ObjectExists, ObjectMissing, StorageDenied, StorageError
from respaldo.core.seams import Buffer, Clock, Random, SystemClock, system_random

_T = TypeVar("_T")
Sleep = Callable[[float], None]

# Pieces go out in slices of so much time, so that a limit is one for the router too and not only on average.
_SLICE_S: Final = 0.05
_SLICE_MIN_BYTES: Final = 1 << 12
_SLICE_MAX_BYTES: Final = 1 << 20
_STEP_S: Final = 0.1
"""How long a wait may go on after it was called off."""


class Wrapper(Backend):
    """Hands everything on; a stage collects in memory and ends in the wrapper's own `put`, `names` in its `list`."""

    def __init__(self, inner: Backend) -> None:
        self.inner = inner
        self.location = inner.location

    @property
    def distant(self) -> bool:
        return self.inner.distant

    def put(self, name: str, pieces: Sequence[Buffer]) -> None:
        self.inner.put(name, pieces)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        return self.inner.get(name, offset, length)

    def list(self, folder: str) -> Listing:
        return self.inner.list(folder)

    def delete(self, name: str) -> None:
        self.inner.delete(name)

    def discard(self, names: Iterable[str]) -> int:
        return self.inner.discard(names)

    def replace(self, name: str, pieces: Sequence[Buffer]) -> None:
        self.inner.replace(name, pieces)

    def mend(self, name: str) -> bool:
        return self.inner.mend(name)

    def exists(self, name: str) -> int | None:
        return self.inner.exists(name)

    def misplaced(self) -> Listing:
        return self.inner.misplaced()

    def now_ns(self) -> int | None:
        return self.inner.now_ns()

    def arrivals(self, folder: str) -> Mapping[str, int]:
        return self.inner.arrivals(folder)

    def space(self) -> tuple[int, int] | None:
        return self.inner.space()

    def litter(self) -> Litter:
        return self.inner.litter()

    def sweep_litter(self, before_ns: int) -> int:
        return self.inner.sweep_litter(before_ns)

    def close(self) -> None:
        self.inner.close()


class Latency(Wrapper):
    """Waits before every call, as for a round trip to a server."""

    def __init__(self, inner: Backend, seconds: float, sleep: Sleep = time.sleep) -> None:
        super().__init__(inner)
        self._seconds = seconds
        self._sleep = sleep

    @property
    def distant(self) -> bool:
        return True

    def put(self, name: str, pieces: Sequence[Buffer]) -> None:
        self._sleep(self._seconds)
        self.inner.put(name, pieces)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        self._sleep(self._seconds)
        return self.inner.get(name, offset, length)

    def list(self, folder: str) -> Listing:
        self._sleep(self._seconds)
        return self.inner.list(folder)

    def names(self, folder: str) -> Names:
        self._sleep(self._seconds)
        return self.inner.names(folder)

    def delete(self, name: str) -> None:
        self._sleep(self._seconds)
        self.inner.delete(name)

    def discard(self, names: Iterable[str]) -> int:
        names = tuple(names)
        self._sleep(self._seconds * len(names))
        return self.inner.discard(names)

    def exists(self, name: str) -> int | None:
        self._sleep(self._seconds)
        return self.inner.exists(name)

    def now_ns(self) -> int | None:
        self._sleep(self._seconds)
        return self.inner.now_ns()

    def arrivals(self, folder: str) -> Mapping[str, int]:
        self._sleep(self._seconds)
        return self.inner.arrivals(folder)

    def space(self) -> tuple[int, int] | None:
        self._sleep(self._seconds)
        return self.inner.space()


class RateLimit(Wrapper):
    """Keeps what is put to so many bytes a second, all threads together, evenly and not in bursts."""

    def __init__(
        self,
        inner: Backend,
        upload_bytes_per_s: int,
        clock: Clock | None = None,
        sleep: Sleep = time.sleep,
    ) -> None:
        if upload_bytes_per_s <= 0:
            raise ValueError(f"not a rate: {upload_bytes_per_s}")
        super().__init__(inner)
        self._rate = upload_bytes_per_s
        self._clock = SystemClock() if clock is None else clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._free_at_ns = 0
        self._lifted: Callable[[], bool] | None = None
        self._slice_bytes = min(max(int(upload_bytes_per_s * _SLICE_S), _SLICE_MIN_BYTES), _SLICE_MAX_BYTES)

    def lift_when(self, lifted: Callable[[], bool]) -> None:
        """Says when nobody is to wait any more, now or later: whoever was asked to stop saves what he has, at once."""
        self._lifted = lifted

    def put(self, name: str, pieces: Sequence[Buffer]) -> None:
        folder, _ = check_name(name)
        if not folder:
            self._wait(sum(flat(piece).nbytes for piece in pieces))
            self.inner.put(name, pieces)
            return
        with self.stage(folder) as stage:
            for piece in pieces:
                stage.write(piece)
            stage.commit(name)

    def names(self, folder: str) -> Names:
        return self.inner.names(folder)

    def stage(self, folder: str) -> Stage:
        return SlicedStage(self.inner.stage(folder), self._slice_bytes, self._wait)

    def _wait(self, length_bytes: int) -> None:
        with self._lock:
            now_ns = self._clock.monotonic_ns()
            start_ns = max(now_ns, self._free_at_ns)
            self._free_at_ns = start_ns + length_bytes * 10**9 // self._rate
        left_s = (start_ns - now_ns) / 1e9
        while left_s > 0:
            if self._lifted is not None and self._lifted():
                return
            step_s = left_s if self._lifted is None else min(left_s, _STEP_S)
            self._sleep(step_s)
            left_s -= step_s


class Counting(Wrapper):
    """Counts calls and bytes by verb: put, get, list, delete, exists. A stage that is committed counts as a put."""

    def __init__(self, inner: Backend) -> None:
        super().__init__(inner)
        self._lock = threading.Lock()
        self.calls: Counter[str] = Counter()
        self.length_bytes: Counter[str] = Counter()

    def put(self, name: str, pieces: Sequence[Buffer]) -> None:
        self._count("put", sum(flat(piece).nbytes for piece in pieces))
        self.inner.put(name, pieces)

    def replace(self, name: str, pieces: Sequence[Buffer]) -> None:
        self._count("put", sum(flat(piece).nbytes for piece in pieces))
        self.inner.replace(name, pieces)

    def stage(self, folder: str) -> Stage:
        return CountedStage(self.inner.stage(folder), self._count)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        content = self.inner.get(name, offset, length)
        self._count("get", len(content))
        return content

    def list(self, folder: str) -> Listing:
        self._count("list")
        return self.inner.list(folder)

    def names(self, folder: str) -> Names:
        self._count("list")
        return self.inner.names(folder)

    def delete(self, name: str) -> None:
        self._count("delete")
        self.inner.delete(name)

    def discard(self, names: Iterable[str]) -> int:
        names = tuple(names)
        self._count("delete", calls=len(names))
        return self.inner.discard(names)

    def exists(self, name: str) -> int | None:
        self._count("exists")
        return self.inner.exists(name)

    def reset(self) -> None:
        """Starts again from zero."""
        with self._lock:
            self.calls.clear()
            self.length_bytes.clear()

    def _count(self, verb: str, length_bytes: int = 0, *, calls: int = 1) -> None:
        with self._lock:
            self.calls[verb] += calls
            self.length_bytes[verb] += length_bytes


class ReadOnly(Wrapper):
    """Refuses whatever would change the repository."""

    def names(self, folder: str) -> Names:
        return self.inner.names(folder)

    def put(self, name: str, pieces: Sequence[Buffer]) -> None:  # noqa: ARG002
        check_name(name)
        raise _refusal(name)

    def replace(self, name: str, pieces: Sequence[Buffer]) -> None:  # noqa: ARG002
        check_name(name)
        raise _refusal(name)

    def stage(self, folder: str) -> Stage:
        raise _refusal(check_folder(folder))

    def delete(self, name: str) -> None:
        check_name(name)
        raise _refusal(name)

    def discard(self, names: Iterable[str]) -> int:
        for name in names:
            self.delete(name)
        return 0

    def sweep_litter(self, before_ns: int) -> int:  # noqa: ARG002
        raise _refusal(self.location)


class Retry(Wrapper):
    """Repeats what failed with an error that says ``retryable``, ever later, with jitter.

    An attempt that failed may have had its effect. So a repeated put that meets the object takes it for its own when
    its bytes are the same, and a repeated delete that meets none is content.
    """

    def __init__(
        self,
        inner: Backend,
        attempts: int = 5,
        sleep: Sleep = time.sleep,
        random: Random = system_random,
        *,
        first_s: float = 0.5,
        longest_s: float = 30.0,
    ) -> None:
        if attempts < 1:
            raise ValueError(f"not a number of attempts: {attempts}")
        super().__init__(inner)
        self._attempts = attempts
        self._sleep = sleep
        self._random = random
        self._first_s = first_s
        self._longest_s = longest_s

    def put(self, name: str, pieces: Sequence[Buffer]) -> None:
        def attempt(number: int) -> None:
            try:
                self.inner.put(name, pieces)
            except ObjectExists:
                if number == 0 or not self._holds(name, pieces):
                    raise

        self._repeat(attempt)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        return self._repeat(lambda _number: self.inner.get(name, offset, length))

    def list(self, folder: str) -> Listing:
        return self._repeat(lambda _number: self.inner.list(folder))

    def names(self, folder: str) -> Names:
        return self._repeat(lambda _number: self.inner.names(folder))

    def delete(self, name: str) -> None:
        def attempt(number: int) -> None:
            try:
                self.inner.delete(name)
            except ObjectMissing:
                if number == 0:
                    raise

        self._repeat(attempt)

    def discard(self, names: Iterable[str]) -> int:
        names = tuple(names)
        return self._repeat(lambda _number: self.inner.discard(names))

    def replace(self, name: str, pieces: Sequence[Buffer]) -> None:
        self._repeat(lambda _number: self.inner.replace(name, pieces))

    def exists(self, name: str) -> int | None:
        return self._repeat(lambda _number: self.inner.exists(name))

    def now_ns(self) -> int | None:
        return self._repeat(lambda _number: self.inner.now_ns())

    def arrivals(self, folder: str) -> Mapping[str, int]:
        return self._repeat(lambda _number: self.inner.arrivals(folder))

    def space(self) -> tuple[int, int] | None:
        return self._repeat(lambda _number: self.inner.space())

    def litter(self) -> Litter:
        return self._repeat(lambda _number: self.inner.litter())

    def sweep_litter(self, before_ns: int) -> int:
        return self._repeat(lambda _number: self.inner.sweep_litter(before_ns))

    def _holds(self, name: str, pieces: Sequence[Buffer]) -> bool:
        content = b"".join(flat(piece) for piece in pieces)
        return self.exists(name) == len(content) and self.get(name) == content

    def _repeat(self, attempt: Callable[[int], _T]) -> _T:
        number = 0
        while True:
            try:
                return attempt(number)
            except StorageError as error:
                number += 1
                if not error.retryable or number >= self._attempts:
                    raise
                # Full jitter, never under a tenth: a server that comes back is not met by all its clients at once.
                pause_s = min(self._longest_s, self._first_s * 2 ** (number - 1))
                self._sleep(pause_s * max(0.1, int.from_bytes(self._random(4), "little") / 2**32))


def _refusal(name: str) -> StorageDenied:
    return StorageDenied(name, "opened for reading only", hint="open the repository for writing")
