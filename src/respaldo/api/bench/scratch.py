"""Scratch directories: made where there is room, locked while somebody measures, removed whatever happens.

A run that was killed leaves its directory behind, without the lock: the next one removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator

from respaldo.core.errors import TargetError
from respaldo.core.seams import Cancel, Random
from respaldo.fs.place import Target
from respaldo.fs.remove import remove

PREFIX = ".respaldo-bench-"
_NEW = ".new"
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MARGIN_BYTES = 64 << 20
"""So much stays free: nobody likes a full disk."""


@contextlib.contextmanager
def scratch(place: str, random: Random) -> Iterator[str]:
    """Gives a new directory in a place, for this run alone. Raises `TargetError` where none can be made."""
    _sweep(place)
    name = PREFIX + random(8).hex()
    path = os.path.join(place, name)
    try:
        # It gets its name once it is locked, so that nobody takes it for what a killed run left.
        os.mkdir(path + _NEW, 0o700)
        fd = os.open(path + _NEW, _OPEN)
    except OSError as error:
        raise TargetError(os.fsencode(place), error.strerror or str(error), hint=_HINT) from None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        os.rename(path + _NEW, path)
        try:
            yield path
        finally:
            _remove(place, name)
    finally:
        os.close(fd)


_HINT = "name a directory on a disk with room: --directory DIRECTORY"


def _sweep(place: str) -> None:
    """Removes what killed runs of this user left."""
    with contextlib.suppress(OSError), os.scandir(place) as entries:
        for entry in entries:
            if not entry.name.startswith(PREFIX) or entry.name.endswith(_NEW):
                continue
            with contextlib.suppress(OSError):
                fd = os.open(entry.path, _OPEN)
                try:
                    if os.fstat(fd).st_uid == os.geteuid():
                        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        _remove(place, entry.name)
                finally:
                    os.close(fd)


def _remove(place: str, name: str) -> None:
    """Removes a directory, whatever modes and flags were restored in it."""
    with Target(os.fsencode(place), looks_only=True) as target:
        found = remove(target.root, os.fsencode(name), Cancel())
    if found.kept:
        raise TargetError(os.fsencode(os.path.join(place, name)), f"it could not be removed: {found.reason}")


def beside(path: str, need: int) -> str | None:
    """Returns the directory that a repository lies in, if it is on the same file system, writable, and has room."""
    parent = os.path.dirname(path)
    try:
        same = os.stat(parent).st_dev == os.stat(path).st_dev
        roomy = shutil.disk_usage(parent).free >= need + _MARGIN_BYTES
    except OSError:
        return None
    return parent if same and roomy and os.access(parent, os.W_OK | os.X_OK) else None


def with_room(places: tuple[str, ...], need_on: Callable[[int], int]) -> str:
    """Returns the first place that has as much room as is needed on its device; raises `TargetError` where none has."""
    reasons: list[tuple[int, str, str]] = []
    for place in places:
        try:
            free = shutil.disk_usage(place).free
            need = need_on(os.stat(place).st_dev) + _MARGIN_BYTES
        except OSError as error:
            reasons.append((-2, place, error.strerror or str(error)))
            continue
        if not os.access(place, os.W_OK | os.X_OK):
            reasons.append((-1, place, "nothing can be written there"))
        elif free >= need:
            return place
        else:
            reasons.append((free, place, f"{free >> 20:,} MiB are free, and measuring takes up to {need >> 20:,} MiB"))
    _, place, reason = max(reasons, default=(0, ".", "no directory was named"))
    raise TargetError(os.fsencode(place), reason, hint=f"{_HINT}, or measure less: --quick, --size 16MiB")
