"""The agent's callers: start one, get a key from it, ask how long it lasts, end it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from respaldo.api import Opened
from respaldo.core.errors import Refused
from respaldo.ops.agent import place, wire
from respaldo.ops.agent.server import started_at

_MODULE = "respaldo.ops.agent.server"


def start(
    directory: Path,
    header_hash: bytes,
    opened: Opened,
    *,
    repository: str,
    location: str,
    for_s: float,
    idle_s: float,
    leader: int,
    environment: Mapping[str, str],
) -> None:
    """Starts an agent that holds a master key, in the place of one that holds it already; returns once it listens.

    ``leader``: a process whose end ends it, 0 for none. Raises `Refused` where it cannot hold the key safely.
    """
    with place.entered(directory, make=True):
        pass
    lease = wire.Lease(
        directory=str(directory.absolute()),
        name=place.name_of(header_hash),
        slot=opened.slot,
        repository=repository,
        location=location,
        for_s=for_s,
        idle_s=idle_s,
        leader=leader,
        leader_started=started_at(leader) if leader else 0,
    )
    process = subprocess.Popen(
        [sys.executable, "-m", _MODULE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=dict(environment),
        start_new_session=True,
    )
    told = _tell(process, lease, opened)
    if told != wire.DONE:
        process.wait()
        raise Refused(
            f"the key cannot be kept: {told.decode('utf-8', 'replace') or 'the agent ended at once'}",
            hint="go on without unlock; each command asks then",
        )


def _tell(process: subprocess.Popen[bytes], lease: wire.Lease, opened: Opened) -> bytes:
    """Hands over lease and key; returns what the agent says to it."""
    if process.stdin is None or process.stdout is None:
        msg = "a process without pipes"
        raise RuntimeError(msg)
    with process.stdout, contextlib.suppress(BrokenPipeError):
        with process.stdin:
            process.stdin.write(lease.encode())
            process.stdin.write(opened.master)
        return process.stdout.read()
    return b""


def fetch(directory: Path, header_hash: bytes) -> Opened | None:
    """Returns the master key that an agent holds for a repository; None where none does."""
    answer = _ask(directory, place.name_of(header_hash), wire.GET)
    if answer is None or len(answer) != wire.SLOT_BYTES + wire.KEY_BYTES:
        return None
    slot = answer[: wire.SLOT_BYTES].decode("ascii", "replace")
    return Opened(master=answer[wire.SLOT_BYTES :], slot=slot)


def status(directory: Path) -> list[wire.Held]:
    """Returns what the agents of this user hold."""
    answers = (_ask(directory, name, wire.STATUS) for name in _names(directory))
    return [held for answer in answers if answer and (held := wire.parse_held(answer))]


def lock(directory: Path, header_hash: bytes | None = None, *, location: str = "") -> int:
    """Ends the agent of a repository, named by its header's hash or its place, else all; returns how many.

    An agent that does not answer is killed.
    """
    ended = 0
    names = _names(directory) if header_hash is None else [place.name_of(header_hash)]
    for name in names:
        if location:
            held = wire.parse_held(_ask(directory, name, wire.STATUS) or b"")
            if held is not None and held.location != location:
                continue
        ended += _end(directory, name)
    return ended


def _end(directory: Path, name: str) -> int:
    try:
        with place.entered(directory) as fd:
            fcntl.flock(fd, fcntl.LOCK_EX)  # nobody begins to listen meanwhile
            connection = place.connect(fd, name)
            if connection is None:
                _sweep(fd, name)
                return 0
            with connection:
                try:
                    return int(wire.ask(connection, wire.LOCK) == wire.DONE)
                except TimeoutError:
                    _kill(connection)
                except OSError:
                    return 0  # it ended at this moment
            _sweep(fd, name)
            return 1
    except FileNotFoundError:
        return 0


def _kill(connection: socket.socket) -> None:
    """Kills an agent that does not answer; not what has its number after it ended, which the connection would show."""
    with contextlib.suppress(OSError):
        process = os.pidfd_open(place.peer_of(connection)[0])
        try:
            connection.settimeout(0)
            with contextlib.suppress(BlockingIOError):
                connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
                return
            signal.pidfd_send_signal(process, signal.SIGKILL)
        finally:
            os.close(process)


def _sweep(fd: int, name: str) -> None:
    """Removes a socket that nobody listens at; leaves whatever else stands there."""
    found = place.kind_of(fd, name)
    if found is None or not stat.S_ISSOCK(found.st_mode):
        return
    with contextlib.suppress(OSError):
        os.unlink(name, dir_fd=fd)


def _names(directory: Path) -> list[str]:
    try:
        with place.entered(directory) as fd:
            return place.names(fd)
    except FileNotFoundError:
        return []


def _ask(directory: Path, name: str, verb: bytes) -> bytes | None:
    """Asks an agent; None where there is none, or none that answers. Raises `Refused` in a place that is not safe."""
    try:
        with place.entered(directory) as fd:
            connection = place.connect(fd, name)
            if connection is None:
                return None
            with connection:
                return wire.ask(connection, verb)
    except OSError:
        return None
