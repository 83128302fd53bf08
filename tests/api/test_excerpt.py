"""What is taken of a snapshot is bounded, sound, and the same every time."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from respaldo import api
from respaldo.api.bench.excerpt import Excerpt, beginning, pick
from respaldo.api.blocks import Blocks
from respaldo.catalog.trees import TreeReader
from respaldo.core.model import Content, Entry
from respaldo.core.seams import Cancel, Silent, SystemClock, system_random
from respaldo.flows.restore.options import RestoreOptions
from respaldo.flows.restore.run import Restore, run_restore


class World:
    """Is a repository with one snapshot of a tree with short and long files, and of equal directories."""

    def __init__(self, place) -> None:
        self.tree = place / "tree"
        for name in ("a", "b", "c/deep/er"):
            (self.tree / name).mkdir(parents=True)
            for number in range(20):
                (self.tree / name / f"{number}").write_bytes(os.urandom(number * 1000))
        for name in ("one", "two", "three"):
            (self.tree / "twins" / name).mkdir(parents=True)
            (self.tree / "twins" / name / "same").write_bytes(b"same" * 5000)
        (self.tree / "long").write_bytes(os.urandom(3_000_000))
        (self.tree / "link").symlink_to("long")
        places = api.Places(cache_dir=place / "cache", state_dir=place / "state")
        secret = api.Secret(key=bytes(32))
        api.init(str(place / "repository"), secret, places=places)
        with api.open_repository(str(place / "repository"), secret, places=places, writes=True) as repository:
            repository.backup([os.fsencode(self.tree)], api.BackupOptions(), progress=Silent(), cancel=Cancel())
        self.repository = api.open_repository(str(place / "repository"), secret, places=places)
        self.found = self.repository.find(f"latest:{self.tree}")
        self.repo = self.repository._repo
        self.trees = TreeReader(self.repo.source)

    def restore(self, entry: Entry, trees, target) -> int:
        restore = Restore(
            blocks=Blocks(self.repo),
            trees=trees,
            manifest=self.found.snapshot.manifest,
            entry=entry,
            path=self.found.path,
            target=os.fsencode(target),
            options=RestoreOptions(owners=False),
        )
        done = run_restore(restore, progress=Silent(), cancel=Cancel(), clock=SystemClock(), random=system_random)
        assert done.failed == 0
        return done.written_bytes


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    found = World(tmp_path_factory.mktemp("excerpt"))
    with found.repository:
        yield found


@given(length=st.integers(1, 5_000_000))
def test_excerpt_is_bounded_and_sound(world, tmp_path_factory, length):
    """Whatever is asked for, no more is restored, and each file is the beginning of the one that was backed up."""
    excerpt = Excerpt(world.trees, world.repo.source, world.found.entry, length)
    target = tmp_path_factory.mktemp("target")
    written = world.restore(excerpt.entry, excerpt, target)
    files = [path for path in target.rglob("*") if path.is_file() and not path.is_symlink()]
    assert written == sum(path.stat().st_size for path in files) <= length
    for path in files:
        whole = (world.tree / path.relative_to(target)).read_bytes()
        assert whole.startswith(path.read_bytes())


def test_excerpt_of_all_is_all(world, tmp_path):
    """Where there is room for twice of everything, everything comes."""
    excerpt = Excerpt(world.trees, world.repo.source, world.found.entry, 50_000_000)
    world.restore(excerpt.entry, excerpt, tmp_path)
    assert {path.relative_to(tmp_path) for path in tmp_path.rglob("*")} == {
        path.relative_to(world.tree) for path in world.tree.rglob("*")
    }


def test_excerpt_of_much_is_not_little(world, tmp_path):
    """Where a file does not fit, its beginning and others do: most of what was asked for comes."""
    excerpt = Excerpt(world.trees, world.repo.source, world.found.entry, 1_000_000)
    assert world.restore(excerpt.entry, excerpt, tmp_path) > 500_000


def test_excerpt_ends_with_a_tree_that_contains_itself(world, tmp_path):
    """A directory that contains itself, as nobody but a forger makes it, is taken once."""
    inner = world.trees.find(next(iter(world.found.entry.content)), b"a")
    looped = _Looped(world.trees, next(iter(inner.content)))
    excerpt = Excerpt(looped, world.repo.source, world.found.entry, 50_000_000)
    world.restore(excerpt.entry, excerpt, tmp_path)
    assert not (tmp_path / "a" / "again").exists()
    assert (tmp_path / "b" / "7").exists()


class _Looped(TreeReader):
    """Has one tree refer to itself."""

    def __init__(self, trees: TreeReader, looped) -> None:
        super().__init__(trees._reader)
        self._looped = looped

    def leaves(self, tree_id):
        from respaldo.flows.restore.columns import leaf_of

        if tree_id != self._looped:
            yield from super().leaves(tree_id)
            return
        yield leaf_of([Entry(name=b"again", mode=0o40755, content=Content(ids=tree_id))])


def test_beginning_of_a_long_file_is_whole_chunks(world):
    """A file is cut off behind a chunk; one that fits is as it was; where no chunk fits there is nothing."""
    source = world.repo.source
    entry = world.trees.find(next(iter(world.found.entry.content)), b"long")
    assert beginning(world.trees, source, entry, entry.size) is entry
    found = beginning(world.trees, source, entry, 1_000_000)
    assert 1_000_000 - 300_000 < found.size <= 1_000_000
    assert beginning(world.trees, source, entry, 100) is None


def test_files_are_picked_the_same_every_time(world):
    """A seed gives the same files, another one others; every one of them is there, none twice."""
    top, path = world.found.entry, world.found.path
    picked = pick(world.trees, top, path, 20, b"seed")
    assert picked == pick(world.trees, top, path, 20, b"seed")
    assert picked != pick(world.trees, top, path, 20, b"other")
    assert len({name for name, _ in picked}) == len(picked) == 20
    for name, entry in picked:
        assert os.stat(name).st_size == entry.size > 0


def test_no_more_files_are_picked_than_there_are(world):
    """Where there are fewer, those are all."""
    entry = world.trees.find(next(iter(world.found.entry.content)), b"twins")
    names = {name for name, _ in pick(world.trees, entry, b"/t", 50, b"seed")}
    assert names == {b"/t/one/same", b"/t/two/same", b"/t/three/same"}
