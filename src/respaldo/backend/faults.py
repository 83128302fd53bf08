"""Faults on order, for tests: the k-th call fails, or the process "dies" there, before or after the call's effect.

Invariant: a plan hits the same calls in every run of the same calls; after a crash nothing reaches the inner backend
any more, so that a `finally` that puts or deletes does not do what a dead process could not have done.

Never: changes a call's effect; half-done ones are `respaldo.backend.durability`'s.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from respaldo.backend.base import Backend, Listing
from respaldo.backend.wrap import Wrapper
from respaldo.core.errors import StorageFailed
from respaldo.core.seams import Buffer

_T = TypeVar("_T")

VERBS: Final = frozenset(("put", "get", "list", "delete", "exists"))
CHANGES: Final = frozenset(("put", "delete"))


class Crash(BaseException):
    """Is the death of a process; no handler of errors may survive it, so it is no Exception."""


def passing_failure(name: str) -> StorageFailed:
    """Returns the error of a server that will answer the next time."""
    return StorageFailed(name, "injected", retryable=True)


def lasting_failure(name: str) -> StorageFailed:
    """Returns the error of a disk that has gone."""
    return StorageFailed(name, "injected")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Says which calls go wrong: of those with one of the verbs, the `at`-th (from 1) and so many after it."""

    at: int
    error: Callable[[str], BaseException] = Crash
    after: bool = False
    verbs: frozenset[str] = VERBS
    times: int = 1

    def __post_init__(self) -> None:
        if self.at < 1 or self.times < 1 or not self.verbs <= VERBS:
            raise ValueError(f"not a fault: {self}")


class Faults(Wrapper):
    """Hands calls on to a backend and lets go wrong what the plan says. Thread-safe.

    A stage that is committed is a put, a `discard` as many deletes.
    """

    def __init__(self, inner: Backend, plan: Sequence[Fault] = ()) -> None:
        super().__init__(inner)
        self.plan = tuple(plan)
        self.calls: list[tuple[str, str]] = []
        """Every call so far, as (verb, name or folder), those that went wrong too."""
        self.crashed = False
        self._seen = [0] * len(self.plan)
        self._lock = threading.Lock()

    def count(self, verbs: frozenset[str] = VERBS) -> int:
        """Returns how many calls there were, to enumerate the points of a run that went well."""
        return sum(verb in verbs for verb, _ in self.calls)

    def put(self, name: str, pieces: Sequence[Buffer]) -> None:
        self._call("put", name, lambda: self.inner.put(name, pieces))

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        return self._call("get", name, lambda: self.inner.get(name, offset, length))

    def list(self, folder: str) -> Listing:
        return self._call("list", folder, lambda: self.inner.list(folder))

    def delete(self, name: str) -> None:
        self._call("delete", name, lambda: self.inner.delete(name))

    def replace(self, name: str, pieces: Sequence[Buffer]) -> None:
        self._call("put", name, lambda: self.inner.replace(name, pieces))

    def exists(self, name: str) -> int | None:
        return self._call("exists", name, lambda: self.inner.exists(name))

    def discard(self, names: Iterable[str]) -> int:
        return Backend.discard(self, names)

    def _call(self, verb: str, name: str, effect: Callable[[], _T]) -> _T:
        fault = self._due(verb, name)
        if fault is None:
            return effect()
        error = fault.error(name)
        if fault.after:
            effect()
        if isinstance(error, Crash):
            self.crashed = True
        raise error

    def _due(self, verb: str, name: str) -> Fault | None:
        with self._lock:
            if self.crashed:
                raise Crash(name)
            self.calls.append((verb, name))
            due = None
            for number, fault in enumerate(self.plan):
                if verb in fault.verbs:
                    self._seen[number] += 1
                    if due is None and fault.at <= self._seen[number] < fault.at + fault.times:
                        due = fault
            return due
