"""An fsync that does not wait for the disk that tests write to.

No test cuts the power of the machine it runs on: those of durability bring disks of their own, which lose what was not
synced, or hand in what counts calls and fails them. All others wait for the medium, thousands of times.
"""

from __future__ import annotations

import errno
import fcntl
import os
from typing import Final

fsync: Final = os.fsync
"""The real one, for tests that need what they wrote on the medium."""
_fstat: Final = os.fstat


class FsyncElsewhere:
    """Syncs what lies on other file systems, which may refuse it; here it only refuses what the system would."""

    def __init__(self, here: str) -> None:
        self._device = os.stat(here).st_dev

    def __call__(self, file: object) -> None:
        fd = file if isinstance(file, int) else file.fileno()
        if _fstat(fd).st_dev != self._device:
            fsync(fd)
        elif fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_PATH:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
