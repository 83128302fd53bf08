"""The agent's process: takes a lease and a key from a pipe, answers its own user, and ends when it should.

Ends, and wipes the key before, when its time is over by a clock that goes on while the machine sleeps; when nobody
has asked for so long; when it is told to; on any signal; when its socket or the directory of it is gone, which is what
the end of a login does; when the process that stands for the login has ended. Imports the standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from respaldo.core.errors import RespaldoError
from respaldo.core.seams import awake_or_asleep_s
from respaldo.ops.agent import place, wire
from respaldo.ops.agent.locked import Locked, harden

TICK_S = 1.0
"""So long after the machine wakes up may the key still lie there; before each answer the time is looked at anyway."""
_QUESTION_S = 1.0
_LINE_BYTES_MAX = 64 << 10


def started_at(pid: int) -> int:
    """Returns when a process was started, in ticks since the machine was; 0 where it has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return 0


class Agent:
    """Holds one key under one lease. ``clock_s`` must go on while the machine sleeps."""

    def __init__(
        self,
        lease: wire.Lease,
        key: Locked,
        listener: socket.socket,
        fd: int,
        clock_s: Callable[[], float] = awake_or_asleep_s,
    ) -> None:
        self._clock_s = clock_s
        self._lease = lease
        self._key = key
        self._listener = listener
        self._fd = fd
        self._inode = self._there()
        self._until_s = self._clock_s() + lease.for_s
        self._asked_s = self._clock_s()

    def serve(self) -> None:
        """Answers until it is over; wipes the key, and takes its socket away where it is still its own."""
        try:
            poll = select.poll()
            poll.register(self._listener, select.POLLIN)
            while not self.over:
                if poll.poll(1000 * max(0.0, min(TICK_S, self._left_s()))) and not self.over:
                    with contextlib.suppress(OSError):
                        connection, _ = self._listener.accept()
                        with connection:
                            if self._answer(connection):
                                return
        finally:
            self._key.wipe()
            if self._there() == self._inode:
                with contextlib.suppress(OSError):
                    os.unlink(self._lease.name, dir_fd=self._fd)
            self._listener.close()

    def _there(self) -> tuple[int, int] | None:
        found = place.kind_of(self._fd, self._lease.name)
        return (found.st_dev, found.st_ino) if found else None

    def _left_s(self) -> float:
        left_s = self._until_s - self._clock_s()
        return min(left_s, self._idle_left_s()) if self._lease.idle_s else left_s

    def _idle_left_s(self) -> float:
        return self._asked_s + self._lease.idle_s - self._clock_s()

    @property
    def over(self) -> bool:
        """Whether it should hold the key no longer."""
        lease = self._lease
        return (
            self._left_s() <= 0
            or self._there() != self._inode
            or bool(lease.leader and started_at(lease.leader) != lease.leader_started)
        )

    def _answer(self, connection: socket.socket) -> bool:
        """Answers one question of its own user; returns whether it was the last."""
        connection.settimeout(_QUESTION_S)
        if place.peer_of(connection)[1] != os.geteuid():
            return False
        question = b""
        while len(question) < wire.QUESTION_BYTES:
            more = connection.recv(wire.QUESTION_BYTES - len(question))
            if not more:
                return False
            question += more
        if self.over:
            return True
        if question == wire.MAGIC + wire.GET:
            self._asked_s = self._clock_s()
            connection.sendall(self._lease.slot.encode("ascii"))
            connection.sendall(self._key.view)
        elif question == wire.MAGIC + wire.STATUS:
            connection.sendall(self._status())
        elif question == wire.MAGIC + wire.LOCK:
            self._key.wipe()
            with contextlib.suppress(OSError):
                os.unlink(self._lease.name, dir_fd=self._fd)
            connection.sendall(wire.DONE)
            return True
        return False

    def _status(self) -> bytes:
        lease = self._lease
        return json.dumps(
            {
                "repository": lease.repository,
                "location": lease.location,
                "slot": lease.slot,
                "left_s": self._until_s - self._clock_s(),
                "idle_left_s": self._idle_left_s() if lease.idle_s else 0,
                "pid": os.getpid(),
            }
        ).encode()


def _stop(_number: int, _frame: object) -> NoReturn:
    raise SystemExit(0)


def _read_line(fd: int) -> bytes:
    line = b""
    while not line.endswith(b"\n") and len(line) < _LINE_BYTES_MAX:  # byte by byte: what follows is the key
        more = os.read(fd, 1)
        if not more:
            break
        line += more
    return line


def run(source: int, told: int) -> int:
    """Runs an agent, and returns its exit status.

    Lease and key come from ``source``; ``told`` hears that it listens, or why it does not.
    """
    os.umask(0o077)
    os.chdir("/")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, _stop)
    key: Locked | None = None
    try:
        harden()
        lease = wire.parse_lease(_read_line(source))
        key = Locked(wire.KEY_BYTES)
        key.fill(source)
        os.close(source)
        with place.entered(Path(lease.directory)) as fd:
            fcntl.flock(fd, fcntl.LOCK_EX)
            _end_other(fd, lease.name)
            agent = Agent(lease, key, place.listen(fd, lease.name), fd)
            fcntl.flock(fd, fcntl.LOCK_UN)
            os.write(told, wire.DONE)
            os.close(told)
            agent.serve()
    except (RespaldoError, OSError, EOFError, ValueError, TypeError) as error:
        with contextlib.suppress(OSError):
            why = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
            os.write(told, why.encode("utf-8", "replace"))
        return 1
    finally:
        if key is not None:
            key.wipe()
    return 0


def _end_other(fd: int, name: str) -> None:
    """Ends the agent that listens under the same name: whoever unlocks again means the new one."""
    if (connection := place.connect(fd, name)) is not None:
        with connection, contextlib.suppress(OSError):
            wire.ask(connection, wire.LOCK)


if __name__ == "__main__":
    raise SystemExit(run(0, 1))
