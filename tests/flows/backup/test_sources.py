"""What can be named as a source, and under which path it is recorded."""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from respaldo.core.errors import SourceError, UsageError
from respaldo.core.model import Mark
from tests.flows.backup.world import World, assert_equal, entries_below, entry_at, walk_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def tree(world: World) -> World:
    """A world with two directories of two files."""
    for place in ("one", "two"):
        (world.source / place).mkdir()
        for name in ("a", "b"):
            (world.source / place / name).write_bytes(os.urandom(2000))
    return world


@contextlib.contextmanager
def mounted(where: Path, *options: str) -> Iterator[None]:
    """Mounts a file system of its own; skips where that cannot be done."""
    command = ["mount", *(options or ("-t", "tmpfs", "none")), str(where)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(where)], check=True)


def paths(world: World, result) -> set[bytes]:
    return {path for path, _ in entries_below(world.repo, result)}


def test_several_sources_are_one_snapshot(tree: World, reads):
    """Directories and files that are named together are in one snapshot, and unchanged the next time."""
    (tree.path / "file").write_bytes(b"x")
    named = (tree.source / "one", tree.source / "two", tree.path / "file")
    result = tree.backup(*named)
    assert result.manifest.sources == tuple(sorted(map(os.fsencode, named)))
    assert result.figures.files == 5
    for source in named[:2]:
        assert_equal(tree.model(result, source), walk_model(source))
    assert entry_at(tree.repo, result, tree.path / "file").size == 1
    reads.take()
    assert tree.backup(*named).figures.files_unchanged == 5
    assert reads.take() == []


def test_source_inside_another_adds_nothing(tree: World):
    """A path below another source, or named twice, or not in its plain form, is there once."""
    base = bytes(tree.source)
    result = tree.backup(tree.source, tree.source / "one", tree.source, base + b"/", base + b"/one/../two//")
    assert result.manifest.sources == (base,)
    assert result.figures.files == 4


def test_file_as_a_source(tree: World):
    """A file that is named is recorded with all it has, and nothing beside it."""
    path = tree.source / "one" / "a"
    os.setxattr(path, "user.x", b"1")
    result = tree.backup(path)
    assert tree.model(result, tree.source / "one") == {b"a": walk_model(tree.source / "one")[b"a"]}
    again = tree.backup(path)
    assert again.figures.files_unchanged == 1
    path.write_bytes(b"changed")
    assert tree.backup(path).figures.files_changed == 1


def test_link_as_a_source_is_recorded_as_a_link(tree: World):
    """A symbolic link that is named is itself the source."""
    (tree.path / "link").symlink_to("source/one")
    result = tree.backup(tree.path / "link")
    assert entry_at(tree.repo, result, tree.path / "link").target == b"source/one"
    assert result.figures.others == 1


def test_link_on_the_way_to_a_source_is_followed(tree: World):
    """What lies behind a link to a directory is backed up, under the path that was named."""
    (tree.path / "way").symlink_to("source")
    for _ in range(2):
        result = tree.backup(tree.path / "way" / "one", tree.path / "way" / "two" / "a")
        assert_equal(tree.model(result, tree.path / "way" / "one"), walk_model(tree.source / "one"))
        assert entry_at(tree.repo, result, tree.path / "way").is_dir
        assert result.figures.files == 3


def test_source_that_is_not_there(tree: World):
    """A source that does not exist is an error before anything is stored."""
    before = tree.backend.inner.snapshot()
    with pytest.raises(SourceError) as caught:
        tree.backup(tree.source, tree.path / "missing")
    assert caught.value.path == bytes(tree.path / "missing")
    with pytest.raises(SourceError):
        tree.backup(tree.source / "one" / "a" / "below")
    with pytest.raises(UsageError):
        tree.backup(b"relative")
    assert tree.backend.inner.snapshot() == before


def test_recorded_path_is_another(tree: World, reads):
    """With --as a source stands under the path that was given, and is known there next time wherever it lies."""
    result = tree.backup(recorded_as=b"/home/./me/")
    assert result.manifest.sources == (b"/home/me",)
    assert_equal(tree.model(result, b"/home/me"), walk_model(tree.source))
    assert entry_at(tree.repo, result, b"/home").mark is Mark.PARTIAL
    tree.source.rename(tree.path / "moved")
    reads.take()
    result = tree.backup(tree.path / "moved", recorded_as=b"/home/me")
    assert reads.take() == []
    assert_equal(tree.model(result, b"/home/me"), walk_model(tree.path / "moved"))


