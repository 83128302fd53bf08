"""Gives a finished file its final name, if and only if nothing has that name yet.

Owns the ways to do so and the knowledge which of them a file system offers: `link`, then `renameat2` with
RENAME_NOREPLACE, then writing a file that was opened with O_EXCL. (exfat by FUSE refuses the first two, ntfs-3g the
second, vfat the first.) Also `Syncer`, the seam through which everything is made durable.

Invariant: a name that exists is never replaced, whoever races; but for the last way, a name shows a whole file or none.

Never: opens a file for writing that has its final name, except the one that it has just created there.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, Protocol

from respaldo.backend.base import flat
from respaldo.core.seams import Buffer

# 0600 and not 0400: where a server maps users (NFS with all_squash, as many a NAS has it), the kernel lets us link a
# file that is not ours only if we may write to it, and 0400 would cost such repositories their atomic step.
OBJECT_MODE: Final = 0o600
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: a FIFO planted under an object's name would block the open for ever.
READ_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_IOV_MAX: Final = 512
_COPY_BYTES: Final = 1 << 20
_NOREPLACE: Final = 1
_EXCHANGE: Final = 2

# A file system that lacks a way answers with one of these, each with its own favourite. EXDEV: project quotas and AFS
# refuse links from one directory to another.
_LACKING: Final = frozenset(
    (
        errno.EPERM,
        errno.EOPNOTSUPP,
        errno.ENOTSUP,
        errno.ENOSYS,
        errno.EINVAL,
        errno.EMLINK,
        errno.EXDEV,
    )
)


class Syncer(Protocol):
    """Makes files and directories durable; injected, so that tests can count, fail and drop."""

    def sync_file(self, fd: int) -> None:
        """Returns once a file's bytes and length are on the medium."""
        ...

    def sync_dir(self, fd: int) -> None:
        """Returns once a directory's entries are on the medium."""
        ...


class SystemSyncer:
    """Is fsync."""

    def sync_file(self, fd: int) -> None:
        os.fsync(fd)

    def sync_dir(self, fd: int) -> None:
        try:
            os.fsync(fd)
        except OSError as error:
            # CIFS and some FUSE file systems know no fsync of a directory; they have no other way to offer.
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                raise


class Source:
    """Is a finished, synced file under its temporary name, in a directory that is open."""

    __slots__ = ("directory", "leaf")

    def __init__(self, directory: int, leaf: str) -> None:
        self.directory = directory
        self.leaf = leaf


# (source, directory, leaf, syncer): gives the source that name there, or raises FileExistsError or another OSError.
Way = Callable[[Source, int, str, Syncer], None]


def write_all(fd: int, pieces: Iterable[Buffer]) -> None:
    """Writes pieces one after another, with as few calls as the kernel allows."""
    views = [view for view in map(flat, pieces) if view.nbytes]
    for start in range(0, len(views), _IOV_MAX):
        batch = views[start : start + _IOV_MAX]
        while batch:
            written = os.writev(fd, batch)
            if written == 0:
                raise OSError(errno.EIO, "the file system wrote nothing")
            # Short at 2 GiB, and at the last bytes of a full disk.
            done = 0
            while done < len(batch) and written >= batch[done].nbytes:
                written -= batch[done].nbytes
                done += 1
            batch = batch[done:]
            if written:
                batch[0] = batch[0][written:]


def open_new(directory: int, leaf: str) -> int:
    """Creates a file for writing that must not exist, with the mode of objects whatever the umask."""
    fd = os.open(leaf, _CREATE, OBJECT_MODE, dir_fd=directory)
    # vfat and its like cannot represent every mode.
    with contextlib.suppress(OSError):
        os.fchmod(fd, OBJECT_MODE)
    return fd


def write_new(directory: int, leaf: str, pieces: Iterable[Buffer], syncer: Syncer) -> None:
    """Writes an object under its final name, durably, and takes it away again when that fails.

    A crash meanwhile leaves a torn object: this is for file systems that offer nothing better.
    """
    fd = open_new(directory, leaf)
    try:
        try:
            for piece in pieces:
                write_all(fd, (piece,))
            syncer.sync_file(fd)
        finally:
            os.close(fd)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(leaf, dir_fd=directory)
        raise


