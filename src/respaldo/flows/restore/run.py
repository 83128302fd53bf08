"""One restore from beginning to end: what fits is planned, ordered ahead and written; then, if asked for, read back.

Invariant: nothing outside the target is touched; a run that was broken off leaves no temporary file, and the next one
goes on.
"""

from __future__ import annotations

import os
from collections import deque
from contextlib import ExitStack, closing

from respaldo.core.errors import TargetError
from respaldo.core.model import Entry
from respaldo.core.seams import Cancel, Clock, Progress, Random, Silent, SystemClock, system_random
from respaldo.flows.restore.account import find_differences, show
from respaldo.flows.restore.begin import Restore, Root, open_folder, planner_of, root_of
from respaldo.flows.restore.contents import Contents
from respaldo.flows.restore.files import Files
from respaldo.flows.restore.jobs import BatchJob, Job, Jobs
from respaldo.flows.restore.options import RestorePlan, RestoreResult
from respaldo.flows.restore.site import Site
from respaldo.flows.restore.space import Promise, Room, most, refuse, survey
from respaldo.flows.restore.steps import Batch, Link, Make, Stay, Step, Touch, Write
from respaldo.flows.restore.tally import Tally
from respaldo.flows.restore.write import Writer
from respaldo.fs.meta import sync_filesystem
from respaldo.fs.place import Folder, Target
from respaldo.fs.settle import Owners
from respaldo.store.fetch import Fetcher

JOBS_AHEAD = 512
ENTRIES_AHEAD = 4096


def plan_restore(restore: Restore, *, progress: Progress | None = None, cancel: Cancel | None = None) -> RestorePlan:
    """Returns what `run_restore` would do now; changes nothing. Raises `UsageError`, `TargetError`, `Interrupted`."""
    cancel = cancel or Cancel()
    tally = Tally(progress or Silent(), still_there=restore.blocks.still_there)
    root = root_of(restore)
    with ExitStack() as stack:
        folder = open_folder(stack, restore, root, looks_only=True)
        planner = planner_of(restore, cancel)
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
    root = root_of(restore)
    with ExitStack() as stack:
        folder = open_folder(stack, restore, root, looks_only=False)
        promise = _check_space(restore, root, cancel)
        target = stack.enter_context(Target(root.target, random=random, own=restore.own))
        run = _Run(restore, root, target, tally, progress, cancel, random)
        run.execute(folder, promise)
    if restore.options.verify:
        _read_back(restore, root, tally, cancel)
    return tally.as_result(clock.monotonic_ns() - began_ns)


def _check_space(restore: Restore, root: Root, cancel: Cancel, *, exactly: bool = False) -> Promise | None:
    """Raises `TargetError` where the target is too small.

    Most often the snapshot's figures suffice to tell, unless ``exactly`` is wanted; they are returned, to be kept to.
    """
    options = restore.options
    if not options.check_space or options.sparse:
        return None
    fd = _open_above(root.target)
    try:
        room = Room.at(fd)
    finally:
        os.close(fd)
    figures = most(restore.manifest.figures)
    if figures is not None and room.fits(figures) and not exactly:
        return Promise(figures)
    with ExitStack() as stack:
        folder = open_folder(stack, restore, root, looks_only=True)
        planner = planner_of(restore, cancel)
        steps = planner.steps(root.entry, root.base, folder, leaves=root.leaves())
        stack.callback(steps.close)
        need = survey(steps, Contents(restore.blocks, restore.trees), room, lambda: planner.folder)
    if not room.fits(need):
        raise refuse(root.target, need, room, begun=exactly)
    return None


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


def _read_back(restore: Restore, root: Root, tally: Tally, cancel: Cancel) -> None:
    """Compares what was written, as the disk has it, with the snapshot."""
    with Target(root.target, looks_only=True, own=restore.own) as target:
        sync_filesystem(target.root.fd)
        steps = planner_of(restore, cancel, checks=True).steps(root.entry, root.base, target.root, leaves=root.leaves())
        find_differences(steps, root.base, tally)


class _Run:
    """Is one execution of a plan."""

    def __init__(
        self,
        restore: Restore,
        root: Root,
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
        everything = restore.path == b"/" or restore.manifest.sources == (restore.path,)
        self._whole = everything and most(figures) is not None and not (options.include or options.exclude)
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

    def execute(self, folder: Folder | None, promise: Promise | None) -> None:
        """Plans, orders and writes; what is planned stays some blocks ahead of what is written."""
        restore, root = self._restore, self._root
        planner = planner_of(restore, self._cancel)
        # Closed where a run ends early, because it has directories of the target open.
        steps = planner.steps(root.entry, root.base, folder, leaves=root.leaves())
        with Fetcher(restore.blocks, self._cancel) as fetcher, closing(steps):
            jobs = Jobs(restore.blocks, Contents(restore.blocks, restore.trees), fetcher)
            files = Files(self._site, jobs, fetcher)
            writer = Writer(self._site, files, fetcher, self._progress)
            try:
                queue: deque[Job] = deque()
                ahead = 0
                for step in steps:
                    if not self._whole:
                        self._announce(step)
                    if promise is not None and promise.breaks(step):
                        promise = _check_space(restore, root, self._cancel, exactly=True)
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
