"""Measures where waiting counts: a disk whose pages were dropped from memory, and a storage that is far away.

The far one runs in this process, on a wrapper that sleeps before each call, and counts the calls by verb and by folder:
round trips that could be one, or that could be made at once, show there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benches.course import compare
from benches.measure import Command, CommandFailed, pipeline, run
from benches.tools import CACHE, Respaldo
from respaldo import api
from respaldo.api.repository import Repository
from respaldo.backend.base import Backend, Listing, Names, Stage
from respaldo.backend.local import LocalBackend
from respaldo.backend.wrap import Latency, Wrapper
from respaldo.chunk.chunker import ChunkerParams
from respaldo.core.seams import Buffer, Cancel, Silent, SystemClock, system_random
from respaldo.format.config import Config
from respaldo.store.making import create
from respaldo.store.repo import Repo

LATENCY_S = 0.02
DROP_CACHES = Path("/proc/sys/vm/drop_caches")
Fill = Callable[[Path], None]


# --- a cold cache ----------------------------------------------------------------------------------------------------


def measure_cold(console: Console, disk: Path | None, fill: Fill) -> list[dict[str, object]]:
    """Measures each step twice, with everything in memory and with nothing, beside reading and copying the tree."""
    parent = disk or CACHE
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="cold-", dir=parent) as name:
        folder = Path(name)
        source, target, copy = folder / "source", folder / "target", folder / "copy"
        fill(source)
        tool = Respaldo(folder / "tool")
        tool.folder.mkdir()
        run(tool.init())
        commands: dict[str, Callable[[], Command]] = {
            "reading it: tar c": lambda: pipeline(f"tar c '{source}' | cat"),
            "copying it: cp -a": lambda: pipeline(f"cp -a '{source}' '{copy}'"),
            "fresh": lambda: tool.backup(source, 0),
            "again": lambda: tool.backup(source, 0),
            "restore": lambda: tool.restore(source, 0, target),
            "verify": tool.verify,
        }
        rows: list[dict[str, object]] = []
        for state in ("warm", "cold"):
            shutil.rmtree(tool.folder)
            tool.folder.mkdir()
            run(tool.init())
            time.sleep(3)
            for step, command in commands.items():
                for old in (target, copy):
                    shutil.rmtree(old, ignore_errors=True)
                how = drop(folder) if state == "cold" else ""
                usage = run(command())
                rows.append({"step": step, "state": state, "how": how, "wall_s": usage.wall_s, "cpu_s": usage.cpu_s})
                if step == "restore" and (differences := compare(f"{source}/", f"{target}/")):
                    raise CommandFailed(f"cold, restore: what came back differs: {differences}")
    _show_cold(console, rows, list(commands))
    return rows


def drop(folder: Path) -> str:
    """Takes what lies below a directory out of the page cache; returns how."""
    os.sync()
    try:
        DROP_CACHES.write_text("3\n", "ascii")
    except OSError:
        for top, _, names in os.walk(folder):
            for name in names:
                with contextlib.suppress(OSError):
                    fd = os.open(os.path.join(top, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
                    try:
                        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                    finally:
                        os.close(fd)
        return "posix_fadvise: content only, names and inodes stay"
    return "drop_caches"


def _show_cold(console: Console, rows: Sequence[dict[str, object]], steps: Sequence[str]) -> None:
    how = next((str(row["how"]) for row in rows if row["how"]), "")
    table = Table(title=f"on a disk, warm and cold ({how})", title_justify="left", title_style="bold")
    table.add_column("step")
    for name in ("warm s", "cold s", "cold CPU s"):
        table.add_column(name, justify="right")
    found = {(row["step"], row["state"]): row for row in rows}
    for step in steps:
        warm, cold = found[step, "warm"], found[step, "cold"]
        table.add_row(step, f"{warm['wall_s']:.2f}", f"{cold['wall_s']:.2f}", f"{cold['cpu_s']:.2f}")
    console.print(table)


# --- a storage far away ----------------------------------------------------------------------------------------------


class CallsByKind(Wrapper):
    """Counts calls by verb and folder, and how many were in flight at once."""

    def __init__(self, inner: Backend) -> None:
        super().__init__(inner)
        self.calls: Counter[str] = Counter()
        self.most_at_once = 0
        self._now = 0
        self._lock = threading.Lock()

    def reset(self) -> None:
        self.calls.clear()
        self.most_at_once = 0

    @contextlib.contextmanager
    def _counted(self, verb: str, name: str, calls: int = 1):
        with self._lock:
            self.calls[f"{verb} {name.partition('/')[0]}"] += calls
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            yield
        finally:
            with self._lock:
                self._now -= 1

    def put(self, name: str, pieces: Sequence[Buffer]) -> None:
        with self._counted("put", name):
            self.inner.put(name, pieces)

    def stage(self, folder: str) -> Stage:
        # The default collects, and ends in this wrapper's own `put`, as a server's client would.
        return Backend.stage(self, folder)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        with self._counted("get", name):
            return self.inner.get(name, offset, length)

    def list(self, folder: str) -> Listing:
        with self._counted("list", folder):
            return self.inner.list(folder)

    def names(self, folder: str) -> Names:
        with self._counted("list", folder):
            return self.inner.names(folder)

    def delete(self, name: str) -> None:
        with self._counted("delete", name):
            self.inner.delete(name)

    def discard(self, names: Iterable[str]) -> int:
        names = tuple(names)
        if not names:
            return 0
        with self._counted("delete", names[0], len(names)):
            return self.inner.discard(names)

    def exists(self, name: str) -> int | None:
        with self._counted("exists", name):
            return self.inner.exists(name)

    def space(self) -> tuple[int, int] | None:
        with self._counted("space", ""):
            return self.inner.space()


def measure_latency(console: Console, scratch: Path, fill: Fill) -> list[dict[str, object]]:
    """Counts the calls of a backup, the same again, one by a new client, and a restore by another new client."""
    source, target = scratch / "far-source", scratch / "far-target"
    fill(source)
    time.sleep(3)
    secret = api.Secret(key=bytes(range(32)))
    near = LocalBackend(str(scratch / "far"), create=True)
    params = ChunkerParams.standard()
    config = Config(chunker=(params.minimum, params.average, params.maximum, params.strict, params.loose))
    clock = SystemClock()
    create(near, secret=secret, kdf=api.STANDARD, config=config, clock=clock, random=system_random, label="")
    far = CallsByKind(Latency(near, LATENCY_S))

    def backup(repository: Repository) -> None:
        repository.backup([os.fsencode(source)], api.BackupOptions(), progress=Silent(), cancel=Cancel())

    def restore(repository: Repository) -> None:
        found = repository.find(f"latest:{source}")
        options = api.RestoreOptions()
        repository.restore(found, os.fsencode(target), options, progress=Silent(), cancel=Cancel())

    def verify(repository: Repository) -> None:
        result = repository.verify(api.VerifyOptions(read_data=True), progress=Silent(), cancel=Cancel())
        if result.damages:
            raise CommandFailed(f"latency, verify: {result.damages[0]}")

    rows: list[dict[str, object]] = []
    for step, client, work in (
        ("fresh", "a", backup),
        ("again", "a", backup),
        ("again, new client", "b", backup),
        ("restore, new client", "c", restore),
        ("verify --read-data", "a", verify),
    ):
        far.reset()
        start_s, start_cpu_s = time.perf_counter(), time.process_time()
        # Closing it would close the storage, which the next step needs.
        repo = Repo.open(far, secret, cache_dir=scratch / f"far-{client}", clock=clock, random=system_random)
        try:
            work(Repository(repo, secret, pinned=True))
        finally:
            repo.index.close()
        rows.append(
            {
                "step": step,
                "wall_s": time.perf_counter() - start_s,
                "cpu_s": time.process_time() - start_cpu_s,
                "calls": dict(sorted(far.calls.items())),
                "calls_in_all": far.calls.total(),
                "most_at_once": far.most_at_once,
            }
        )
    if differences := compare(f"{source}/", f"{target}/"):
        raise CommandFailed(f"latency, restore: what came back differs: {differences}")
    near.close()
    _show_latency(console, rows)
    return rows


def _show_latency(console: Console, rows: Sequence[dict[str, object]]) -> None:
    title = f"a storage that answers after {LATENCY_S * 1000:.0f} ms, in process, opened with a key"
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("step")
    for name in ("wall s", "CPU s", "calls", "at once"):
        table.add_column(name, justify="right")
    table.add_column("by verb and folder")
    for row in rows:
        calls = ", ".join(f"{name} {count}" for name, count in row["calls"].items())
        cells = (f"{row['wall_s']:.2f}", f"{row['cpu_s']:.2f}", str(row["calls_in_all"]), str(row["most_at_once"]))
        table.add_row(row["step"], *cells, calls)
    console.print(table)
