"""Unfinished directories: filled under a private name, and named when their files are whole (ADR 40).

A killed run leaves at most one in each directory; the next one removes it. Invariant: what is removed as such looks
just as one that this run would make, holds nothing but files, and nobody is at it, which a lock on it tells.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
from collections.abc import Iterator

from respaldo.fs.draft import rename_new
from respaldo.fs.place import TEMPORARY, Folder

_ENDING = b"-directory"
_NAME = re.compile(rb"\.respaldo-[0-9a-f]{16}-directory")
_TRIES = 16
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def is_unfinished(name: bytes) -> bool:
    """Whether a name is one that a restore gives to a directory whose files it has not finished."""
    return bool(_NAME.fullmatch(name))


def make_unfinished(above: Folder) -> Folder:
    """Makes one, and locks it. Raises `OSError`.

    Between the one and the other, another run may take it for what a killed one left: then another is made. Each has a
    name of its own, so that one that cannot be removed is in nobody's way.
    """
    for _ in range(_TRIES):
        try:
            folder = above.make(TEMPORARY + above.target.random(8).hex().encode() + _ENDING)
        except FileExistsError:
            continue
        if _lock(folder.fd) and os.fstat(folder.fd).st_nlink:
            return folder
        folder.close()
    raise FileExistsError(errno.EEXIST, "no temporary name is free")


def _lock(fd: int) -> bool:
    """Whether nobody else has the lock; where the file system knows none, too."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def publish(folder: Folder, name: bytes) -> None:
    """Gives it its name, unless something has that. Raises `OSError`."""
    if folder.parent is not None:
        rename_new(folder.parent.fd, folder.name, name)
        folder.name = name


def remove_unfinished(above: Folder, name: bytes) -> None:
    """Removes one that a killed run left, with the files in it. Raises `OSError`."""
    with _left(above, name) as (fd, files):
        for file in files or ():
            os.unlink(file.name, dir_fd=fd)
        if files is not None:
            os.rmdir(name, dir_fd=above.fd)  # still locked: whoever makes one now sees that it has gone


def measure_unfinished(above: Folder, name: bytes) -> tuple[int, int]:
    """Returns how many entries, and bytes, `remove_unfinished` would make room for. Raises `OSError`."""
    with _left(above, name) as (_, files):
        if files is None:
            return 0, 0
        return len(files) + 1, sum(file.stat(follow_symlinks=False).st_blocks * 512 for file in files)


@contextlib.contextmanager
def _left(above: Folder, name: bytes) -> Iterator[tuple[int, list[os.DirEntry[str]] | None]]:
    """Opens and locks one that a killed run left: its descriptor and its files, None unless it is such a one."""
    fd = os.open(name, _OPEN, dir_fd=above.fd)
    try:
        if not _as_made(above, os.fstat(fd)):
            yield fd, None
            return
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with os.scandir(fd) as entries:
            held = list(entries)
        yield fd, held if all(entry.is_file(follow_symlinks=False) for entry in held) else None
    finally:
        os.close(fd)


def _as_made(above: Folder, found: os.stat_result) -> bool:
    """Whether a directory is on the same file system, this user's, and nobody else's to look into."""
    if found.st_dev != above.dev:
        return False
    if found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) & ~stat.S_ISGID == stat.S_IRWXU:
        return True
    if above.target.looks_only:
        return False
    # One that knows neither owners nor modes, as FAT, gives the same to what is made now.
    like = make_unfinished(above)
    try:
        return (like.found.st_uid, like.found.st_mode) == (found.st_uid, found.st_mode)
    finally:
        like.close()
        os.rmdir(like.name, dir_fd=above.fd)
