"""`scatter` in Python: creates many regular files in one directory, each whole or absent under its own name."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
from collections.abc import Sequence
from typing import Final

from respaldo.core.seams import Buffer
from respaldo.kernel import layout
from respaldo.kernel.reference import libc
from respaldo.kernel.reference.arguments import descriptor, flags, name_is_safe, read_bytes, split_names

_ALL_OPTIONS: Final = layout.SCATTER_OWNER | layout.SCATTER_SYNC | layout.SCATTER_SPARSE | layout.SCATTER_PRIVATE
_OPEN_FLAGS: Final = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_SET_ID: Final = stat.S_ISUID | stat.S_ISGID
# The next file would meet the same: the target as a whole is what failed.
_STOPPING: Final = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_ZEROS: Final = bytes(layout.HOLE_BYTES)


class _File:
    """Is one file on its way: how far it got, for the row that tells."""

    def __init__(self) -> None:
        self.stage = layout.STAGE_CHECK
        self.error = 0
        self.marks = 0

    def row(self) -> bytes:
        return layout.SCATTERED.pack(self.error, self.stage if self.error else layout.STAGE_OK, self.marks)


def scatter(
    dir_fd: int,
    names: Buffer,
    meta: Buffer,
    counts: Buffer,
    pieces: Sequence[Buffer],
    prefix: Buffer,
    options: int,
) -> bytes:
    """Creates regular files from pieces and returns a SCATTERED row each; see `respaldo.kernel`."""
    dir_fd, options = descriptor(dir_fd), flags(options, _ALL_OPTIONS)
    listed, meta_rows, count_rows = split_names(read_bytes(names)), read_bytes(meta), read_bytes(counts)
    if len(meta_rows) != len(listed) * layout.META.size or len(count_rows) != len(listed) * 4:
        raise ValueError("names, meta and counts do not hold the same number of rows")
    temporary = read_bytes(prefix)
    if not 0 < len(temporary) <= layout.PREFIX_MAX_BYTES or b"/" in temporary or b"\0" in temporary:
        raise ValueError("prefix must be 1 to 200 bytes without slash and NUL")
    if not hasattr(type(pieces), "__getitem__") or isinstance(pieces, dict):
        raise TypeError("pieces must be a sequence of buffers")
    numbers = struct.unpack(f"<{len(listed)}I", count_rows)
    if sum(numbers) != len(pieces):
        raise ValueError("counts do not add up to the number of pieces")
    contents = [read_bytes(pieces[at]) for at in range(len(pieces))]

    rows = []
    stopped = False
    at = 0
    for index, (name, meta_row, number) in enumerate(
        zip(listed, layout.META.iter_unpack(meta_rows), numbers, strict=True)
    ):
        file = _File()
        if stopped:
            file.error, file.stage = errno.ECANCELED, layout.STAGE_OPEN
        else:
            content = b"".join(contents[at : at + number])
            _scatter_one(file, dir_fd, name, meta_row, content, temporary + b"%d" % index, options)
        stopped = stopped or file.error in _STOPPING
        rows.append(file.row())
        at += number
    return b"".join(rows)


def _scatter_one(
    file: _File,
    dir_fd: int,
    name: bytes,
    meta_row: tuple[int, ...],
    content: bytes,
    temporary: bytes,
    options: int,
) -> None:
    if len(content) != meta_row[4] or not name_is_safe(name):
        file.error = errno.EINVAL
        return
    if options & layout.SCATTER_PRIVATE:
        temporary = name
    try:
        file.stage = layout.STAGE_OPEN
        fd = os.open(temporary, _OPEN_FLAGS, 0o600, dir_fd=dir_fd)
    except OSError as error:
        file.error = error.errno or errno.EIO
        return
    try:
        try:
            _fill(file, fd, meta_row, content, options)
        except OSError:
            with contextlib.suppress(OSError):
                os.close(fd)
            raise
        file.stage = layout.STAGE_CLOSE
        os.close(fd)
        file.stage = layout.STAGE_RENAME
        if temporary is not name:
            _rename_new(dir_fd, temporary, name)
    except OSError as error:
        file.error = error.errno or errno.EIO
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=dir_fd)


def _fill(file: _File, fd: int, meta_row: tuple[int, ...], content: bytes, options: int) -> None:
    file.stage = layout.STAGE_WRITE
    if options & layout.SCATTER_SPARSE:
        _write_sparse(fd, content)
    else:
        _write(fd, content, 0)
    _set_metadata(file, fd, meta_row, options)
    if options & layout.SCATTER_SYNC:
        file.stage = layout.STAGE_WRITE
        os.fdatasync(fd)


def _write(fd: int, content: bytes, offset: int) -> None:
    with memoryview(content) as view:
        done = 0
        while done < len(view):
            written = os.pwrite(fd, view[done:], offset + done)
            if written == 0:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            done += written


def _write_sparse(fd: int, content: bytes) -> None:
    """Writes all but the whole aligned blocks of zeros, one stretch of data after another."""
    start = at = 0
    # First the size: writing beyond the end, XFS sets space aside behind it, also that of the holes.
    if len(content) >= layout.HOLE_BYTES:
        os.ftruncate(fd, len(content))
    while at < len(content):
        block = content[at : at + layout.HOLE_BYTES]
        if block == _ZEROS:
            _write(fd, content[start:at], start)
            start = at + len(block)
        at += len(block)
    _write(fd, content[start:], start)


def _set_metadata(file: _File, fd: int, meta_row: tuple[int, ...], options: int) -> None:
    """Gives the open file owner, mode and time, in this order: chown clears set-id bits."""
    mode, uid, gid = meta_row[0] & 0o7777, meta_row[1], meta_row[2]
    file.stage = layout.STAGE_OWNER
    owned = False
    if options & layout.SCATTER_OWNER:
        # -1 would mean "as it is", and succeed.
        if 0xFFFF_FFFF not in (uid, gid):
            with contextlib.suppress(OSError):
                os.fchown(fd, uid, gid)
                owned = True
        if not owned:
            file.marks |= layout.SCATTER_OWNER_FAILED
    elif mode & _SET_ID:
        found = os.fstat(fd)
        owned = (found.st_uid, found.st_gid) == (uid, gid)
    # A set-id bit on a file of another owner would lend out the wrong identity.
    if not owned:
        mode &= ~_SET_ID
    file.stage = layout.STAGE_MODE
    os.fchmod(fd, mode)
    file.stage = layout.STAGE_TIMES
    libc.set_mtime(fd, meta_row[5])


def _rename_new(dir_fd: int, temporary: bytes, name: bytes) -> None:
    """Gives the finished temporary its name without replacing anything."""
    try:
        libc.rename_noreplace(dir_fd, temporary, name)
        return
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS):
            raise
    try:
        os.link(temporary, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
    else:
        os.unlink(temporary, dir_fd=dir_fd)
        return
    # No atomic way is left (FAT by FUSE): whoever creates the name between these two calls loses it.
    with contextlib.suppress(FileNotFoundError):
        os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    os.rename(temporary, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
