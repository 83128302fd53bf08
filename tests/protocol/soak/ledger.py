"""What a soak knows: what was backed up, where, under which label, and what was told to go.

Pure but for the sources, which it changes; runs nothing.
"""

from __future__ import annotations

import hashlib
import os
import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

HOMES = ("one", "two", "three")
"""Caches, and the states that go with them, where they do not share one."""


class SoakError(AssertionError):
    """Says what was lost, or went wrong."""


@dataclass(slots=True)
class Source:
    """Is a directory that is backed up, and changes between two snapshots of it."""

    path: Path
    rng: random.Random

    def change(self) -> str:
        """Writes, appends, removes a few files; returns the digest of what is there then."""
        for _ in range(self.rng.randrange(1, 6)):
            folder = self.path / f"folder{self.rng.randrange(6)}" / f"deep{self.rng.randrange(2)}"
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"file{self.rng.randrange(8)}"
            chance = self.rng.random()
            if chance < 0.15:
                path.unlink(missing_ok=True)
            elif chance < 0.4:
                # Of few seeds, so that sources share content, and what was forgotten comes back.
                path.write_bytes(random.Random(self.rng.randrange(40)).randbytes(1 << self.rng.randrange(8, 19)))
            elif chance < 0.6 and path.exists():
                with path.open("ab") as file:
                    file.write(self.rng.randbytes(self.rng.randrange(1, 50_000)))
            else:
                path.write_bytes(self.rng.randbytes(self.rng.randrange(0, 200_000)))
        return digest(self.path)


def digest(folder: Path | str) -> str:
    """Returns what two equal trees, and no others, have in common."""
    found = hashlib.sha256()
    folder = Path(folder)
    for path in sorted(folder.rglob("*")):
        name = os.fsencode(path.relative_to(folder))
        kind, content = (b"d", b"") if path.is_dir() else (b"f", path.read_bytes())
        found.update(b"%s%d:%s%d:" % (kind, len(name), name, len(content)) + content)
    return found.hexdigest()


@dataclass(slots=True)
class Ledger:
    """Is what is known of the snapshots of one place, by their labels: ids change when a key does.

    ``planned``: what each must hold. ``done``: those that were reported, and their ids. ``leaving``: those that
    somebody was told to forget, ``trashed``: for a time of grace. ``expendable``: those that policies may take.
    """

    planned: dict[str, tuple[Source, str]] = field(default_factory=dict)
    done: dict[str, str] = field(default_factory=dict)
    leaving: set[str] = field(default_factory=set)
    trashed: set[str] = field(default_factory=set)
    expendable: set[str] = field(default_factory=set)

    def staying(self) -> set[str]:
        """Returns what was reported and nobody was told to forget, not even for a time."""
        return self.done.keys() - self.leaving - self.trashed

    def by_id(self, snapshot: str) -> str:
        """Returns the label of a snapshot that was reported."""
        return next((label for label, known in self.done.items() if known == snapshot), "")


class Command(NamedTuple):
    """Is what a role wants to be run. ``about``: what it wants to know again when that ends."""

    words: Sequence[str]
    home: str
    about: dict[str, Any] = {}  # noqa: RUF012 - never changed
    program: Sequence[str] = ()
    """What to run in the place of the program."""


@dataclass(slots=True, kw_only=True)
class Scene:
    """Is what all roles share."""

    folder: Path
    rng: random.Random
    main: Ledger = field(default_factory=Ledger)
    area: Ledger = field(default_factory=Ledger)
    sources: list[Source] = field(default_factory=list)
    number: int = 0
    heads: list[str] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)
    """Key slots that were added: files by id."""

    def __post_init__(self) -> None:
        self.sources = [Source(self.folder / f"source{number}", self.rng) for number in range(6)]
        for source in self.sources:
            source.path.mkdir()
            for _ in range(10):
                source.change()

    def home(self) -> str:
        """Returns one of the homes."""
        return self.rng.choice(HOMES)

    def one_of(self, found: set[str]) -> str:
        """Returns one of some labels, nothing where there is none."""
        return self.rng.choice(sorted(found)) if found else ""


class Role(ABC):
    """Is one that runs one command after another."""

    weight = 1.0
    """How often it begins something, beside others."""
    area = False
    """Whether its ledger is that of the client's area."""

    def __init__(self, name: str, scene: Scene) -> None:
        self.name = name
        self.scene = scene
        self.rng = scene.rng

    @property
    def ledger(self) -> Ledger:
        """What it knows of snapshots."""
        return self.scene.area if self.area else self.scene.main

    @property
    def client(self) -> list[str]:
        """The words that name the area, where it works there."""
        return ["--client", "bob"] if self.area else []

    @abstractmethod
    def begin(self) -> Command | None:
        """Returns what to run next, None where there is nothing to be done."""

    def ended(self, about: dict[str, Any]) -> None:  # noqa: B027 - most have nothing to take in
        """Takes in that a command has ended, however it did."""

    def succeeded(self, about: dict[str, Any], found: dict[str, Any]) -> None:  # noqa: B027 - as above
        """Takes in what a command that succeeded printed; raises `SoakError` where that is wrong."""
