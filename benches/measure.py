"""Runs a command and measures it: wall clock, CPU seconds, and the memory of the whole process tree while it runs.

Memory is sampled: a thread adds up what /proc says of the command and all its descendants, about fifty times a second.
A peak between two samples is missed, and resident pages that processes share count once for each of them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SAMPLE_S = 0.02
LIMIT_S = 1800.0
_KEPT_ERROR_CHARACTERS = 1500


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """Is what to run, and where; the environment comes on top of the present one."""

    words: Sequence[str | Path]
    environment: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Is what one run took. Memory is None where the command ended before the first sample."""

    wall_s: float
    cpu_s: float
    anonymous_bytes: int | None
    resident_bytes: int | None


class CommandFailed(Exception):
    """Says which command failed, and what it printed."""


def pipeline(text: str, cwd: Path | None = None) -> Command:
    """Returns a command of bash in which no part of a pipe may fail unseen."""
    return Command(words=["bash", "-c", f"set -o pipefail; {text}"], cwd=cwd)


def run(command: Command, limit_s: float = LIMIT_S) -> Usage:
    """Runs a command to its end; raises `CommandFailed` for a status other than 0 and for one that takes too long."""
    # As an installed program runs: with its modules compiled once, not at every start.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryFile() as errors:
        start = time.perf_counter()
        process = subprocess.Popen(
            [os.fspath(word) for word in command.words],
            env=environment | command.environment,
            cwd=command.cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        )
        watch = Watch(process.pid, limit_s)
        try:
            watch.start()
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            kill_group(process.pid)
            process.wait()
            raise
        finally:
            watch.stop()
        wall_s = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip()[-_KEPT_ERROR_CHARACTERS:]
            reason = f"took more than {limit_s:.0f} s" if watch.late else f"status {process.returncode}"
            words = " ".join(str(word) for word in command.words)
            raise CommandFailed(f"{words}: {reason}\n{said}".strip())
    return Usage(
        wall_s=wall_s,
        cpu_s=usage.ru_utime + usage.ru_stime,
        anonymous_bytes=watch.anonymous_bytes,
        resident_bytes=watch.resident_bytes,
    )


def kill_group(pid: int) -> None:
    """Kills a process that leads a group of its own, with all that is in it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


class Watch:
    """Samples the memory of a session's processes, and kills them when their time is over."""

    def __init__(self, leader: int, limit_s: float) -> None:
        self.anonymous_bytes: int | None = None
        self.resident_bytes: int | None = None
        self.late = False
        self._leader = leader
        self._ends_s = time.monotonic() + limit_s
        self._members = {leader}
        # What was looked at once is not looked at again: a machine has hundreds of processes, and asking for all of
        # them fifty times a second would take a tenth of a core. The first look finds what has started already.
        self._known: set[int] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            self._sample()
            if self._ended.wait(SAMPLE_S):
                return
            if time.monotonic() > self._ends_s and not self.late:
                self.late = True
                kill_group(self._leader)

    def _sample(self) -> None:
        present = _processes()
        for pid in present - self._known:
            if _session(pid) == self._leader:
                self._members.add(pid)
        self._known |= present
        anonymous = resident = 0
        for pid in tuple(self._members):
            found = _memory(pid)
            if found is None:
                self._members.discard(pid)
                continue
            anonymous += found[0]
            resident += found[1]
        if resident:
            self.anonymous_bytes = max(self.anonymous_bytes or 0, anonymous)
            self.resident_bytes = max(self.resident_bytes or 0, resident)


def _processes() -> set[int]:
    return {int(name) for name in os.listdir("/proc") if name.isdecimal()}


def _session(pid: int) -> int:
    """Returns the session of a process, which it keeps when its parent ends; 0 where it has gone."""
    try:
        return os.getsid(pid)
    except OSError:
        return 0


def _memory(pid: int) -> tuple[int, int] | None:
    """Returns the anonymous and the resident bytes of a process; None where it has gone."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            lines = file.read().split(b"\n")
    except OSError:
        return None
    sizes = {name: rest for name, _, rest in (line.partition(b":") for line in lines) if name in {b"RssAnon", b"VmRSS"}}
    if len(sizes) != 2:  # it is about to go
        return None
    return int(sizes[b"RssAnon"].split()[0]) << 10, int(sizes[b"VmRSS"].split()[0]) << 10
