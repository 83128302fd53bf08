"""Whole restores: everything that a file can be, comes back as it was."""

from __future__ import annotations

import os
import random
import stat
import subprocess

import pytest

from respaldo.core.model import Entry
from respaldo.flows.restore.options import Overwrite, RestoreOptions
from respaldo.fs.meta import write_flags
from tests.flows.restore.world import TIME, World, ours, picture

CAPABILITY = bytes.fromhex("0100000202000000000000000000000000000000")
NO_DUMP = 0x40
IMMUTABLE = 0x10


@pytest.fixture
def world():
    return World()


def fill(source):
    """Makes a tree with everything that the user who runs the tests can make."""
    rng = random.Random(7)
    (source / "many").mkdir(parents=True)
    for number in range(700):
        (source / f"many/f{number}").write_bytes(rng.randbytes(rng.choice([0, 1, 100, 5000])))
    (source / "long").write_bytes(rng.randbytes(5 << 20))
    (source / "deep/er/still").mkdir(parents=True)
    (source / "deep/er/still/file").write_bytes(b"x")
    (source / "empty").mkdir()
    (source / "link").symlink_to("many/f1")
    (source / "dangling").symlink_to("/nowhere\xff")
    os.mkfifo(source / "fifo", 0o640)
    os.mknod(source / "socket", stat.S_IFSOCK | 0o600)
    (source / "one").write_bytes(b"linked")
    os.link(source / "one", source / "deep/two")
    os.link(source / "one", source / "deep/er/three")
    os.link(source / "link", source / "deep/same-link", follow_symlinks=False)
    os.setxattr(source / "one", "user.note", b"\0value")
    (source / "odd\udcff name\n").write_bytes(b"odd")
    for path in sorted(source.rglob("*")):
        os.utime(path, ns=(TIME, TIME + hash(path.name) % 10**9), follow_symlinks=False)
    (source / "closed").mkdir()
    (source / "closed/file").write_bytes(b"closed")
    (source / "closed").chmod(0o1500)
    (source / "many").chmod(0o750)