def by_link(source: Source, directory: int, leaf: str, _syncer: Syncer) -> None:
    """Links the file to its final name and unlinks the temporary one."""
    try:
        os.link(source.leaf, leaf, src_dir_fd=source.directory, dst_dir_fd=directory, follow_symlinks=False)
    except FileExistsError:
        # An NFS server whose first answer was lost answers the repeated request so, though the link is ours.
        if not _same(source, directory, leaf):
            raise
    # The object is in place: what fails now leaves litter, not an error.
    with contextlib.suppress(OSError):
        os.unlink(source.leaf, dir_fd=source.directory)


def by_rename(source: Source, directory: int, leaf: str, syncer: Syncer) -> None:
    """Renames the file, refusing to replace."""
    _renameat2(source.directory, source.leaf, directory, leaf)
    # Where renaming is not one atomic step (exfat), a crash could leave both names with the same clusters, and whoever
    # swept the temporary one would free the object's.
    syncer.sync_dir(directory)
    syncer.sync_dir(source.directory)


def by_copy(source: Source, directory: int, leaf: str, syncer: Syncer) -> None:
    """Writes the bytes again under the final name."""
    fd = os.open(source.leaf, READ_FLAGS, dir_fd=source.directory)
    try:
        write_new(directory, leaf, _read(fd), syncer)
    finally:
        os.close(fd)
    with contextlib.suppress(OSError):
        os.unlink(source.leaf, dir_fd=source.directory)


WAYS: Final[tuple[Way, ...]] = (by_link, by_rename, by_copy)


class Publisher:
    """Tries the ways in order and remembers the first that worked. Thread-safe; the last way must be by copy."""

    def __init__(self, ways: Sequence[Way] = WAYS) -> None:
        self._ways = tuple(ways)
        self._first = 0

    @property
    def exclusive(self) -> bool:
        """Whether only O_EXCL is left, so that a file under a temporary name would be written twice."""
        return self._first == len(self._ways) - 1

    def publish(self, source: Source, directory: int, leaf: str, syncer: Syncer) -> None:
        """Gives a file its final name; the caller syncs the directory. Raises FileExistsError or another OSError."""
        last = len(self._ways) - 1
        for number in range(self._first, last + 1):
            try:
                self._ways[number](source, directory, leaf, syncer)
            except FileExistsError:
                raise
            except OSError as error:
                # Where all are refused, the file system does not lack a way: it denies, and nothing is remembered.
                if number == last or error.errno not in _LACKING:
                    raise
            else:
                self._first = max(self._first, number)
                return


def _same(source: Source, directory: int, leaf: str) -> bool:
    ours = os.stat(source.leaf, dir_fd=source.directory, follow_symlinks=False)
    theirs = os.stat(leaf, dir_fd=directory, follow_symlinks=False)
    return os.path.samestat(ours, theirs)


def _read(fd: int) -> Iterator[bytes]:
    while piece := os.read(fd, _COPY_BYTES):
        yield piece


def exchange(directory: int, fresh: str, leaf: str) -> None:
    """Gives a finished file the name of one that is there, and that one the file's. Raises FileNotFoundError, OSError.

    Where the two cannot be exchanged, the one that is there goes.
    """
    try:
        _renameat2(directory, fresh, directory, leaf, _EXCHANGE)
    except OSError as error:
        if error.errno not in _LACKING:
            raise
        os.stat(leaf, dir_fd=directory, follow_symlinks=False)
        os.rename(fresh, leaf, src_dir_fd=directory, dst_dir_fd=directory)


def _renameat2(from_directory: int, from_leaf: str, to_directory: int, to_leaf: str, flags: int = _NOREPLACE) -> None:
    import ctypes  # noqa: PLC0415  (loaded only where link is lacking, and to replace what has decayed)

    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from None
    call.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    call.restype = ctypes.c_int
    if call(from_directory, os.fsencode(from_leaf), to_directory, os.fsencode(to_leaf), flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