def test_recorded_path_of_a_file(tree: World, reads):
    """A single file with --as is recorded, and not read again."""
    for _ in range(2):
        result = tree.backup(tree.source / "one" / "a", recorded_as=b"/disk.img")
        found = entry_at(tree.repo, result, b"/disk.img")
        assert (found.size, found.mark) == (2000, Mark.NONE)
    reads.take()
    assert tree.backup(tree.source / "one" / "a", recorded_as=b"/disk.img").figures.files_unchanged == 1
    assert reads.take() == []


def test_recorded_path_is_the_root(tree: World):
    """With --as / what is in a source stands at the top; a file cannot."""
    result = tree.backup(recorded_as=b"/")
    assert_equal(tree.model(result, b"/"), walk_model(tree.source))
    assert result.figures.directories == 3
    with pytest.raises(SourceError):
        tree.backup(tree.source / "one" / "a", recorded_as=b"/")


def test_recorded_path_that_cannot_be(tree: World):
    """--as takes one source and an absolute path."""
    with pytest.raises(UsageError):
        tree.backup(tree.source / "one", tree.source / "two", recorded_as=b"/x")
    with pytest.raises(UsageError):
        tree.backup(recorded_as=b"x")


def test_root_as_a_source(tree: World):
    """``/`` can be a source; what is excluded in it is not even listed."""
    top = tree.source.parts[1]
    names = [name for name in os.listdir("/") if name != top]
    rules = [f"/{name}" for name in names]
    above = ""
    for part in tree.source.parts[1:]:
        rules += [f"{above}/*", f"!{above}/{part}"]
        above += f"/{part}"
    result = tree.backup(b"/", exclude=tuple(rules), one_file_system=True)
    assert result.manifest.sources == (b"/",)
    assert_equal(tree.model(result), walk_model(tree.source))
    assert result.figures.directories == 3 + len(tree.source.parts) - 1
    assert tree.backup(b"/", exclude=tuple(rules), one_file_system=True).figures.read_bytes == 0


@pytest.mark.root
def test_one_file_system_stops_at_mounts(tree: World):
    """Mount points are crossed unless asked not to; then they are marked, and crossed where they were named."""
    (tree.source / "mount").mkdir()
    with mounted(tree.source / "mount"):
        (tree.source / "mount" / "inside").write_bytes(b"x")
        (tree.source / "mount" / "deeper").mkdir()
        tree.check()
        result = tree.backup(one_file_system=True)
        assert entry_at(tree.repo, result, tree.source / "mount").mark is Mark.MOUNT
        assert tree.model(result).keys() & {b"mount/inside", b"mount/deeper"} == set()
        assert result.complete
        again = tree.backup(one_file_system=True)
        # Not the root: the directories above the source belong to everybody, and change.
        before, after = (entry_at(tree.repo, found, tree.source) for found in (result, again))
        assert after.content == before.content
        named = tree.backup(tree.source, tree.source / "mount", one_file_system=True)
        assert_equal(tree.model(named), walk_model(tree.source))
        assert b"mount/inside" not in tree.model(tree.backup(one_file_system=True))
        alone = tree.backup(tree.source / "mount", one_file_system=True)
        assert alone.figures.files == 1
        tree.check()
    tree.check(one_file_system=True)


@pytest.mark.root
def test_hard_links_of_two_file_systems_are_not_one_another(tree: World):
    """Files of one inode number on two devices are in groups of their own, whatever was mounted when."""
    for name in ("m1", "m2"):
        (tree.source / name).mkdir()

    def fill(name: str) -> None:
        (tree.source / name / "x").write_bytes(name.encode())
        os.link(tree.source / name / "x", tree.source / name / "y")

    with mounted(tree.source / "m2"):
        fill("m2")
        tree.check()
        with mounted(tree.source / "m1"):
            fill("m1")
            tree.check()
            os.link(tree.source / "m2" / "x", tree.source / "m2" / "z")
            tree.check()


@pytest.mark.root
def test_source_below_a_mount_that_hides_another(tree: World):
    """A source that is a mount point is backed up as what is mounted."""
    with mounted(tree.source / "one"):
        (tree.source / "one" / "mounted").write_bytes(b"x")
        result = tree.backup(tree.source / "one")
        assert tree.model(result, tree.source / "one").keys() == {b"mounted"}
