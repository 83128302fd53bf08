"""A play after a script: one writer, and whoever the scene calls for. See `tests.protocol.scheduler.Script`."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from respaldo.catalog.session import Session
from respaldo.catalog.snapshots import load
from respaldo.core.ids import SnapshotId
from tests.protocol.collector import Collector, expire, forget
from tests.protocol.play import Theatre, Told
from tests.protocol.real import RealCondemnsAll
from tests.protocol.scene import copy_cache, fresh_cache, memory_with, open_repository
from tests.protocol.scheduler import Script, Shared


class CondemnsAll(Collector):
    """Condemns every pack that it sees."""

    def choose(self, listing, live) -> None:
        numbers = {pack.name: pack.number for pack in self.repo.index.packs()}
        self.victims = {name: numbers[name] for name in listing.packs if name in numbers}


class Play:
    """Is one run of a writer with its adversaries, after a script; ``attempts`` counts how often it began."""

    def __init__(self, theatre: Theatre, monkeypatch) -> None:
        self.theatre = theatre
        self.condemns_all: type[CondemnsAll | RealCondemnsAll] = CondemnsAll
        self.storage = memory_with(theatre.objects)
        self.told = Told(done=dict(theatre.first))
        self.attempts = 0
        self.mends = 0
        self.made: SnapshotId | None = None
        self.actions: dict[str, Callable[[], None]] = {}
        self.script: Script | None = None
        begin, mend = Session.begin, Session._mend

        def counted_begin(this):
            self.attempts += 1
            return begin(this)

        def counted_mend(this, root, *, whole):
            self.mends += 1
            return mend(this, root, whole=whole)

        monkeypatch.setattr(Session, "begin", counted_begin)
        monkeypatch.setattr(Session, "_mend", counted_mend)

    def writer(self, cache: Path | None = None) -> None:
        theatre = self.theatre
        source = theatre.sources[0]
        cache = cache or copy_cache(theatre.folder / "cache0", theatre.folder / "play0")
        with open_repository(Shared(self.storage, self.script), cache) as repo:
            self.made = theatre.snapshot(repo, source)
            self.told.done[self.made] = (source, theatre.files(source))

    def collector(self, number: int = 0) -> None:
        cache = fresh_cache(self.theatre.folder / f"collector{number}")
        with open_repository(Shared(self.storage, self.script), cache) as repo:
            self.condemns_all(repo, random.Random(1)).run()

    def forgetter(self) -> None:
        backend = Shared(self.storage, self.script)
        for snapshot, (source, _) in self.theatre.first.items():
            if source == self.theatre.sources[0]:
                self.told.forgotten.add(snapshot)
                forget(backend, snapshot)

    def expirer(self) -> None:
        cache = fresh_cache(self.theatre.folder / "expirer")
        with open_repository(Shared(self.storage, self.script), cache) as repo:
            for snapshot in load(repo).undecided:
                expire(repo, snapshot)

    def run(self, *scenes: tuple[str, str | None]) -> None:
        """Plays, and looks whether everything is whole."""
        source = self.theatre.sources[0]
        self.theatre.change(source, random.Random(0))
        self.told.seen = {path: [files] for path, files in self.theatre.first.values()}
        self.told.seen[source].append(self.theatre.files(source))
        self.script = Script(*scenes)
        names = dict.fromkeys(name for name, _ in scenes)
        self.script.run({name: self.actions.get(name) or getattr(self, name.split()[0]) for name in names})
        self.theatre.look(0, self.storage, self.told)
