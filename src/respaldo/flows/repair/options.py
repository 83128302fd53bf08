"""What a repair is asked for, what it is told, the plan that it follows, and what came of it. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from respaldo.core.ids import SnapshotId

_DAMAGED = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairOptions:
    """Says how deep to look first, and whether nobody else is at work: that decides doubts that nothing else can."""

    read_data: bool = False
    alone: bool = False
    accept_lost: bool = False
    """Whether entries of the log that are lost for good may be said to be: that the user knows why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """Is what a check found. ``faults``: what is wrong with each object, by name.

    ``incomplete``: snapshots that lack something that is not marked as lost. ``unlisted``: whether there are packs that
    no segment lists.
    """

    faults: Mapping[str, str] = field(default_factory=dict)
    incomplete: tuple[SnapshotId, ...] = ()
    unlisted: bool = False


class Verb(StrEnum):
    """Says what is done about an object."""

    MEND = "mend"
    """Of any object: its parity gives what it was, and takes its place in one step."""
    RESCUE = "rescue"
    """Of a pack: sound chunks go into new packs, the pack is set aside."""
    LIST = "list again"
    """Of packs: a new segment lists those that stand in none."""
    ASIDE = "set aside"
    """The object goes to ``lost+found``; nothing is lost by it that is not lost already."""
    CONDEMN = "condemn again"
    """Of a condemnation: another is put for the packs that it is known to name, and it is set aside."""
    RECOVER = "recover"
    """Of a snapshot whose manifest or outcome is damaged: it is put again, under another id."""
    MARK = "mark"
    """Of a snapshot: it is put again, under another id, with what is lost marked as such."""
    RETIRE = "retire"
    """Of a snapshot that was put again by a repair that did not come to its end: it is set aside."""
    AGAIN = "put again"
    """Of the log: entries that this client has kept are put again as they were."""
    GIVE_UP = "give up"
    """Of the log: an entry says which other entries are lost for good."""
    LEAVE = "leave"
    """Nothing can be done, or not now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Is one thing to be done: about what, and why or with what result."""

    verb: Verb
    name: str
    text: str

    def __str__(self) -> str:
        return f"{self.verb.value} {self.name}: {self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairPlan:
    """Is what a repair will do, in order. ``faults``: how many objects are damaged."""

    steps: tuple[Step, ...]
    faults: int

    @property
    def left(self) -> tuple[Step, ...]:
        """What is not mended."""
        return tuple(step for step in self.steps if step.verb is Verb.LEAVE)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return len(self.left) == len(self.steps)

    @property
    def exit_status(self) -> int:
        """4 where anything is damaged: packs that no segment lists are what a run that was cut off leaves."""
        return _DAMAGED if any(step.verb is not Verb.LIST for step in self.steps) or self.faults else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairResult:
    """Is a finished repair. ``done`` says what was done, ``left`` what was not, ``aside`` names in ``lost+found``.

    ``renamed``: snapshots that were put again, and under which ids. ``lost_files`` counts the entries that were marked,
    once for each distinct directory. ``rescued`` counts chunks.
    """

    plan: RepairPlan
    done: tuple[Step, ...] = ()
    left: tuple[Step, ...] = ()
    aside: tuple[str, ...] = ()
    renamed: tuple[tuple[SnapshotId, SnapshotId], ...] = ()
    rescued: int = 0
    lost_chunks: int = 0
    lost_files: int = 0

    @property
    def exit_status(self) -> int:
        """0 where all was mended or marked; 4 where damage is left."""
        return _DAMAGED if self.left else 0
