"""Writing: executes jobs in their order, small files by hundreds.

Invariant: under its own name a file is whole or absent (`--in-place` waives it), and one that cannot be had costs no
other.
"""

from __future__ import annotations

import os
import sys
from array import array

from respaldo import kernel
from respaldo.core.model import Entry
from respaldo.core.seams import Progress
from respaldo.flows.restore.fetch import Fetcher
from respaldo.flows.restore.files import Files
from respaldo.flows.restore.jobs import BatchJob, CloseJob, Job, OpenJob, PartJob
from respaldo.flows.restore.options import Verb
from respaldo.flows.restore.site import Site
from respaldo.flows.restore.steps import Enter, Fail, Leave, Link, Make, Remove, Stay, Touch
from respaldo.fs.settle import SET_ID, Miss
from respaldo.kernel.layout import (
    META,
    SCATTER_OWNER,
    SCATTER_OWNER_FAILED,
    SCATTER_SPARSE,
    SCATTERED,
    STAGE_OK,
)

_DONE = SCATTERED.pack(0, STAGE_OK, 0)


class Writer:
    """Executes jobs. One thread."""

    def __init__(self, site: Site, files: Files, fetcher: Fetcher, progress: Progress) -> None:
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
        if isinstance(step, Make):
            files.make(step)
        elif isinstance(step, Link):
            files.link(step)
        elif isinstance(step, Touch):
            files.touch(step)
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
            tally.failed += len(job.entries) + len(job.failed)
            job.order.release(self._fetcher)
        elif isinstance(job, PartJob):
            job.order.release(self._fetcher)
        elif isinstance(job, OpenJob | Make | Link | Touch | Fail):
            tally.failed += 1

    # --- batches
    # -------------------------------------------------------------------------------------------------------

    def _batch(self, job: BatchJob) -> None:
        order = job.order
        for entry, error in job.failed:
            self._site.fail(entry.name, error)
        self._fetcher.wait(list(order.together))
        if any(task.bad for task in order.together):
            self._drop_bad(job)
        if job.entries:
            pieces = [task.views[slot] for task, slot in zip(order.tasks, order.slots, strict=True)]
            self._scatter(job.entries, job.counts, pieces)
        order.release(self._fetcher)

    def _drop_bad(self, job: BatchJob) -> None:
        """Takes the files out of a batch of which a chunk is bad."""
        order = job.order
        tasks, slots = order.tasks, order.slots
        entries, counts = job.entries, job.counts
        order.tasks, order.slots, job.entries, job.counts = [], [], [], []
        at = 0
        for entry, count in zip(entries, counts, strict=True):
            its_tasks, its_slots = tasks[at : at + count], slots[at : at + count]
            at += count
            errors = (task.bad.get(slot) for task, slot in zip(its_tasks, its_slots, strict=True))
            error = next(filter(None, errors), None)
            if error is not None:
                self._site.fail(entry.name, error)
                continue
            order.tasks += its_tasks
            order.slots += its_slots
            job.entries.append(entry)
            job.counts.append(count)

    def _scatter(self, entries: list[Entry], counts: list[int], pieces: list[memoryview]) -> None:
        site = self._site
        names = b"\0".join([entry.name for entry in entries]) + b"\0"
        meta = self._meta(entries)
        column = array("I", counts)
        if sys.byteorder == "big":
            column.byteswap()
        rows = kernel.scatter(
            site.folder.fd, names, meta, column.tobytes(), pieces, site.target.prefix, self._scatter_options
        )
        length = sum([entry.size for entry in entries])
        done = len(entries)
        if rows != _DONE * len(entries):
            done, length = self._look_at(entries, rows)
        site.tally.verbs[Verb.CREATE] += done
        site.tally.written_bytes += length
        self._progress.advance(files=len(entries), length_bytes=length)

    def _meta(self, entries: list[Entry]) -> bytes:
        site = self._site
        of, pack, chown = site.owners.of, META.pack, site.options.owners
        rows = []
        for entry in entries:
            uid, gid, exact = of(entry)
            mode = entry.mode
            if not exact:
                mode &= ~SET_ID
                if chown:
                    site.miss(entry.name, [Miss.OWNER])
            rows.append(pack(mode, uid, gid, 0, entry.size, entry.mtime_ns, 0))
        return b"".join(rows)

    def _look_at(self, entries: list[Entry], rows: bytes) -> tuple[int, int]:
        """Looks at each file of a batch of which not every one went well; returns how many and how much did."""
        site = self._site
        done = length = 0
        for entry, (error, _, flags) in zip(entries, SCATTERED.iter_unpack(rows), strict=True):
            if error:
                site.fail(entry.name, OSError(error, os.strerror(error)))
                continue
            if flags & SCATTER_OWNER_FAILED:
                site.miss(entry.name, [Miss.OWNER])
            done += 1
            length += entry.size
        return done, length
