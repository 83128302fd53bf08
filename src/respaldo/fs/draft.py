"""Drafts: entries under a temporary name until they are complete, so that a final name is whole or absent.

A draft is reached by its descriptor only, never again by its name: whoever can write to the directory may swap what the
name means. Its name is random; that of a long file's draft follows from a key instead, so that the next run finds what
a killed one left. Dropped unless published.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Callable
from types import TracebackType
from typing import Self

from respaldo.core.seams import Random, system_random
from respaldo.fs.meta import beside, has_proc
from respaldo.fs.place import TEMPORARY, Folder, check_name
from respaldo.kernel.reference.libc import rename_noreplace

_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_AGAIN = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_PRIVATE = 0o600
_TRIES = 16
Make = Callable[[bytes, int], None]
_NO_ATOMIC_RENAME = frozenset({errno.EINVAL, errno.ENOSYS})
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


def resumable_name(key: bytes) -> bytes:
    """Returns the temporary name that follows from a key."""
    return TEMPORARY + hashlib.blake2b(key, digest_size=8).hexdigest().encode()


class Draft:
    """Is one entry that has no name yet. A context manager: what was not published is removed."""

    __slots__ = ("_folder", "_name", "fd", "resumed")

    def __init__(self, folder: Folder, name: bytes, fd: int, *, resumed: bool = False) -> None:
        self._folder = folder
        self._name = name
        self.fd = fd
        """For reading and writing where it is a regular file; else opened with ``O_PATH``."""
        self.resumed = resumed
        """Whether an earlier run left it: its content is to be compared, not trusted."""

    @classmethod
    def file(cls, folder: Folder, *, key: bytes = b"", random: Random = system_random) -> Draft:
        """Starts a regular file; with a key, goes on with the one that an earlier run left under it."""
        if key:
            draft = cls._again(folder, resumable_name(key))
            if draft:
                return draft
        for _ in range(_TRIES):
            name = _random_name(random)
            try:
                return cls(folder, name, os.open(name, _NEW, _PRIVATE, dir_fd=folder.fd))
            except FileExistsError:
                continue
        raise FileExistsError(errno.EEXIST, "no temporary name is free")

    @classmethod
    def _again(cls, folder: Folder, name: bytes) -> Draft | None:
        """Opens or creates a draft of a known name; None where somebody else is at it or it is not ours."""
        resumed = False
        try:
            fd = os.open(name, _NEW, _PRIVATE, dir_fd=folder.fd)
        except FileExistsError:
            try:
                fd = os.open(name, _AGAIN, dir_fd=folder.fd)
            except OSError:
                return None
            resumed = True
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno != errno.ENOTSUP:
                os.close(fd)
                return None
        found = os.fstat(fd)
        ours = found.st_uid == os.geteuid() and found.st_nlink == 1 and not found.st_mode & 0o7077
        if not stat.S_ISREG(found.st_mode) or not ours:
            os.close(fd)
            return None
        return cls(folder, name, fd, resumed=resumed)

    @classmethod
    def symlink(cls, folder: Folder, target: bytes, *, random: Random = system_random) -> Draft:
        """Makes a symbolic link."""
        return cls._node(folder, stat.S_IFLNK, lambda name, fd: os.symlink(target, name, dir_fd=fd), random)

    @classmethod
    def node(cls, folder: Folder, mode: int, rdev: int, *, random: Random = system_random) -> Draft:
        """Makes a FIFO, a socket or a device (``rdev``: major << 32 | minor); nobody else has access to it yet."""
        kind = stat.S_IFMT(mode)
        device = os.makedev(rdev >> 32, rdev & 0xFFFF_FFFF) if kind in (stat.S_IFBLK, stat.S_IFCHR) else 0
        return cls._node(folder, kind, lambda name, fd: os.mknod(name, kind | _PRIVATE, device, dir_fd=fd), random)

    @classmethod
    def _node(cls, folder: Folder, kind: int, make: Make, random: Random) -> Draft:
        for _ in range(_TRIES):
            name = _random_name(random)
            try:
                make(name, folder.fd)
            except FileExistsError:
                continue
            except OSError:
                with contextlib.suppress(OSError):  # exFAT by FUSE makes a file of a FIFO, and says that it failed
                    os.unlink(name, dir_fd=folder.fd)
                raise
            fd = os.open(name, _LOOK, dir_fd=folder.fd)
            found = os.fstat(fd)
            if stat.S_IFMT(found.st_mode) == kind and found.st_nlink == 1 and found.st_uid == os.geteuid():
                return cls(folder, name, fd)
            os.close(fd)
            break
        raise FileExistsError(errno.EEXIST, "somebody else writes to the directory")

    @property
    def where(self) -> int | bytes:
        """What calls that change its metadata take: the descriptor, or its path where it is no regular file."""
        if stat.S_ISREG(os.fstat(self.fd).st_mode):
            return self.fd
        return beside(self.fd, b"")[:-1] if has_proc() else beside(self._folder.fd, self._name)

    def stat(self) -> os.stat_result:
        """Returns what it has now."""
        return os.fstat(self.fd)

    def publish(self, name: bytes, *, replace: bool) -> None:
        """Gives it its final name, in place of what has it (no directory) only if told to. Raises `OSError`."""
        check_name(name)
        fd = self._folder.fd
        if replace:
            os.rename(self._name, name, src_dir_fd=fd, dst_dir_fd=fd)
        else:
            rename_new(fd, self._name, name)
        self._name = b""

    def close(self) -> None:
        """Closes its descriptor, and removes what was not published."""
        if self.fd < 0:
            return
        os.close(self.fd)
        self.fd = -1
        self.drop()

    def drop(self) -> None:
        """Removes what was not published."""
        if self._name:
            name, self._name = self._name, b""
            try:
                os.unlink(name, dir_fd=self._folder.fd)
            except OSError:  # The directory is gone, or forbids it: nothing better can be done.
                return

    def keep(self) -> None:
        """Leaves it under its temporary name, for a later run to go on with."""
        self._name = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def link(
    source: Folder, old: bytes, folder: Folder, new: bytes, *, replace: bool, random: Random = system_random
) -> None:
    """Makes a hard link to an entry, never to what a symlink leads to. Raises `OSError`."""
    check_name(old)
    check_name(new)
    if not replace:
        os.link(old, new, src_dir_fd=source.fd, dst_dir_fd=folder.fd, follow_symlinks=False)
        return
    name = _random_name(random)
    os.link(old, name, src_dir_fd=source.fd, dst_dir_fd=folder.fd, follow_symlinks=False)
    try:
        os.rename(name, new, src_dir_fd=folder.fd, dst_dir_fd=folder.fd)
    finally:
        # Renaming one name of a file over another of its names does nothing, successfully.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder.fd)


def _random_name(random: Random) -> bytes:
    return TEMPORARY + random(8).hex().encode()


def rename_new(dir_fd: int, old: bytes, new: bytes) -> None:
    """Renames unless the new name exists, by the best way that the file system knows. Raises `OSError`."""
    try:
        rename_noreplace(dir_fd, old, new)
        return
    except AttributeError:  # A C library without renameat2.
        pass
    except OSError as error:
        if error.errno == errno.EEXIST:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new) from None
        if error.errno not in _NO_ATOMIC_RENAME:
            raise
    try:
        os.link(old, new, src_dir_fd=dir_fd, dst_dir_fd=dir_fd, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    else:
        os.unlink(old, dir_fd=dir_fd)
        return
    # No atomic way is left (FAT by FUSE): whoever creates the name between these two calls loses it.
    try:
        os.stat(new, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        os.rename(old, new, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        return
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new)
