"""Removal of what lies below a target: never through a link, never on another file system, never what is own.

Mounts stay, too. Goes down and up by `Folder`, so that depth and length of paths do not matter.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from respaldo.core.seams import Cancel
from respaldo.fs.place import Folder
from respaldo.fs.settle import clear_name
from respaldo.kernel.layout import ENTRY_FAILED, ENTRY_MOUNT, IDENT, META


@dataclass(slots=True)
class Removal:
    """Says what a removal did: how many entries went, and what stayed, with the reason (of the first)."""

    entries: int = 0
    kept: int = 0
    mounts: int = 0
    own: int = 0
    first_kept: bytes = b""
    reason: str = ""

    @property
    def failed(self) -> bool:
        """Whether something stayed that is neither mounted nor own; ``reason`` is of the first such one."""
        return self.kept > self.mounts + self.own

    def keep(self, path: bytes, reason: str) -> None:
        """Counts an entry that stayed."""
        failed = self.failed
        self.kept += 1
        self.mounts += reason == MOUNT
        self.own += reason == OWN
        if self.kept == 1 or self.failed > failed:
            self.first_kept, self.reason = path, reason


MOUNT = "it is a mount point"
OWN = "the repository itself is there"
Spares = Callable[[bytes, Sequence[bytes], Sequence[tuple[int, int]]], Sequence[bool]]
"""Says which names stay: of a directory (its path below the folder a removal began in), their modes and sizes."""


def holds_mount(folder: Folder, name: bytes, cancel: Cancel) -> bool:
    """Whether something is mounted on a directory or anywhere below it, on whatever file system, or is own there."""
    found = _Walk(folder, cancel)
    return not found.walk(name, lambda _folder, _name, _is_dir: True, look_only=True) or found.removal.kept > 0


def remove(folder: Folder, name: bytes, cancel: Cancel, spares: Spares | None = None) -> Removal:
    """Removes an entry of a folder and all that is below it; what cannot be removed stays and is counted.

    What is spared below it stays with the directories that it is in, and is not counted.
    """
    walk = _Walk(folder, cancel, spares)
    walk.walk(name, _unlink, look_only=False)
    return walk.removal


def measure(folder: Folder, name: bytes, cancel: Cancel, spares: Spares | None = None) -> tuple[int, int]:
    """Returns how many entries `remove` would find, and their bytes in files.

    What is in a directory that only `remove` would make accessible is not counted.
    """
    length = 0

    def add(below: Folder, entry: bytes, is_dir: bool) -> bool:  # noqa: FBT001 - as `_Walk` calls it
        nonlocal length
        found = None if is_dir else below.look(entry)
        length += found.st_size if found is not None and stat.S_ISREG(found.st_mode) else 0
        return True

    walk = _Walk(folder, cancel, spares)
    walk.walk(name, add, look_only=True)
    return walk.removal.entries, length


def is_mount(folder: Folder, name: bytes) -> bool:
    """Whether a directory of a folder is a mount point."""
    return any(row[0] == name and row[2] for row in _rows(folder, name))


_Row = tuple[bytes, bool, bool]


def _rows(folder: Folder, only: bytes = b"") -> list[_Row]:
    """Returns (name, is a directory, is a mount or cannot be told) of a folder's entries."""
    names, meta, ident = folder.scan()
    rows = []
    for name, (mode, *_), (_, _, _, flags) in zip(names, META.iter_unpack(meta), IDENT.iter_unpack(ident), strict=True):
        if not only or name == only:
            rows.append((name, stat.S_ISDIR(mode), bool(flags & (ENTRY_MOUNT | ENTRY_FAILED))))
    return rows


def _rows_but(folder: Folder, path: bytes, spares: Spares) -> tuple[list[_Row], bool]:
    """Returns the rows of a folder without what is spared, and whether that is all."""
    names, meta, _ = folder.scan()
    spared = spares(path, names, [(row[0], row[4]) for row in META.iter_unpack(meta)])
    left = {name for name, spare in zip(names, spared, strict=True) if spare}
    return [row for row in _rows(folder) if row[0] not in left], not left


