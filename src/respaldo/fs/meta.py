"""What a file has besides its content: extended attributes, inode flags, owners' names, the kind of its file system.

Reads and sets by descriptor wherever the system allows it; what cannot be opened (symlinks, devices, FIFOs, sockets) is
reached through ``/proc/self/fd/DIRECTORY/NAME``, which follows no link. Without ``/proc`` (a rescue system) such
entries have no extended attributes. Nothing here decides what is to be kept; an error that says "not supported" is an
answer, not an error.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import grp
import os
import pwd
import struct
import sys
from collections.abc import Callable
from enum import Enum
from typing import TypeVar

from respaldo.kernel.layout import INODE_FLAGS

T = TypeVar("T")
Xattrs = tuple[tuple[bytes, bytes], ...]

ACL_DEFAULT = b"system.posix_acl_default"
CAPABILITY = b"security.capability"
_ACLS_OF_XFS = frozenset({b"trusted.SGI_ACL_FILE", b"trusted.SGI_ACL_DEFAULT"})
"""XFS shows root its ACLs once more under these names, as it keeps them: whoever removed them would remove the ACLs."""

IMMUTABLE = 0x10
APPEND_ONLY = 0x20
FLAGS_WHEN_EMPTY = 0x0080_0004
"""No copy-on-write and compression: they concern only what is written after they are set."""
FLAGS_IN_THE_WAY = IMMUTABLE | APPEND_ONLY
FLAGS_HANDED_DOWN = 0x0281_C0CF
"""What a directory gives to the files that are made in it: all that can be, but for what forbids changes."""

# _IOR('f', 1, long) and _IOW('f', 2, long): the size in the number is a long's, what is read and written is an int.
_LONG_BYTES = struct.calcsize("l")
_ODD = os.uname().machine.startswith(("alpha", "mips", "parisc", "ppc", "sparc"))
FS_IOC_GETFLAGS = (2 << (29 if _ODD else 30)) | _LONG_BYTES << 16 | ord("f") << 8 | 1
FS_IOC_SETFLAGS = (4 << 29 if _ODD else 1 << 30) | _LONG_BYTES << 16 | ord("f") << 8 | 2

_UNSUPPORTED = frozenset({errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOTTY, errno.EINVAL})


def beside(dir_fd: int, name: bytes) -> bytes:
    """Returns a path to an entry of an open directory, for calls that know no descriptors."""
    return b"/proc/self/fd/%d/%s" % (dir_fd, name)


def has_proc() -> bool:
    """Whether `beside` leads anywhere."""
    return os.path.isdir("/proc/self/fd")


def read_xattrs(where: int | bytes, *, follow: bool = False) -> Xattrs:
    """Returns all extended attributes, ACLs and labels included, sorted by name; none where there can be none.

    ACLs are in it once, under the names that they have on every file system.

    ``where`` is a descriptor (of a regular file or directory) or a path. An attribute that vanishes meanwhile is left
    out. Raises `OSError` for anything else, `PermissionError` included.
    """
    follow = follow or isinstance(where, int)
    try:
        names = os.listxattr(where, follow_symlinks=follow)
    except OSError as error:
        if error.errno in _UNSUPPORTED or _proc_missing(where, error):
            return ()
        raise
    found = []
    for name in names:
        if os.fsencode(name) in _ACLS_OF_XFS:
            continue
        try:
            value = os.getxattr(where, name, follow_symlinks=follow)
        except OSError as error:
            # Gone since it was listed; or listed by a file system that then says it does not have such (NFS, FUSE).
            if error.errno in (errno.ENODATA, errno.ENOTSUP):
                continue
            raise
        found.append((os.fsencode(name), value))
    return tuple(sorted(found))


def apply_xattrs(where: int | bytes, xattrs: Xattrs, *, had: Xattrs) -> list[tuple[bytes, OSError]]:
    """Gives an entry these extended attributes and takes away the others of those it had.

    ``where``: a descriptor, or a path that is followed. Returns those that could not be set or removed, with the
    reason. Labels (``security.*``) that the snapshot does not have are left to the system's policy.
    """
    failed: list[tuple[bytes, OSError]] = []
    now = dict(had)
    for name, value in xattrs:
        if now.pop(name, None) == value or name in _ACLS_OF_XFS:
            continue
        try:
            os.setxattr(where, name, value)
        except OSError as error:
            failed.append((name, error))
    for name in now:
        if name.startswith(b"security.") and name != CAPABILITY:
            continue
        try:
            os.removexattr(where, name)
        except OSError as error:
            if error.errno != errno.ENODATA:
                failed.append((name, error))
    return failed


def _proc_missing(where: int | bytes, error: OSError) -> bool:
    """Whether a path of `beside` failed because there is no ``/proc``."""
    return (
        isinstance(where, bytes)
        and where.startswith(b"/proc/self/fd/")
        and (error.errno in (errno.ENOENT, errno.ENOTDIR) and not has_proc())
    )


def read_flags(fd: int) -> int:
    """Returns the inode flags that a restore gives back (`layout.INODE_FLAGS`); 0 where the file system has none."""
    return _all_flags(fd) & INODE_FLAGS


def _all_flags(fd: int) -> int:
    try:
        raw = fcntl.ioctl(fd, FS_IOC_GETFLAGS, bytes(8))
    except OSError as error:
        if error.errno in _UNSUPPORTED or error.errno in (errno.EPERM, errno.EACCES):
            return 0
        raise
    return int.from_bytes(raw[:4], sys.byteorder)


def write_flags(fd: int, flags: int, mask: int = INODE_FLAGS) -> int:
    """Sets the inode flags within a mask; returns those that could not be set as asked.

    Tries all at once, then one by one, so that one flag that a file system does not know costs no other.
    """
    before = _all_flags(fd)
    mask &= INODE_FLAGS
    wanted = (before & ~mask) | (flags & mask)
    if wanted == before or _put_flags(fd, wanted):
        return 0
    now = before
    bit = 1
    while bit <= mask:
        step = (now & ~bit) | (wanted & bit)
        if mask & bit and step != now and _put_flags(fd, step):
            now = step
        bit <<= 1
    return (now ^ wanted) & mask


def _put_flags(fd: int, flags: int) -> bool:
    try:
        fcntl.ioctl(fd, FS_IOC_SETFLAGS, flags.to_bytes(4, sys.byteorder) + bytes(4))
    except OSError:
        return False
    return True


class Names:
    """Turns ids into the machine's names of users and groups, and back. Remembers every answer; one thread."""

    __slots__ = ("_gids", "_groups", "_uids", "_users")

    def __init__(self) -> None:
        self._users: dict[int, str] = {}
        self._groups: dict[int, str] = {}
        self._uids: dict[str, int | None] = {}
        self._gids: dict[str, int | None] = {}

    def user(self, uid: int) -> str:
        """Returns a user's name, "" where there is none."""
        name = self._users.get(uid)
        if name is None:
            name = self._users[uid] = _ask(lambda: pwd.getpwuid(uid).pw_name, "")
        return name

    def group(self, gid: int) -> str:
        """Returns a group's name, "" where there is none."""
        name = self._groups.get(gid)
        if name is None:
            name = self._groups[gid] = _ask(lambda: grp.getgrgid(gid).gr_name, "")
        return name

    def uid(self, user: str) -> int | None:
        """Returns a user's number, None where nobody has the name."""
        if user not in self._uids:
            self._uids[user] = _ask(lambda: pwd.getpwnam(user).pw_uid, None)
        return self._uids[user]

    def gid(self, group: str) -> int | None:
        """Returns a group's number, None where no group has the name."""
        if group not in self._gids:
            self._gids[group] = _ask(lambda: grp.getgrnam(group).gr_gid, None)
        return self._gids[group]


