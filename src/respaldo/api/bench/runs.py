"""Whole runs: files waited for, restored one by one and all together, a verification, made-up data backed up twice.

Reads the repository that is measured and writes to the two scratch directories, nowhere else. A run that writes counts
until it is on the disk.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from respaldo.api.bench.excerpt import Excerpt, beginning, fits, pick
from respaldo.api.bench.made import fill
from respaldo.api.bench.values import BenchOptions, Timing
from respaldo.api.blocks import restore_of
from respaldo.api.making import init
from respaldo.api.naming import Found
from respaldo.api.opening import open_repository
from respaldo.api.places import Places
from respaldo.api.repository import Repository
from respaldo.catalog.trees import TreeReader
from respaldo.codec.keys import KEY_BYTES
from respaldo.codec.slots import Secret
from respaldo.core.errors import ChunkMissing, Corruption
from respaldo.core.model import Entry
from respaldo.core.seams import Cancel, Progress
from respaldo.flows.backup.options import BackupOptions
from respaldo.flows.check.options import Subset, VerifyOptions
from respaldo.flows.restore.options import RestoreOptions, RestoreResult
from respaldo.flows.restore.run import run_restore
from respaldo.flows.restore.seams import Trees
from respaldo.fs.meta import sync_filesystem
from respaldo.store.repo import Repo
from respaldo.views.content import Contents


class Runs:
    """Makes the runs of one measurement. One thread."""

    def __init__(
        self,
        repository: Repository,
        repo: Repo,
        folder: str,
        other: str,
        options: BenchOptions,
        progress: Progress,
        cancel: Cancel,
        forget_pages: Callable[[], None],
    ) -> None:
        self._repository = repository
        self._repo = repo
        self._folder = folder
        self._other = other
        self._options = options
        self._progress = progress
        self._cancel = cancel
        self._forget_pages = forget_pages
        self._trees = TreeReader(repo.source)
        self._duration_ns = self._cpu_ns = 0
        self.first_byte_ns: list[int] = []
        self.damaged = 0

    def reading(self, found: Found) -> Iterator[Timing]:
        """Waits for single files, restores others, then as much as was asked for, and verifies as much."""
        count = self._options.files
        files = pick(self._trees, found.entry, found.path, 2 * count, found.snapshot.id)
        self._progress.at(b"first bytes of files")
        self._wait_for([entry for _, entry in files[:count]])
        yield from self._restore_single(found, files[-count:])
        yield from self._restore_many(found)
        yield self._verify()

    def _wait_for(self, entries: list[Entry]) -> None:
        contents = Contents(self._repo.source, self._trees)
        for entry in entries:
            self._cancel.check()
            self._forget_pages()
            started_ns = self._repo.clock.monotonic_ns()
            try:
                next(contents.read(entry), b"")
            except (Corruption, ChunkMissing):
                self.damaged += 1
            else:
                self.first_byte_ns.append(self._repo.clock.monotonic_ns() - started_ns)

    def _restore_single(self, found: Found, files: list[tuple[bytes, Entry]]) -> Iterator[Timing]:
        source, length_max = self._repo.source, self._options.single_bytes
        cut = [(path, beginning(self._trees, source, entry, length_max)) for path, entry in files]
        chosen = [(path, entry) for path, entry in cut if entry is not None]
        if not chosen:
            return
        folder = os.path.join(self._folder, "single")
        os.mkdir(folder)
        written = 0
        self._progress.at(b"restoring single files")
        with self._timed(folder):
            for number, (path, entry) in enumerate(chosen):
                target = os.path.join(folder, str(number))
                one = Found(snapshot=found.snapshot, path=path, entry=entry)
                written += self._restore(one, target, self._trees).written_bytes
        yield self._timing("single files", written, len(chosen))

    def _restore_many(self, found: Found) -> Iterator[Timing]:
        figures = found.snapshot.manifest.figures
        trees: Trees = self._trees
        entry: Entry | None = found.entry
        if found.path != b"/" or not fits(figures.length_bytes, figures.files, self._options.size_bytes):
            self._progress.at(b"choosing what to restore")
            excerpt = Excerpt(self._trees, self._repo.source, found.entry, self._options.size_bytes)
            trees, entry = excerpt, excerpt.entry
        if entry is None:
            return
        target = os.path.join(self._folder, "restored")
        self._progress.at(b"restoring")
        with self._timed(self._folder):
            result = self._restore(replace(found, entry=entry), target, trees)
        yield self._timing("restore", result.written_bytes, result.created)

    def _restore(self, found: Found, target: str, trees: Trees) -> RestoreResult:
        options = RestoreOptions(owners=False, check_space=False)
        restore = restore_of(self._repo, trees, found, os.fsencode(target), options)
        result = run_restore(
            restore, progress=self._progress, cancel=self._cancel, clock=self._repo.clock, random=self._repo.random
        )
        self.damaged += result.damaged
        return result

    def _verify(self) -> Timing:
        options = VerifyOptions(subset=Subset(length_bytes=self._options.size_bytes))
        with self._timed():
            result = self._repository.verify(options, progress=self._progress, cancel=self._cancel)
        self.damaged += len(result.damages)
        return self._timing("verify", result.read_bytes, 0)

    def storing(self) -> Iterator[Timing]:
        """Makes data up and backs it up twice, into a repository that is thrown away."""
        made = os.path.join(self._folder, "made")
        self._progress.at(b"making data up")
        count = fill(made, self._options.made_bytes, self._repo.random, self._cancel)
        places = Places(cache_dir=Path(self._folder, "cache"), state_dir=Path(self._folder, "state"))
        secret = Secret(key=self._repo.random(KEY_BYTES))
        location = f"file:{os.path.join(self._other, 'repository')}"
        init(location, secret, places=places)
        with open_repository(location, secret, places=places, writes=True) as trial:
            for name in ("snapshot", "snapshot, unchanged"):
                with self._timed(self._folder):
                    result = trial.backup(
                        [os.fsencode(made)], BackupOptions(), progress=self._progress, cancel=self._cancel
                    )
                yield self._timing(name, result.figures.length_bytes, count)

    @contextmanager
    def _timed(self, folder: str = "") -> Iterator[None]:
        """Times what is done: until what it wrote is on the disk, where a directory on that disk is given."""
        self._forget_pages()
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if folder else -1
        try:
            if fd >= 0:
                sync_filesystem(fd)  # what others have still to write would be counted as ours
            started_ns, cpu_ns = self._repo.clock.monotonic_ns(), _cpu_ns()
            yield
            if fd >= 0:
                sync_filesystem(fd)
            self._duration_ns = self._repo.clock.monotonic_ns() - started_ns
            self._cpu_ns = _cpu_ns() - cpu_ns
        finally:
            if fd >= 0:
                os.close(fd)

    def _timing(self, name: str, length: int, files: int) -> Timing:
        return Timing(name=name, length_bytes=length, duration_ns=self._duration_ns, cpu_ns=self._cpu_ns, files=files)


def _cpu_ns() -> int:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return int((used.ru_utime + used.ru_stime) * 1e9)
