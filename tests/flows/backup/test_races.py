"""What changes while it is backed up: never a wrong snapshot, and nothing missed by the next one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from respaldo.api.blocks import Blocks
from respaldo.catalog.trees import TreeReader
from respaldo.core.errors import StorageFailed
from respaldo.core.model import Mark
from respaldo.flows.backup import files as files_module
from respaldo.flows.backup import opening, reader, walker
from respaldo.flows.restore.begin import Restore
from respaldo.flows.restore.run import run_restore
from respaldo.store.chunks import ChunkSink
from tests.flows.backup.world import World, assert_equal, entries_below, walk_model

SIZES = pytest.mark.parametrize("size", [1000, 3 << 20], ids=["small", "large"])


@pytest.fixture
def tree(world: World) -> World:
    """A world with a few files beside the one that the tests change."""
    (world.source / "dir").mkdir()
    for number in range(3):
        (world.source / "dir" / f"{number}").write_bytes(os.urandom(1000))
    return world


def before_reading(monkeypatch, action: Callable[[], None], *, times: int = 1) -> None:
    """Does something between the scan of a directory and the reading of its files, so many times."""
    left = [times]

    def once() -> None:
        if left[0]:
            left[0] -= 1
            action()

    def wrapped(real):
        def call(*given):
            once()
            return real(*given)

        return call

    monkeypatch.setattr(files_module, "gather", wrapped(files_module.gather))
    monkeypatch.setattr(reader, "open_source", wrapped(reader.open_source))


def while_reading(monkeypatch, action: Callable[[], None], *, times: int = 1) -> None:
    """Does something between two looks at a file that is read by itself."""
    left = [times]
    real = reader.os.preadv

    def preadv(*given):
        got = real(*given)
        if left[0]:
            left[0] -= 1
            action()
        return got

    monkeypatch.setattr(reader.os, "preadv", preadv)


@SIZES
@pytest.mark.parametrize("to", [0, 1, 500, 5000, 4 << 20])
def test_file_that_changes_its_length_before_it_is_read(tree: World, monkeypatch, size, to):
    """The length that was read is recorded, not the one that was scanned; nothing is missed."""
    path = tree.source / "file"
    path.write_bytes(os.urandom(size))

    def change() -> None:
        path.write_bytes(os.urandom(to))

    with monkeypatch.context() as patch:
        before_reading(patch, change)
        tree.check()
    tree.check()
    path.write_bytes(b"again")
    tree.check()


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("to", [0, 1000, 2 << 20, 5 << 20])
def test_file_that_changes_its_length_while_it_is_read(tree: World, monkeypatch, to, sparse):
    """A file that changes under the reader is read again until it does not."""
    path = tree.source / "file"
    path.write_bytes(os.urandom(3 << 20))
    if sparse:
        os.truncate(path, 9 << 20)
    with monkeypatch.context() as patch:
        while_reading(patch, lambda: os.truncate(path, to))
        tree.check()
    tree.check()


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("grow", [True, False])
def test_file_that_never_stops_changing_is_kept_as_read_last(tree: World, monkeypatch, grow, sparse):
    """After a few readings a file is kept, marked and named; the next run reads it again."""
    path = tree.source / "file"
    path.write_bytes(os.urandom(3 << 20))
    if sparse:
        os.truncate(path, 9 << 20)

    def change() -> None:
        size = path.stat().st_size
        os.truncate(path, size + 1000 if grow else size * 2 // 3)

    with monkeypatch.context() as patch:
        while_reading(patch, change, times=1000)
        result = tree.backup()
    found = tree.model(result)[b"file"]
    assert (found.mark, result.complete, result.figures.errors) == (Mark.CHANGED, False, 1)
    assert result.manifest.failed[0][0] == bytes(path)
    end = max((at + len(raw) for at, raw in found.data), default=0)
    content = path.read_bytes()
    assert found.size <= max(len(content), end)
    tree.check()


def to_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def to_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


def to_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@SIZES
@pytest.mark.parametrize("make", [to_fifo, to_link, to_directory])
def test_file_that_becomes_something_else(tree: World, monkeypatch, make, size):
    """What took a file's place is neither read nor followed; the name is marked, and right the next time."""
    path = tree.source / "file"
    path.write_bytes(os.urandom(size))
    with monkeypatch.context() as patch:
        before_reading(patch, lambda: make(path))
        result = tree.backup()
    found = tree.model(result)[b"file"]
    assert (found.mark, found.data, result.figures.errors) == (Mark.UNREADABLE, (), 1)
    tree.check()


