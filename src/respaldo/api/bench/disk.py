"""The disk's own sequential rates, beside which everything else is to be seen. Files of a local repository only."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence

from respaldo.api.bench.values import Timing
from respaldo.core.errors import TargetError
from respaldo.core.seams import Cancel, Clock, Random

_PIECE_BYTES = 1 << 20
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


def drop(paths: Iterable[str]) -> None:
    """Takes files out of the page cache, so that reading them is reading the disk; where that fails, they stay."""
    for path in paths:
        with contextlib.suppress(OSError):
            fd = os.open(path, _OPEN)
            try:
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(fd)


def read_rate(paths: Sequence[str], length_max: int, clock: Clock, cancel: Cancel) -> Timing:
    """Reads whole files from beginning to end, until so many bytes are read."""
    length = duration_ns = 0
    for path in paths:
        drop([path])
        with contextlib.suppress(OSError):
            fd = os.open(path, _OPEN)
            try:
                while length < length_max:
                    cancel.check()
                    started_ns = clock.monotonic_ns()
                    count = len(os.read(fd, _PIECE_BYTES))
                    duration_ns += clock.monotonic_ns() - started_ns
                    length += count
                    if not count:
                        break
            finally:
                os.close(fd)
        if length >= length_max:
            break
    return Timing(name="read", length_bytes=length, duration_ns=duration_ns)


def write_rate(name: str, folder: str, length: int, clock: Clock, random: Random, cancel: Cancel) -> Timing:
    """Writes a file that does not compress, until it is on the disk."""
    piece = random(_PIECE_BYTES)
    path = os.path.join(folder, "sequential")
    started_ns = clock.monotonic_ns()
    try:
        with open(path, "xb", buffering=0) as file:
            for _ in range(-(-length // _PIECE_BYTES)):
                cancel.check()
                file.write(piece)
            os.fsync(file.fileno())
            written = file.tell()
        duration_ns = clock.monotonic_ns() - started_ns
        os.unlink(path)
    except OSError as error:
        raise TargetError(os.fsencode(folder), error.strerror or str(error)) from None
    return Timing(name=name, length_bytes=written, duration_ns=duration_ns)
