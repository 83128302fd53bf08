"""Owner, mode, attributes, times, flags: all of them, for every type, in an order in which none undoes another."""

from __future__ import annotations

import os
import stat

import pytest

from respaldo.core.model import Entry
from respaldo.fs.draft import Draft
from respaldo.fs.meta import IMMUTABLE, read_flags, read_xattrs, write_flags
from respaldo.fs.place import Target
from respaldo.fs.settle import Miss, Owner, Owners, settle, settle_flags

CAPABILITY = (b"security.capability", bytes.fromhex("0100000202000000000000000000000000000000"))
TIME = 1_600_000_000_123_456_789


def entry(mode, **values):
    return Entry(name=b"x", mode=mode, mtime_ns=TIME, **values)


@pytest.fixture
def place(tmp_path):
    with Target(os.fsencode(tmp_path / "t")) as target:
        yield target.root


def made(place, wanted):
    kind = stat.S_IFMT(wanted.mode)
    if kind == stat.S_IFREG:
        return Draft.file(place)
    return Draft.symlink(place, b"gone") if kind == stat.S_IFLNK else Draft.node(place, wanted.mode, wanted.rdev)


@pytest.mark.root
@pytest.mark.parametrize("kind", [stat.S_IFREG, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK])
def test_every_type_gets_all_it_had(place, tmp_path, kind):
    """Owner, set-id bits, attributes and times to the nanosecond; a link's are its own."""
    xattrs = ((b"trusted.x", b"1"),)
    wanted = entry(kind | 0o6751, uid=1234, gid=4321, xattrs=xattrs, rdev=7 << 32 | 1)
    with made(place, wanted) as draft:
        assert settle(draft.where, wanted, Owner(1234, 4321, exact=True), draft.stat(), chown=True, had=()) == []
        draft.publish(b"x", replace=False)
    found = (tmp_path / "t/x").lstat()
    assert (found.st_uid, found.st_gid, found.st_mtime_ns) == (1234, 4321, TIME)
    assert stat.S_IMODE(found.st_mode) == (0o777 if kind == stat.S_IFLNK else 0o6751)
    assert os.listxattr(tmp_path / "t/x", follow_symlinks=False) == ["trusted.x"]


@pytest.mark.root
def test_a_change_of_owner_costs_no_capability(place, tmp_path):
    """An existing file that gets its owner back keeps, or gets, the capabilities that chown clears."""
    wanted = entry(stat.S_IFREG | 0o755, uid=1234, gid=4321, xattrs=(CAPABILITY,))
    path = tmp_path / "t/x"
    path.touch()
    os.setxattr(path, *CAPABILITY)
    fd = os.open(path, os.O_RDWR)
    assert settle(fd, wanted, Owner(1234, 4321, exact=True), os.fstat(fd), chown=True) == []
    assert read_xattrs(fd) == (CAPABILITY,)
    os.close(fd)


@pytest.mark.root
def test_an_immutable_file_is_settled_again(place, tmp_path):
    """The flag is taken away for the time of the change and given back."""
    path = tmp_path / "t/x"
    path.touch()
    fd = os.open(path, os.O_RDONLY)
    if write_flags(fd, IMMUTABLE):
        pytest.skip("needs a file system with inode flags")
    wanted = entry(stat.S_IFREG | 0o755, uid=1234, gid=1234, attributes=IMMUTABLE)
    assert settle(fd, wanted, Owner(1234, 1234, exact=True), os.fstat(fd), chown=True) == []
    assert settle_flags(fd, wanted) == []
    assert read_flags(fd) == IMMUTABLE
    assert path.stat().st_mtime_ns == TIME
    write_flags(fd, 0)
    os.close(fd)


def test_an_ordinary_user_gets_what_it_may(ordinary):
    """Another's owner is missed, set-id bits with it; user attributes are set although the mode forbids writing."""
    wanted = entry(stat.S_IFREG | 0o6444, uid=0, gid=0, xattrs=((b"user.x", b"1"), (b"trusted.y", b"2")))
    with Target(os.fsencode(ordinary)) as target, Draft.file(target.root) as draft:
        misses = settle(draft.where, wanted, Owners().of(wanted), draft.stat(), chown=True, had=())
        assert misses == [Miss.OWNER, Miss.XATTRS]
        found = draft.stat()
        assert stat.S_IMODE(found.st_mode) == 0o444
        assert found.st_mtime_ns == TIME
        assert read_xattrs(draft.fd) == ((b"user.x", b"1"),)


def test_a_read_only_file_takes_new_attributes_from_its_ordinary_owner(ordinary):
    """An existing file without write permission is made writable for a moment."""
    (ordinary / "x").touch(mode=0o400)
    os.chown(ordinary / "x", os.geteuid(), os.getegid())
    fd = os.open(ordinary / "x", os.O_RDONLY)
    wanted = entry(stat.S_IFREG | 0o400, uid=os.geteuid(), gid=os.getegid(), xattrs=((b"user.x", b"1"),))
    assert settle(fd, wanted, Owners().of(wanted), os.fstat(fd), chown=True) == []
    assert read_xattrs(fd) == ((b"user.x", b"1"),)
    assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o400
    os.close(fd)


def test_without_owners_set_id_bits_are_left_to_the_right_owner(place):
    """Who restores without owners does not make a program of another's run as itself."""
    mode = stat.S_IFREG | 0o4755
    for uid, expected in ((os.geteuid(), 0o4755), (os.geteuid() + 1, 0o755)):
        wanted = entry(mode, uid=uid, gid=os.getegid())
        with Draft.file(place) as draft:
            settle(draft.where, wanted, Owners(keep=False).of(wanted), draft.stat(), chown=False, had=())
            assert stat.S_IMODE(draft.stat().st_mode) == expected


class FakeNames:
    def uid(self, user):
        return {"here": 7}.get(user)

    def gid(self, group):
        return {"here": 8}.get(group)


@pytest.mark.root
def test_owners_go_by_name_unless_asked_for_numbers():
    """A user of the same name may have another number on this machine."""
    known = entry(0o644, uid=1, gid=2, user="here", group="here")
    unknown = entry(0o644, uid=1, gid=2, user="gone", group="")
    owners = Owners(names=FakeNames())
    assert owners.of(known) == (7, 8, True)
    assert owners.of(known) is owners.of(known)
    assert owners.of(unknown) == (1, 2, True)
    assert Owners(names=FakeNames(), numeric=True).of(known) == (1, 2, True)


def test_impossible_times_are_missed_not_raised(place):
    """A time that the system cannot hold costs the time only."""
    wanted = Entry(name=b"x", mode=stat.S_IFREG | 0o600, mtime_ns=2**63 - 1, uid=os.geteuid(), gid=os.getegid())
    with Draft.file(place) as draft:
        assert set(settle(draft.where, wanted, Owners().of(wanted), draft.stat(), chown=True, had=())) <= {Miss.TIMES}
