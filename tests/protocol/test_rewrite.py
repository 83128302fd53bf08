"""Rewriting beside writers, forgetters and the real collectors, after seeds and after scripts; and cut off anywhere.

The new snapshot needs what the old one holds, which goes when the old one is forgotten: what is committed is whole.
"""

from __future__ import annotations

import os
import random

import pytest

from respaldo.api.rewriting import rewrite
from respaldo.backend.faults import CHANGES, Crash, Fault, Faults, lasting_failure
from respaldo.catalog.selectors import Context
from respaldo.catalog.snapshots import load
from respaldo.core.errors import ChunkMissing, StorageError, StorageFailed
from respaldo.core.seams import Cancel, Silent
from respaldo.flows.rewrite.options import RewriteOptions
from tests.protocol.collector import forget
from tests.protocol.play import Theatre, Told
from tests.protocol.real import Real, RealCondemnsAll, make_ruthless
from tests.protocol.scene import (
    Kept,
    contents,
    copy_cache,
    fresh_cache,
    memory_with,
    open_repository,
)
from tests.protocol.scheduler import Scheduler, Script, Shared

pytestmark = pytest.mark.usefixtures("_inline")
WITHOUT = RewriteOptions(exclude=("file1",), program="test")


def rewrite_all(repo, *, forget_old=False, options=WITHOUT):
    """Rewrites every snapshot that is there."""
    catalogue = load(repo)
    names = [item.hex for item in catalogue.snapshots]
    context = Context(now_ns=repo.clock.now_ns())
    return rewrite(repo, catalogue, names, context, options, forget=forget_old, progress=Silent(), cancel=Cancel())


def left_of(files):
    """Returns what is left of a snapshot's files."""
    return {path: content for path, content in files.items() if not path.endswith(b"/file1")}


class Rewriting:
    """Plays on a theatre's repository: whoever rewrites, forgets and collects."""

    def __init__(self, theatre: Theatre) -> None:
        self.theatre = theatre
        self.storage = memory_with(theatre.objects)
        self.told = Told(done=dict(theatre.first))
        for source, files in theatre.first.values():
            self.told.seen[source] = [files, left_of(files), {}]

    def rewriter(self, backend, *, forget_old: bool, name: str = "rewriter") -> None:
        cache = copy_cache(self.theatre.folder / "cache0", self.theatre.folder / name)
        try:
            with open_repository(backend, cache, random.Random(1).randbytes) as repo:
                result = rewrite_all(repo, forget_old=forget_old)
        except Crash:
            self.told.counts["crashed"] += 1
            if forget_old:  # it may have come so far
                self.told.forgotten |= set(self.theatre.first)
            return
        except StorageFailed as error:
            if "went away" not in error.reason and "again and again" not in error.reason:
                raise
            self.told.counts["gave up"] += 1
            return
        for item in result.items:
            if item.snapshot is None:
                self.told.counts["forgotten meanwhile"] += 1
                continue
            self.told.counts["rewritten"] += 1
            source, files = self.told.done.get(item.old, (None, None))
            if source is not None:
                self.told.done[item.snapshot] = source, left_of(files)
        self.told.forgotten |= set(result.forgotten)

    def forgetter(self, backend, seed: int) -> None:
        rng = random.Random(seed)
        for snapshot in list(self.theatre.first):
            if rng.random() < 0.8:
                self.told.forgotten.add(snapshot)
                forget(backend, snapshot)

    def look(self, seed: int) -> None:
        self.theatre.look(seed, self.storage, self.told)


def play(theatre, seed: int) -> Told:
    rng = random.Random(seed)
    scene = Rewriting(theatre)
    scheduler = Scheduler(seed)

    def shared(longest: int) -> Shared:
        at = rng.randrange(1, longest) if rng.random() < 0.2 else 0
        return Shared(scene.storage, scheduler, at, after=rng.random() < 0.5)

    def collector(number: int, backend):
        def act() -> None:
            chance = random.Random(seed * 10 + number)
            for _ in range(2):
                with open_repository(
                    backend, fresh_cache(theatre.folder / f"collector{number}"), chance.randbytes
                ) as repo:
                    real = Real(repo, chance)
                    real.run()
                    scene.told.counts["packs deleted"] += len(real.victims)

        return act

    forgets = seed % 2 == 0
    own, other = shared(90), shared(60)
    actions = {
        "rewriter": lambda: scene.rewriter(own, forget_old=not forgets),
        "collector 0": collector(0, shared(150)),
    }
    if forgets:
        actions["forgetter"] = lambda: scene.forgetter(other, seed)
    if seed % 3 == 0:
        actions["collector 1"] = collector(1, shared(150))
    scheduler.run(actions)
    scene.look(seed)
    return scene.told


def play_all(theatre, seeds):
    from collections import Counter

    counts: Counter[str] = Counter()
    for seed in seeds:
        counts += play(theatre, seed).counts
    return counts


