"""Every kind of entry is recorded as it is."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import os
import socket
import stat
from typing import TYPE_CHECKING

import pytest

from respaldo.catalog.trees import TreeReader
from respaldo.core.ids import Kind
from respaldo.format.content import HOLE
from respaldo.format.tree import Branch, parse_tree
from tests.flows.backup.world import World, assert_equal, entries_below, entry_at, walk_model
from tests.syncing import fsync

if TYPE_CHECKING:
    from pathlib import Path


@contextlib.contextmanager
def inside(path: Path):
    before = os.getcwd()
    os.chdir(path)
    try:
        yield
    finally:
        os.chdir(before)


def set_flags(path: Path, flags: int) -> None:
    """Sets inode flags, or skips where the file system has none."""
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, 0x40086602, flags.to_bytes(8, "little"))
    except OSError as error:
        pytest.skip(f"no inode flags here: {error.strerror}")
    finally:
        os.close(fd)


def test_entry_of_every_type_is_recorded(world: World):
    """Files, directories, links, FIFOs and sockets are there with modes, times and extended attributes."""
    source = world.source
    (source / "file").write_bytes(b"hello")
    (source / "empty").touch()
    (source / "dir").mkdir(mode=0o701)
    (source / "dir" / "below").write_bytes(os.urandom(300_000))
    (source / "big").write_bytes(os.urandom(3 << 20))
    (source / "link").symlink_to("nowhere/at all")
    os.mkfifo(source / "fifo", 0o640)
    with inside(source), socket.socket(socket.AF_UNIX) as made:
        made.bind("socket")
    os.setxattr(source / "empty", "user.a", b"1")
    os.setxattr(source / "file", "user.a", b"")
    os.setxattr(source / "dir", "user.b", b"\0\xff")
    os.setxattr(source / "big", "user.c", b"3")
    os.utime(source / "dir", ns=(5, -1_000_000_001))
    first = world.check()
    again = world.check()
    assert again.figures.read_bytes == 0
    assert again.figures.files_unchanged == 4
    assert entry_at(world.repo, again, source).content == entry_at(world.repo, first, source).content


@pytest.mark.root
def test_entries_that_only_root_can_make(world: World):
    """Devices, owners without a name, capabilities, trusted attributes and ACLs are recorded."""
    source = world.source
    os.mknod(source / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.mknod(source / "disk", stat.S_IFBLK | 0o600, os.makedev(259, 1_000_000))
    (source / "owned").write_bytes(b"x")
    os.chown(source / "owned", 123_456, 4_000_000_000)
    (source / "link").symlink_to("owned")
    os.lchown(source / "link", 5, 6)
    os.setxattr(source / "link", "trusted.on-a-link", b"1", follow_symlinks=False)
    os.setxattr(source / "null", "trusted.on-a-device", b"1")
    os.setxattr(source / "owned", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
    acl = bytes.fromhex("02000000 01000600ffffffff 02000600e8030000 04000400ffffffff 10000600ffffffff 20000400ffffffff")
    os.setxattr(source / "owned", "system.posix_acl_access", acl)
    found = world.model(world.check())
    assert dict(found[b"link"].xattrs) == {b"trusted.on-a-link": b"1"}
    assert found[b"disk"].rdev == 259 << 32 | 1_000_000
    os.removexattr(source / "null", "trusted.on-a-device")
    assert world.model(world.check())[b"null"].xattrs == ()


def test_inode_flags_are_recorded(world: World):
    """Files, directories and the names of a linked file have the flags that a restore gives back."""
    source = world.source
    (source / "file").write_bytes(b"x")
    (source / "dir").mkdir()
    (source / "plain").write_bytes(b"y")
    os.link(source / "file", source / "dir" / "second")
    set_flags(source / "file", 0xC0)
    set_flags(source / "dir", 0x80)
    found = world.model(world.check())
    assert found[b"file"].attributes & 0xC0 == found[b"dir/second"].attributes & 0xC0 == 0xC0
    assert found[b"dir"].attributes & 0x80
    set_flags(source / "file", 0x40)
    found = world.model(world.check())
    assert found[b"file"].attributes == found[b"dir/second"].attributes


@pytest.mark.parametrize(
    "name", [b"\xff\xfe\x80", b"new\nline", b"n" * 255, "ü".encode() * 127, b" ", b"-rf", b"\x1b[2J", b"~", b"a\\b"]
)
def test_name_of_any_bytes_is_recorded(world: World, name):
    """A name is bytes: whatever they are, file, directory and link of that name are there."""
    base = os.fsencode(world.source)
    os.mkdir(base + b"/" + name)
    with open(base + b"/" + name + b"/" + name, "wb") as file:
        file.write(name)
    os.symlink(name, base + b"/" + name + b"/" + name[:200] + b"-")
    world.check()
    world.check()


def test_hard_links_are_one_group_across_directories(world: World, reads):
    """The names of a file share a group, hold the same, and are read once; so after a change."""
    source = world.source
    for name in ("a", "b", "c"):
        (source / name).mkdir()
    (source / "b" / "small").write_bytes(b"x" * 1000)
    (source / "b" / "large").write_bytes(os.urandom(2 << 20))
    for kind in ("small", "large"):
        for place in ("a/1", "a/2", "c/1", "z"):
            os.link(source / "b" / kind, source / f"{place}{kind}")
    os.setxattr(source / "zsmall", "user.x", b"1")
    os.mkfifo(source / "a" / "fifo")
    os.link(source / "a" / "fifo", source / "c" / "fifo")
    (source / "a" / "link").symlink_to("x")
    os.link(source / "a" / "link", source / "c" / "link", follow_symlinks=False)
    result = world.check()
    assert result.figures.read_bytes == 1000 + (2 << 20)
    assert len(reads.take()) == 2
    assert world.check().figures.read_bytes == 0
    (source / "c" / "1small").write_bytes(b"y" * 999)
    os.unlink(source / "a" / "1large")
    result = world.check()
    assert result.figures.read_bytes == 999 + (2 << 20)
    assert result.figures.files_changed == 5 + 4


def test_hard_link_with_a_name_outside_the_source(world: World):
    """A file whose other name is elsewhere is an ordinary one, with a group of its own."""
    (world.path / "outside").write_bytes(b"x")
    os.link(world.path / "outside", world.source / "inside")
    result = world.backup()
    assert entry_at(world.repo, result, world.source / "inside").link_group
    assert world.model(result)[b"inside"].data == ((0, b"x"),)


HOLES = {
    "all hole": (1 << 22, []),
    "all hole, small": (1 << 16, []),
    "data at the end": (1 << 22, [((1 << 22) - 4096, 4096)]),
    "data at the end, unaligned": ((1 << 22) + 17, [(1 << 22, 17)]),
    "data at the start": (3 << 20, [(0, 5000)]),
    "in between": (6 << 20, [(1 << 20, 100_000), (3 << 20, 1 << 20)]),
    "small, in between": (100_000, [(40_960, 4096)]),
    "small, hole at the end": (5000, [(0, 4096)]),
    "many": (8 << 20, [(at << 16, 4096) for at in range(0, 128, 2)]),
    "huge": (1 << 40, [(1 << 39, 4096)]),
}


@pytest.mark.parametrize("name", HOLES)
def test_holes_are_recorded_as_they_are(world: World, name):
    """What the file system calls a hole is recorded as one, at every place of a file, and costs no reading."""
    size, data = HOLES[name]
    path = world.source / "sparse"
    with path.open("wb") as file:
        file.truncate(size)
        for at, length in data:
            file.seek(at)
            file.write(os.urandom(length))
        file.flush()
        fsync(file.fileno())
    world.check()
    result = world.check()
    assert result.figures.read_bytes == 0


def test_holes_of_big_files_are_found_whatever_blocks_they_have(world: World):
    """What is preallocated behind the end, and a file's own map, count as blocks: enough to outweigh a hole."""
    path = world.source / "file"
    with path.open("wb") as file:
        file.write(os.urandom(1 << 20))
        file.seek(3 << 20)
        file.write(os.urandom(1 << 20))
    keep_size = 1
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(path, os.O_RDWR)
    try:
        if libc.fallocate(fd, keep_size, ctypes.c_long(4 << 20), ctypes.c_long(4 << 20)):
            pytest.skip("cannot preallocate here")
        hole = os.lseek(fd, 0, os.SEEK_HOLE)
    finally:
        os.close(fd)
    found = path.stat()
    if found.st_blocks * 512 < found.st_size or hole != 1 << 20:
        pytest.skip("this file system does not count so, or knows no holes")
    result = world.check()
    rows = list(TreeReader(world.repo.source).list_rows(entry_at(world.repo, result, path).content))
    assert [row.length for row in rows if row.id == HOLE] == [2 << 20]


