"""Files and directories that only their owner can reach, from the first moment and whatever the umask.

Everything that the tool makes for itself outside a repository is made here or with the same modes. Never widens or
narrows what was there before. Read here, too, is what only a file is meant to be: a FIFO of its name would be waited
for without end. Also a process that leaves no core, which would be a file of secrets.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import stat
from pathlib import Path

DIRECTORY_MODE = 0o700
FILE_MODE = 0o600
_PR_SET_DUMPABLE = 4


def make_directory(path: Path) -> None:
    """Makes a directory, and those above it that are missing, for the owner alone (`Path.mkdir` spares only the last).

    Raises `OSError`.
    """
    missing = []
    at = path
    while not at.is_dir():
        missing.append(at)
        if at == at.parent:
            break
        at = at.parent
    for folder in reversed(missing):
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=DIRECTORY_MODE)
    if not path.is_dir():
        raise NotADirectoryError(20, os.strerror(20), os.fspath(path))


def write_file(path: Path, data: bytes, *, durable: bool = False) -> None:
    """Puts a file in the place of the one of its name, whole or not at all, and makes its directory.

    ``durable``: also should the machine go down: what was written is on the disk before it has its name.
    Raises `OSError`; leaves nothing behind then.
    """
    make_directory(path.parent)
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        fresh.unlink()  # of a process of the same number that was killed
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise


def open_file(path: Path | str, flags: int = os.O_RDONLY) -> int:
    """Opens a file and returns its descriptor; never waits, whatever lies there.

    Makes it for the owner alone where ``flags`` say so. Raises `OSError`, also for what is no regular file.
    """
    try:
        fd = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, FILE_MODE)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a FIFO that nobody reads, a socket
            raise _no_file(path) from None
        raise
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
        if not stat.S_ISREG(mode):
            raise _no_file(path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def read_file(path: Path | str, most_bytes: int = -1) -> bytes:
    """Returns what is in a file, of a longer one the first ``most_bytes``; never waits. Raises `OSError`."""
    with os.fdopen(open_file(path), "rb") as file:
        return file.read(most_bytes)


def _no_file(path: Path | str) -> OSError:
    return OSError(errno.EINVAL, "it is no regular file", os.fspath(path))


def forbid_cores() -> None:
    """Lets this process leave no core, nor be looked into by others of its user. Raises `OSError`.

    The limit is inherited by what it starts. A handler of cores that is a program heeds no limit: for it, and for
    tracers, the process is not dumpable, which a program that it starts is again.
    """
    import ctypes  # noqa: PLC0415 - start-up time

    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, f"prctl: {os.strerror(number)}")
