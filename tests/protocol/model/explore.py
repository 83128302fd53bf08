"""The explorer: goes through every state that can be reached, and says how the first bad one was.

A state is bytes, so that it is compared exactly and takes little. Breadth first, so that the trace of what is wrong is
a shortest one. An actor that stops for ever anywhere (a crash) needs no step of its own: the invariants are looked at
in every state, and a state from which nobody goes on is one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

State = bytes
Steps = list[tuple[str, State]]
Actor = Callable[[State, Steps], None]
"""Appends what an actor may do next to a list: what it is, and the state after it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Is where to begin, who acts, and what must hold.

    ``wrong`` says what is wrong with a state, or nothing; it depends on the first ``shared`` bytes and on the last of a
    state only. ``settled`` says that nothing can go wrong any more: such a state is not gone on from. ``same`` returns
    a state that differs in names only, of two such states mostly the same one.
    """

    initial: State
    actors: Sequence[Actor]
    wrong: Callable[[State], str]
    shared: int
    settled: Callable[[State], bool] = lambda _state: False
    same: Callable[[State], State] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explored:
    """Is what an exploration found: counts, and the way to the first state that is wrong."""

    states: int
    steps: int
    wrong: str = ""
    trace: tuple[str, ...] = ()

    def __str__(self) -> str:
        found = f"{self.states} states, {self.steps} steps"
        if not self.wrong:
            return found
        way = "\n".join(f"{number:3}. {label}" for number, label in enumerate(self.trace, 1))
        return f"{found}: {self.wrong}\n{way}"


class TooManyError(Exception):
    """Says that there are more states than was thought."""


def explore(model: Model, *, states_max: int = 20_000_000) -> Explored:
    """Explores a model to its end, or to the first state that is wrong.

    First without noting where a state came from, and looking at states that differ in names only once; where one is
    wrong, again with all of that, so that there is a trace that can be read.
    """
    found = _run(model, states_max)
    return found if not found.wrong else trace(model, states_max=states_max)


def _run(model: Model, states_max: int) -> Explored:
    seen = {model.initial}
    layer = [model.initial]
    steps = 0
    actors, wrong, settled, same, shared = model.actors, model.wrong, model.settled, model.same, model.shared
    found: Steps = []
    while layer:
        fresh: list[State] = []
        for state in layer:
            found.clear()
            for act in actors:
                act(state, found)
            steps += len(found)
            before = state[:shared]
            for _, step in found:
                after = step if same is None else same(step)
                if after in seen:
                    continue
                seen.add(after)
                if after[:shared] != before or after[-1] != state[-1]:
                    said = wrong(after)
                    if said:
                        return Explored(states=len(seen), steps=steps, wrong=said)
                    if settled(after):
                        continue
                fresh.append(after)
        if len(seen) > states_max:
            raise TooManyError(len(seen))
        layer = fresh
    return Explored(states=len(seen), steps=steps)


def trace(model: Model, *, states_max: int = 20_000_000) -> Explored:
    """Explores, by name, and notes where every state came from: returns the shortest way to one that is wrong."""
    came_from: dict[State, tuple[State, str] | None] = {model.initial: None}
    layer = [model.initial]
    steps = 0
    while layer:
        fresh: list[State] = []
        for state in layer:
            found: Steps = []
            for act in model.actors:
                act(state, found)
            steps += len(found)
            for label, after in found:
                if after in came_from:
                    continue
                came_from[after] = (state, label)
                said = model.wrong(after)
                if said:
                    way = _way(came_from, after)
                    return Explored(states=len(came_from), steps=steps, wrong=said, trace=way)
                if not model.settled(after):
                    fresh.append(after)
        if len(came_from) > states_max:
            raise TooManyError(len(came_from))
        layer = fresh
    return Explored(states=len(came_from), steps=steps)


def _way(came_from: dict[State, tuple[State, str] | None], state: State) -> tuple[str, ...]:
    labels = []
    while (before := came_from[state]) is not None:
        state, label = before
        labels.append(label)
    return tuple(reversed(labels))
