"""A repository on a file system: one file per object, packs spread over 256 directories.

Invariant: a file gets an object's name only when all its bytes are on the medium (write, fsync, close, create-only
name, fsync of the directory, in this order), so that no crash leaves a torn object or one that was reported and is
gone. The exception is a file system that offers nothing but O_EXCL, see `respaldo.backend.publish`.

Never: opens an object for writing, follows a symbolic link that stands where an object should be, or takes a root
that is not there for an empty one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeVar

from respaldo.backend.base import (
    FOLDERS,
    HEADER,
    LOST_FOUND,
    Backend,
    Listing,
    Litter,
    Names,
    Stage,
    check_folder,
    check_name,
    check_range,
    is_leaf,
)
from respaldo.backend.exchange import replace_file
from respaldo.backend.filestage import TEMPORARY, FileStage, medium_now_ns, object_exists, write_error
from respaldo.backend.folders import Folders, path_of, shard
from respaldo.backend.listing import arrivals, names, not_a_file, objects
from respaldo.backend.oserrors import GONE_HINT, storage_error
from respaldo.backend.publish import READ_FLAGS, Publisher, Syncer, SystemSyncer, write_new
from respaldo.backend.relink import link_again
from respaldo.core.errors import NotARepository, ObjectMissing, StorageFailed
from respaldo.core.seams import Buffer, Clock, Random, SystemClock, system_random

T = TypeVar("T")
_List = list

# A directory that has not changed for so long has been written back by every kernel on its own (30 s).
_SETTLED_NS: Final = 600 * 10**9


class LocalBackend(Backend):
    """Keeps objects as files below a directory. Thread-safe, `close` aside; any number of processes may share it."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        create: bool = False,
        fsync: Syncer | None = None,
        publisher: Publisher | None = None,
        random: Random = system_random,
        clock: Clock | None = None,
    ) -> None:
        """Opens a directory, which `create` makes (with its parents) where it is missing.

        The descriptor is held, so that what is mounted over the path later cannot be taken for the repository.
        Raises NotARepository where there is no directory, else StorageDenied or StorageFailed.
        """
        self.location = os.fspath(path)
        self._syncer = SystemSyncer() if fsync is None else fsync
        self._publisher = Publisher() if publisher is None else publisher
        self._random = random
        self._clock = SystemClock() if clock is None else clock
        try:
            self._folders = Folders(self.location, self._syncer, create=create)
        except FileNotFoundError as error:
            raise NotARepository(self.location, "no such directory") from error
        except NotADirectoryError as error:
            raise NotARepository(self.location, "not a directory") from error
        except OSError as error:
            raise storage_error(error, self.location) from error

    def put(self, name: str, pieces: Sequence[Buffer]) -> None:
        folder, leaf = check_name(name)
        subfolder = shard(folder, leaf)
        if self._publisher.exclusive:
            self._put_exclusive(name, folder, subfolder, leaf, pieces)
            return
        with self._file_stage(folder, subfolder, name) as stage:
            stage.write_pieces(pieces)
            stage.commit(name)

    def stage(self, folder: str) -> Stage:
        check_folder(folder)
        # A file would be written twice, to a slow stick as like as not: hold it in memory instead.
        return super().stage(folder) if self._publisher.exclusive else self._file_stage(folder, "", folder)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        folder, leaf = check_name(name)
        check_range(offset, length)
        try:
            # Symbolic links are refused for the object itself only: what a linked directory would lead to fails the
            # caller's authentication like any other wrong bytes, and reading needs one call instead of five.
            fd = os.open(path_of(folder, leaf), READ_FLAGS, dir_fd=self._folders.root)
            try:
                return _read(fd, name, offset, length)
            finally:
                os.close(fd)
        except FileNotFoundError as error:
            raise (self._root_gone() if self._folders.is_gone() else ObjectMissing(name)) from error
        except OSError as error:
            raise storage_error(error, name) from error

    def list(self, folder: str) -> Listing:
        return self._look(folder, objects)

    def names(self, folder: str) -> Names:
        return self._look(folder, names)

    def copy(self, name: str, target: str) -> None:
        if self._publisher.exclusive or not link_again(self._folders, self._syncer, name, target):
            super().copy(name, target)

    def delete(self, name: str) -> None:
        if not self.discard((name,)):
            raise ObjectMissing(name)

    def discard(self, names: Iterable[str]) -> int:
        by_directory: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        for name in names:
            folder, leaf = check_name(name)
            by_directory[folder, shard(folder, leaf)].append(leaf)
        return sum(self._unlink(*directory, leaves) for directory, leaves in by_directory.items())

    def replace(self, name: str, pieces: Sequence[Buffer]) -> None:
        replace_file(self._folders, self._syncer, self._random, name, pieces)

    def exists(self, name: str) -> int | None:
        folder, leaf = check_name(name)
        try:
            status = os.stat(path_of(folder, leaf), dir_fd=self._folders.root, follow_symlinks=False)
        except FileNotFoundError as error:
            if self._folders.is_gone():
                raise self._root_gone() from error
            return None
        except OSError as error:
            raise storage_error(error, name) from error
        return _size(status, name)

    def misplaced(self) -> Listing:
        try:
            return [
                (f"{folder}/{leaf}" if folder else leaf, 0)
                for folder, subfolder, fd in self._directories()
                for leaf in _no_files(fd)
                if (shard(folder, leaf) == subfolder if folder else leaf == HEADER)
            ]
        except OSError as error:
            raise storage_error(error, self.location) from error

    def arrivals(self, folder: str) -> Mapping[str, int]:
        """Returns modification times: an object is never written to again, and ``cp -a`` and ``rsync -a`` keep them."""
        if check_folder(folder) == "packs":
            return {}  # nobody asks for theirs
        try:
            fd = self._folders.open(folder)
            try:
                return arrivals(fd, folder)
            finally:
                os.close(fd)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise storage_error(error, folder) from error

    def now_ns(self) -> int | None:
        try:
            return medium_now_ns(self._folders.root, self._random)
        except OSError:  # read-only, or full
            return None

    def space(self) -> tuple[int, int] | None:
        try:
            status = os.fstatvfs(self._folders.root)
        except OSError as error:
            raise storage_error(error, self.location) from error
        return status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize

    def close(self) -> None:
        self._folders.close()

    def litter(self) -> Litter:
        """Returns (path below the root, size in bytes, mtime_ns) of every temporary.

        Crashes leave them, and writers that are at work have them too: only the age tells one from the other.
        """
        try:
            return [
                (os.path.join(folder, subfolder, leaf), status.st_size, status.st_mtime_ns)
                for folder, subfolder, fd in self._directories()
                for leaf, status in _temporaries(fd)
            ]
        except OSError as error:
            raise storage_error(error, self.location) from error

    def sweep_litter(self, before_ns: int) -> int:
        """Deletes the temporaries that were last written to before a time (ns since the epoch); returns how many."""
        swept = 0
        try:
            for _, _, fd in self._directories():
                for leaf, status in _temporaries(fd):
                    if status.st_mtime_ns < before_ns:
                        with contextlib.suppress(FileNotFoundError):
                            os.unlink(leaf, dir_fd=fd)
                            swept += 1
        except OSError as error:
            raise storage_error(error, self.location) from error
        return swept

    def _directories(self) -> Iterator[tuple[str, str, int]]:
        """Opens every directory in turn, for the time until the next one is asked for."""
        for folder in ("", *sorted(FOLDERS)):
            try:
                fd = self._folders.open(folder)
            except FileNotFoundError:
                continue
            except PermissionError:
                if folder == LOST_FOUND:  # where the repository is all of a file system, that one's own, and root's
                    continue
                raise
            try:
                yield folder, "", fd
                for subfolder in _subdirectories(fd) if folder == "packs" else ():
                    below = self._folders.open(folder, subfolder)
                    try:
                        yield folder, subfolder, below
                    finally:
                        os.close(below)
            finally:
                os.close(fd)

    def _file_stage(self, folder: str, subfolder: str, label: str) -> FileStage:
        return FileStage(
            self._folders,
            self._publisher,
            self._syncer,
            self._random,
            folder=folder,
            subfolder=subfolder,
            label=label,
        )

    def _put_exclusive(self, name: str, folder: str, subfolder: str, leaf: str, pieces: Sequence[Buffer]) -> None:
        try:
            directory = self._folders.open_or_make(folder, subfolder)
            try:
                write_new(directory, leaf, pieces, self._syncer)
                self._syncer.sync_dir(directory)
            except FileExistsError:
                raise object_exists(name, directory, leaf, self._syncer) from None
            finally:
                os.close(directory)
        except OSError as error:
            raise write_error(error, name, self._folders) from error

    def _look(self, folder: str, look: Callable[[int, str, str], _List[T]]) -> _List[T]:
        """Returns what a look at each directory of a folder gives."""
        check_folder(folder)
        try:
            top = self._folders.open(folder)
        except FileNotFoundError as error:
            if self._folders.is_gone():
                raise self._root_gone() from error
            return []
        except OSError as error:
            raise storage_error(error, folder) from error
        found: _List[T] = []
        try:
            if folder == "packs":
                for subfolder in _subdirectories(top):
                    fd = self._folders.open(folder, subfolder)
                    try:
                        found += look(fd, folder, subfolder)
                        self._settle(fd)
                    finally:
                        os.close(fd)
                _still_there(top)
            else:
                found += look(top, folder, "")
                self._settle(top)
        except OSError as error:
            # FileNotFoundError too: a directory that is removed under the listing makes it incomplete, not short.
            raise storage_error(error, folder) from error
        finally:
            os.close(top)
        return found

    def _settle(self, fd: int) -> None:
        """Makes sure that a crash does not change what was seen of a directory; raises where that was removed."""
        status = _still_there(fd)
        if status.st_mtime_ns > self._clock.now_ns() - _SETTLED_NS:
            try:
                self._syncer.sync_dir(fd)
            except OSError as error:
                if error.errno != errno.EROFS:  # nobody can commit there, and whoever restores must be able to read
                    raise

    def _unlink(self, folder: str, subfolder: str, leaves: Iterable[str]) -> int:
        """Unlinks files of one directory, durably; returns how many there were."""
        deleted = 0
        where = folder or HEADER
        try:
            fd = self._folders.open(folder, subfolder)
        except FileNotFoundError as error:
            if self._folders.is_gone():
                raise self._root_gone() from error
            return 0
        except OSError as error:
            raise storage_error(error, where) from error
        try:
            for leaf in leaves:
                where = f"{folder}/{leaf}" if folder else leaf
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(leaf, dir_fd=fd)
                    deleted += 1
            # Also where none was there: a collector that deleted it a moment ago may have died before this.
            self._syncer.sync_dir(fd)
        except OSError as error:
            raise storage_error(error, where) from error
        finally:
            os.close(fd)
        if not deleted and self._folders.is_gone():
            raise self._root_gone()
        return deleted

    def _root_gone(self) -> StorageFailed:
        return StorageFailed(self.location, "the repository's directory is gone", hint=GONE_HINT)