@SIZES
def test_file_that_vanishes(tree: World, monkeypatch, size):
    """A file that is gone when it is its turn is left out, counted and named; so are the figures without it."""
    path = tree.source / "file"
    path.write_bytes(os.urandom(size))
    kept = tree.path / "kept"
    with monkeypatch.context() as patch:
        before_reading(patch, lambda: path.rename(kept))
        result = tree.backup()
    assert b"file" not in tree.model(result)
    assert result.manifest.failed == ((bytes(path), "it vanished while it was read"),)
    figures = result.figures
    assert figures.files_new + figures.files_changed + figures.files_unchanged == figures.files == 3
    kept.rename(path)
    for options in ({"trust_times": True}, {"ignore_ctime": True}, {}):
        tree.check(**options)


@SIZES
def test_linked_file_of_which_a_name_is_replaced(tree: World, monkeypatch, size):
    """A name that stands for another file when it is read leaves the group, and the other names keep their content."""
    for name in ("a", "b"):
        (tree.source / name).mkdir()
    path = tree.source / "a" / "file"
    path.write_bytes(b"1" * size)
    os.link(path, tree.source / "b" / "file")
    status = path.stat()

    def replace() -> None:
        other = tree.path / "other"
        other.write_bytes(b"2" * size)
        os.utime(other, ns=(status.st_mtime_ns, status.st_mtime_ns))
        other.rename(path)

    with monkeypatch.context() as patch:
        before_reading(patch, replace)
        result = tree.backup()
    found = tree.model(result)
    assert found[b"a/file"].data == ((0, b"2" * size),)
    assert found[b"b/file"].data == ((0, b"1" * size),)
    assert b"b/file" not in found[b"a/file"].group
    tree.check()


