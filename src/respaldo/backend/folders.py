"""The directories of a repository on a file system: opened one below the other, made when first needed.

Invariant: a directory that an object is put into is itself durable, or the object would be lost with it in a crash,
however well it was synced; and no symbolic link below the root is ever followed to write, list or delete, or whoever
may write to a repository could turn a backup that runs as root against the rest of the machine.

Never: keeps a descriptor below the root (two listings through one descriptor share its position and each miss what the
other read), or removes a directory (another process may be about to put an object into it).
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import Final

from respaldo.backend.publish import Syncer

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ROOT: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_MODE: Final = 0o700


def shard(folder: str, leaf: str) -> str:
    """Returns the directory below a folder that an object lies in: packs have 256 of them, other folders none."""
    return leaf[:2] if folder == "packs" else ""


def path_of(folder: str, leaf: str) -> str:
    """Returns an object's path relative to the root."""
    if folder == "packs":
        return f"packs/{leaf[:2]}/{leaf}"
    return f"{folder}/{leaf}" if folder else leaf


class Folders:
    """Opens a repository's directories. Thread-safe; every descriptor it returns is the caller's to close."""

    def __init__(self, path: str, syncer: Syncer, *, create: bool) -> None:
        """Opens the root, which is made with its parents where `create` says so. Raises OSError."""
        self.path = os.path.abspath(path)
        self._syncer = syncer
        self._lock = threading.Lock()
        # Directories that are known to survive a crash, as "folder" or "packs/ab".
        self._durable: set[str] = set()
        if create:
            self._make_root(self.path)
        self.root = os.open(self.path, _ROOT)

    def close(self) -> None:
        """Lets go of the root; may be called again."""
        fd, self.root = self.root, -1
        if fd >= 0:
            os.close(fd)

    def is_gone(self) -> bool:
        """Tells whether the root has been removed or unmounted, or something else mounted over it, since it was opened.

        Asked when something is not there: only below a root that is in place does that mean what it says.
        """
        try:
            held = os.fstat(self.root)
            if held.st_nlink == 0:
                return True
            return not os.path.samestat(held, os.stat(self.path))
        except PermissionError:
            return False  # a process that has given up its rights still has the descriptor
        except OSError:
            return True

    def open(self, folder: str, subfolder: str = "") -> int:
        """Opens a folder ("" is the root) or a directory below it. Raises FileNotFoundError where there is none yet."""
        fd = os.open(".", _DIRECTORY, dir_fd=self.root)
        for name in filter(None, (folder, subfolder)):
            fd = _descend(fd, name)
        return fd

    def open_or_make(self, folder: str, subfolder: str = "") -> int:
        """Opens a folder or a directory below it to put an object into; makes it, and makes that durable."""
        fd = os.open(".", _DIRECTORY, dir_fd=self.root)
        key = ""
        for name in filter(None, (folder, subfolder)):
            key = f"{key}/{name}" if key else name
            try:
                if key not in self._durable:
                    self._settle(fd, key, name)
                below = self._open_again(fd, key, name)
            finally:
                os.close(fd)
            fd = below
        return fd

    def _open_again(self, parent: int, key: str, name: str) -> int:
        try:
            return os.open(name, _DIRECTORY, dir_fd=parent)
        except FileNotFoundError:
            # Somebody removed what we had made.
            self._settle(parent, key, name)
            return os.open(name, _DIRECTORY, dir_fd=parent)

    def _settle(self, parent: int, key: str, name: str) -> None:
        """Makes a directory unless it is there, and then sure that it and its siblings survive a crash.

        One that is there may have been made a moment ago by a process that has not synced it yet, or died before it
        could. All names that are listed *before* the sync are durable after it, so that an existing repository costs
        one sync and not one for each of 256 directories.
        """
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, _MODE, dir_fd=parent)
        prefix = key[: len(key) - len(name)]
        fd = os.open(".", _DIRECTORY, dir_fd=parent)
        try:
            names = os.listdir(fd)
        finally:
            os.close(fd)
        self._syncer.sync_dir(parent)
        with self._lock:
            self._durable.update(prefix + sibling for sibling in names if not sibling.startswith("."))

    def _make_root(self, path: str) -> None:
        parent = os.path.dirname(path)
        if not os.path.isdir(parent):
            self._make_root(parent)
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, _MODE)
        fd = os.open(parent, _ROOT)
        try:
            self._syncer.sync_dir(fd)
        finally:
            os.close(fd)


def _descend(parent: int, name: str) -> int:
    try:
        return os.open(name, _DIRECTORY, dir_fd=parent)
    finally:
        os.close(parent)
