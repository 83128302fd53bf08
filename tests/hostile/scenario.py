"""A scenario: a script that makes a hostile repository, and exactly what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.hostile.ground import KEPT

SCENARIOS: dict[str, Scenario] = {}
GOOD = KEPT | {"folder": "directory"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Is one. ``known``: the bugs of others that it is about.

    ``statuses``: exit statuses of commands, 0 where nothing is said. ``says``: what a command must print, as a regular
    expression. ``there``: what is below the target after a restore (None: no target). ``endless``: commands that have
    more to do than they ever can, and end when they are interrupted. ``look``: what else is asserted.
    """

    name: str
    known: tuple[str, ...]
    make: Callable
    statuses: Mapping[str, int]
    says: Mapping[str, str]
    there: Mapping[str, object] | None
    endless: frozenset[str] = frozenset()
    peak_mib: int = 96
    spoil: Callable | None = None
    look: Callable | None = None
    more: Mapping[str, tuple] = field(default_factory=dict)
    mounted: Mapping[str, object] = field(default_factory=dict)
    """What a mount shows otherwise than a restore brings it back, in the words of `mounting`."""


def scenario(*known: str, statuses=None, says=None, there=None, **more):
    """Registers the function that makes a repository."""

    def register(make):
        name = make.__name__
        assert name not in SCENARIOS
        SCENARIOS[name] = Scenario(
            name=name, known=known, make=make, statuses=statuses or {}, says=says or {}, there=there, **more
        )
        return make

    return register
