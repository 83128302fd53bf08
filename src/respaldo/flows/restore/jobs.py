"""Jobs: steps with their content ordered, so that blocks are decoded while what came before them is written.

A batch becomes one job; a longer file is opened, filled part by part, and closed. What cannot be had is found out here,
or when its block is opened; either way it concerns one file.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from respaldo.core.errors import ChunkMissing, RespaldoError
from respaldo.core.ids import CHUNK_ID_BYTES, ChunkId, Kind
from respaldo.flows.restore.columns import Files
from respaldo.flows.restore.contents import Contents, Piece, too_long, too_short
from respaldo.flows.restore.steps import Batch, Step, Write
from respaldo.fs.place import Folder
from respaldo.store.blocks import Blocks, Location, Run
from respaldo.store.fetch import Fetcher, Order

PART_BYTES = 2 << 20
PART_PIECES = 64
BATCH_TASKS = 6
"""A batch whose files lie in more blocks than this is written in parts: all of its blocks are held at once."""
_LOCAL = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class _Place(NamedTuple):
    pack: int
    block: int
    offset: int
    length: int


@dataclass(slots=True)
class BatchJob:
    """Is plain files to be created by one call: how many chunks each has, and which failed already."""

    files: Files
    counts: list[int] = field(default_factory=list)
    order: Order = field(default_factory=Order)
    failed: list[tuple[bytes, RespaldoError]] = field(default_factory=list)

    def add(self, name: bytes, meta: bytes, size: int, ids: bytes, count: int) -> None:
        """Adds a file of so many chunks, which have been ordered."""
        files = self.files
        files.names.append(name)
        files.meta.append(meta)
        files.sizes.append(size)
        files.ids.append(ids)
        self.counts.append(count)


@dataclass(slots=True)
class OpenJob:
    """Begins a file."""

    step: Write


@dataclass(slots=True)
class PartJob:
    """Is a part of the file that was begun: its offset, and its pieces (length, whether a hole, whether there)."""

    offset: int
    pieces: list[tuple[int, bool, bool]] = field(default_factory=list)
    order: Order = field(default_factory=Order)
    length: int = 0


@dataclass(slots=True)
class CloseJob:
    """Ends the file that was begun."""

    error: RespaldoError | None = None


Job = Step | BatchJob | OpenJob | PartJob | CloseJob


class Jobs:
    """Turns steps into jobs. One thread."""

    def __init__(self, blocks: Blocks, contents: Contents, fetcher: Fetcher) -> None:
        self._blocks = blocks
        self._contents = contents
        self._fetcher = fetcher

    def of(self, step: Step, folder: Folder | None) -> Iterator[Job]:
        """Yields the jobs of a step. ``folder``: where it will be executed, if that is there already."""
        if isinstance(step, Batch):
            yield from self._batch(step)
        elif isinstance(step, Write):
            yield OpenJob(step)
            yield from self._parts(step, folder)
        else:
            yield step

    def _batch(self, step: Batch) -> Iterator[Job]:
        files = step.files
        ids = b"".join(files.ids)
        runs = self._blocks.locate_runs(ids)
        return self._by_runs(files, ids, runs) if _fit(files, runs) else self._by_files(files, runs)

    def _by_runs(self, files: Files, ids: bytes, runs: Sequence[Run]) -> Iterator[Job]:
        """Orders files of one chunk each, or none, all of which are there: nearly all are, and lie in few runs."""
        with_chunk = [number for number, size in enumerate(files.sizes) if size]
        counts = [1 if size else 0 for size in files.sizes]
        order = Order()
        first = at = 0
        for run in runs:
            if len(order.together) >= BATCH_TASKS:
                end = with_chunk[at]
                yield BatchJob(files.part(first, end), counts[first:end], order)
                first, order = end, Order()
            count = len(run.spans)
            start, stop = at * CHUNK_ID_BYTES, (at + count) * CHUNK_ID_BYTES
            chunk_ids = [ChunkId(ids[here : here + CHUNK_ID_BYTES]) for here in range(start, stop, CHUNK_ID_BYTES)]
            order.add_run(self._fetcher, chunk_ids, run)
            at += count
        yield BatchJob(files.part(first, len(files)), counts[first:], order)

    def _by_files(self, files: Files, runs: Sequence[Run]) -> Iterator[Job]:
        """Orders files one by one; what does not fit fails by itself."""
        job = BatchJob(Files(disowned=files.disowned))
        want = self._fetcher.want
        places = iter(_places(runs))
        for name, meta, size, ids in zip(files.names, files.meta, files.sizes, files.ids, strict=True):
            if len(job.order.together) >= BATCH_TASKS:
                yield job
                job = BatchJob(Files())
            order = job.order
            its = list(islice(places, len(ids) // CHUNK_ID_BYTES))
            error = _misfit(name, size, ids, its)
            if error is not None:
                job.failed.append((name, error))
                continue
            for number, place in enumerate(its):
                if place is not None:
                    chunk_id = ChunkId(ids[number * CHUNK_ID_BYTES : (number + 1) * CHUNK_ID_BYTES])
                    task, slot = want(chunk_id, place)
                    if task not in order.together:
                        order.together[task] = None
                        task.users += 1
                    order.tasks.append(task)
                    order.slots.append(slot)
            job.add(name, meta, size, ids, len(its))
        yield job

    def _parts(self, step: Write, folder: Folder | None) -> Iterator[Job]:
        """Yields the parts of a file; leaves out the pieces that a local file has."""
        local = _open_local(step, folder)
        part = PartJob(0)
        try:
            for piece in self._contents.pieces(step.entry):
                # A long hole is a part of its own; a hostile one is longer than any file can be.
                if part.pieces and (part.length + piece.length > PART_BYTES or len(part.pieces) >= PART_PIECES):
                    yield part
                    part = PartJob(part.offset + part.length)
                self._add(part, piece, local)
            if part.pieces:
                yield part
            yield CloseJob()
        except RespaldoError as error:
            # What was ordered is handed over, so that it is let go.
            yield part
            yield CloseJob(error)
        finally:
            if local >= 0:
                os.close(local)

    def _add(self, part: PartJob, piece: Piece, local: int) -> None:
        there = False
        if local >= 0:
            try:
                there = self._contents.has(local, part.offset + part.length, piece)
            except OSError:
                there = False
        part.pieces.append((piece.length, piece.at is None, there))
        part.length += piece.length
        if piece.at is not None and not there:
            part.order.add(self._fetcher, piece.id, piece.at)


def _fit(files: Files, runs: Sequence[Run]) -> bool:
    """Whether each file that is not empty is one chunk, and all of them are there, as long as the files."""
    return (
        all(run.pack >= 0 for run in runs)
        and [length for run in runs for _, length in run.spans] == [size for size in files.sizes if size]
        and [len(ids) for ids in files.ids] == [CHUNK_ID_BYTES if size else 0 for size in files.sizes]
    )


def _places(runs: Sequence[Run]) -> Iterator[Location | None]:
    for run in runs:
        for offset, length in run.spans:
            yield None if run.pack < 0 else _Place(run.pack, run.block, offset, length)


def _misfit(name: bytes, size: int, ids: bytes, places: list[Location | None]) -> RespaldoError | None:
    """Returns what is wrong with the content of a file, None where its chunks are there and as long as the file."""
    length = 0
    for number, place in enumerate(places):
        if place is None:
            chunk_id = ChunkId(ids[number * CHUNK_ID_BYTES : (number + 1) * CHUNK_ID_BYTES])
            return ChunkMissing(Kind.DATA.word, chunk_id)
        length += place.length
    if length == size:
        return None
    return too_long(name) if length > size else too_short(name)


def _open_local(step: Write, folder: Folder | None) -> int:
    if not step.local or folder is None:
        return -1
    try:
        fd = os.open(step.local, _LOCAL, dir_fd=folder.fd)
    except OSError:
        return -1
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        return -1
    return fd
