"""Settling: gives an entry its owner, mode, attributes, times and flags, in the one order in which none undoes another.

Owner first, because a change of owner clears set-id bits and capabilities; ``user.*`` attributes before the mode,
because a file without write permission takes none from its ordinary owner; ACLs, capabilities and labels after it;
times after whatever touches them; flags last and after the final name, because an immutable file can neither be changed
nor renamed. What cannot be set is returned, never raised: a restore says so once and goes on.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

from respaldo.core.model import Entry
from respaldo.fs.meta import (
    FLAGS_IN_THE_WAY,
    Names,
    Xattrs,
    apply_xattrs,
    read_xattrs,
    write_flags,
)

SET_ID = stat.S_ISUID | stat.S_ISGID
_USER = b"user."


class Miss(StrEnum):
    """Names what could not be set."""

    OWNER = "owner"
    MODE = "mode"
    XATTRS = "extended attributes"
    TIMES = "times"
    FLAGS = "flags"


class Owner(NamedTuple):
    """Is the owner that an entry is to get here; ``exact`` where it is the one that was recorded."""

    uid: int
    gid: int
    exact: bool


class Owners:
    """Decides whom an entry belongs to on this machine: by name where the name exists, else by number."""

    __slots__ = ("_egid", "_euid", "_groups", "_known", "_names", "_numeric", "keep")

    def __init__(self, *, keep: bool = True, numeric: bool = False, names: Names | None = None) -> None:
        self.keep = keep
        """Whether owners are given back at all."""
        self._numeric = numeric
        self._names = names or Names()
        self._euid = os.geteuid()
        self._egid = os.getegid()
        self._groups = {self._egid, *os.getgroups()}
        self._known: dict[tuple[int, int, str, str], Owner] = {}

    def of(self, entry: Entry) -> Owner:
        """Returns the owner to give; an ordinary user gives what it may: itself, and a group that it is in."""
        return self.by(entry.uid, entry.gid, entry.user, entry.group)

    def by(self, uid: int, gid: int, user: str, group: str) -> Owner:
        """Does so by ids and names as they were recorded."""
        key = (uid, gid, user, group)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._decide(*key)
        return known

    def _decide(self, uid: int, gid: int, user: str, group: str) -> Owner:
        if self.keep and not self._numeric:
            named_uid = self._names.uid(user) if user else None
            named_gid = self._names.gid(group) if group else None
            uid = uid if named_uid is None else named_uid
            gid = gid if named_gid is None else named_gid
        if not self.keep or self._euid == 0:
            return Owner(uid, gid, exact=True)
        own_uid = self._euid
        own_gid = gid if gid in self._groups else self._egid
        return Owner(own_uid, own_gid, exact=(own_uid, own_gid) == (uid, gid))


def settle(
    where: int | bytes, entry: Entry, owner: Owner, found: os.stat_result, *, chown: bool, had: Xattrs | None = None
) -> list[Miss]:
    """Gives an entry all but its flags; returns what could not be set.

    ``where``: a descriptor, or the ``/proc`` path of one opened with ``O_PATH``; ``found``: what it has now; ``chown``:
    whether owners are given at all; ``had``: extended attributes it is known to have.
    """
    misses: list[Miss] = []
    is_link = stat.S_ISLNK(entry.mode)
    same_owner = (found.st_uid, found.st_gid) == owner[:2]
    changed = chown and not same_owner and _try(os.chown, where, owner.uid, owner.gid)
    owned = owner.exact and (same_owner or changed)
    if chown and not owned:
        misses.append(Miss.OWNER)
    if had is None:
        had = _read(where)
    early, late = _split(entry.xattrs)
    early_had, late_had = _split(had)
    failed = []
    if early != early_had:
        if not is_link and not found.st_mode & stat.S_IWUSR and os.geteuid() != 0:
            changed = _try(os.chmod, where, stat.S_IMODE(found.st_mode) & ~SET_ID | stat.S_IWUSR) or changed
        failed += apply_xattrs(where, early, had=early_had)
    mode = stat.S_IMODE(entry.mode)
    if not owned and not stat.S_ISDIR(entry.mode):
        # A set-id bit on a file of another owner would lend out the wrong identity.
        mode &= ~SET_ID
    if not is_link and (changed or stat.S_IMODE(found.st_mode) != mode) and not _try(os.chmod, where, mode):
        misses.append(Miss.MODE)
    if late or late_had:
        # What a change of owner or mode took away has to be looked at again.
        failed += apply_xattrs(where, late, had=_split(_read(where))[1] if late_had else ())
    if failed:
        misses.append(Miss.XATTRS)
    if not _try(_set_mtime, where, found.st_atime_ns, entry.mtime_ns):
        misses.append(Miss.TIMES)
    return misses


def _set_mtime(where: int | bytes, atime_ns: int, mtime_ns: int) -> None:
    os.utime(where, ns=(atime_ns, mtime_ns))


def _read(where: int | bytes) -> Xattrs:
    try:
        return read_xattrs(where, follow=True)
    except OSError:
        return ()


def _split(xattrs: Xattrs) -> tuple[Xattrs, Xattrs]:
    """Parts ``user.*`` from the others."""
    if not xattrs:
        return (), ()
    early = tuple(pair for pair in xattrs if pair[0].startswith(_USER))
    return early, tuple(pair for pair in xattrs if not pair[0].startswith(_USER))


def settle_flags(fd: int, entry: Entry) -> list[Miss]:
    """Gives a regular file or a directory its inode flags; returns what could not be set."""
    return [Miss.FLAGS] if write_flags(fd, entry.attributes) else []


def clear_the_way(where: int | bytes) -> bool:
    """Takes the immutable and append-only flags off a file or directory; whether that may have helped."""
    if os.geteuid() != 0:
        return False
    try:
        fd = os.open(where, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC) if isinstance(where, bytes) else os.dup(where)
    except OSError:
        return False
    try:
        return write_flags(fd, 0, FLAGS_IN_THE_WAY) == 0
    finally:
        os.close(fd)


def clear_name(dir_fd: int, name: bytes) -> bool:
    """Does the same for an entry of an open directory, never through a link; raises `OSError`."""
    if stat.S_IFMT(os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
        return False
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        return clear_the_way(fd)
    finally:
        os.close(fd)


def _try(change: Callable[..., None], where: int | bytes, *values: int) -> bool:
    """Makes a change; whether it could be made. Clears an immutable file's way once."""
    try:
        change(where, *values)
        return True
    except PermissionError as error:
        if error.errno != errno.EPERM or not clear_the_way(where):
            return False
    except (OSError, OverflowError):
        return False
    try:
        change(where, *values)
        return True
    except (OSError, OverflowError):
        return False