@SIZES
def test_linked_file_that_changes_between_its_names(tree: World, monkeypatch, size):
    """What is taken over from another name is what that name held in this state, though its times are set back."""
    for name in ("a", "b"):
        (tree.source / name).mkdir()
    path = tree.source / "a" / "file"
    path.write_bytes(b"1" * size)
    os.link(path, tree.source / "b" / "file")
    status = path.stat()
    real = walker.scan

    def scan(fd, *rest):
        if os.path.samestat(os.fstat(fd), (tree.source / "b").stat()):
            path.write_bytes(b"2" * size)
            os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))
        return real(fd, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(walker, "scan", scan)
        assert tree.model(tree.backup())[b"b/file"].data == ((0, b"2" * size),)
    tree.check()


def test_directory_that_vanishes(tree: World, monkeypatch):
    """A directory that is gone when it is its turn is left out, whether its parent had looked unchanged or not."""
    (tree.source / "gone").mkdir()
    (tree.source / "gone" / "file").write_bytes(b"x")
    kept = tree.path / "kept"
    for unchanged in (False, True):
        if unchanged:
            tree.check()
        real = opening.open_source

        def open_source(name, *rest, real=real):
            if name == b"gone":
                (tree.source / "gone").rename(kept)
            return real(name, *rest)

        with monkeypatch.context() as patch:
            patch.setattr(opening, "open_source", open_source)
            result = tree.backup()
        found = tree.model(result)
        assert found.keys() == {b"dir", b"dir/0", b"dir/1", b"dir/2"}
        assert result.manifest.failed == ((bytes(tree.source / "gone"), "it vanished while it was read"),)
        assert (result.figures.files, result.figures.files_new + result.figures.files_unchanged) == (3, 3)
        kept.rename(tree.source / "gone")
        tree.check(ignore_ctime=True)
        tree.check()


def test_directory_that_becomes_a_link(tree: World, monkeypatch):
    """A link in a directory's place is not followed."""
    tree.check()
    real = opening.open_source

    def open_source(name, *rest):
        if name == b"dir":
            shutil.rmtree(tree.source / "dir")
            (tree.source / "dir").symlink_to("/etc")
        return real(name, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(opening, "open_source", open_source)
        result = tree.backup()
    assert tree.model(result).keys() == {b"dir"}
    assert tree.model(result)[b"dir"].mark == Mark.UNREADABLE
    tree.check()


@pytest.mark.parametrize("unchanged", [False, True])
@pytest.mark.parametrize("depth", [1, 3, 6, 10])
def test_directory_that_is_moved_while_the_walk_is_below_it(tree: World, monkeypatch, depth, unchanged):
    """What lies above a directory that was moved is found again from above; nothing above it counts as unreadable."""
    monkeypatch.setattr(walker, "_OPEN_FRAMES_MAX", 2)
    place = tree.source
    for level in range(10):
        place = place / f"{level}"
        place.mkdir()
        (place / "zz").mkdir()
        (place / "zz" / "after").write_bytes(b"%d" % level)
    if unchanged:
        tree.check()
    moved = tree.source.joinpath(*map(str, range(depth)))
    deepest = place.stat()
    real = walker.scan

    def scan(fd, *rest):
        if os.path.samestat(os.fstat(fd), deepest):
            moved.rename(tree.path / "moved")
        return real(fd, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(walker, "scan", scan)
        result = tree.backup()
    found = tree.model(result)
    assert sum(path.endswith(b"/after") for path in found) >= depth - 1
    lost = {path for path, _ in result.manifest.failed}
    assert all(bytes(moved) + b"/" in path + b"/" for path in lost)
    tree.check()
    (tree.path / "moved").rename(moved)
    tree.check()


def test_full_disk_beside_the_source_is_no_unreadable_file(tree: World, monkeypatch):
    """Where storing fails for want of space on this machine, the run fails; no file is marked for that."""

    def put(*_):
        raise OSError(28, "No space left on device")

    (tree.source / "large").write_bytes(os.urandom(3 << 20))
    monkeypatch.setattr(ChunkSink, "put_each", put)
    with pytest.raises(StorageFailed):
        tree.backup()
    assert tree.snapshots == []


def test_attributes_that_cannot_be_read_cost_no_content(tree: World, monkeypatch):
    """An entry whose extended attributes cannot be read is recorded without them, counted, and tried again."""
    os.setxattr(tree.source / "dir", "user.x", b"1")
    os.setxattr(tree.source / "dir" / "0", "user.x", b"1")
    (tree.source / "link").symlink_to("x")

    def read_xattrs(*_, **__):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(files_module, "read_xattrs", read_xattrs)
        result = tree.backup()
    found = tree.model(result)
    assert found[b"dir/0"].data == walk_model(tree.source)[b"dir/0"].data
    assert found.keys() == walk_model(tree.source).keys()
    assert {path for path, _ in result.manifest.failed} >= {
        bytes(tree.source),
        *(bytes(tree.source / name) for name in ("dir", "dir/0", "link")),
    }
    tree.check()


def test_name_without_a_status(tree: World, monkeypatch):
    """Entries of every type that the file system names and does not describe are marked, and looked at again."""
    (tree.source / "dir" / "link").symlink_to("x")
    (tree.source / "dir" / "below").mkdir()
    os.mkfifo(tree.source / "dir" / "fifo")
    real = walker.scan

    def scan(fd, *rest):
        names, meta, ident = real(fd, *rest)
        if b"fifo" in names:
            from respaldo.kernel.layout import ENTRY_FAILED, IDENT, META

            rows = list(META.iter_unpack(meta))
            meta = b"".join(META.pack(row[0] & 0o170000, 0, 0, 0, 0, 0, 0) for row in rows)
            ident = IDENT.pack(1, 0, 13, ENTRY_FAILED) * len(rows)
        return names, meta, ident

    with monkeypatch.context() as patch:
        patch.setattr(walker, "scan", scan)
        for options in ({}, {"trust_times": True}):
            result = tree.backup(**options)
            assert result.figures.errors == 6
            found = tree.model(result)
            assert {found[path].mark for path in found if path.startswith(b"dir/")} == {Mark.UNREADABLE}
    tree.check(trust_times=True)
    assert_equal(tree.model(tree.check()), walk_model(tree.source))


@SIZES
@pytest.mark.parametrize("metadata_only", [False, True])
def test_file_that_changes_between_the_readings_of_its_names(tree: World, monkeypatch, size, metadata_only):
    """Each name is recorded, and restored, as it was when it was read; names that became equal are one file again."""
    first, second = os.urandom(size), os.urandom(size)
    names = [tree.source / name for name in ("a", "dir/b", "dir/c", "dir/d")]
    names[0].write_bytes(first)
    for name in names[1:]:
        os.link(names[0], name)
    real = walker.Walker._descend

    def descend(*given):
        parent, row = given[1:3]
        if parent.child_name(row) == b"dir":
            if metadata_only:
                os.utime(names[0], ns=(5, 5))
            else:
                names[0].write_bytes(second)
        return real(*given)

    with monkeypatch.context() as patch:
        patch.setattr(walker.Walker, "_descend", descend)
        result = tree.backup()
    assert result.complete
    trees = TreeReader(tree.repo.source)
    entry = next(entry for path, entry in entries_below(tree.repo, result) if path == os.fsencode(tree.source))
    restored = tree.path / "restored"
    restore = Restore(
        blocks=Blocks(tree.repo),
        trees=trees,
        manifest=result.manifest,
        entry=entry,
        path=os.fsencode(tree.source),
        target=os.fsencode(restored),
    )
    done = run_restore(restore)
    assert (done.failed, done.damaged) == (0, 0)
    found = [restored / name.relative_to(tree.source) for name in names]
    later = first if metadata_only else second
    assert [path.read_bytes() for path in found] == [first, later, later, later]
    assert found[0].samefile(found[1]) == metadata_only
    tree.check()
