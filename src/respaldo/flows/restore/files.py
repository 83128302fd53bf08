"""Files one by one: long ones part by part, links, devices, and those that only need their attributes put right.

Everything is written under a temporary name and published whole; only ``--in-place`` writes into a file that has a
name.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from dataclasses import dataclass
from typing import NamedTuple

from respaldo.core.errors import RespaldoError
from respaldo.core.model import Entry
from respaldo.flows.restore.decide import RESUMABLE_MIN_BYTES, resume_key
from respaldo.flows.restore.jobs import CloseJob, Jobs, OpenJob, PartJob
from respaldo.flows.restore.options import Verb
from respaldo.flows.restore.site import Site
from respaldo.flows.restore.steps import Link, Make, Remove, There, Touch, Write
from respaldo.fs.draft import Draft, link
from respaldo.fs.meta import FLAGS_IN_THE_WAY, FLAGS_WHEN_EMPTY, beside, has_proc, read_flags, write_flags
from respaldo.fs.place import Folder
from respaldo.fs.remove import holds_mount, remove
from respaldo.fs.settle import clear_name, clear_the_way, settle, settle_flags
from respaldo.fs.sparse import punch, stretch, write_all, write_sparse
from respaldo.fs.unfinished import remove_unfinished
from respaldo.store.fetch import Fetcher

_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_CHANGE = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_CANNOT_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EACCES, errno.ENOENT})
_HALF = "; it was being rewritten in place and is now neither old nor new"


class _Origin(NamedTuple):
    """Is the first name of a hard-linked file that this run wrote."""

    names: tuple[bytes, ...]
    dev: int
    ino: int


@dataclass(slots=True)
class _Open:
    """Is the file that is being written: a draft, or a descriptor of the file itself."""

    step: Write
    draft: Draft | None
    fd: int
    fresh: bool
    error: RespaldoError | OSError | str | None = None
    written: int = 0
    stretched: bool = False


class Files:
    """Writes what is no batch. One thread; one open file at a time."""

    def __init__(self, site: Site, jobs: Jobs, fetcher: Fetcher) -> None:
        self._site = site
        self._jobs = jobs
        self._fetcher = fetcher
        self._file: _Open | None = None
        self._origins: dict[bytes, _Origin] = {}
        self._linked_from: Folder | None = None
        self._linked_names: tuple[bytes, ...] = ()

    # --- regular files
    # -------------------------------------------------------------------------------------------------

    def open(self, job: OpenJob) -> None:
        """Begins a file."""
        entry = job.step.entry
        try:
            self._file = self._begin(job.step)
        except OSError as error:
            self._site.fail(entry.name, error)

    def _begin(self, step: Write) -> _Open:
        entry = step.entry
        if step.in_place:
            return _Open(step, None, self._open_to_change(entry.name), fresh=False)
        key = resume_key(entry) if entry.size >= RESUMABLE_MIN_BYTES else b""
        draft = Draft.file(self._site.folder, key=key, random=self._site.random)
        if entry.attributes & FLAGS_WHEN_EMPTY and not draft.resumed:
            write_flags(draft.fd, entry.attributes, FLAGS_WHEN_EMPTY)
        return _Open(step, draft, draft.fd, fresh=not draft.resumed)

    def _open_to_change(self, name: bytes) -> int:
        """Opens a file that exists for writing, although its own mode or flags may forbid it."""
        folder = self._site.folder
        try:
            return os.open(name, _CHANGE, dir_fd=folder.fd)
        except PermissionError:
            look = os.open(name, _LOOK, dir_fd=folder.fd)
            try:
                where = beside(look, b"")[:-1]
                found = os.fstat(look)
                if stat.S_ISREG(found.st_mode):
                    clear_the_way(where)
                    os.chmod(where, stat.S_IMODE(found.st_mode) | stat.S_IRUSR | stat.S_IWUSR)
            finally:
                os.close(look)
            return os.open(name, _CHANGE, dir_fd=folder.fd)

    def part(self, job: PartJob) -> None:
        """Writes a part of the file that was begun."""
        file = self._file
        if file is not None and file.error is None:
            self._fetcher.wait(list(job.order.together))
            bad = (task.bad.get(slot) for task, slot in zip(job.order.tasks, job.order.slots, strict=True))
            file.error = next(filter(None, bad), None)
            if file.error is None:
                try:
                    self._write(file, job)
                except (OSError, OverflowError) as error:
                    file.error = error if isinstance(error, OSError) else "the file is too large for the system"
        job.order.release(self._fetcher)

    def _write(self, file: _Open, job: PartJob) -> None:
        views = iter([task.views[slot] for task, slot in zip(job.order.tasks, job.order.slots, strict=True)])
        sparse = self._site.options.sparse and file.fresh
        if not file.stretched and (sparse or any(is_hole for _, is_hole, _ in job.pieces)):
            stretch(file.fd, file.step.entry.size)
            file.stretched = True
        together: list[memoryview] = []
        start = offset = job.offset
        for length, is_hole, is_there in job.pieces:
            if is_hole or is_there or sparse:
                write_all(file.fd, together, start)
                together = []
            if is_there:
                if file.fresh:
                    raise OSError(errno.ESTALE, "what an earlier run left of it went away")
            elif is_hole:
                if not file.fresh:
                    punch(file.fd, offset, length)
            elif sparse:
                file.written += write_sparse(file.fd, next(views), offset)
            else:
                if not together:
                    start = offset
                together.append(next(views))
                file.written += length
            offset += length
        write_all(file.fd, together, start)

    def close(self, job: CloseJob) -> None:
        """Ends the file: gives it its attributes and its name, or takes it away."""
        file, self._file = self._file, None
        if file is None:
            return
        entry = file.step.entry
        error: Exception | str | None = file.error or job.error
        try:
            if error is None:
                self._finish(file)
        except (OSError, OverflowError) as problem:
            error = problem if isinstance(problem, OSError) else "the file is too large for the system"
        finally:
            if file.draft is not None:
                file.draft.close()
            else:
                os.close(file.fd)
        if error is not None:
            self._site.fail(entry.name, error, _HALF if file.step.in_place and file.written else "")

    def _finish(self, file: _Open) -> None:
        step, tally = file.step, self._site.tally
        entry = step.entry
        found = os.fstat(file.fd)
        if found.st_size != entry.size:
            os.ftruncate(file.fd, entry.size)
        self._settle(file.fd, entry, found, fresh=file.fresh)
        if file.draft is not None:
            self._publish(file.draft, entry, step.there)
        else:
            tally.rewritten += 1
        if entry.attributes or not file.fresh:
            self._site.miss(entry.name, settle_flags(file.fd, entry))
        tally.verbs[Verb.CREATE if step.there is There.NOTHING else Verb.OVERWRITE] += 1
        tally.written_bytes += file.written

    def _settle(self, where: int | bytes, entry: Entry, found: os.stat_result, *, fresh: bool) -> None:
        site = self._site
        misses = settle(where, entry, site.owners.of(entry), found, chown=site.owners.keep, had=() if fresh else None)
        site.miss(entry.name, misses)

    def _publish(self, draft: Draft, entry: Entry, there: There) -> None:
        """Gives a draft its name, in place of what has it."""
        site = self._site
        self._clear(entry.name, there)
        replace = there in {There.SAME_TYPE, There.OTHER}
        try:
            draft.publish(entry.name, replace=replace)
        except PermissionError:
            if not replace or not clear_name(site.folder.fd, entry.name):
                raise
            draft.publish(entry.name, replace=True)
        if entry.link_group:
            found = draft.stat()
            self._origins[entry.link_group] = _Origin((*site.names(), entry.name), found.st_dev, found.st_ino)

    def _clear(self, name: bytes, there: There) -> None:
        """Removes a directory that stands where something else is to be, unless something is mounted in it."""
        if there is not There.DIRECTORY:
            return
        site = self._site
        if holds_mount(site.folder, name, site.cancel):
            raise OSError(
                errno.EBUSY, "a directory is in its place, and something is mounted there, or the repository itself"
            )
        removal = remove(site.folder, name, site.cancel)
        if removal.kept:
            raise OSError(errno.ENOTEMPTY, f"a directory is in its place: {removal.reason}")

    # --- everything else
    # -----------------------------------------------------------------------------------------------

    def make(self, step: Make) -> None:
        """Makes a link, a FIFO, a socket or a device."""
        entry, site = step.entry, self._site
        try:
            if entry.is_symlink:
                draft = Draft.symlink(site.folder, entry.target, random=site.random)
            else:
                draft = Draft.node(site.folder, entry.mode, entry.rdev, random=site.random)
            with draft:
                self._settle(draft.where, entry, draft.stat(), fresh=True)
                self._publish(draft, entry, step.there)
        except (OSError, OverflowError) as error:
            is_device = stat.S_IFMT(entry.mode) in (stat.S_IFBLK, stat.S_IFCHR)
            if is_device and isinstance(error, OSError) and error.errno == errno.EPERM:
                site.tally.fail_device(site.path(entry.name), error)
            else:
                site.fail(entry.name, error)
            return
        site.tally.verbs[Verb.CREATE if step.there is There.NOTHING else Verb.OVERWRITE] += 1

    def link(self, step: Link) -> None:
        """Links a later name to the first; where that cannot be, gives it content of its own."""
        entry, site = step.entry, self._site
        origin = self._origins.get(entry.link_group)
        names = origin.names if origin is not None else step.origin
        try:
            if origin is None and not step.ino:
                raise OSError(errno.ENOENT, "its first name could not be restored")
            source = self._source(names[:-1])
            found = source.look(names[-1])
            if found is None or found.st_ino != (origin.ino if origin is not None else step.ino):
                raise OSError(errno.ENOENT, "its first name is gone")
            self._clear(entry.name, step.there)
            self._make_link(source, names[-1], entry.name, replace=step.there in {There.SAME_TYPE, There.OTHER})
        except OSError as error:
            if error.errno in _CANNOT_LINK:
                failed = site.tally.failed
                self._without_link(step)
                site.tally.unlinked += site.tally.failed == failed
            else:
                site.fail(entry.name, error)
            return
        site.tally.verbs[Verb.CREATE if step.there is There.NOTHING else Verb.OVERWRITE] += 1

    def _make_link(self, source: Folder, old: bytes, new: bytes, *, replace: bool) -> None:
        """Makes a link. A file that may not be changed takes none: its flags are off for as long as that takes."""
        site = self._site
        try:
            link(source, old, site.folder, new, replace=replace, random=site.random)
            return
        except PermissionError as error:
            if error.errno != errno.EPERM or os.geteuid() != 0 or not self._is_regular(source, old):
                raise
        fd = os.open(old, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=source.fd)
        try:
            flags = read_flags(fd)
            clear_the_way(fd)
            if replace:
                clear_name(site.folder.fd, new)
            try:
                link(source, old, site.folder, new, replace=replace, random=site.random)
            finally:
                write_flags(fd, flags, FLAGS_IN_THE_WAY)
        finally:
            os.close(fd)

    @staticmethod
    def _is_regular(folder: Folder, name: bytes) -> bool:
        found = folder.look(name)
        return found is not None and stat.S_ISREG(found.st_mode)

    def _source(self, names: tuple[bytes, ...]) -> Folder:
        """Opens the folder of a first name; keeps it, because links of one directory come together."""
        if names == self._site.names():
            return self._site.folder
        if self._linked_from is None or self._linked_names != names:
            self.drop_source()
            self._linked_from, self._linked_names = self._site.target.open(names), names
        return self._linked_from

    def drop_source(self) -> None:
        """Closes the folder that was linked from last."""
        if self._linked_from is not None:
            self._linked_from.sleep()
            self._linked_from = None

    def _without_link(self, step: Link) -> None:
        if not step.entry.is_regular:
            self.make(Make(step.entry, step.there))
            return
        for job in self._jobs.of(Write(step.entry, step.there), None):
            if isinstance(job, OpenJob):
                self.open(job)
            elif isinstance(job, PartJob):
                self.part(job)
            elif isinstance(job, CloseJob):
                self.close(job)

    def touch(self, step: Touch) -> None:
        """Puts the attributes of an entry right."""
        entry, site = step.entry, self._site
        try:
            fd = os.open(entry.name, _LOOK, dir_fd=site.folder.fd)
            try:
                found = os.fstat(fd)
                if stat.S_IFMT(found.st_mode) != stat.S_IFMT(entry.mode):
                    raise OSError(errno.ESTALE, "something else took its place")
                where = beside(fd, b"")[:-1] if has_proc() else beside(site.folder.fd, entry.name)
                flags = entry.is_regular and (step.flags or bool(entry.attributes & FLAGS_IN_THE_WAY))
                if flags:
                    clear_the_way(where)
                self._settle(where, entry, found, fresh=False)
                if flags:
                    self._touch_flags(where, entry)
            finally:
                os.close(fd)
        except OSError as error:
            site.fail(entry.name, error)
            return
        site.tally.verbs[Verb.ATTRIBUTES] += 1

    def _touch_flags(self, where: bytes, entry: Entry) -> None:
        fd = os.open(where, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            self._site.miss(entry.name, settle_flags(fd, entry))
        finally:
            os.close(fd)

    def remove(self, step: Remove) -> None:
        """Removes a name, and all that is below it."""
        site = self._site
        if step.leftover:
            self._remove_leftover(step.name, is_dir=step.is_dir)
            return
        removal = remove(site.folder, step.name, site.cancel, step.spares)
        site.tally.verbs[Verb.DELETE] += removal.entries
        site.tally.mounts_kept += removal.mounts
        site.tally.own_kept = site.tally.own_kept or removal.own > 0
        if removal.failed:
            site.fail(step.name, f"it could not be deleted: {removal.reason}")

    def _remove_leftover(self, name: bytes, *, is_dir: bool) -> None:
        """Removes what a killed run left, unless another run is at it."""
        fd_dir = self._site.folder.fd
        with contextlib.suppress(OSError):
            if is_dir:
                remove_unfinished(self._site.folder, name)
                return
            if stat.S_ISREG(os.stat(name, dir_fd=fd_dir, follow_symlinks=False).st_mode):
                fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=fd_dir)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                finally:
                    os.close(fd)
            os.unlink(name, dir_fd=fd_dir)

    def abandon(self) -> None:
        """Takes away the file that is being written, when a run is broken off."""
        file, self._file = self._file, None
        if file is not None:
            if file.draft is not None:
                file.draft.close()
            else:
                os.close(file.fd)
        self.drop_source()
