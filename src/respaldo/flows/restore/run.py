"""One restore from beginning to end: what fits is planned, ordered ahead and written; then, if asked for, read back.

Invariant: nothing outside the target is touched; a run that was broken off leaves no temporary file, and the next one
goes on.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from respaldo.core.errors import TargetError, UsageError
from respaldo.core.model import Entry, Mark
from respaldo.core.seams import Cancel, Clock, Progress, Random, Silent, SystemClock, system_random
from respaldo.flows.restore.account import find_differences, show
from respaldo.flows.restore.columns import leaf_of
from respaldo.flows.restore.contents import Contents
from respaldo.flows.restore.decide import Decider
from respaldo.flows.restore.fetch import Fetcher
from respaldo.flows.restore.files import Files
from respaldo.flows.restore.jobs import BatchJob, Job, Jobs
from respaldo.flows.restore.options import Overwrite, RestoreOptions, RestorePlan, RestoreResult
from respaldo.flows.restore.plan import Planner
from respaldo.flows.restore.seams import Blocks, Trees
from respaldo.flows.restore.select import Selection, Spared
from respaldo.flows.restore.site import Site
from respaldo.flows.restore.space import Room, most, refuse, survey
from respaldo.flows.restore.steps import Batch, Link, Make, Stay, Step, Touch, Write
from respaldo.flows.restore.tally import Tally
from respaldo.flows.restore.write import Writer
from respaldo.format.snapshot import Manifest
from respaldo.format.tree import Leaf
from respaldo.fs.meta import sync_filesystem
from respaldo.fs.place import Folder, Target
from respaldo.fs.settle import Owners

JOBS_AHEAD = 512
ENTRIES_AHEAD = 4096
_SPECIAL = {
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "FIFO",
    stat.S_IFSOCK: "socket",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Restore:
    """Is what is to be restored, from where and to where.

    ``entry`` is what is at ``path`` (absolute, as recorded) of the snapshot that ``manifest`` describes; of ``/``, an
    entry without a name. A directory's content lands directly in ``target``; a file becomes ``target``, or lands in it
    where that is a directory.
    """

    blocks: Blocks
    trees: Trees
    manifest: Manifest
    entry: Entry
    path: bytes
    target: bytes
    options: RestoreOptions = field(default_factory=RestoreOptions)


def plan_restore(restore: Restore, *, progress: Progress | None = None, cancel: Cancel | None = None) -> RestorePlan:
    """Returns what `run_restore` would do now; changes nothing. Raises `UsageError`, `TargetError`, `Interrupted`."""
    cancel = cancel or Cancel()
    tally = Tally(progress or Silent(), still_there=restore.blocks.still_there)
    root = _root(restore)
    with ExitStack() as stack:
        folder = _folder(stack, restore, root, looks_only=True)
        planner = _planner(restore, cancel)
        steps = planner.steps(root.entry, root.base, folder, leaves=root.leaves())
        show(steps, root.base, lambda: planner.folder, tally, cancel)
    return tally.as_plan()


def run_restore(
    restore: Restore,
    *,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
    clock: Clock | None = None,
    random: Random = system_random,
) -> RestoreResult:
    """Restores; returns what was done and what could not be.

    Raises `UsageError` and, before anything is written, `TargetError` where the target is too small; later,
    `TargetError` where it is full or read-only, `Interrupted`, and a `StorageError` where the repository is gone.
    Whatever happens, each file is whole or as it was, and running it again goes on.
    """
    progress, cancel, clock = progress or Silent(), cancel or Cancel(), clock or SystemClock()
    began_ns = clock.monotonic_ns()
    tally = Tally(progress, still_there=restore.blocks.still_there, excuses=restore.options.verify)
    root = _root(restore)
    with ExitStack() as stack:
        folder = _folder(stack, restore, root, looks_only=False)
        _check_space(restore, root, cancel)
        target = stack.enter_context(Target(root.target, random=random))
        run = _Run(restore, root, target, tally, progress, cancel, random)
        run.execute(folder)
    if restore.options.verify:
        _read_back(restore, root, tally, cancel)
    return tally.as_result(clock.monotonic_ns() - began_ns)


@dataclass(frozen=True, slots=True)
class _Root:
    """Is the directory that the walk begins with: the one that is restored, or one around a single file."""

    target: bytes
    base: bytes
    entry: Entry
    only: Entry | None = None

    def leaves(self) -> Iterator[Leaf] | None:
        """Returns what stands for the directory of a single file; None where the directory has a tree."""
        return None if self.only is None else iter([leaf_of([self.only])])


def _root(restore: Restore) -> _Root:
    entry, target = restore.entry, restore.target
    if not target or b"\0" in target:
        raise UsageError("a target cannot be an empty path")
    if entry.is_dir:
        return _Root(target, restore.path, entry)
    place, _, name = target.rpartition(b"/")
    if os.path.isdir(target) or name in (b"", b".", b".."):
        place, name = target, entry.name
    around = Entry(name=b"", mode=stat.S_IFDIR | 0o755, mark=Mark.PARTIAL)
    place = place or (b"/" if target.startswith(b"/") else b".")
    if restore.options.overwrite is not Overwrite.NEVER:
        _refuse_special(os.path.join(place, name), entry)
    return _Root(place, restore.path.rpartition(b"/")[0] or b"/", around, replace(entry, name=name))


def _refuse_special(path: bytes, entry: Entry) -> None:
    """Raises `TargetError` where a single file would take the place of a device, a FIFO or a socket: a typing error."""
    try:
        found = os.lstat(path)
    except OSError:
        return
    kind = stat.S_IFMT(found.st_mode)
    what = _SPECIAL.get(kind)
    same = kind == stat.S_IFMT(entry.mode) and entry.rdev == os.major(found.st_rdev) << 32 | os.minor(found.st_rdev)
    if what is not None and not same:
        hint = "restore to another path, or take away first what is there"
        raise TargetError(path, f"there is a {what}, which a restore does not replace", hint=hint)


def _folder(stack: ExitStack, restore: Restore, root: _Root, *, looks_only: bool) -> Folder | None:
    """Opens the target for the planner, where it is there."""
    if not os.path.isdir(root.target):
        return None
    target = stack.enter_context(Target(root.target, looks_only=looks_only))
    if restore.options.delete and target.is_filesystem_root():
        raise UsageError("--delete is refused on /", hint="restore elsewhere, or without --delete")
    return target.root


def _planner(restore: Restore, cancel: Cancel, *, checks: bool = False) -> Planner:
    """Returns a planner; with ``checks``, one that compares all content, and reads it from the disk."""
    options, manifest = restore.options, restore.manifest
    decider = Decider(
        contents=Contents(restore.blocks, restore.trees),
        owners=Owners(keep=options.owners, numeric=options.numeric_ids),
        overwrite=Overwrite.ALWAYS if checks else options.overwrite,
        in_place=options.in_place and not checks,
        cold=checks,
    )
    return Planner(
        trees=restore.trees,
        decider=decider,
        selection=Selection(options.include, options.exclude),
        spared=Spared(manifest.rules, manifest.sources) if options.delete and not checks else None,
        cancel=cancel,
    )


def _check_space(restore: Restore, root: _Root, cancel: Cancel) -> None:
    """Raises `TargetError` where the target is too small; most often the snapshot's figures suffice to tell."""
    options = restore.options
    if not options.check_space or options.sparse:
        return
    fd = _open_above(root.target)
    try:
        room = Room.at(fd)
    finally:
        os.close(fd)
    figures = most(restore.manifest.figures)
    if figures is not None and room.fits(figures):
        return
    with ExitStack() as stack:
        folder = _folder(stack, restore, root, looks_only=True)
        steps = _planner(restore, cancel).steps(root.entry, root.base, folder, leaves=root.leaves())
        need = survey(steps, Contents(restore.blocks, restore.trees))
    if not room.fits(need):
        raise refuse(root.target, need, room)


