"""Holes: writing without them where they are not wanted, and making them where they are."""

from __future__ import annotations

import ctypes
import errno
import os

from respaldo.kernel.layout import HOLE_BYTES

_KEEP_SIZE = 1
_PUNCH_HOLE = 2
_ZEROS = bytes(HOLE_BYTES)
_BUFFERS_MAX = 64
_ZEROS_AT_ONCE = 1 << 20
_libc = ctypes.CDLL(None, use_errno=True)


def write_all(fd: int, pieces: list[memoryview], offset: int) -> None:
    """Writes pieces one after another; raises `OSError`."""
    first = 0
    while first < len(pieces):
        batch = pieces[first : first + _BUFFERS_MAX]
        first += len(batch)
        while batch:
            written = os.pwritev(fd, batch, offset)
            if written == 0 and any(batch):
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            offset += written
            while batch and written >= len(batch[0]):
                written -= len(batch.pop(0))
            if batch:
                batch[0] = batch[0][written:]


def write_sparse(fd: int, piece: memoryview, offset: int) -> int:
    """Writes a piece but for the blocks of zeros in it: the file must have a hole there already.

    So does what it holds of a block at either end, if that is zeros: the rest of the block may be zeros of the next
    piece. Returns how many bytes it wrote.
    """
    raw = bytes(piece)
    start = at = written = 0
    while at < len(raw):
        end = min(len(raw), at + HOLE_BYTES - (offset + at) % HOLE_BYTES)
        if raw[at:end] == _ZEROS[: end - at]:
            if start < at:
                write_all(fd, [piece[start:at]], offset + start)
                written += at - start
            start = end
        at = end
    if start < at:
        write_all(fd, [piece[start:at]], offset + start)
        written += at - start
    return written


def stretch(fd: int, size: int) -> None:
    """Gives a file its size before its holes are passed over; one that is longer stays as it is. Raises `OSError`.

    What is written beyond the end of a file makes XFS set space aside behind it, also the space of the next holes.
    """
    now = os.fstat(fd).st_size
    if now < size:
        # To the size that it has: lets go of what was set aside so far.
        os.ftruncate(fd, now)
        os.ftruncate(fd, size)


def punch(fd: int, offset: int, length: int) -> None:
    """Makes a range a hole, or writes zeros where the file system knows no such thing. The size stays."""
    end = min(offset + length, os.fstat(fd).st_size)
    if end <= offset:
        return
    mode = ctypes.c_int(_PUNCH_HOLE | _KEEP_SIZE)
    try:
        done = _libc.fallocate(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(end - offset))
    except AttributeError:  # A C library without it.
        done = -1
    if done == 0:
        return
    zeros = memoryview(bytes(_ZEROS_AT_ONCE))
    while offset < end:
        write_all(fd, [zeros[: end - offset]], offset)
        offset += min(len(zeros), end - offset)
