"""Streams that are backed up: standard input, or what a command prints.

A read never blocks a signal for long. A command that fails, or is ended by a signal, fails the backup: what it printed
until then is not a backup of anything.
"""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from respaldo.cli import show
from respaldo.core.errors import SourceError, UsageError
from respaldo.core.seams import Cancel

_WAIT_MS = 200
_END_WAIT_S = 5.0
_PIPE_BYTES = 1 << 20
_F_SETPIPE_SZ = 1031


class DescriptorStream:
    """Reads a descriptor, and heeds a request to stop while it waits for bytes."""

    def __init__(self, fd: int, name: str, cancel: Cancel) -> None:
        self._fd = fd
        self._name = name
        self._cancel = cancel
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN | select.POLLHUP)

    def read(self, length_bytes: int, /) -> bytes:
        """Returns some bytes, none at the end; raises `Interrupted`, `SourceError`."""
        while True:
            self._cancel.check()
            if self._poll.poll(_WAIT_MS):
                break
        try:
            return os.read(self._fd, length_bytes)
        except OSError as error:
            raise SourceError(os.fsencode(self._name), show.reason(error)) from None


def split_command(text: str) -> list[str]:
    """Returns the words of a command as a shell would, without running one."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UsageError(f"--command cannot be understood: {error}") from None
    if not words:
        raise UsageError("--command is empty")
    return words


@contextlib.contextmanager
def standard_input(cancel: Cancel) -> Iterator[DescriptorStream]:
    """Gives standard input."""
    if sys.stdin is None:
        raise UsageError("there is no standard input")
    yield DescriptorStream(sys.stdin.fileno(), "standard input", cancel)


class CommandOutput:
    """Gives what a command prints. The command is started by the first read: by then it is clear that it can be stored.

    A context manager; leaving it ends a command that still runs.
    """

    def __init__(self, words: list[str], cancel: Cancel) -> None:
        self._words = words
        self._name = os.fsencode(words[0])
        self._cancel = cancel
        self._process: subprocess.Popen[bytes] | None = None
        self._stream: DescriptorStream | None = None

    def read(self, length_bytes: int, /) -> bytes:
        """Returns some bytes, none at the end; raises `Interrupted`, `SourceError`."""
        if self._stream is None:
            self._stream = self._start()
        return self._stream.read(length_bytes)

    def _start(self) -> DescriptorStream:
        hint = "nothing was backed up"
        try:
            self._process = subprocess.Popen(self._words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        except OSError as error:
            raise SourceError(self._name, f"the command cannot be run: {error.strerror}", hint=hint) from None
        pipe = self._process.stdout
        if pipe is None:  # pragma: no cover - asked for above
            raise SourceError(self._name, "the command has no output")
        with contextlib.suppress(OSError):
            import fcntl  # start-up time

            fcntl.fcntl(pipe.fileno(), _F_SETPIPE_SZ, _PIPE_BYTES)
        return DescriptorStream(pipe.fileno(), self._words[0], self._cancel)

    def finish(self) -> None:
        """Waits for the command to end; raises `SourceError` unless it succeeded."""
        if self._process is None:
            return
        while True:
            self._cancel.check()
            try:
                status = self._process.wait(_WAIT_MS / 1000)
                break
            except subprocess.TimeoutExpired:
                continue
        hint = "nothing was backed up"
        if status < 0:
            raise SourceError(self._name, f"the command was ended by {_signal_name(-status)}", hint=hint)
        if status:
            raise SourceError(self._name, f"the command failed with status {status}", hint=hint)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._process
        if process is None:
            return
        if process.stdout is not None:
            process.stdout.close()
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(_END_WAIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
