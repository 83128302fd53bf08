"""One measurement from beginning to end: room is looked for first; whatever happens, no scratch directory stays.

The repository is read; packs are taken out of memory before each part, so that reading them is reading the disk.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack

from respaldo.api.bench.disk import drop, read_rate, write_rate
from respaldo.api.bench.runs import Runs
from respaldo.api.bench.scratch import beside, scratch, with_room
from respaldo.api.bench.stages import measure_stages, packs_of
from respaldo.api.bench.values import Bench, BenchOptions, Timing
from respaldo.api.naming import Found
from respaldo.api.places import repository_path
from respaldo.api.repository import Repository
from respaldo.backend.folders import path_of
from respaldo.core.errors import UsageError
from respaldo.core.ids import PackName
from respaldo.core.seams import Cancel, Progress
from respaldo.store.repo import Repo

DISK_BYTES = 64 << 20
_DROPPED_MAX = 20_000
"""Of more packs, only so many are taken out of memory before a run."""


def measure(repository: Repository, repo: Repo, options: BenchOptions, *, progress: Progress, cancel: Cancel) -> Bench:
    """Measures; raises `TargetError` where there is no room, or none any more, `NoSuchSnapshot`, `NoSuchPath`."""
    found, skipped = _found(repository, options)
    path = repository_path(repository.location)
    for place in options.places:
        if (os.path.realpath(place) + "/").startswith(path + "/"):
            raise UsageError(
                f"{place} lies in the repository", hint="name a directory elsewhere: --directory DIRECTORY"
            )
    disk_bytes = min(DISK_BYTES, options.sample_bytes)
    need_beside = max(options.sample_bytes + disk_bytes, 2 * options.made_bytes if options.runs else 0)
    near = beside(path, need_beside)
    place = with_room(options.places, lambda device: _need(options, disk_bytes) + _shared(near, device, need_beside))
    with ExitStack() as stack:
        folder = stack.enter_context(scratch(place, repo.random))
        other = folder if near is None else stack.enter_context(scratch(near, repo.random))
        packs = [_file(path, name) for name in packs_of(repo)]
        disk = []
        progress.at(b"the disk")
        if packs:
            disk.append(read_rate(packs, disk_bytes, repo.clock, cancel))
        disk.append(write_rate("write", folder, disk_bytes, repo.clock, repo.random, cancel))
        if os.stat(other).st_dev != os.stat(folder).st_dev:
            disk.append(write_rate("write beside", other, disk_bytes, repo.clock, repo.random, cancel))
        progress.at(b"stages")
        drop(packs)
        stages = measure_stages(repo, sample_bytes=options.sample_bytes, restored=folder, stored=other, cancel=cancel)
        forget_pages = _forgetting(repo, path)
        runs = Runs(repository, repo, folder, other, options, progress, cancel, forget_pages)
        timings: list[Timing] = []
        if options.runs:
            if found is not None:
                timings += runs.reading(found)
            timings += runs.storing()
    return Bench(
        own_data=stages.own_data,
        sample_bytes=stages.sample_bytes,
        disk=tuple(disk),
        restoring=stages.restoring,
        storing=stages.storing,
        runs=tuple(timings),
        first_byte_ns=tuple(sorted(runs.first_byte_ns)),
        snapshot=found.snapshot.hex if found is not None else "",
        place=place,
        place_beside=near or place,
        skipped=skipped,
        damaged=stages.damaged + runs.damaged,
    )


def _found(repository: Repository, options: BenchOptions) -> tuple[Found | None, str]:
    """Returns what is to be restored, or why nothing is."""
    if not options.runs:
        return None, "not asked for"
    if options.name == "latest" and not repository.snapshots().snapshots:
        return None, "there is no snapshot yet"
    return repository.find(options.name, host=options.host), ""


def _need(options: BenchOptions, disk_bytes: int) -> int:
    """Returns the bytes that the scratch place must have: what the stages write goes before the runs begin.

    What is restored counts twice, since every file takes whole pages.
    """
    stages = options.sample_bytes + disk_bytes
    if not options.runs:
        return stages
    return max(stages, 2 * options.size_bytes + options.files * options.single_bytes + options.made_bytes)


def _shared(near: str | None, device: int, need_beside: int) -> int:
    """Returns what the scratch repository takes of the same file system."""
    return need_beside if near is None or os.stat(near).st_dev == device else 0


def _file(path: str, pack: PackName) -> str:
    return os.path.join(path, path_of("packs", pack.hex()))


def _forgetting(repo: Repo, path: str) -> Callable[[], None]:
    """Returns what takes the repository's packs, and blocks of them that are kept, out of memory."""
    packs = [_file(path, pack.name) for pack in repo.index.packs()[:_DROPPED_MAX]]

    def forget() -> None:
        repo.source.forget_positions()
        drop(packs)

    return forget
