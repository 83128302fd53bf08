"""Decides who goes on: one actor at a time, and another only where a call reaches storage.

Every actor is a thread that holds a baton while it runs and hands it over at each call of its backend, to whom a seeded
generator says. So a seed is a schedule, and a schedule that loses a snapshot can be played again.

A listing is two calls here, each of which shows one half: the contract of storage promises no more than that what is
there all the time is in it.
"""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Callable, Iterable, Sequence

from respaldo.backend.base import Backend, Listing
from respaldo.backend.faults import Crash
from respaldo.backend.memory import MemoryBackend
from respaldo.backend.wrap import Wrapper
from respaldo.core.seams import Buffer

_STEPS = ("pending", "outcome", "condemned", "segments")


class _Actor:
    def __init__(self, name: str, priority: float) -> None:
        self.name = name
        self.priority = priority
        self.turn = threading.Semaphore(0)
        self.error: BaseException | None = None


class Scheduler:
    """Runs actors to their ends.

    A quarter of the seeds choose anew now and then. The others give each actor a rank and let the highest run; on its
    way, most often where the protocol's steps meet, it falls behind all others. That finds what needs one actor to
    stand still for long.
    """

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._switch = self._rng.choice((0.1, 0.3, 0.7))
        self._ranked = seed % 4 > 0
        self._falls = self._rng.choice((0.05, 0.15, 0.3))
        self._alive: list[_Actor] = []
        self._current: _Actor | None = None
        self._done = threading.Event()
        self.points = 0
        self.switches = 0

    def run(self, actions: dict[str, Callable[[], None]]) -> None:
        """Runs the actions until all have ended; raises the first error that is no `Crash`."""
        actors = [_Actor(name, self._rng.random()) for name in actions]
        threads = [
            threading.Thread(target=self._act, args=(actor, action), daemon=True)
            for actor, action in zip(actors, actions.values(), strict=True)
        ]
        self._alive = list(actors)
        for thread in threads:
            thread.start()
        self._hand_over(self._choose())
        for thread in threads:
            thread.join()
        for actor in actors:
            if actor.error is not None:
                raise actor.error

    def point(self, verb: str, name: str) -> None:
        """Is where another may go on: before a call about an object or a folder. Called by whose turn it is."""
        self.points += 1
        actor = self._current
        if actor is None:  # before the run, and after it
            return
        falls = self._falls if name.startswith(_STEPS) else self._falls / 10
        if self._rng.random() < falls:
            actor.priority = min(each.priority for each in self._alive) - 1
        chosen = self._choose()
        if chosen is not actor:
            self.switches += 1
            self._hand_over(chosen)
            actor.turn.acquire()

    def _choose(self) -> _Actor:
        if self._ranked:
            return max(self._alive, key=lambda actor: actor.priority)
        if self._current in self._alive and self._rng.random() > self._switch:
            return self._current
        return self._rng.choice(self._alive)

    def _hand_over(self, actor: _Actor) -> None:
        self._current = actor
        actor.turn.release()

    def _act(self, actor: _Actor, action: Callable[[], None]) -> None:
        actor.turn.acquire()
        try:
            action()
        except Crash:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again by `run`
            actor.error = error
        finally:
            self._alive.remove(actor)
            if self._alive:
                self._hand_over(self._choose())
            else:
                self._current = None


class Script(Scheduler):
    """Runs actors in an order that is written down: each until it is about to make a call, or to its end.

    A scene is (actor, call), the call as "put pending" or, for the second half of a listing, "list on pending"; with a
    number, "put pending #2" is the second such call in that scene. None: to its end.
    """

    def __init__(self, *scenes: tuple[str, str | None]) -> None:
        super().__init__(0)
        self._scenes = list(scenes)
        self._met = 0
        self.broken = ""

    def run(self, actions: dict[str, Callable[[], None]]) -> None:
        super().run(actions)
        if self.broken:
            raise ValueError(self.broken)

    def point(self, verb: str, name: str) -> None:
        self.points += 1
        actor = self._current
        if actor is None or not self._scenes or self._scenes[0][1] is None:
            return
        call, _, number = self._scenes[0][1].partition(" #")
        self._met += f"{verb} {name.partition('/')[0]}" == call
        if self._met == int(number or 1):
            self._scenes.pop(0)
            self._met = 0
            chosen = self._choose()
            if chosen is not actor:
                self._hand_over(chosen)
                actor.turn.acquire()
            else:
                self._break(f"two scenes of {actor.name} in a row")

    def _choose(self) -> _Actor:
        if self._current is not None and self._current not in self._alive and self._scenes:
            over = self._scenes.pop(0)
            if over[1] is not None:
                self._break(f"{self._current.name} ended without: {over[1]}")
        if not self._scenes:
            return self._alive[0]
        wanted = [actor for actor in self._alive if actor.name == self._scenes[0][0]]
        if not wanted:
            self._break(f"{self._scenes[0][0]} has ended already")
        return (wanted or self._alive)[0]

    def _break(self, why: str) -> None:
        """Lets everybody run to the end, so that the reason can be told."""
        self._scenes = []
        self.broken = self.broken or why


class Shared(Wrapper):
    """Is one actor's way to the storage that all share. Dies at its k-th call, before or after the call's effect."""

    def __init__(self, inner: MemoryBackend, scheduler: Scheduler, crash_at: int = 0, *, after: bool = False) -> None:
        super().__init__(inner)
        self._scheduler = scheduler
        self._crash_at = crash_at
        self._after = after
        self._calls = 0
        self.dead = False

    def _call(self, verb: str, name: str, effect):
        if self.dead:
            raise Crash(name)
        self._scheduler.point(verb, name)
        self._calls += 1
        if self._calls == self._crash_at:
            self.dead = True
            if self._after:
                effect()
            raise Crash(name)
        return effect()

    def put(self, name: str, pieces: Sequence[Buffer]) -> None:
        self._call("put", name, lambda: self.inner.put(name, pieces))

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        return self._call("get", name, lambda: self.inner.get(name, offset, length))

    def list(self, folder: str) -> Listing:
        found: Listing = []
        for half in range(2):
            found += self._call(
                ("list", "list on")[half],
                folder,
                lambda half=half: [item for item in self.inner.list(folder) if _half_of(item[0]) == half],
            )
        return found

    def delete(self, name: str) -> None:
        self._call("delete", name, lambda: self.inner.delete(name))

    def discard(self, names: Iterable[str]) -> int:
        return Backend.discard(self, names)

    def exists(self, name: str) -> int | None:
        return self._call("exists", name, lambda: self.inner.exists(name))

    def close(self) -> None:
        pass


def _half_of(name: str) -> int:
    return hashlib.sha256(name.encode()).digest()[0] & 1