def _open_above(path: bytes) -> int:
    """Opens a directory, or the nearest one above that is there."""
    path = os.path.abspath(path)
    while True:
        try:
            return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            path = os.path.dirname(path)
        except OSError as error:
            raise TargetError(path, error.strerror or str(error)) from None


def _read_back(restore: Restore, root: _Root, tally: Tally, cancel: Cancel) -> None:
    """Compares what was written, as the disk has it, with the snapshot."""
    with Target(root.target, looks_only=True) as target:
        sync_filesystem(target.root.fd)
        steps = _planner(restore, cancel, checks=True).steps(root.entry, root.base, target.root, leaves=root.leaves())
        find_differences(steps, root.base, tally)


class _Run:
    """Is one execution of a plan."""

    def __init__(
        self,
        restore: Restore,
        root: _Root,
        target: Target,
        tally: Tally,
        progress: Progress,
        cancel: Cancel,
        random: Random,
    ) -> None:
        self._restore = restore
        self._root = root
        self._tally = tally
        self._progress = progress
        self._cancel = cancel
        self._files = self._bytes = 0
        options = restore.options
        figures = restore.manifest.figures
        self._whole = restore.path == b"/" and not (options.include or options.exclude)
        if self._whole:
            progress.total(files=figures.files + figures.others, length_bytes=figures.length_bytes)
        self._site = Site(
            target=target,
            base=root.base,
            options=options,
            owners=Owners(keep=options.owners, numeric=options.numeric_ids),
            tally=tally,
            progress=progress,
            cancel=cancel,
            random=random,
        )

    def execute(self, folder: Folder | None) -> None:
        """Plans, orders and writes; what is planned stays some blocks ahead of what is written."""
        restore, root = self._restore, self._root
        planner = _planner(restore, self._cancel)
        with Fetcher(restore.blocks, self._cancel) as fetcher:
            jobs = Jobs(restore.blocks, Contents(restore.blocks, restore.trees), fetcher)
            files = Files(self._site, jobs, fetcher)
            writer = Writer(self._site, files, fetcher, self._progress)
            try:
                queue: deque[Job] = deque()
                ahead = 0
                for step in planner.steps(root.entry, root.base, folder, leaves=root.leaves()):
                    if not self._whole:
                        self._announce(step)
                    for job in jobs.of(step, planner.folder):
                        queue.append(job)
                        ahead += _weight(job)
                        while queue and (fetcher.full or len(queue) > JOBS_AHEAD or ahead > ENTRIES_AHEAD):
                            ahead -= self._next(queue, writer)
                while queue:
                    self._next(queue, writer)
                self._tally.unalike = planner.unalike
            finally:
                files.abandon()
                self._site.abandon()

    def _next(self, queue: deque[Job], writer: Writer) -> int:
        self._cancel.check()
        job = queue.popleft()
        weight = _weight(job)
        try:
            writer.run(job)
        except OSError as error:
            raise self._site.full(error) from None
        return weight

    def _announce(self, step: Step) -> None:
        """Lets the total grow with the plan, where no figures say it beforehand."""
        entries: list[Entry] = []
        if isinstance(step, Stay):
            entries = step.entries
        elif isinstance(step, Write | Make | Link | Touch):
            entries = [step.entry]
        elif isinstance(step, Batch):
            self._files += len(step.files)
            self._bytes += sum(step.files.sizes)
        else:
            return
        self._files += len(entries)
        self._bytes += sum(entry.size for entry in entries if entry.is_regular)
        self._progress.total(files=self._files, length_bytes=self._bytes)


def _weight(job: Job) -> int:
    if isinstance(job, BatchJob):
        return len(job.files)
    return len(job.entries) if isinstance(job, Stay) else 1