def _ask(question: Callable[[], T], otherwise: T) -> T:
    """Asks the system's databases; a number or name that they cannot even express has no answer either."""
    try:
        return question()
    except (KeyError, OverflowError, ValueError, OSError):
        return otherwise


class FileSystem(Enum):
    """Says how far a file system's answers can be trusted."""

    LOCAL = "local"
    NETWORK = "network"
    FUSE = "fuse"


_FUSE = frozenset({0x65735546, 0x65735543})
_NETWORK = frozenset(
    {
        0x6969,  # NFS
        0xFF534D42,  # CIFS
        0xFE534D42,  # SMB2
        0x517B,  # SMB
        0x564C,  # NCP
        0x01021997,  # 9p
        0x00C36400,  # Ceph
        0x5346414F,  # AFS
        0x6B414653,  # kAFS
        0x73757245,  # Coda
        0x0BD00BD0,  # Lustre
        0x47504653,  # GPFS
        0x786F4256,  # VirtualBox shared folders
        0x19830326,  # BeeGFS
    }
)


def filesystem_kind(fd: int) -> FileSystem:
    """Returns what kind of file system an open file lies on; LOCAL where the system does not say."""
    answer = ctypes.create_string_buffer(512)
    if _libc.fstatfs(fd, answer) != 0:
        return FileSystem.LOCAL
    # The first field is a word, of which the low 32 bits say it.
    magic = int.from_bytes(answer.raw[:_LONG_BYTES], sys.byteorder) & 0xFFFF_FFFF
    if magic in _FUSE:
        return FileSystem.FUSE
    return FileSystem.NETWORK if magic in _NETWORK else FileSystem.LOCAL


def sync_filesystem(fd: int) -> None:
    """Brings everything of one file system to the disk."""
    _libc.syncfs(fd)


_libc = ctypes.CDLL(None, use_errno=True)
