"""Memory that is not swapped, dumped or inherited, and a process that leaves no core: for what the agent holds.

The key is read from a pipe into it and written to a socket out of it, and never becomes an object of Python, which
could not be wiped.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import resource

from respaldo.core.private import forbid_cores

_PR_SET_NO_NEW_PRIVS = 38
_WIPE_ON_FORK = 18


class Locked:
    """Is a page of locked memory. Raises `OSError` where the system does not allow to lock it."""

    def __init__(self, length_bytes: int) -> None:
        self._map = mmap.mmap(-1, length_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._buffer = (ctypes.c_char * length_bytes).from_buffer(self._map)
        self.view = memoryview(self._map)
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mlock(ctypes.byref(self._buffer), ctypes.c_size_t(length_bytes)):
            number = ctypes.get_errno()
            raise OSError(number, f"cannot lock memory ({os.strerror(number)}; see: ulimit -l)")
        self._map.madvise(mmap.MADV_DONTDUMP)
        self._map.madvise(_WIPE_ON_FORK)

    def fill(self, fd: int) -> None:
        """Reads all of it from a pipe; raises `EOFError` where less comes."""
        at = 0
        while at < len(self.view):
            length = os.readv(fd, [self.view[at:]])
            if not length:
                raise EOFError
            at += length

    def wipe(self) -> None:
        """Overwrites it; may be called again."""
        ctypes.memset(ctypes.byref(self._buffer), 0, len(self.view))


def harden() -> None:
    """Forbids cores of this process, for good, and others of its user to look into it."""
    forbid_cores()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, f"prctl: {os.strerror(number)}")
