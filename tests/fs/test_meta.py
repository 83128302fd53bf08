"""Extended attributes, flags, names and kinds of file system."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import socket
import stat

import pytest

from respaldo.fs import meta
from respaldo.fs.meta import Names, apply_xattrs, beside, filesystem_kind, read_flags, read_xattrs, write_flags
from respaldo.kernel.layout import INODE_FLAGS

CAPABILITY = bytes.fromhex("0100000202000000000000000000000000000000")
NO_DUMP = 0x40


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.touch()
    fd = os.open(path, os.O_RDWR)
    yield fd
    os.close(fd)


def need_xattrs(fd):
    try:
        os.setxattr(fd, b"user.probe", b"")
    except OSError as error:
        pytest.skip(f"needs user extended attributes: {error.strerror}")
    os.removexattr(fd, b"user.probe")


def test_xattrs_come_back_sorted(file):
    """Attributes are read and set whole, whatever their order and their bytes."""
    need_xattrs(file)
    pairs = ((b"user.a", b""), (b"user.b", b"\0\xff"), (b"user.c\xff", b"x" * 500))
    assert apply_xattrs(file, tuple(reversed(pairs)), had=()) == []
    assert read_xattrs(file) == pairs


def test_apply_xattrs_takes_away_what_the_snapshot_does_not_have(file):
    """An entry ends with the recorded attributes and no others."""
    need_xattrs(file)
    os.setxattr(file, b"user.old", b"1")
    os.setxattr(file, b"user.same", b"1")
    assert apply_xattrs(file, ((b"user.same", b"2"),), had=read_xattrs(file)) == []
    assert read_xattrs(file) == ((b"user.same", b"2"),)


def test_acls_of_xfs_are_read_once(file, monkeypatch):
    """What XFS shows of its ACLs under names of its own is neither read, nor taken away, nor set elsewhere."""
    need_xattrs(file)
    own = (b"trusted.SGI_ACL_FILE", b"trusted.SGI_ACL_DEFAULT")
    os.setxattr(file, b"user.a", b"1")
    shown = os.listxattr(file)
    with monkeypatch.context() as patch:
        patch.setattr(os, "listxattr", lambda *_, **__: [*shown, *map(os.fsdecode, own)])
        patch.setattr(os, "removexattr", lambda _, name: pytest.fail(f"{name!r} was removed"))
        assert read_xattrs(file) == ((b"user.a", b"1"),)
        assert apply_xattrs(file, ((b"user.a", b"1"),), had=read_xattrs(file)) == []
    assert apply_xattrs(file, ((own[0], b"x"), (b"user.a", b"2")), had=read_xattrs(file)) == []
    assert os.listxattr(file) == shown


def test_apply_xattrs_returns_what_it_cannot_set(file):
    """An attribute that the file system does not take is named, and costs no other."""
    need_xattrs(file)
    failed = apply_xattrs(file, ((b"nonsense.x", b""), (b"user.y", b"1")), had=())
    assert [name for name, _ in failed] == [b"nonsense.x"]
    assert read_xattrs(file) == ((b"user.y", b"1"),)


@pytest.mark.root
def test_xattrs_of_every_namespace_are_read(file):
    """ACLs, capabilities, trusted attributes and labels are attributes like any other."""
    acl = bytes.fromhex("02000000 01000600ffffffff 02000600e8030000 04000400ffffffff 10000600ffffffff 20000400ffffffff")
    pairs = [(b"security.capability", CAPABILITY), (b"trusted.t", b"1"), (b"system.posix_acl_access", acl)]
    for name, value in pairs:
        os.setxattr(file, name, value)
    assert read_xattrs(file) == tuple(sorted(pairs))


@pytest.mark.root
@pytest.mark.parametrize("kind", ["symlink", "fifo", "socket", "device"])
def test_xattrs_of_what_cannot_be_opened_are_reached_beside_their_directory(tmp_path, kind):
    """Links, FIFOs, sockets and devices have attributes of their own, which are not those of what they lead to."""
    (tmp_path / "elsewhere").touch()
    os.setxattr(tmp_path / "elsewhere", "trusted.wrong", b"1")
    make_special(tmp_path / "x", kind)
    os.setxattr(tmp_path / "x", "trusted.right", b"1", follow_symlinks=False)
    fd = os.open(tmp_path, os.O_RDONLY)
    assert read_xattrs(beside(fd, b"x")) == ((b"trusted.right", b"1"),)
    os.close(fd)


def make_special(path, kind):
    if kind == "symlink":
        path.symlink_to("elsewhere")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as bound:
            os.chdir(path.parent)
            bound.bind(path.name)
    else:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))


def test_no_support_means_no_xattrs(monkeypatch, file):
    """A file system without extended attributes answers a question for them, and is not an error."""
    monkeypatch.setattr(os, "listxattr", lambda *_, **__: (_ for _ in ()).throw(OSError(errno.ENOTSUP, "no")))
    assert read_xattrs(file) == ()


def test_an_xattr_that_vanishes_is_left_out(monkeypatch, file):
    """Between list and read an attribute may go."""
    monkeypatch.setattr(os, "listxattr", lambda *_, **__: ["user.gone"])
    assert read_xattrs(file) == ()


def test_missing_proc_means_no_xattrs_of_links(monkeypatch, tmp_path):
    """In a rescue system without /proc the attributes of links are not read; everything else goes on."""
    monkeypatch.setattr(meta, "has_proc", lambda: False)
    assert read_xattrs(b"/proc/self/fd/99999/x") == ()
    monkeypatch.undo()
    with pytest.raises(FileNotFoundError):
        read_xattrs(b"/proc/self/fd/99999/x")


def test_flags_come_back(file):
    """A flag that a user may set is set and read; the others are left alone."""
    if write_flags(file, NO_DUMP):
        pytest.skip("needs a file system with inode flags")
    assert read_flags(file) & NO_DUMP
    assert write_flags(file, 0) == 0
    assert not read_flags(file) & NO_DUMP


def test_write_flags_returns_what_it_cannot_set(file, monkeypatch):
    """One flag that a file system refuses costs no other."""
    state = 0x80000

    def answer(_fd, request, arg):
        nonlocal state
        if request == meta.FS_IOC_GETFLAGS:
            return state.to_bytes(4, "little") + bytes(4)
        asked = int.from_bytes(arg[:4], "little")
        if asked & 0x10 and not state & 0x10:
            raise OSError(errno.EPERM, "no")
        state = asked
        return arg

    monkeypatch.setattr(meta.fcntl, "ioctl", answer)
    assert write_flags(file, NO_DUMP | 0x10 | 0x80) == 0x10
    assert state == 0x80000 | NO_DUMP | 0x80


@pytest.mark.root
def test_immutable_is_among_the_flags(file):
    """What root protected is recognised and given back."""
    if write_flags(file, meta.IMMUTABLE):
        pytest.skip("needs a file system with inode flags")
    try:
        assert read_flags(file) == meta.IMMUTABLE & INODE_FLAGS
    finally:
        write_flags(file, 0)


def test_names_know_the_machine():
    """Ids and names go both ways; what nobody has is no error."""
    names = Names()
    user, group = pwd.getpwuid(os.getuid()), grp.getgrgid(os.getgid())
    for _ in range(2):
        assert names.user(user.pw_uid) == user.pw_name
        assert names.group(group.gr_gid) == group.gr_name
        assert names.uid(user.pw_name) == user.pw_uid
        assert names.gid(group.gr_name) == group.gr_gid
        assert names.user(2**32 - 2) == names.group(2**32 - 2) == ""
        assert names.uid("no such user\0") is names.gid("no such group") is None


def test_filesystem_kind_is_told_by_its_magic(file, monkeypatch):
    """Local, network and FUSE file systems are told apart."""
    assert filesystem_kind(file) is meta.FileSystem.LOCAL

    class Fake:
        magic = 0

        def fstatfs(self, _fd, buffer):
            buffer[:8] = self.magic.to_bytes(8, "little")
            return 0

    monkeypatch.setattr(meta, "_libc", Fake())
    for Fake.magic, kind in ((0x65735546, "FUSE"), (0x6969, "NETWORK"), (0xFF534D42, "NETWORK"), (0xEF53, "LOCAL")):
        assert filesystem_kind(file) is meta.FileSystem[kind]
