"""`gather` in Python: reads many regular files of one directory, and notices when one changes meanwhile."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from typing import Final

from respaldo.core.seams import Buffer
from respaldo.kernel import layout
from respaldo.kernel.reference.arguments import descriptor, name_is_safe, read_bytes, split_names, writable
from respaldo.kernel.reference.libc import saturate

# _IOR('f', 1, long), as most architectures encode it.
_FS_IOC_GETFLAGS: Final = 2 << 30 | struct.calcsize("l") << 16 | ord("f") << 8 | 1
# O_NONBLOCK: a FIFO that took the file's place must not block. O_NOATIME is the owner's privilege.
_OPEN_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def gather(dir_fd: int, names: Buffer, meta: Buffer, ident: Buffer, out: bytearray | memoryview) -> bytes:
    """Reads regular files into ``out`` and returns a GATHERED row each; see `respaldo.kernel`."""
    dir_fd = descriptor(dir_fd)
    joined, meta_rows, ident_rows = read_bytes(names), read_bytes(meta), read_bytes(ident)
    with writable(out) as into:
        listed = split_names(joined)
        if len(meta_rows) != len(listed) * layout.META.size or len(ident_rows) != len(listed) * layout.IDENT.size:
            raise ValueError("names, meta and ident do not hold the same number of rows")
        expected = list(
            zip(listed, layout.META.iter_unpack(meta_rows), layout.IDENT.iter_unpack(ident_rows), strict=True)
        )
        if sum(row[4] for _, row, _ in expected) > len(into):
            raise ValueError("out is shorter than the files together")
        rows = []
        start = 0
        for name, meta_row, ident_row in expected:
            size = meta_row[4]
            with into[start : start + size] as place:
                rows.append(_gather_one(dir_fd, name, meta_row, ident_row, place))
            start += size
        return b"".join(rows)


class _Reading:
    """Is one file on its way: what is known of it when an error ends it."""

    def __init__(self) -> None:
        self.done = 0
        self.error = 0
        self.marks = 0
        self.attributes = 0

    def row(self) -> bytes:
        return layout.GATHERED.pack(self.done, self.error, self.marks, self.attributes, 0)


def _gather_one(
    dir_fd: int, name: bytes, meta_row: tuple[int, ...], ident_row: tuple[int, ...], place: memoryview
) -> bytes:
    reading = _Reading()
    if not name_is_safe(name):
        reading.error = errno.EINVAL
        return reading.row()
    try:
        fd = _open(dir_fd, name)
        try:
            _read_checked(reading, fd, meta_row, ident_row, place)
        finally:
            os.close(fd)
    except OSError as error:
        reading.error = error.errno or errno.EIO
    return reading.row()


def _open(dir_fd: int, name: bytes) -> int:
    try:
        return os.open(name, _OPEN_FLAGS | os.O_NOATIME, dir_fd=dir_fd)
    except PermissionError as error:
        if error.errno != errno.EPERM:
            raise
        return os.open(name, _OPEN_FLAGS, dir_fd=dir_fd)


def _read_checked(
    reading: _Reading, fd: int, meta_row: tuple[int, ...], ident_row: tuple[int, ...], place: memoryview
) -> None:
    """Reads one file between two looks at it."""
    before = os.fstat(fd)
    if not stat.S_ISREG(before.st_mode):
        reading.marks = layout.GATHER_CHANGED | layout.GATHER_NOT_REGULAR
        return
    ino, ctime_ns = ident_row[0], ident_row[1]
    if (
        ino not in (0, before.st_ino)
        or (before.st_size, saturate(before.st_mtime_ns)) != (meta_row[4], meta_row[5])
        or ctime_ns not in (0, saturate(before.st_ctime_ns))
    ):
        reading.marks |= layout.GATHER_CHANGED
    beyond = bytearray(1)
    while True:
        with place[reading.done :] as rest:
            got = os.readv(fd, [rest, beyond])
            more = got > len(rest)
            reading.done += min(got, len(rest))
        # A read that came back short after the last expected byte met the end of the file.
        if got == 0 or reading.done == len(place):
            break
    if more or reading.done < len(place):
        reading.marks |= layout.GATHER_CHANGED
    after = os.fstat(fd)
    if (before.st_mtime_ns, before.st_ctime_ns, before.st_size) != (
        after.st_mtime_ns,
        after.st_ctime_ns,
        after.st_size,
    ):
        reading.marks |= layout.GATHER_CHANGED
    reading.marks |= _xattrs_mark(fd)
    reading.attributes = _inode_flags(fd)


def _xattrs_mark(fd: int) -> int:
    try:
        return layout.GATHER_XATTRS if os.listxattr(fd) else 0
    except OSError as error:
        # Any other error (a list that is too long, say) leaves it to the caller to look.
        return 0 if error.errno in (errno.ENOTSUP, errno.ENOSYS) else layout.GATHER_XATTRS


def _inode_flags(fd: int) -> int:
    answer = bytearray(8)
    try:
        fcntl.ioctl(fd, _FS_IOC_GETFLAGS, answer)
    except OSError:
        return 0
    found: int = struct.unpack_from("=I", answer)[0]
    return found & layout.INODE_FLAGS
