"""The site: the folders that are open for writing, from the root down, and the account of what happens in them.

A folder that is made is private until it is left, and has no name of its own until the files in it are whole, there are
`UNFINISHED_FILES_MAX` of them, or anything but files is to be made in it (ADR 40): there is never more than one such.
One that was there is made writable, loses the ACL and the flags that new entries would inherit, and gets all of that
back when it is left, also when the run is broken off.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from dataclasses import dataclass

from respaldo.core.errors import TargetError
from respaldo.core.model import Entry
from respaldo.core.seams import Cancel, Progress, Random
from respaldo.flows.restore.options import RestoreOptions, Verb
from respaldo.flows.restore.steps import Enter, Leave, There
from respaldo.flows.restore.tally import Tally
from respaldo.fs.meta import ACL_DEFAULT, FLAGS_HANDED_DOWN, FLAGS_IN_THE_WAY, read_flags, write_flags
from respaldo.fs.place import Folder, Target, check_name
from respaldo.fs.remove import remove
from respaldo.fs.settle import Miss, Owners, settle, settle_flags
from respaldo.fs.unfinished import make_unfinished, publish

UNFINISHED_FILES_MAX = 4096
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})


@dataclass(slots=True)
class _Level:
    """Is an open folder, and what it had before: mode, flags that forbid changes or are handed down, default ACL."""

    folder: Folder
    name: bytes
    made: bool
    mode: int = 0
    flags: int = 0
    acl: bytes | None = None
    unfinished: bool = False
    files: int = 0
    length_bytes: int = 0
    """How many files, and bytes, are in it for as long as it is unfinished."""
    spoilt: OSError | None = None
    """Why a file in it that failed could not be taken away, so that it must not get its name."""


class Site:
    """Is where a run writes. One thread."""

    def __init__(
        self,
        *,
        target: Target,
        base: bytes,
        options: RestoreOptions,
        owners: Owners,
        tally: Tally,
        progress: Progress,
        cancel: Cancel,
        random: Random,
    ) -> None:
        self.target = target
        self.options = options
        self.owners = owners
        self.tally = tally
        self.cancel = cancel
        self.random = random
        self._base = base.rstrip(b"/")
        self._progress = progress
        self._levels: list[_Level] = []
        self.skipped = 0
        """How many directories deep the walk is below one that could not be entered."""

    @property
    def folder(self) -> Folder:
        """The folder that steps are about."""
        return self._levels[-1].folder

    def names(self) -> tuple[bytes, ...]:
        """Returns the names of the open folders below the root."""
        return tuple(level.name for level in self._levels[1:])

    def path(self, name: bytes = b"") -> bytes:
        """Returns the snapshot's path of a name in the folder, or of the folder."""
        parts = [*self.names(), name] if name else [*self.names()]
        return b"/".join([self._base, *parts]) or b"/"

    # --- what happened -----------------------------------------------------------------------------------------------

    def fail(self, name: bytes, error: Exception | str, and_so: str = "") -> None:
        """Counts a name that could not be restored; raises `TargetError` where none can be any more."""
        if isinstance(error, OSError):
            if error.errno in _FULL:
                raise self.full(error)
            error = error.strerror or str(error)
        self.tally.fail(self.path(name), error, and_so)

    def miss(self, name: bytes, misses: list[Miss]) -> None:
        """Counts what could not be set on a name."""
        if misses:
            self.tally.miss(self.path(name), misses)

    def full(self, error: OSError) -> TargetError:
        """Returns the error for a target that takes nothing any more."""
        place = b"/".join([self.target.path.rstrip(b"/"), *self.names()])
        return TargetError(
            place,
            error.strerror or str(error),
            hint="what was restored is whole; make room, and run the command again to go on",
        )

    @property
    def unfinished(self) -> bool:
        """Whether the folder has no name of its own yet: files in it get theirs at once."""
        return self._levels[-1].unfinished

    def count(self, files: int, length_bytes: int) -> None:
        """Counts files that were created in the folder."""
        self.tally.verbs[Verb.CREATE] += files
        self.tally.written_bytes += length_bytes
        level = self._levels[-1]
        if level.unfinished:
            level.files += files
            level.length_bytes += length_bytes
            if level.files >= UNFINISHED_FILES_MAX:
                self.publish()

    def drop(self, name: bytes) -> None:
        """Sees to it that a file that failed is not in the folder when that gets its name."""
        level = self._levels[-1]
        if level.unfinished:
            try:
                os.unlink(name, dir_fd=level.folder.fd)
            except FileNotFoundError:
                return
            except OSError as error:
                level.spoilt = error

    def publish(self) -> bool:
        """Gives the folder its name; False where that cannot be: then nothing of it is there, and that is counted."""
        level = self._levels[-1]
        if not level.unfinished:
            return True
        try:
            self._publish(level)
        except OSError as error:
            self.tally.verbs[Verb.CREATE] -= level.files
            self.tally.written_bytes -= level.length_bytes
            self.tally.failed += level.files
            self.fail(b"", error)
            self._levels.pop()
            level.folder.close()
            self.skipped = 1
            return False
        return True

    @staticmethod
    def _publish(level: _Level) -> None:
        level.unfinished = False
        try:
            if level.spoilt is not None:
                raise level.spoilt
            publish(level.folder, level.name)
        except OSError:
            if level.folder.parent is not None:
                with contextlib.suppress(OSError):
                    # To the end, also where a signal has just come: there are but files in it, and not many.
                    remove(level.folder.parent, level.folder.name, Cancel())
            raise

    # --- folders -----------------------------------------------------------------------------------------------------

    def enter(self, step: Enter) -> None:
        """Opens a folder, making it first where it is not there."""
        if self.skipped:
            self.skipped += 1
            return
        if self._levels and not self.publish():
            self.skipped += 1
            return
        name = step.entry.name
        try:
            level = self._open(step, name) if self._levels else self._open_root(step)
            if not level.made:
                self._make_way(level)
            self._levels.append(level)
            self._progress.at(self.path())
        except (OSError, TargetError) as error:
            self.skipped = 1
            self.fail(name if self._levels else b"", error)

    def _open_root(self, step: Enter) -> _Level:
        root = self.target.root
        if self.target.created and step.entry.name:
            os.fchmod(root.fd, stat.S_IRWXU)
        # Made by its path, it may have got from above what directories hand down: it is not taken to be bare.
        return _Level(root, b"", made=False, mode=os.fstat(root.fd).st_mode)

    def _open(self, step: Enter, name: bytes) -> _Level:
        above = self.folder
        if step.there is There.SAME_TYPE:
            return _Level(above.enter(name), name, made=False, mode=step.mode)
        if step.there is There.OTHER:
            removal = remove(above, name, self.cancel)
            if removal.kept:
                raise OSError(errno.EBUSY, removal.reason)
        check_name(name)
        return _Level(make_unfinished(above), name, made=True, unfinished=True)

    @staticmethod
    def _make_way(level: _Level) -> None:
        fd = level.folder.fd
        level.flags = read_flags(fd) & (FLAGS_IN_THE_WAY | FLAGS_HANDED_DOWN)
        level.folder.make_writable()
        if level.flags & FLAGS_HANDED_DOWN:
            write_flags(fd, 0, FLAGS_HANDED_DOWN)
        with contextlib.suppress(OSError):
            level.acl = os.getxattr(fd, ACL_DEFAULT)
            os.removexattr(fd, ACL_DEFAULT)

    def leave(self, step: Leave) -> None:
        """Gives a folder its attributes and closes it."""
        if self.skipped:
            self.skipped -= 1
            return
        if not self.publish():
            self.skipped = 0
            return
        level = self._levels[-1]
        # While the mode still allows it.
        level.folder.reach_parent()
        if step.settle:
            self._settle(level, step.entry)
        else:
            self._put_back(level)
        self._levels.pop()
        if self._levels:
            level.folder.close()
        self.tally.directories += 1

    def _settle(self, level: _Level, entry: Entry) -> None:
        fd = level.folder.fd
        had = () if level.made else None
        owner = self.owners.of(entry)
        found = level.folder.found if level.made and self._levels[1:] else os.fstat(fd)
        misses = settle(fd, entry, owner, found, chown=self.owners.keep, had=had)
        if entry.attributes or not level.made:
            misses += settle_flags(fd, entry)
        self.miss(b"", misses)

    @staticmethod
    def _put_back(level: _Level) -> None:
        if level.made:
            return
        fd = level.folder.fd
        with contextlib.suppress(OSError):
            if level.acl is not None:
                os.setxattr(fd, ACL_DEFAULT, level.acl)
            mode = stat.S_IMODE(level.mode)
            if stat.S_IMODE(os.fstat(fd).st_mode) != mode:
                os.fchmod(fd, mode)
            if level.flags:
                write_flags(fd, level.flags, level.flags)

    def abandon(self) -> None:
        """Closes what is open when a run is broken off; what was there gets back what it had."""
        while self._levels:
            level = self._levels[-1]
            with contextlib.suppress(OSError, TargetError):
                level.folder.reach_parent()
                if level.unfinished:
                    self._publish(level)  # what is in it is whole
                self._put_back(level)
            self._levels.pop()
            with contextlib.suppress(OSError, TargetError):
                if self._levels:
                    level.folder.close()