def fill_as_root(source):
    """Adds what only root can make."""
    os.mknod(source / "block", stat.S_IFBLK | 0o660, os.makedev(259, 70000))
    os.mknod(source / "char", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.link(source / "char", source / "deep/char")
    (source / "setuid").write_bytes(b"#!")
    os.chown(source / "setuid", 1234, 4321)
    (source / "setuid").chmod(0o6755)
    (source / "capable").write_bytes(b"#!")
    os.chown(source / "capable", 1234, 4321)
    os.setxattr(source / "capable", "security.capability", CAPABILITY)
    os.setxattr(source / "fifo", "trusted.f", b"1")
    os.setxattr(source / "link", "trusted.l", b"1", follow_symlinks=False)
    os.lchown(source / "link", 1234, 4321)
    subprocess.run(["setfacl", "-m", "u:1234:rw", source / "one"], check=False)
    subprocess.run(["setfacl", "-d", "-m", "u:1234:rw", source / "deep"], check=False)
    os.chown(source / "deep", 1234, 4321)
    (source / "deep").chmod(0o2775)
    for name, flags in (("long", NO_DUMP), ("setuid", IMMUTABLE), ("empty", IMMUTABLE)):
        fd = os.open(source / name, os.O_RDONLY)
        write_flags(fd, flags)
        os.close(fd)


def melt(*folders):
    for folder in folders:
        for name in ("setuid", "empty", "long"):
            try:
                fd = os.open(folder / name, os.O_RDONLY)
            except FileNotFoundError:
                continue
            write_flags(fd, 0)
            os.close(fd)


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    fill(folder)
    if os.geteuid() == 0:
        fill_as_root(folder)
    os.utime(folder, ns=(TIME, TIME))
    yield folder
    melt(folder, tmp_path / "target")


def test_everything_comes_back(world, source, tmp_path):
    """Content, types, owners, modes, times to the nanosecond, attributes, flags and hard links."""
    entry = world.capture(source)
    result = world.restore(entry, tmp_path / "target", RestoreOptions(verify=True))
    assert result.failures == ()
    assert result.exit_status == 0
    assert result.missed == ()
    assert picture(tmp_path / "target") == picture(source)
    assert (tmp_path / "target/one").samefile(tmp_path / "target/deep/er/three")
    assert max(world.decoded.values()) <= 2


def test_a_second_run_finds_nothing_to_do(world, source, tmp_path):
    """What is right already costs a look."""
    entry = world.capture(source)
    first = world.restore(entry, tmp_path / "target")
    world.decoded.clear()
    again = world.restore(entry, tmp_path / "target")
    assert again.created == again.overwritten == again.attributes == again.written_bytes == 0
    assert again.unchanged == first.created
    assert not world.decoded
    always = world.restore(entry, tmp_path / "target", RestoreOptions(overwrite=Overwrite.ALWAYS))
    assert (always.unchanged, always.overwritten) == (first.created, 0)
    assert picture(tmp_path / "target") == picture(source)


def test_attributes_are_put_right(world, source, tmp_path):
    """A file whose content is right gets back owner, mode, time, attributes and flags."""
    entry = world.capture(source)
    target = tmp_path / "target"
    world.restore(entry, target)
    melt(target)
    (target / "many/f1").chmod(0o600)
    os.utime(target / "many/f2", ns=(1, 1))
    os.removexattr(target / "one", "user.note")
    os.setxattr(target / "odd\udcff name\n", "user.stray", b"1")
    (target / "closed").chmod(0o777)
    os.utime(target / "link", ns=(1, 1), follow_symlinks=False)
    world.decoded.clear()
    result = world.restore(entry, target)
    assert result.overwritten == result.created == result.failed == 0
    assert not world.decoded
    assert picture(target) == picture(source)


def test_content_is_put_right(world, source, tmp_path):
    """Another size, another time with other content, and for ``always`` any other content."""
    entry = world.capture(source)
    target = tmp_path / "target"
    world.restore(entry, target)
    (target / "many/f9").write_bytes(b"other size")
    same_size = bytes(len((source / "long").read_bytes()))
    (target / "long").write_bytes(same_size)
    (target / "odd\udcff name\n").write_bytes(b"ODD")
    os.utime(target / "odd\udcff name\n", ns=(TIME, (source / "odd\udcff name\n").stat().st_mtime_ns))
    result = world.restore(entry, target)
    assert (result.overwritten, result.created) == (2, 0)
    assert (target / "odd\udcff name\n").read_bytes() == b"ODD"
    result = world.restore(entry, target, RestoreOptions(overwrite=Overwrite.ALWAYS))
    assert (result.overwritten, result.created) == (1, 0)
    assert picture(target) == picture(source)


def test_types_change_places(world, tmp_path):
    """A directory where a file was, a file where a directory was, links everywhere."""
    target = tmp_path / "target"
    target.mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/precious").write_bytes(b"precious")
    (target / "a").write_bytes(b"")
    (target / "b/c").mkdir(parents=True)
    (target / "b/c/d").write_bytes(b"")
    (target / "e").symlink_to("../outside")
    (target / "f").symlink_to("../outside/precious")
    (target / "g").mkdir()
    entry = world.directory(
        b"",
        world.directory(b"a", world.file(b"x", b"1")),
        world.file(b"b", b"2"),
        world.directory(b"e", world.file(b"precious", b"3")),
        world.file(b"f", b"4"),
        Entry(name=b"g", mode=stat.S_IFLNK | 0o777, target=b"a", mtime_ns=TIME, **ours()),
    )
    result = world.restore(entry, target, RestoreOptions(verify=True))
    assert result.failures == ()
    assert (result.created, result.overwritten) == (2, 3)
    assert (target / "a/x").read_bytes() == b"1"
    assert (target / "b").read_bytes() == b"2"
    assert (target / "e/precious").read_bytes() == b"3"
    assert (target / "f").read_bytes() == b"4"
    assert (target / "g").readlink() == type(target)("a")
    assert (tmp_path / "outside/precious").read_bytes() == b"precious"


def test_a_file_becomes_the_target_or_lands_in_it(world, tmp_path):
    """Of a single file, TARGET is that file, or the directory that it goes into."""
    file = world.file(b"name", b"content", mode=stat.S_IFREG | 0o600)
    world.restore(file, tmp_path / "other", path=b"/source/name")
    assert (tmp_path / "other").read_bytes() == b"content"
    (tmp_path / "folder").mkdir()
    os.utime(tmp_path / "folder", ns=(5, 5))
    world.restore(file, tmp_path / "folder", path=b"/source/name")
    assert (tmp_path / "folder/name").stat().st_mtime_ns == TIME
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o755
    world.restore(file, f"{tmp_path}/new/", path=b"/source/name")
    assert (tmp_path / "new/name").read_bytes() == b"content"
    world.restore(file, tmp_path / "far/away/file", path=b"/source/name")
    assert (tmp_path / "far/away/file").read_bytes() == b"content"


def test_the_root_gives_the_target_nothing_but_content(world, tmp_path):
    """Of a whole snapshot nothing is known about / itself: the target keeps what it has."""
    target = tmp_path / "target"
    target.mkdir(mode=0o711)
    entry = world.directory(b"", world.directory(b"source", world.file(b"x", b"1")), mode=stat.S_IFDIR | 0o755)
    world.restore(entry, target, path=b"/")
    assert (target / "source/x").read_bytes() == b"1"
    assert stat.S_IMODE(target.stat().st_mode) == 0o711


def test_ten_thousand_levels_are_restored(world, tmp_path):
    """Neither recursion, nor descriptors, nor the length of a path sets a limit."""
    entry = world.file(b"file", b"deep")
    for _ in range(3000):
        entry = world.directory(b"d" * 40, entry)
    entry = world.directory(b"", entry)
    result = world.restore(entry, tmp_path / "target")
    assert (result.failed, result.directories) == (0, 3001)
    again = world.restore(entry, tmp_path / "target", RestoreOptions(overwrite=Overwrite.ALWAYS))
    assert (again.unchanged, again.failed) == (1, 0)
    subprocess.run(["rm", "-rf", tmp_path / "target"], check=True)


def test_a_long_directory_is_restored_piece_by_piece(world, tmp_path):
    """More entries than are looked at together, with subdirectories among them."""
    entries = [world.file(b"f%05d" % number, b"%d" % number) for number in range(9000)]
    entries += [world.directory(b"f%05d-d" % number, world.file(b"x", b"")) for number in range(0, 9000, 1000)]
    entry = world.directory(b"", *entries)
    result = world.restore(entry, tmp_path / "target", RestoreOptions(verify=True))
    assert (result.failed, result.created, result.directories) == (0, 9009, 10)
    assert (tmp_path / "target/f08999").read_bytes() == b"8999"
    assert world.restore(entry, tmp_path / "target").unchanged == 9009
