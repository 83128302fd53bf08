"""Places to write to: a target directory and the folders below it, reached name by name and never through a link.

Invariant: everything happens relative to the descriptor of a directory that was opened from its parent with
``O_NOFOLLOW``, by a name that `check_name` let pass. Whatever a snapshot or a neighbour puts in the way, nothing
outside the root is touched. Only single names reach the kernel, so that no path is too long; of a deep tree only the
lowest folders hold a descriptor, and the others are opened again, and recognised by device and inode, when they are
returned to.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections import deque
from collections.abc import Collection, Iterable
from types import TracebackType
from typing import Self

from respaldo import kernel
from respaldo.core.errors import TargetError
from respaldo.core.seams import Random, system_random
from respaldo.fs.meta import FLAGS_IN_THE_WAY, beside, write_flags

AWAKE_MAX = 48
"""How many folders of one target hold a descriptor, besides the root."""
NAME_BYTES_MAX = 255
TEMPORARY = b".respaldo-"
_TEMPORARY = re.compile(rb"\.respaldo-[0-9a-f]{16}(-[0-9]+)?")
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_PRIVATE = 0o700
_NEVER_NS = (1 << 63) - 1


def check_name(name: bytes) -> None:
    """Raises `TargetError` unless a name stays in its directory."""
    if not name or b"/" in name or b"\0" in name or name in (b".", b".."):
        raise TargetError(name, "a name in the snapshot would leave its directory")
    if len(name) > NAME_BYTES_MAX:
        raise TargetError(name, "a name in the snapshot is longer than a name can be")


def is_temporary(name: bytes) -> bool:
    """Whether a name is one that a restore gives to what it has not finished."""
    return bool(_TEMPORARY.fullmatch(name))


class Folder:
    """Is an open directory below a target. Made by `Target` and `Folder`; closed lowest first."""

    __slots__ = ("dev", "found", "held", "ino", "name", "parent", "target")

    def __init__(self, target: Target, parent: Folder | None, name: bytes, fd: int) -> None:
        self.target = target
        self.parent = parent
        self.name = name
        self.held = fd
        self.found = found = os.fstat(fd)
        """What it had when it was opened."""
        self.dev = found.st_dev
        self.ino = found.st_ino

    @property
    def fd(self) -> int:
        """Its descriptor: do not keep it, a folder may fall asleep when another is opened."""
        if self.held < 0:
            self.wake()
        return self.held

    @property
    def is_own(self) -> bool:
        """Whether it is a directory that nothing is to be changed in."""
        return (self.dev, self.ino) in self.target.own

    @property
    def path(self) -> bytes:
        """Its path below the target, for people and for `Target.open`."""
        names = []
        folder: Folder = self
        while folder.parent is not None:
            names.append(folder.name)
            folder = folder.parent
        return b"/".join(reversed(names))

    def look(self, name: bytes) -> os.stat_result | None:
        """Returns what is under a name, not through a link; None where nothing is."""
        check_name(name)
        try:
            return os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def enter(self, name: bytes) -> Folder:
        """Opens a directory in it; makes way where its owner lacks the permission to. Raises `OSError`."""
        check_name(name)
        try:
            fd = os.open(name, _OPEN, dir_fd=self.fd)
        except PermissionError:
            if self.target.looks_only:
                raise
            _give_access(self.fd, name)
            fd = os.open(name, _OPEN, dir_fd=self.fd)
        return self._opened(name, fd)

    def make(self, name: bytes) -> Folder:
        """Creates a directory in it and opens it; nobody else can look into it until it is given its mode."""
        check_name(name)
        fd = self.fd
        os.mkdir(name, _PRIVATE, dir_fd=fd)
        try:
            opened = os.open(name, _OPEN, dir_fd=fd)
        except OSError:
            with contextlib.suppress(OSError):
                os.rmdir(name, dir_fd=fd)
            raise
        folder = self._opened(name, opened)
        # A group that is handed down would be handed down to what is written into it, too.
        if folder.found.st_mode & stat.S_ISGID:
            os.fchmod(opened, _PRIVATE)
            folder.found = os.fstat(opened)
        return folder

    def _opened(self, name: bytes, fd: int) -> Folder:
        folder = Folder(self.target, self, name, fd)
        self.target.awake(folder)
        return folder

    def make_writable(self) -> None:
        """Gives the owner all access and takes away the flags that forbid changes; both are put right later."""
        fd = self.fd
        # First, because the mode of what may not be changed may not be changed either.
        if os.geteuid() == 0:
            write_flags(fd, 0, FLAGS_IN_THE_WAY)
        found = os.fstat(fd)
        if found.st_uid == os.geteuid() and found.st_mode & _PRIVATE != _PRIVATE:
            os.fchmod(fd, stat.S_IMODE(found.st_mode) | _PRIVATE)

    def scan(self) -> tuple[list[bytes], bytes, bytes]:
        """Returns its names in bytewise order, and their `layout.META` and `layout.IDENT` rows."""
        names, meta, ident = kernel.scan(self.fd, _NEVER_NS, 0)
        return names.split(b"\0")[:-1], meta, ident

    def reach_parent(self) -> None:
        """Wakes its parent while its own mode still lets it: a folder is left through ``..``."""
        parent = self.parent
        if parent is None or parent.held >= 0:
            return
        try:
            fd = os.open(b"..", _OPEN, dir_fd=self.fd)
        except OSError:
            parent.wake()
            return
        parent.take(fd)

    def close(self) -> None:
        """Closes it; its parent is awake afterwards."""
        try:
            self.reach_parent()
        finally:
            self.target.forget(self)
            self.sleep()

    def sleep(self) -> None:
        """Gives up its descriptor until it is needed."""
        if self.held >= 0:
            os.close(self.held)
            self.held = -1

    def take(self, fd: int) -> None:
        found = os.fstat(fd)
        if (found.st_dev, found.st_ino) != (self.dev, self.ino):
            os.close(fd)
            raise TargetError(self.path, "the directory was moved or replaced while it was written to")
        self.held = fd
        self.target.awake(self, first=True)

    def wake(self) -> None:
        """Opens it again from the nearest folder above that is awake."""
        way: list[Folder] = [self]
        while (above := way[-1].parent) is not None and above.held < 0:
            way.append(above)
        if above is None:
            raise TargetError(self.path, "the target was closed")
        fd = os.dup(above.held)
        for folder in reversed(way):
            try:
                below = os.open(folder.name, _OPEN, dir_fd=fd)
            except OSError as error:
                raise TargetError(folder.path, f"cannot be opened again: {error.strerror}") from None
            finally:
                os.close(fd)
            fd = below
        self.take(fd)


class Target:
    """Is the root of what is written: created if missing, and the only path that is followed through links."""

    def __init__(
        self,
        root: bytes,
        *,
        random: Random = system_random,
        looks_only: bool = False,
        own: Collection[tuple[int, int]] = (),
    ) -> None:
        self.path = root
        self.own = own
        """Device and inode of directories that nothing is to be changed in, those of the repository itself."""
        self.looks_only = looks_only
        """Whether folders are opened for reading only: none is made accessible on the way."""
        self.random = random
        self._mark = random(8).hex().encode()
        self._awake: deque[Folder] = deque()
        try:
            self.created = not os.path.isdir(root)
            os.makedirs(root, exist_ok=True)
            fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise TargetError(root, error.strerror or str(error)) from None
        self.root = Folder(self, None, b"", fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes every folder; nothing can be written any more."""
        for folder in self._awake:
            folder.sleep()
        self._awake.clear()
        self.root.sleep()

    @property
    def prefix(self) -> bytes:
        """What `kernel.scatter` puts in front of its temporary names."""
        return TEMPORARY + self._mark + b"-"

    def is_filesystem_root(self) -> bool:
        """Whether the target is ``/``, by whatever path."""
        top = os.stat("/")
        return (top.st_dev, top.st_ino) == (self.root.dev, self.root.ino)

    def open(self, names: Iterable[bytes]) -> Folder:
        """Opens a folder by its names from the root; belongs to the caller, who closes it."""
        fd = os.dup(self.root.fd)
        for name in names:
            check_name(name)
            try:
                below = os.open(name, _OPEN, dir_fd=fd)
            finally:
                os.close(fd)
            fd = below
        return Folder(self, None, b"", fd)

    def awake(self, folder: Folder, *, first: bool = False) -> None:
        """Counts a folder that holds a descriptor (``first``: it is above the others); puts others to sleep."""
        if first:
            self._awake.appendleft(folder)
            return
        self._awake.append(folder)
        if len(self._awake) > AWAKE_MAX:
            self._awake.popleft().sleep()

    def forget(self, folder: Folder) -> None:
        """Counts a folder out."""
        if self._awake and self._awake[-1] is folder:
            self._awake.pop()
        elif folder in self._awake:
            self._awake.remove(folder)


