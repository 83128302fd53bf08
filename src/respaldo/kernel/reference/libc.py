"""What Python's ``os`` lacks of the C library: statx, getdents64, renameat2 and futimens. Raises ``OSError``."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from typing import Final

AT_SYMLINK_NOFOLLOW: Final = 0x100
AT_NO_AUTOMOUNT: Final = 0x800
STATX_BASIC_STATS: Final = 0x7FF
STATX_BTIME: Final = 0x800
STATX_ATTR_IMMUTABLE: Final = 0x10
STATX_ATTR_APPEND: Final = 0x20
STATX_ATTR_NODUMP: Final = 0x40
STATX_ATTR_MOUNT_ROOT: Final = 0x2000
RENAME_NOREPLACE: Final = 1
_UTIME_OMIT: Final = (1 << 30) - 2
_GETDENTS_BYTES: Final = 1 << 18

INT64_MIN: Final = -(1 << 63)
INT64_MAX: Final = (1 << 63) - 1

_libc = ctypes.CDLL(None, use_errno=True)


class StatxTime(ctypes.Structure):
    """Is struct statx_timestamp."""

    _fields_ = (("tv_sec", ctypes.c_int64), ("tv_nsec", ctypes.c_uint32), ("reserved", ctypes.c_int32))
    tv_sec: int
    tv_nsec: int

    @property
    def ns(self) -> int:
        """The time in nanoseconds, saturated to 64 bits."""
        return saturate(self.tv_sec * 1_000_000_000 + self.tv_nsec)


class Statx(ctypes.Structure):
    """Is struct statx; see statx(2)."""

    _fields_ = (
        ("stx_mask", ctypes.c_uint32),
        ("stx_blksize", ctypes.c_uint32),
        ("stx_attributes", ctypes.c_uint64),
        ("stx_nlink", ctypes.c_uint32),
        ("stx_uid", ctypes.c_uint32),
        ("stx_gid", ctypes.c_uint32),
        ("stx_mode", ctypes.c_uint16),
        ("reserved", ctypes.c_uint16),
        ("stx_ino", ctypes.c_uint64),
        ("stx_size", ctypes.c_uint64),
        ("stx_blocks", ctypes.c_uint64),
        ("stx_attributes_mask", ctypes.c_uint64),
        ("stx_atime", StatxTime),
        ("stx_btime", StatxTime),
        ("stx_ctime", StatxTime),
        ("stx_mtime", StatxTime),
        ("stx_rdev_major", ctypes.c_uint32),
        ("stx_rdev_minor", ctypes.c_uint32),
        ("stx_dev_major", ctypes.c_uint32),
        ("stx_dev_minor", ctypes.c_uint32),
        ("later", ctypes.c_uint64 * 14),
    )
    stx_mask: int
    stx_attributes: int
    stx_nlink: int
    stx_uid: int
    stx_gid: int
    stx_mode: int
    stx_ino: int
    stx_size: int
    stx_blocks: int
    stx_attributes_mask: int
    stx_btime: StatxTime
    stx_ctime: StatxTime
    stx_mtime: StatxTime
    stx_rdev_major: int
    stx_rdev_minor: int
    stx_dev_major: int
    stx_dev_minor: int


class _Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


def saturate(time_ns: int) -> int:
    """Returns a time as far as 64 bits hold it."""
    return max(INT64_MIN, min(INT64_MAX, time_ns))


def _fail() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


def statx(dir_fd: int, name: bytes) -> Statx:
    """Looks at an entry of a directory, not through a symlink."""
    found = Statx()
    flags, mask = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STATX_BASIC_STATS | STATX_BTIME
    while _libc.statx(dir_fd, name, flags, mask, ctypes.byref(found)) < 0:
        if ctypes.get_errno() != errno.EINTR:
            raise _fail()
    return found


def getdents(dir_fd: int) -> Iterator[tuple[bytes, int, int]]:
    """Yields name, inode number and type (DT_*) of what the directory holds from its offset on, "." and ".." too."""
    buffer = ctypes.create_string_buffer(_GETDENTS_BYTES)
    _libc.getdents64.restype = ctypes.c_ssize_t
    while True:
        got = _libc.getdents64(dir_fd, buffer, ctypes.c_size_t(_GETDENTS_BYTES))
        if got < 0:
            if ctypes.get_errno() == errno.EINTR:
                continue
            raise _fail()
        if got == 0:
            return
        records = buffer.raw[:got]
        at = 0
        while at < got:
            ino, _offset, record_bytes, kind = struct.unpack_from("=QqHB", records, at)
            yield records[at + 19 : at + record_bytes].split(b"\0", 1)[0], ino, kind
            at += record_bytes


def rename_noreplace(dir_fd: int, old: bytes, new: bytes) -> None:
    """Renames within a directory unless the new name exists."""
    if not hasattr(_libc, "renameat2"):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if _libc.renameat2(dir_fd, old, dir_fd, new, RENAME_NOREPLACE) < 0:
        raise _fail()


def set_mtime(fd: int, mtime_ns: int) -> None:
    """Sets the modification time of an open file, and leaves its access time."""
    seconds, rest_ns = divmod(mtime_ns, 1_000_000_000)
    times = (_Timespec * 2)(_Timespec(0, _UTIME_OMIT), _Timespec(seconds, rest_ns))
    if _libc.futimens(fd, times) < 0:
        raise _fail()