def _is_own(folder: Folder, name: bytes) -> bool:
    """Whether an entry is the caller's, who can give itself access to it."""
    found = folder.look(name)
    return found is not None and found.st_uid == os.geteuid()


class _Level:
    """Is a folder that is being walked: what is left to do in it, and whether it is empty by then.

    ``path`` is its own below where the walk began, kept only where it is asked for: it may be very long.
    """

    __slots__ = ("folder", "path", "rows", "whole")

    def __init__(self, folder: Folder, rows: list[_Row], *, path: bytes = b"", whole: bool = True) -> None:
        self.folder = folder
        self.rows = rows
        self.path = path
        self.whole = whole


Act = Callable[[Folder, bytes, bool], bool]


class _Walk:
    def __init__(self, folder: Folder, cancel: Cancel, spares: Spares | None = None) -> None:
        self._top = folder
        self._cancel = cancel
        self._spares = spares
        self.removal = Removal()

    def walk(self, name: bytes, act: Act, *, look_only: bool) -> bool:
        """Walks an entry, the contents of a directory before itself; whether all of it was acted on."""
        top = _Level(self._top, _rows(self._top, name))
        levels = [top]
        try:
            while levels:
                level = levels[-1]
                if level.rows:
                    self._cancel.check()
                    self._step(levels, level, act, look_only=look_only)
                    continue
                levels.pop()
                if levels:
                    self._leave(levels[-1], level, act)
        finally:
            while len(levels) > 1:
                levels.pop().folder.close()
        return top.whole

    def _step(self, levels: list[_Level], level: _Level, act: Act, *, look_only: bool) -> None:
        name, is_dir, is_mount_point = level.rows.pop()
        if is_mount_point:
            self._keep(level, name, MOUNT)
        elif is_dir:
            try:
                below = level.folder.enter(name)
                if below.is_own:
                    below.close()
                    self._keep(level, name, OWN)
                    return
                if not look_only:
                    below.make_writable()
                levels.append(self._level(level, below))
            except OSError as error:
                if look_only and isinstance(error, PermissionError) and _is_own(level.folder, name):
                    self._act(level, name, act, is_dir=True)
                else:
                    self._keep(level, name, error.strerror or str(error))
        else:
            self._act(level, name, act, is_dir=False)

    def _level(self, above: _Level, folder: Folder) -> _Level:
        if self._spares is None:
            return _Level(folder, _rows(folder))
        path = above.path + b"/" + folder.name if above.path else folder.name
        rows, whole = _rows_but(folder, path, self._spares)
        return _Level(folder, rows, path=path, whole=whole)

    def _leave(self, above: _Level, level: _Level, act: Act) -> None:
        name = level.folder.name
        level.folder.close()
        if level.whole:
            self._act(above, name, act, is_dir=True)
        else:
            above.whole = False

    def _act(self, level: _Level, name: bytes, act: Act, *, is_dir: bool) -> None:
        try:
            self.removal.entries += act(level.folder, name, is_dir)
        except FileNotFoundError:
            return
        except OSError as error:
            self._keep(level, name, MOUNT if error.errno == errno.EBUSY else error.strerror or str(error))

    def _keep(self, level: _Level, name: bytes, reason: str) -> None:
        level.whole = False
        path = level.folder.path
        self.removal.keep(path + b"/" + name if path else name, reason)


def _unlink(folder: Folder, name: bytes, is_dir: bool) -> bool:  # noqa: FBT001 - called by `_Walk` only
    def gone() -> None:
        if is_dir:
            os.rmdir(name, dir_fd=folder.fd)
        else:
            os.unlink(name, dir_fd=folder.fd)

    try:
        gone()
    except PermissionError as error:
        if error.errno != errno.EPERM or not clear_name(folder.fd, name):
            raise
        gone()
    return True