def open_own(dir_fd: int, name: bytes) -> int:
    """Opens a regular file that its mode keeps its owner from reading; the mode is as before when it is open.

    Raises `OSError`: `PermissionError` for what is another's, or has set-id bits, which a change of mode may cost.
    """
    look = os.open(name, _LOOK, dir_fd=dir_fd)
    try:
        found = os.fstat(look)
        own = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()
        if not own or found.st_mode & (stat.S_ISUID | stat.S_ISGID):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), name)
        where = beside(look, b"")[:-1]
        os.chmod(where, stat.S_IMODE(found.st_mode) | stat.S_IRUSR)
        try:
            return os.open(where, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        finally:
            os.chmod(where, stat.S_IMODE(found.st_mode))
    finally:
        os.close(look)


def _give_access(dir_fd: int, name: bytes) -> None:
    """Gives the owner of a directory access to it; raises `PermissionError` where it is another's."""
    fd = os.open(name, _LOOK | os.O_DIRECTORY, dir_fd=dir_fd)
    try:
        found = os.fstat(fd)
        if found.st_uid != os.geteuid():
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), name)
        # By the descriptor's own path: a name could have become a link meanwhile.
        os.chmod(beside(fd, b".")[:-2], stat.S_IMODE(found.st_mode) | _PRIVATE)
    finally:
        os.close(fd)
