"""An object of a local repository while it is written: a temporary file, until it gets its name.

Invariant: the file is durable before the name exists, and the name before `commit` returns; what is not committed is
unlinked, and what a crash leaves has a name that no listing shows.

Never: writes to a file that has an object's name.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import Final

from respaldo.backend.base import Stage, check_stage
from respaldo.backend.folders import Folders, shard
from respaldo.backend.oserrors import GONE_HINT, storage_error
from respaldo.backend.publish import OBJECT_MODE, READ_FLAGS, Publisher, Source, Syncer, open_new, write_all
from respaldo.core.errors import ObjectExists, RespaldoError, StorageFailed
from respaldo.core.seams import Buffer, Random

TEMPORARY: Final = ".tmp-"
_RANDOM_BYTES: Final = 12


def write_error(error: OSError, name: str, folders: Folders) -> RespaldoError:
    """Returns the error to raise for one that came of putting an object."""
    if isinstance(error, FileNotFoundError):
        if folders.is_gone():
            return StorageFailed(name, "the repository's directory is gone", hint=GONE_HINT)
        return StorageFailed(name, "a directory of the repository was removed meanwhile", retryable=True)
    return storage_error(error, name)


def object_exists(name: str, directory: int, leaf: str, syncer: Syncer) -> ObjectExists:
    """Returns the error to raise for an object that is there, once that object is durable. Raises OSError.

    Whoever put it may have died, or may yet die, between giving it its name and syncing the directory. Our caller goes
    on as if it had put the object, so a crash must not take it away any more.
    """
    with contextlib.suppress(FileNotFoundError):
        fd = os.open(leaf, READ_FLAGS, dir_fd=directory)
        try:
            syncer.sync_file(fd)
        finally:
            os.close(fd)
        syncer.sync_dir(directory)
    return ObjectExists(name)


def medium_now_ns(directory: int, random: Random) -> int:
    """Returns what the clock says by which files in a directory get their times. Raises OSError.

    A file without a name tells, so that the directory stays as it is; where there is no such thing, a temporary one.
    """
    try:
        fd = os.open(".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, OBJECT_MODE, dir_fd=directory)
    except OSError:
        name = TEMPORARY + random(_RANDOM_BYTES).hex()
        fd = open_new(directory, name)
        os.unlink(name, dir_fd=directory)
    try:
        return os.fstat(fd).st_mtime_ns
    finally:
        os.close(fd)


class FileStage(Stage):
    """Writes one object. For one thread."""

    def __init__(
        self,
        folders: Folders,
        publisher: Publisher,
        syncer: Syncer,
        random: Random,
        *,
        folder: str,
        subfolder: str,
        label: str,
    ) -> None:
        """Creates the temporary file in a directory, by choice the one in which the object will lie.

        Errors that come before the commit are about `label`.
        """
        self._folders = folders
        self._publisher = publisher
        self._syncer = syncer
        self._folder = folder
        self._subfolder = subfolder
        self._label = label
        self._temporary = TEMPORARY + random(_RANDOM_BYTES).hex()
        self._directory = -1
        self._fd = -1
        try:
            self._directory = folders.open_or_make(folder, subfolder)
            self._fd = open_new(self._directory, self._temporary)
        except OSError as error:
            self.discard()
            raise write_error(error, label, folders) from error

    def write(self, piece: Buffer) -> None:
        self.write_pieces((piece,))

    def write_pieces(self, pieces: Sequence[Buffer]) -> None:
        """Appends several pieces with one call of the kernel."""
        if self._fd < 0:
            raise ValueError("the stage was committed or discarded")
        try:
            write_all(self._fd, pieces)
        except OSError as error:
            raise write_error(error, self._label, self._folders) from error

    def commit(self, name: str) -> None:
        leaf = check_stage(self._folder, name)
        if self._fd < 0:
            raise ValueError("the stage was committed or discarded")
        try:
            self._close(sync=True)
            subfolder = shard(self._folder, leaf)
            if subfolder == self._subfolder:
                self._publish(name, leaf, self._directory)
            else:
                directory = self._folders.open_or_make(self._folder, subfolder)
                try:
                    self._publish(name, leaf, directory)
                finally:
                    os.close(directory)
        except OSError as error:
            raise write_error(error, name, self._folders) from error
        finally:
            self.discard()

    def discard(self) -> None:
        # A descriptor or a directory that fails now has nothing left to tell: `Folders.litter` finds what stays.
        with contextlib.suppress(OSError):
            self._close(sync=False)
        if self._directory >= 0:
            with contextlib.suppress(OSError):
                os.unlink(self._temporary, dir_fd=self._directory)
            with contextlib.suppress(OSError):
                os.close(self._directory)
            self._directory = -1

    def _publish(self, name: str, leaf: str, directory: int) -> None:
        try:
            self._publisher.publish(Source(self._directory, self._temporary), directory, leaf, self._syncer)
        except FileExistsError:
            raise object_exists(name, directory, leaf, self._syncer) from None
        self._syncer.sync_dir(directory)

    def _close(self, *, sync: bool) -> None:
        # Closed before the name exists, because NFS reports at the close what it could not write.
        fd, self._fd = self._fd, -1
        if fd >= 0:
            try:
                if sync:
                    self._syncer.sync_file(fd)
            finally:
                os.close(fd)
