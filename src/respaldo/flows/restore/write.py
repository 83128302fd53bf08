"""Writing: executes jobs in their order, small files by hundreds.

Invariant: under its own name a file is whole or absent (`--in-place` waives it), and one that cannot be had costs no
other.
"""

from __future__ import annotations

import os
import sys
from array import array

from respaldo import kernel
from respaldo.core.seams import Progress
from respaldo.flows.restore.columns import Files
from respaldo.flows.restore.files import Files as Others
from respaldo.flows.restore.jobs import BatchJob, CloseJob, Job, OpenJob, PartJob
from respaldo.flows.restore.options import Verb
from respaldo.flows.restore.site import Site
from respaldo.flows.restore.steps import Enter, Fail, Leave, Link, Make, Remove, Stay, Touch
from respaldo.fs.settle import Miss
from respaldo.kernel.layout import (
    SCATTER_OWNER,
    SCATTER_OWNER_FAILED,
    SCATTER_PRIVATE,
    SCATTER_SPARSE,
    SCATTERED,
    STAGE_CHECK,
    STAGE_OK,
    STAGE_OPEN,
)
from respaldo.store.fetch import Fetcher

_DONE = SCATTERED.pack(0, STAGE_OK, 0)
_NOT_BEGUN = frozenset({STAGE_CHECK, STAGE_OPEN})


class Writer:
    """Executes jobs. One thread."""

    def __init__(self, site: Site, files: Others, fetcher: Fetcher, progress: Progress) -> None:
        self._site = site
        self._files = files
        self._fetcher = fetcher
        self._progress = progress
        options = site.options
        self._scatter_options = SCATTER_OWNER * options.owners | SCATTER_SPARSE * options.sparse

    def run(self, job: Job) -> None:
        """Executes a job; raises `TargetError` where the target takes nothing any more, `Interrupted`."""
        site, files = self._site, self._files
        if isinstance(job, Enter):
            site.enter(job)
        elif isinstance(job, Leave):
            site.leave(job)
        elif site.skipped:
            self._skip(job)
        elif isinstance(job, BatchJob):
            self._batch(job)
        elif not site.publish():
            self._skip(job)
        elif isinstance(job, OpenJob):
            files.open(job)
        elif isinstance(job, PartJob):
            files.part(job)
            self._progress.advance(length_bytes=job.length)
        elif isinstance(job, CloseJob):
            files.close(job)
            self._progress.advance(files=1)
        else:
            self._run_step(job)

    def _run_step(self, step: Job) -> None:
        site, files = self._site, self._files
        if isinstance(step, Make | Link | Touch):
            if isinstance(step, Make):
                files.make(step)
            elif isinstance(step, Link):
                files.link(step)
            else:
                files.touch(step)
            self._progress.advance(files=1, length_bytes=step.entry.size if step.entry.is_regular else 0)
        elif isinstance(step, Stay):
            site.tally.verbs[Verb.KEEP if step.kept else Verb.UNCHANGED] += len(step.entries)
            if step.kept and site.options.verify:
                for entry in step.entries:
                    site.tally.excuse(site.path(entry.name))
            self._progress.advance(
                files=len(step.entries), length_bytes=sum(entry.size for entry in step.entries if entry.is_regular)
            )
        elif isinstance(step, Remove):
            files.remove(step)
        elif isinstance(step, Fail):
            site.fail(step.name, step.error)

    def _skip(self, job: Job) -> None:
        """Counts what cannot be restored because its directory could not be made or entered."""
        tally = self._site.tally
        if isinstance(job, BatchJob):
            tally.failed += len(job.files) + len(job.failed)
            job.order.release(self._fetcher)
        elif isinstance(job, PartJob):
            job.order.release(self._fetcher)
        elif isinstance(job, OpenJob | Make | Link | Touch | Fail):
            tally.failed += 1

    # --- batches
    # -------------------------------------------------------------------------------------------------------

    def _batch(self, job: BatchJob) -> None:
        site, order = self._site, job.order
        for name, error in job.failed:
            site.fail(name, error)
        if site.options.owners:
            for name in job.files.disowned:
                site.miss(name, [Miss.OWNER])
        self._fetcher.wait(list(order.together))
        if any(task.bad for task in order.together):
            self._drop_bad(job)
        if job.counts:
            self._scatter(job)
        order.release(self._fetcher)

    def _drop_bad(self, job: BatchJob) -> None:
        """Takes the files out of a batch of which a chunk is bad."""
        order, files = job.order, job.files
        tasks, slots, counts = order.tasks, order.slots, job.counts
        order.tasks, order.slots, job.counts, job.files = [], [], [], Files()
        at = 0
        rows = zip(files.names, files.meta, files.sizes, files.ids, counts, strict=True)
        for name, meta, size, ids, count in rows:
            its_tasks, its_slots = tasks[at : at + count], slots[at : at + count]
            at += count
            errors = (task.bad.get(slot) for task, slot in zip(its_tasks, its_slots, strict=True))
            error = next(filter(None, errors), None)
            if error is not None:
                self._site.fail(name, error)
                continue
            order.tasks += its_tasks
            order.slots += its_slots
            job.add(name, meta, size, ids, count)

    def _scatter(self, job: BatchJob) -> None:
        site, files, order = self._site, job.files, job.order
        column = array("I", job.counts)
        if sys.byteorder == "big":
            column.byteswap()
        rows = kernel.scatter(
            site.folder.fd,
            b"\0".join(files.names) + b"\0",
            b"".join(files.meta),
            column.tobytes(),
            [task.views[slot] for task, slot in zip(order.tasks, order.slots, strict=True)],
            site.target.prefix,
            self._scatter_options | SCATTER_PRIVATE * site.unfinished,
        )
        done = count = len(files)
        length = done_bytes = sum(files.sizes)
        if rows != _DONE * count:
            done, done_bytes = self._look_at(files, rows)
        site.count(done, done_bytes)
        self._progress.advance(files=count, length_bytes=length)

    def _look_at(self, files: Files, rows: bytes) -> tuple[int, int]:
        """Looks at each file of a batch of which not every one went well; returns how many and how much did."""
        site = self._site
        done = length = 0
        for name, size, (error, stage, flags) in zip(
            files.names, files.sizes, SCATTERED.iter_unpack(rows), strict=True
        ):
            if error:
                if stage not in _NOT_BEGUN:
                    site.drop(name)
                site.fail(name, OSError(error, os.strerror(error)))
                continue
            if flags & SCATTER_OWNER_FAILED:
                site.miss(name, [Miss.OWNER])
            done += 1
            length += size
        return done, length
