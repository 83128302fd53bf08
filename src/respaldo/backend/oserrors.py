"""What an error of the repository's file system means to whoever called.

Invariant: a full disk, a refusal and a disk that has gone are three different errors of the *repository*; none of them
is ever mistaken for an unreadable source, or for an object that is not there.

Never: decides about ENOENT and EEXIST, which mean different things to different calls.
"""

from __future__ import annotations

import errno
import os
from typing import Final

from respaldo.core.errors import (
    Corruption,
    RespaldoError,
    StorageDenied,
    StorageFailed,
    StorageFull,
)

GONE_HINT: Final = "check that the repository's disk is connected and mounted, then run the command again"

_FULL: Final = frozenset((errno.ENOSPC, errno.EDQUOT))
_DENIED: Final = frozenset((errno.EACCES, errno.EPERM, errno.EROFS))
_GONE: Final = frozenset(
    (
        *(errno.EIO, errno.ENODEV, errno.ESTALE, errno.ENXIO, errno.ENOENT, errno.ENOMEDIUM, errno.EREMOTEIO),
        # FUSE: ENOTCONN once the daemon is away, ECONNABORTED for the call that was under way when it went.
        *(errno.ENOTCONN, errno.ECONNABORTED),
        *(errno.ECONNRESET, errno.ESHUTDOWN, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH),
    )
)
# A network file system (soft mounts) or FUSE daemon that may answer the next time.
_PASSING: Final = frozenset((errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.ETIMEDOUT, errno.ENOBUFS))
# What opening or reading something else than a regular file or a directory, where one should be, leads to.
_MISPLACED: Final = {
    errno.ENOTDIR: "something else than a directory stands where one should be",
    errno.ELOOP: "a symbolic link stands where an object should be",
    errno.EISDIR: "a directory stands where an object should be",
    errno.ESPIPE: "a pipe or a device stands where an object should be",
}


def storage_error(error: OSError, name: str) -> RespaldoError:
    """Returns the error to raise for one of the file system's about an object or a folder."""
    number = error.errno or 0
    reason = os.strerror(number) if number else str(error)
    if number in _FULL:
        return StorageFull(name, reason)
    if number in _DENIED:
        return StorageDenied(name, reason)
    if number in _MISPLACED:
        return Corruption(name, _MISPLACED[number])
    if number in _GONE:
        return StorageFailed(name, reason, hint=GONE_HINT)
    if number in (errno.EMFILE, errno.ENFILE):
        return StorageFailed(name, reason, hint="raise the limit of open files (ulimit -n)")
    if number == errno.EFBIG:
        return StorageFailed(name, reason, hint="raise the limit of file sizes (ulimit -f), or use another file system")
    return StorageFailed(name, reason, retryable=number in _PASSING)