def test_zeros_that_are_no_hole_are_data(world: World):
    """A run of zeros that was written is recorded as data."""
    (world.source / "zeros").write_bytes(bytes(1 << 21))
    (world.source / "few").write_bytes(bytes(9000))
    world.check()


def test_content_of_many_chunks_is_a_list(world: World):
    """A file of more chunks than an entry takes, with and without holes, is read back through lists."""
    (world.source / "long").write_bytes(os.urandom(24 << 20))
    with (world.source / "holes").open("wb") as file:
        for at in range(1500):
            file.seek(at << 13)
            file.write(os.urandom(4096))
    result = world.check()
    assert entry_at(world.repo, result, world.source / "long").content.level >= 1
    assert entry_at(world.repo, result, world.source / "holes").content.level >= 2
    with (world.source / "long").open("r+b") as file:
        file.seek(12 << 20)
        file.write(b"changed")
    result = world.check()
    assert result.figures.chunk_bytes_new < 2 << 20


def test_tree_of_thousands_of_levels(world: World, short_path: Path):
    """Depth is bounded by nothing but what the file system takes, neither descriptors nor recursion."""
    depth = 3000
    with inside(short_path):
        for level in range(depth):
            os.mkdir("d")
            os.chdir("d")
            if level % 500 == 0:
                with open("file", "wb") as file:
                    file.write(b"%d" % level)
        fd = os.open(".", os.O_RDONLY)
    try:
        gc.collect()  # what earlier tests left open is closed now, not while this one counts
        before = len(os.listdir("/proc/self/fd"))
        for changed in (False, False, True):
            if changed:
                with open(os.open("deepest", os.O_WRONLY | os.O_CREAT, dir_fd=fd), "wb") as file:
                    file.write(b"new")
            result = world.backup(short_path)
            assert result.complete
            assert result.figures.directories == depth + 1 + bytes(short_path).count(b"/")
            assert_equal(world.model(result, short_path), walk_model(short_path))
        assert result.figures.files_new == 1
        assert len(os.listdir("/proc/self/fd")) == before
    finally:
        while True:  # an rmtree would recurse
            with contextlib.suppress(FileNotFoundError):
                os.unlink("file", dir_fd=fd)
            with contextlib.suppress(FileNotFoundError):
                os.unlink("deepest", dir_fd=fd)
            above = os.open("..", os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = above
            with contextlib.suppress(OSError):
                os.rmdir("d", dir_fd=fd)
            if os.path.samestat(os.fstat(fd), os.stat(short_path)):
                break
        os.close(fd)


@pytest.mark.parametrize("count", [9_000, pytest.param(50_000, marks=pytest.mark.slow)])
def test_long_directory_changes_by_a_run(world: World, count):
    """One more entry in a directory of many stores one run of it again, and reads no file."""
    source = world.source
    for number in range(count):
        os.symlink("x", source / f"link-{number:05}")
    (source / "m-file").write_bytes(b"1")
    first = world.check()
    tree = entry_at(world.repo, first, source).content.ids
    trees = TreeReader(world.repo.source)
    assert isinstance(parse_tree(world.repo.source.get(Kind.TREE, tree), "tree"), Branch)
    runs = trees.run_ids(tree)
    os.symlink("x", source / "link-05000-and-a-half")
    second = world.check()
    assert second.figures.read_bytes == 0
    again = trees.run_ids(entry_at(world.repo, second, source).content.ids)
    assert len(set(again) - set(runs)) <= 2
    assert len(set(again) & set(runs)) >= len(runs) - 2


def test_directories_above_a_source_hold_the_way_only(world: World):
    """A snapshot of a source holds nothing that lies beside it, and says so."""
    (world.path / "beside").write_bytes(b"x")
    result = world.backup()
    paths = {path for path, _ in entries_below(world.repo, result)}
    parts = bytes(world.source).split(b"/")
    assert paths == {b"/".join(parts[: length + 1]) for length in range(1, len(parts))}
    status = os.stat(world.path)
    above = entry_at(world.repo, result, world.path)
    assert (above.mode, above.uid, above.mtime_ns) == (status.st_mode, status.st_uid, above.mtime_ns)
    assert above.mark.name == "PARTIAL"
