"""A reader whose packs are moved again and again while it looks for them."""

from __future__ import annotations

import random

import pytest

from respaldo.api.blocks import Blocks
from respaldo.backend.wrap import Wrapper
from respaldo.catalog.snapshots import load
from respaldo.catalog.trees import TreeReader
from respaldo.core.errors import ChunkMissing
from respaldo.core.ids import Kind
from respaldo.core.seams import Cancel
from respaldo.store.fetch import Fetcher
from respaldo.store.source import LOOKS
from tests.protocol.scene import Kept, contents, fresh_cache, memory_with, open_repository
from tests.protocol.scripted import CondemnsAll

pytestmark = pytest.mark.usefixtures("_inline")


class Moving(Wrapper):
    """Lets a collector copy and delete all packs whenever packs were listed, for a number of times.

    ``torn``: the listing has shown one half by then, and shows the other half afterwards.
    """

    def __init__(self, storage, folder, times: int, *, torn: bool) -> None:
        super().__init__(Kept(storage))
        self.folder = folder
        self.times = times
        self.torn = torn

    def list(self, folder: str):
        found = self.inner.list(folder)
        if folder == "packs" and self.times:
            self.times -= 1
            self.move()
            if self.torn:  # what is new was put where the listing had been already
                there = self.inner.list(folder)
                found = [item for item in found if item in there]
        return found

    def move(self) -> None:
        """Collects, from a cache of its own."""
        with open_repository(Kept(self.inner), fresh_cache(self.folder / "mover")) as repo:
            CondemnsAll(repo, random.Random(1)).run()


@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize("times", [0, 1, 2, 3])
def test_reader_finds_what_moves_while_it_looks(theatre, times, torn):
    """All is restored, whoever moves it how often: a look is in vain only where something moved meanwhile."""
    storage = memory_with(theatre.objects)
    moving = Moving(storage, theatre.folder, 0, torn=torn)
    for snapshot, (_, files) in theatre.first.items():
        with open_repository(moving, fresh_cache(theatre.folder / "reader")) as repo:
            repo.synchronise(lenient=True)
            moving.move()
            moving.times = times
            assert contents(repo, snapshot) == files


@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize("times", [0, 1, 2])
def test_restore_finds_data_that_moves_while_it_looks(theatre, times, torn):
    """The same for data that is fetched ahead, many at a time."""
    storage = memory_with(theatre.objects)
    moving = Moving(storage, theatre.folder, 0, torn=torn)
    with open_repository(moving, fresh_cache(theatre.folder / "reader")) as repo:
        repo.synchronise(lenient=True)
        ids = [
            chunk_id
            for item in load(repo).snapshots
            for tree in [item.manifest.root]
            for chunk_id in data_below(repo, tree)
        ]
        with Fetcher(Blocks(repo), Cancel()) as fetcher:
            tasks = [fetcher.want(chunk_id, repo.source.locate(Kind.DATA, chunk_id)) for chunk_id in ids]
            moving.move()
            moving.times = times
            fetcher.wait([task for task, _ in tasks])
            for (task, slot), chunk_id in zip(tasks, ids, strict=True):
                assert not task.bad
                repo.source.check(Kind.DATA, chunk_id, task.views[slot])


def data_below(repo, tree):
    """Returns the data chunks of all files below a tree, each once."""
    trees = TreeReader(repo.source)
    found = {}
    stack = [tree]
    while stack:
        for entry in trees.entries(stack.pop()):
            if entry.is_dir:
                stack += list(entry.content)
            else:
                found.update(dict.fromkeys(chunk for level, chunk in trees.nodes(entry.content) if not level))
    return list(found)


def test_chunk_that_is_nowhere_costs_few_looks(theatre, monkeypatch):
    """What is gone is not looked for again and again: damage would take for ever."""
    storage = memory_with(theatre.objects)
    with open_repository(Kept(storage), fresh_cache(theatre.folder / "reader")) as repo:
        repo.synchronise()
        looks = []
        reload = repo.source._reload
        monkeypatch.setattr(repo.source, "_reload", lambda: (looks.append(None), reload()))
        for name in [name for name in storage.snapshot() if name.startswith("packs/")]:
            storage.delete(name)
        for item in load(repo).snapshots:
            for _ in range(3):
                with pytest.raises(ChunkMissing):
                    repo.source.get(Kind.TREE, item.manifest.root)
        assert len(looks) == 4 < LOOKS
