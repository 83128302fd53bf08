"""Stages around stages: they wait before each slice, or count what is committed, and hand everything on.

For the decorators of `respaldo.backend.wrap`. Invariant: what is written goes to the inner stage, in order and once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from respaldo.backend.base import Stage, flat
from respaldo.core.seams import Buffer


class SlicedStage(Stage):
    """Waits before each slice of what it hands on."""

    def __init__(self, inner: Stage, slice_bytes: int, wait: Callable[[int], None]) -> None:
        self._inner = inner
        self._slice_bytes = slice_bytes
        self._wait = wait

    def write(self, piece: Buffer) -> None:
        for part in _slices(flat(piece), self._slice_bytes):
            self._wait(part.nbytes)
            self._inner.write(part)

    def commit(self, name: str) -> None:
        self._inner.commit(name)

    def discard(self) -> None:
        self._inner.discard()


class CountedStage(Stage):
    """Counts one put when it is committed."""

    def __init__(self, inner: Stage, count: Callable[[str, int], None]) -> None:
        self._inner = inner
        self._count = count
        self._length_bytes = 0

    def write(self, piece: Buffer) -> None:
        self._length_bytes += flat(piece).nbytes
        self._inner.write(piece)

    def commit(self, name: str) -> None:
        self._count("put", self._length_bytes)
        self._inner.commit(name)

    def discard(self) -> None:
        self._inner.discard()


def _slices(view: memoryview, slice_bytes: int) -> Iterator[memoryview]:
    for start in range(0, view.nbytes, slice_bytes):
        yield view[start : start + slice_bytes]
