"""Runs commands of the product, each in a fork of one process that has imported all of it: fast, alone, and measured.

A job is a line of JSON on standard input, an answer a line on standard output. A fork that does not end in time is
interrupted, as by Ctrl-C; one that goes on all the same writes where it hangs, and ends. The memory that it may have is
limited, so that what would fill the machine fails the test instead.
"""

from __future__ import annotations

import faulthandler
import gc
import importlib
import json
import os
import pkgutil
import resource
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

PRIVATE_BYTES_MAX = 3 << 30
WALL_S = 120
GRACE_S = 60
LOOK_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """Is what a command came to.

    ``status``: the exit status, negative for a signal. ``peak_mib``: the most memory that it had, beyond what the
    process began with. ``interrupted``: whether it had to be. ``cpu_s``: the time that it computed.
    """

    status: int
    out: bytes
    err: str
    peak_mib: int
    interrupted: bool
    cpu_s: float


class Runner:
    """Holds the process that forks. A context manager.

    ``environment``: that of the process, where it is not ours; ``more``: what else `subprocess.Popen` is to be told.
    """

    _jobs = 0

    def __init__(self, environment=None, **more) -> None:
        self._more = {"env": environment, **more}

    def __enter__(self):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.hostile.runner"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            text=True,
            **self._more,
        )
        return self

    def __exit__(self, *error):
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()

    def __call__(self, words, place: Path, environment, timeout_s: float = 20.0) -> Ended:
        """Runs a command; what it prints goes through files in a directory. ``timeout_s``: of computing."""
        return self.into(words, place / "out", place / "err", environment, timeout_s=timeout_s)

    def into(self, words, out: Path, err: Path, environment, *, place: Path | None = None, timeout_s=20.0) -> Ended:
        """Runs a command, in a directory where one is given; what it prints goes into two files."""
        self._jobs += 1
        job = {
            "number": self._jobs,
            "words": [os.fspath(word) for word in words],
            "out": str(out),
            "err": str(err),
            "place": os.fspath(place or "."),
            "environment": environment,
            "timeout": timeout_s,
        }
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        while (answer := json.loads(self._process.stdout.readline()))["number"] != self._jobs:
            pass  # of a job that nobody waited for to the end
        return Ended(
            status=answer["status"],
            out=out.read_bytes(),
            err=err.read_text("utf-8", "surrogateescape"),
            peak_mib=answer["peak_kib"] >> 10,
            interrupted=answer["interrupted"],
            cpu_s=answer["cpu_s"],
        )


def _memory(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    return 0


def _child(job, writing: int) -> int:
    from respaldo.cli.main import main

    for number, path in ((1, job["out"]), (2, job["err"])):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.update(job["environment"])
    os.chdir(job["place"])
    faulthandler.dump_traceback_later(WALL_S + GRACE_S, exit=True)
    resource.setrlimit(resource.RLIMIT_DATA, (PRIVATE_BYTES_MAX, PRIVATE_BYTES_MAX))
    with open(os.open("/proc/self/clear_refs", os.O_WRONLY), "w") as references:
        references.write("5")  # forgets the peak so far
    if job["words"][0] == "mount":
        from tests.hostile.mounting import without_kernel

        without_kernel()
    before = _memory("VmRSS")
    status = main(job["words"])
    sys.stdout.flush()
    os.write(writing, str(max(_memory("VmHWM") - before, 0)).encode())
    return status


def _cpu_s(pid: int) -> float:
    """Returns the time that a process has computed: the machine may be busy with others."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _run(job) -> dict[str, object]:
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(reading)
        status = 70
        try:
            status = _child(job, writing)
        except BaseException:  # noqa: BLE001 - as Python itself would end
            sys.excepthook(*sys.exc_info())
            sys.stderr.flush()
        finally:
            os._exit(status)
    os.close(writing)
    interrupted = _watch(pid, job["timeout"])
    _, result, used = os.wait4(pid, 0)
    # Not to its end: what mounts leaves a process behind, that may hold it.
    os.set_blocking(reading, False)
    try:
        peak = os.read(reading, 64)
    except BlockingIOError:
        peak = b""
    os.close(reading)
    return {
        "status": os.waitstatus_to_exitcode(result),
        "peak_kib": int(peak or b"0"),
        "interrupted": interrupted,
        "cpu_s": used.ru_utime + used.ru_stime,
    }


def _watch(pid: int, timeout_s: float) -> bool:
    """Waits for the end of a process, which is not reaped; tells whether it had to be interrupted."""
    end = time.monotonic() + WALL_S
    interrupted = False
    ended = os.pidfd_open(pid)
    try:
        while not select.select([ended], [], [], LOOK_S)[0]:
            if not interrupted and (_cpu_s(pid) > timeout_s or time.monotonic() > end):
                interrupted = True
                os.kill(pid, signal.SIGINT)
    finally:
        os.close(ended)
    return interrupted


def _import_all() -> None:
    import respaldo

    for module in pkgutil.walk_packages(respaldo.__path__, "respaldo."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    gc.freeze()


def _serve() -> None:
    _import_all()
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        job = json.loads(line)
        answers.write(json.dumps(_run(job) | {"number": job["number"]}) + "\n")
        answers.flush()


if __name__ == "__main__":
    _serve()