def test_no_schedule_loses_a_snapshot(theatre, monkeypatch):
    """Whatever order a seed leads to, and whoever dies in it: what is a snapshot in the end is whole."""
    make_ruthless(monkeypatch)
    counts = play_all(theatre, range(40))
    for what in ("rewritten", "packs deleted", "forgotten meanwhile"):
        assert counts[what], counts


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
def test_no_schedule_of_many_loses_a_snapshot(theatre, monkeypatch, part):
    """The same, a thousand times and more."""
    make_ruthless(monkeypatch)
    play_all(theatre, range(1000 + part * 250, 1250 + part * 250))


FORGOTTEN_BEFORE_THE_LAST_LOOK = (
    ("rewriter", "put pending"),
    ("forgetter", None),
    ("collector", "delete packs"),
    ("rewriter", None),
    ("collector", None),
)
COLLECTED_BEFORE_THE_MANIFEST = (
    ("rewriter", "put pending"),
    ("forgetter", None),
    ("collector", None),
    ("rewriter", None),
)


def act_out(theatre, scenes) -> Told:
    """Plays a scene in which the old ones are forgotten, and all packs condemned; looks at what is left."""
    scene = Rewriting(theatre)
    script = Script(*scenes)

    def collector() -> None:
        with open_repository(Shared(scene.storage, script), fresh_cache(theatre.folder / "collector0")) as repo:
            RealCondemnsAll(repo, random.Random(1)).run()

    def forgetter() -> None:
        for snapshot in theatre.first:
            scene.told.forgotten.add(snapshot)
            forget(Shared(scene.storage, script), snapshot)

    script.run(
        {
            "rewriter": lambda: scene.rewriter(Shared(scene.storage, script), forget_old=False),
            "forgetter": forgetter,
            "collector": collector,
        }
    )
    scene.look(0)
    return scene.told


@pytest.mark.parametrize("scenes", [FORGOTTEN_BEFORE_THE_LAST_LOOK, COLLECTED_BEFORE_THE_MANIFEST])
def test_one_that_is_forgotten_meanwhile_is_whole_or_not_there(theatre, monkeypatch, scenes):
    """The old one goes, and is collected, when its new manifest is about to be put: nothing torn is committed."""
    make_ruthless(monkeypatch)
    told = act_out(theatre, scenes)
    assert told.counts["rewritten"] + told.counts["forgotten meanwhile"] == len(theatre.first)


def test_the_look_at_the_old_one_is_needed(theatre, monkeypatch):
    """Without it the same scene commits a snapshot that is not whole."""
    make_ruthless(monkeypatch)
    monkeypatch.setattr("respaldo.catalog.session.Session._looks_at_all", lambda *_: False)
    with pytest.raises((AssertionError, ChunkMissing), match=r"not whole|in no pack"):
        act_out(theatre, FORGOTTEN_BEFORE_THE_LAST_LOOK)


# --- cut off -------------------------------------------------------------------------------------------------------


def _run(backend, cache):
    """Opens a repository whose faults begin only now, and rewrites, forgetting; returns the error or None."""
    try:
        with open_repository(Kept(backend.inner), cache, random.Random(2).randbytes) as repo:
            repo.backend = repo.source._backend = backend
            rewrite_all(repo, forget_old=True)
    except (StorageError, Crash) as error:
        return error
    return None


@pytest.mark.parametrize(("error", "after"), [(lasting_failure, False), (Crash, False), (Crash, True)])
def test_no_call_that_fails_loses_anything(theatre, error, after):
    """Wherever it ends: of each snapshot the old one or the new one is there and whole; the next run finishes it."""
    cache = theatre.folder / "cut"
    probe = Faults(memory_with(theatre.objects))
    assert _run(probe, copy_cache(theatre.folder / "cache0", cache)) is None
    changes = [at for at, (verb, _) in enumerate(probe.calls, 1) if verb in CHANGES]
    assert len(changes) > 8
    for at in changes:
        storage = memory_with(theatre.objects)
        faults = Faults(storage, [Fault(at=at, error=error, after=after)])
        _run(faults, copy_cache(theatre.folder / "cache0", cache))
        with open_repository(Kept(storage), fresh_cache(theatre.folder / "after")) as repo:
            repo.synchronise(lenient=True)
            _look(repo, theatre)
            again = rewrite_all(repo, forget_old=True)
            left = _look(repo, theatre)
        assert len(left) >= len(theatre.first), (at, again)


def _look(repo, theatre):
    catalogue = load(repo)
    there = {}
    for item in catalogue.snapshots:
        there.setdefault(os.fsdecode(item.manifest.sources[0]), []).append(contents(repo, item.id, catalogue))
    for source, files in theatre.first.values():
        found = there["/" + source.name]
        assert all(each in (files, left_of(files)) for each in found)
    return there