def _size(status: os.stat_result, name: str) -> int:
    if not stat.S_ISREG(status.st_mode):
        raise not_a_file(name)
    return status.st_size


def _still_there(fd: int) -> os.stat_result:
    """Returns a directory's status; one that was removed reads as empty on some file systems, and must not."""
    status = os.fstat(fd)
    if status.st_nlink == 0:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    return status


_ASKED_FOR_BYTES = 1 << 20


def _read(fd: int, name: str, offset: int, length: int | None) -> bytes:
    if length is None or length > _ASKED_FOR_BYTES:  # a buffer is made for all that is asked for
        end = _size(os.fstat(fd), name)
        length = max(0, end - offset if length is None else min(end - offset, length))
    content = os.pread(fd, length, offset)
    if len(content) == length or not content:
        return content
    # Short at 2 GiB, at the end, or because a network file system felt like it.
    pieces = [content]
    missing = length - len(content)
    while missing and (content := os.pread(fd, missing, offset + length - missing)):
        pieces.append(content)
        missing -= len(content)
    return b"".join(pieces)


def _subdirectories(fd: int) -> list[str]:
    with os.scandir(fd) as entries:
        return [
            entry.name
            for entry in entries
            if len(entry.name) <= 2 and is_leaf(entry.name) and not entry.is_file(follow_symlinks=False)
        ]


def _no_files(fd: int) -> list[str]:
    with os.scandir(fd) as entries:
        return [entry.name for entry in entries if is_leaf(entry.name) and not entry.is_file(follow_symlinks=False)]


def _temporaries(fd: int) -> list[tuple[str, os.stat_result]]:
    found = []
    with os.scandir(fd) as entries:
        for entry in entries:
            if entry.name.startswith(TEMPORARY):
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode):
                        found.append((entry.name, status))
    return found
