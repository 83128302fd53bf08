"""A directory of which little has changed: what is made for it, and that its tree is the one made of it alone."""

from __future__ import annotations

import os
import random
from dataclasses import replace
from itertools import pairwise

import pytest

from respaldo.catalog import runs
from respaldo.core.ids import ChunkId
from respaldo.core.model import Entry
from respaldo.flows.backup.before import _InMemo
from respaldo.flows.backup.carry import in_step
from respaldo.flows.backup.options import BackupResult
from tests.flows.backup.world import World
from tests.protocol.scene import tree_of


@pytest.fixture
def short_runs(monkeypatch):
    """Cuts directories into runs of 20 to 60 entries."""
    for name, value in (
        ("RUN_ENTRIES_SPLIT", 40),
        ("RUN_ENTRIES_MIN", 20),
        ("RUN_ENTRIES_MAX", 60),
        ("_RUN_MASK", 15),
    ):
        monkeypatch.setattr(runs, name, value)


@pytest.fixture
def made(monkeypatch):
    """Counts the entries that are made of what is remembered, and the runs that are built."""
    counts = {"entries": 0, "runs": 0}
    entry, cut = _InMemo.entry, runs._Cutter.cut

    def counting_entry(self) -> Entry:
        counts["entries"] += 1
        return entry(self)

    def counting_cut(self, *arguments):
        counts["runs"] += 1
        return cut(self, *arguments)

    monkeypatch.setattr(_InMemo, "entry", counting_entry)
    monkeypatch.setattr(runs._Cutter, "cut", counting_cut)
    return counts


def of_source(world: World, result: BackupResult) -> ChunkId:
    return tree_of(world.repo, result.manifest, world.source)


def fill(world: World, count: int) -> None:
    for number in range(count):
        (world.source / f"{number:05}").write_text("x" * (number % 3))


def test_one_changed_file_of_many_makes_few_objects(world: World, made, short_runs):
    """Nothing is made of files that are as they were; one run is built, and once more to count what changed in it."""
    fill(world, 1000)
    world.check()
    assert made["runs"] >= 17
    for edit in (
        lambda: (world.source / "00500").write_text("changed"),
        lambda: (world.source / "00500a").write_text("new"),
        (world.source / "00300").unlink,
    ):
        world.check()
        made.update(entries=0, runs=0)
        edit()
        changes = world.check().manifest.changes
        assert changes is not None
        assert changes.added + changes.changed + changes.removed == 1
        assert made["entries"] <= 40  # those above the source among them
        assert made["runs"] <= 6


def test_a_changed_subdirectory_of_a_long_directory_rebuilds_its_run(world: World, made, short_runs):
    """Where nothing but a subdirectory's tree is another, all other runs are taken over."""
    fill(world, 500)
    inner = world.source / "00250d"
    inner.mkdir()
    (inner / "f").write_text("x")
    world.check()
    before = inner.stat()
    made.update(entries=0, runs=0)
    (inner / "f").write_text("y")
    os.utime(inner, ns=(before.st_atime_ns, before.st_mtime_ns))
    result = world.check()
    assert made["runs"] <= 2
    world.reopen(forget=True)
    assert of_source(world, world.check()) == of_source(world, result)


EDITS = ("change", "touch", "add", "remove", "chmod", "link", "directory", "symlink", "xattr", "nothing")


@pytest.mark.parametrize("seed", range(6))
def test_tree_is_the_one_that_is_made_without_memory(world: World, short_runs, seed):
    """Whatever changes, a run that remembers makes the tree of one that remembers nothing, and counts what changed."""
    drawn = random.Random(seed)
    fill(world, 150)
    world.check()
    for number in range(5):
        for _ in range(drawn.choice((1, 1, 3, 20))):
            edit(world, drawn, number)
        exclude = {"exclude": ("0001*",)} if drawn.random() < 0.3 else {}
        result = world.backup(**exclude)
        memory = world.repo.cache_dir
        world.reopen(forget=True)
        alone = world.backup(**exclude)
        assert of_source(world, alone) == of_source(world, result)
        assert alone.manifest.changes == replace(alone.manifest.changes, added=0, changed=0, removed=0)
        assert memory == world.repo.cache_dir
        world.backup(**exclude)


def edit(world: World, drawn: random.Random, number: int) -> None:
    """Changes something."""
    path = drawn.choice(sorted(world.source.iterdir()))
    what = drawn.choice(EDITS)
    if what == "add":
        (world.source / f"{drawn.randrange(150):05}-{number}").write_text("added")
    elif what == "directory":
        (world.source / f"{drawn.randrange(150):05}d" / "in").mkdir(parents=True, exist_ok=True)
    elif what == "symlink":
        os.symlink("to", world.source / f"{drawn.randrange(150):05}-s{drawn.random()}")
    elif path.is_dir() or path.is_symlink():
        if path.is_dir():
            (path / f"{number}").write_text("inside")
    elif what == "change":
        path.write_text(f"{drawn.random()}")
    elif what == "touch":
        os.utime(path, ns=(1, drawn.randrange(10**15)))
    elif what == "remove":
        path.unlink()
    elif what == "chmod":
        path.chmod(0o600 ^ path.stat().st_mode & 0o077)
    elif what == "link":
        os.link(path, path.with_name(f"{path.name}-l{drawn.random()}"))
    elif what == "xattr":
        os.setxattr(path, "user.a", b"%f" % drawn.random())


def test_rows_in_step_are_those_with_equal_names():
    """Rows go on in step from one name that only one side has to the next."""
    drawn = random.Random(1)
    for _ in range(300):
        pool = [b"%d" % number for number in range(drawn.choice((3, 12)))]
        old, new = (sorted(drawn.sample(pool, drawn.randrange(len(pool)))) for _ in range(2))
        steps = list(in_step(old, new))
        found = [(step.old + at, step.new + at) for step in steps for at in range(step.length)]
        assert found == [(old.index(name), new.index(name)) for name in old if name in new]
        for one, other in pairwise(steps):
            assert (one.old + one.length, one.new + one.length) != (other.old, other.new)
