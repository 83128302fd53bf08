"""What is left out, and that it comes back when it is no longer left out."""

from __future__ import annotations

import os

import pytest

from respaldo.core.model import Mark
from respaldo.fs.match import CACHE_TAG
from tests.flows.backup.world import World, assert_equal, entry_at, walk_model


@pytest.fixture
def tree(world: World) -> World:
    """A world with a tree to leave parts of out."""
    source = world.source
    for place in ("src", "src/build", "cache", "cache/deep"):
        (source / place).mkdir()
        for name in ("keep.c", "drop.o"):
            (source / place / name).write_bytes(os.urandom(1000))
    (source / "large").write_bytes(os.urandom(5000))
    (source / "cache" / "CACHEDIR.TAG").write_bytes(CACHE_TAG + b"\n")
    return world


def test_excluded_is_left_out_and_comes_back_unread(tree: World, reads):
    """Patterns leave out; another set of them reads what it adds and nothing else."""
    rules = ("*.o", "build/", "!/cache/deep/drop.o")
    found = tree.model(tree.backup(exclude=rules))
    expected = {
        path: seen
        for path, seen in walk_model(tree.source).items()
        if path == b"cache/deep/drop.o" or not (path.endswith(b".o") or path.startswith(b"src/build"))
    }
    assert_equal(found, expected)
    reads.take()
    assert tree.backup(exclude=rules).figures.read_bytes == 0
    tree.backup(exclude=("*.o",))
    assert reads.take() == [b"keep.c"]
    tree.check()
    assert reads.take() == [b"drop.o"]
    tree.backup(exclude=rules)
    assert reads.take() == []


def test_rules_are_relative_to_the_source_that_was_named(tree: World):
    """The same words leave out other things when another directory is the source, though it looks as it did."""
    rules = ("/build", "/src/keep.c")
    assert b"src/keep.c" not in tree.model(tree.backup(exclude=rules))
    found = tree.model(tree.backup(tree.source / "src", exclude=rules), tree.source / "src")
    assert found.keys() == {b"keep.c", b"drop.o"}
    found = tree.model(tree.backup(exclude=rules))
    assert b"src/build/keep.c" in found
    assert b"src/keep.c" not in found


def test_larger_files_are_left_out(tree: World, reads):
    """Files above a size are left out, and not read; the limit itself is not above."""
    found = tree.model(tree.backup(exclude_larger_bytes=4999))
    assert b"large" not in found
    assert b"large" not in reads.take()
    assert b"large" in tree.model(tree.backup(exclude_larger_bytes=5000))
    with (tree.source / "large").open("ab") as file:
        file.write(b"x")
    assert b"large" not in tree.model(tree.backup(exclude_larger_bytes=5000))


def test_caches_keep_their_tag_only(tree: World):
    """A directory with a CACHEDIR.TAG is recorded with that alone, and marked; a false tag means nothing."""
    (tree.source / "src" / "CACHEDIR.TAG").write_bytes(b"Signature: something else")
    for _ in range(3):
        result = tree.backup(exclude_caches=True)
        found = tree.model(result)
        assert {path for path in found if path.startswith(b"cache")} == {b"cache", b"cache/CACHEDIR.TAG"}
        assert found[b"cache"].mark == Mark.EXCLUDED
        assert b"src/keep.c" in found
        assert result.complete
        (tree.source / "src" / "keep.c").touch()
    (tree.source / "cache" / "CACHEDIR.TAG").write_bytes(b"no longer")
    assert b"cache/keep.c" in tree.model(tree.backup(exclude_caches=True))


def test_mark_of_a_cache_outlives_trouble_beside_it(tree: World, monkeypatch):
    """Where a directory beside a cache cannot be read any more, the cache stays marked."""
    from respaldo.flows.backup import walker

    (tree.source / "zoo").mkdir()
    tree.backup(exclude_caches=True)
    real = walker.scan

    def scan(fd, *rest):
        if os.path.samestat(os.fstat(fd), (tree.source / "zoo").stat()):
            raise PermissionError(13, "Permission denied")
        return real(fd, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(walker, "scan", scan)
        found = tree.model(tree.backup(exclude_caches=True))
        assert found[b"cache"].mark == Mark.EXCLUDED
        assert found[b"zoo"].mark == Mark.UNREADABLE
    found = tree.model(tree.backup(exclude_caches=True))
    assert (found[b"cache"].mark, found[b"zoo"].mark) == (Mark.EXCLUDED, 0)


def test_patterns_of_any_bytes(tree: World):
    """A pattern that is no UTF-8 leaves out the name it means, and stands in the manifest."""
    os.rename(tree.source / "large", bytes(tree.source) + b"/\xfflarge")
    pattern = b"\xff*".decode("utf-8", "surrogateescape")
    result = tree.backup(exclude=(pattern,))
    assert b"\xfflarge" not in tree.model(result)
    assert result.manifest.rules == ("exclude=" + pattern,)
    assert entry_at(tree.repo, result, tree.source / "src").is_dir


def test_excluded_directory_is_not_opened(tree: World, monkeypatch):
    """What is excluded is not looked into: it may hang, or be endless."""
    from respaldo.flows.backup import opening

    opened = []
    real = opening.open_source

    def open_source(name, *rest):
        opened.append(name)
        return real(name, *rest)

    monkeypatch.setattr(opening, "open_source", open_source)
    tree.backup(exclude=("build", "cache"))
    assert opened == [b"src"]
