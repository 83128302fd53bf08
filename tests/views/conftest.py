from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from functools import partial
from pathlib import Path

import pytest

from respaldo.api import Places, Secret, init, open_repository, view
from respaldo.api.blocks import Blocks
from respaldo.core.seams import Cancel, Silent
from respaldo.flows.backup.options import BackupOptions
from respaldo.views.layout import Names, layout
from respaldo.views.mounted import LOOK_AGAIN_NS, Mounted
from respaldo.views.newest import latest


class Hands:
    """Is a clock that is moved by hand."""

    def __init__(self) -> None:
        self.ns = 10**18

    def now_ns(self) -> int:
        return self.ns

    def monotonic_ns(self) -> int:
        return self.ns


class Scene:
    """Has a repository, what is backed up in it, and the tree that a mount of it shows."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.source = place / "source"
        self.source.mkdir()
        places = Places(cache_dir=place / "cache", state_dir=place / "state")
        secret = Secret(key=bytes(range(32)))
        init(str(place / "repository"), secret, places=places)
        self.repository = open_repository(str(place / "repository"), secret, places=places, writes=True)
        self.clock = Hands()
        self.looked = 0

    def snapshot(self, *paths: Path, **options) -> None:
        sources = [str(path).encode() for path in paths or (self.source,)]
        self.repository.backup(sources, BackupOptions(**options), progress=Silent(), cancel=Cancel())

    def look(self) -> Sequence:
        self.looked += 1
        self.repository._repo.synchronise(lenient=True)
        return self.repository.snapshots().snapshots

    def mounted(self) -> Mounted:
        names = Names(zone=UTC)
        repo = self.repository._repo
        seals = {}
        return Mounted(
            blocks=Blocks(repo),
            reader=repo.source,
            look=self.look,
            lay_out=lambda items, directories: layout(
                items,
                names,
                lambda items, period: view(items, period, UTC),
                partial(latest, directories),
                seals=seals,
            ),
            clock=self.clock,
            seals=seals,
        )

    def later(self) -> None:
        self.clock.ns += LOOK_AGAIN_NS


@pytest.fixture
def scene(tmp_path):
    """Has an empty repository, and a source to fill."""
    made = Scene(tmp_path)
    with made.repository:
        yield made
