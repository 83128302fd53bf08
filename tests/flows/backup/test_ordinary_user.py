"""What an ordinary user may not read is marked and named, and the rest is backed up; in a child if root runs this."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from respaldo.core.model import Mark
from tests.backend.places import anybodys_directory, in_child
from tests.flows.backup.world import World


@pytest.fixture
def place():
    """A directory that an ordinary user owns."""
    with anybodys_directory() as path:
        yield path


def as_user(place: Path, test) -> None:
    """Runs a test with a world of an ordinary user's."""

    def inside() -> None:
        os.chdir(place)
        world = World(place)
        test(world)
        world.repo.close()

    in_child(inside, nobody=True)


def test_unreadable_file_is_marked(place):
    """A file without permission keeps its row, is named every time, and is read as soon as it may be."""

    def test(world: World) -> None:
        for name, size in (("small", 100), ("large", 2 << 20)):
            path = world.source / name
            path.write_bytes(os.urandom(size))
            path.chmod(0)
        (world.source / "beside").write_bytes(b"x")
        for _ in range(2):
            result = world.backup()
            found = world.model(result)
            assert found[b"small"].mark == found[b"large"].mark == Mark.UNREADABLE
            assert (found[b"small"].data, found[b"large"].data) == ((), ())
            assert found[b"beside"].data
            assert {path for path, _ in result.manifest.failed} == {
                bytes(world.source / "small"),
                bytes(world.source / "large"),
            }
            assert (result.figures.errors, result.figures.files) == (2, 3)
        (world.source / "small").chmod(0o600)
        (world.source / "large").chmod(0o600)
        world.check()

    as_user(place, test)


def test_file_that_becomes_unreadable(place):
    """A file whose permission was taken away is marked, though its content was known."""

    def test(world: World) -> None:
        path = world.source / "file"
        path.write_bytes(b"x")
        world.check()
        path.chmod(0)
        assert world.model(world.backup())[b"file"].mark == Mark.UNREADABLE
        path.chmod(0o644)
        world.check()

    as_user(place, test)


@pytest.mark.parametrize("mode", [0o000, 0o300, 0o400])
def test_unreadable_directory_is_marked(place, mode):
    """A directory that cannot be listed, or not be searched, is marked or its entries are; it comes back."""

    def test(world: World) -> None:
        (world.source / "first").write_bytes(b"x")
        directory = world.source / "dir"
        directory.mkdir()
        (directory / "file").write_bytes(b"x")
        (directory / "link").symlink_to("x")
        (directory / "below").mkdir()
        os.mkfifo(directory / "fifo")
        world.check()
        directory.chmod(mode)
        for options in ({}, {"trust_times": True}, {}):
            result = world.backup(**options)
            found = world.model(result)
            assert found[b"first"].data
            if mode == 0o400:
                names = {path for path in found if path.startswith(b"dir/")}
                assert names == {b"dir/below", b"dir/fifo", b"dir/file", b"dir/link"}
                assert {found[path].mark for path in names} == {Mark.UNREADABLE}
                assert stat.S_ISLNK(found[b"dir/link"].mode)
                assert found[b"dir"].mark == 0
            else:
                assert found.keys() == {b"first", b"dir"}
                assert found[b"dir"].mark == Mark.UNREADABLE
            assert not result.complete
        directory.chmod(0o755)
        world.check()
        world.check()

    as_user(place, test)


def test_directory_that_becomes_unreadable_without_a_trace(place, monkeypatch):
    """Where a directory cannot be opened any more though nothing about it changed, its parent says so."""

    def test(world: World) -> None:
        from respaldo.flows.backup import opening

        for name in ("a", "b", "c"):
            (world.source / name).mkdir()
            (world.source / name / "file").write_bytes(name.encode())
        world.check()
        real = opening.open_source

        def open_source(name, *rest):
            if name == b"b":
                raise PermissionError(13, "Permission denied")
            return real(name, *rest)

        with monkeypatch.context() as patch:
            patch.setattr(opening, "open_source", open_source)
            for _ in range(2):
                result = world.backup()
                found = world.model(result)
                assert found[b"b"].mark == Mark.UNREADABLE
                assert found[b"a/file"].data == ((0, b"a"),)
                assert found[b"c/file"].data == ((0, b"c"),)
                assert (result.figures.files, result.figures.files_unchanged) == (2, 2)
        world.check()

    as_user(place, test)


def test_source_below_a_directory_that_cannot_be_listed(place):
    """A source is found by its path, though the directory it lies in may only be passed through."""

    def test(world: World) -> None:
        (world.source / "dir").mkdir()
        (world.source / "dir" / "file").write_bytes(b"x")
        (world.source / "single").write_bytes(b"y")
        world.source.chmod(0o100)
        for _ in range(2):
            result = world.backup(world.source / "dir", world.source / "single")
            assert result.complete
            assert world.model(result).keys() == {b"dir", b"dir/file", b"single"}
        assert result.figures.files_unchanged == 2
        world.source.chmod(0o700)

    as_user(place, test)


def test_file_of_somebody_else_is_read(place):
    """A file that may be read but not be opened without touching its time of access is read all the same."""
    (place / "source").mkdir()
    for name, size in (("small", 10), ("large", 2 << 20)):
        (place / "source" / name).write_bytes(os.urandom(size))
        (place / "source" / name).chmod(0o644)
    (place / "source").chmod(0o755)

    as_user(place, lambda world: world.check() and None)
