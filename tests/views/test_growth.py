"""What grew from one snapshot to another."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from respaldo.backend.memory import MemoryBackend
from respaldo.catalog.snapshots import load
from respaldo.catalog.trees import TreeReader
from respaldo.core.errors import Interrupted
from respaldo.core.ids import Kind
from respaldo.core.seams import Cancel
from respaldo.views.growth import Growth, find_growth
from tests.protocol.scene import Kept, back_up, make_repository, open_repository, snapshot_of


class World:
    def __init__(self, folder: Path) -> None:
        backend = MemoryBackend()
        make_repository(backend)
        self.source = folder / "s"
        self.source.mkdir()
        self.repo = open_repository(Kept(backend), folder / "cache")
        self.trees = TreeReader(self.repo.source)

    def write(self, path: str, length: int, seed: int = 0) -> None:
        target = self.source / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(random.Random(f"{path}{seed}").randbytes(length))

    def root(self):
        snapshot = snapshot_of(back_up(self.repo, self.source))
        return next(item.manifest.root for item in load(self.repo).snapshots if item.id == snapshot)

    def growth(self, before, after) -> Growth:
        return find_growth(self.trees, before, after, cancel=Cancel())

    def named(self, growth: Growth) -> list[tuple[str, int]]:
        top = os.fsencode(self.source)
        return [(item.path.removeprefix(top).decode(), item.rest_bytes) for item in growth.directories]


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.repo.close()


def test_the_most_specific_directories_are_named(world):
    """A directory stands for what is below it, unless that is named itself."""
    world.write("a/b/old", 100)
    world.write("c/old", 100)
    before = world.root()
    for number in range(50):
        world.write(f"a/b/n{number}/x", 40)  # 2000 together, too little each
    world.write("a/more", 300)
    world.write("c/big", 9000)
    growth = world.growth(before, world.root())
    assert world.named(growth) == [("/c", 9000), ("/a/b", 2000)]
    assert growth.grown_bytes == growth.came_bytes == 11_300
    assert growth.went_bytes == 0
    assert [item.grown_bytes for item in growth.directories] == [9000, 2000]


def test_what_is_below_and_named_is_not_counted_twice(world):
    """Of a directory the rest is said beside the whole."""
    before = world.root()
    world.write("a/own", 4000)
    world.write("a/b/own", 5000)
    growth = world.growth(before, world.root())
    assert world.named(growth) == [("/a/b", 5000), ("/a", 4000)]
    assert [item.grown_bytes for item in growth.directories] == [5000, 9000]


def test_a_file_that_changed_without_growing_is_no_growth(world):
    """It came and went."""
    world.write("a/x", 500, seed=1)
    before = world.root()
    world.write("a/x", 500, seed=2)
    growth = world.growth(before, world.root())
    assert (growth.grown_bytes, growth.came_bytes, growth.went_bytes) == (0, 500, 500)
    assert growth.directories == ()


def test_shrinking_is_set_off(world):
    """What went from a directory is taken off what came into it."""
    world.write("a/x", 500)
    world.write("b/x", 500)
    before = world.root()
    (world.source / "a" / "x").unlink()
    world.write("a/y", 800)
    (world.source / "b" / "x").unlink()
    growth = world.growth(before, world.root())
    assert growth.grown_bytes == -200
    assert world.named(growth) == [("/a", 300)]


def test_from_nothing_everything_grew(world):
    """A first snapshot has none before it."""
    world.write("a/x", 700)
    growth = world.growth(None, world.root())
    assert growth.grown_bytes == 700
    assert world.named(growth) == [("/a", 700)]


def test_equal_subtrees_are_not_read(world, monkeypatch):
    """Only directories on the way to a difference are."""
    for number in range(30):
        world.write(f"d{number}/e/f", 50)
    before = world.root()
    world.write("d3/e/f", 60, seed=1)
    after = world.root()
    reads = []
    get = world.repo.source.get

    def counted(kind, chunk_id):
        if kind is Kind.TREE:
            reads.append(chunk_id)
        return get(kind, chunk_id)

    monkeypatch.setattr(world.repo.source, "get", counted)
    world.growth(before, after)
    depth = len(os.fsencode(world.source).strip(b"/").split(b"/")) + 1 + 2
    assert len(reads) == 2 * 2 * depth
    world.growth(after, after)
    assert len(reads) == 2 * 2 * depth


def test_what_cannot_be_read_is_counted(world, monkeypatch):
    """It counts as empty, and the rest goes on."""
    world.write("a/x", 700)
    world.write("b/x", 900)
    before = world.root()
    world.write("a/y", 10)
    world.write("b/y", 90)
    after = world.root()
    lost = None
    tree = after
    for name in (*os.fsencode(world.source).strip(b"/").split(b"/"), b"a"):
        (lost,) = world.trees.find(tree, name).content
        tree = lost
    get = world.repo.source.get

    def damaged(kind, chunk_id):
        from respaldo.core.errors import ChunkMissing

        if chunk_id == lost:
            raise ChunkMissing("tree", chunk_id)
        return get(kind, chunk_id)

    monkeypatch.setattr(world.repo.source, "get", damaged)
    growth = world.growth(before, after)
    assert growth.failed == 1
    assert world.named(growth) == [("/b", 90)]


def test_it_can_be_stopped(world):
    """Between any two directories."""
    world.write("a/x", 700)
    root = world.root()
    cancel = Cancel()
    cancel.request("SIGINT")
    with pytest.raises(Interrupted):
        find_growth(world.trees, None, root, cancel=cancel)
