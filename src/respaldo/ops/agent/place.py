"""Where agents listen: a directory that only its owner can enter, reached through a descriptor and never by a link.

Invariant: no socket is bound, used or removed but in a directory that belongs to this user and that nobody else may
enter; a peer is believed for what the kernel says of it, not for where its socket lies.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

from respaldo.core.errors import Refused
from respaldo.core.private import DIRECTORY_MODE, make_directory

ANSWER_S = 5.0
_NAME = re.compile(r"[0-9a-f]{32}")
_HINT = "look who made it, remove it, and run unlock again"
_CREDENTIALS = struct.Struct("3i")


def name_of(header_hash: bytes) -> str:
    """Returns the name of the socket for a repository."""
    return header_hash.hex()[:32]


@contextlib.contextmanager
def entered(directory: Path, *, make: bool = False) -> Iterator[int]:
    """Opens the directory; raises `FileNotFoundError` where there is none, `Refused` where it is not private."""
    if make:
        make_directory(directory.parent)
        with contextlib.suppress(FileExistsError):
            directory.mkdir(mode=DIRECTORY_MODE)
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in {errno.ENOTDIR, errno.ELOOP}:
            raise _unsafe(directory, "it is a link, or no directory") from None
        raise
    try:
        found = os.fstat(fd)
        if found.st_uid != os.geteuid():
            raise _unsafe(directory, "it belongs to somebody else")
        if found.st_mode & 0o077:
            raise _unsafe(directory, f"others can reach it (mode {found.st_mode & 0o777:o})")
        yield fd
    finally:
        os.close(fd)


def _unsafe(directory: Path, why: str) -> Refused:
    return Refused(
        f"the agent's directory {directory} is not safe: {why}",
        hint=_HINT,
    )


def path_of(fd: int, name: str) -> str:
    """Returns a path for a name in an open directory: short enough for a socket, and no link can get in between."""
    return f"/proc/self/fd/{fd}/{name}"


def names(fd: int) -> list[str]:
    """Lists the sockets of agents."""
    return sorted(name for name in os.listdir(fd) if _NAME.fullmatch(name))


def kind_of(fd: int, name: str) -> os.stat_result | None:
    """Returns what stands under a name, links not followed; None where nothing does."""
    try:
        return os.stat(name, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return None


def connect(fd: int, name: str) -> socket.socket | None:
    """Connects to the agent of a name; None where there is none, or where what listens is not this user's."""
    found = kind_of(fd, name)
    if found is None or not stat.S_ISSOCK(found.st_mode) or found.st_uid != os.geteuid():
        return None
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(ANSWER_S)
        connection.connect(path_of(fd, name))
        if peer_of(connection)[1] == os.geteuid():
            return connection
    except OSError:
        pass
    connection.close()
    return None


def peer_of(connection: socket.socket) -> tuple[int, int]:
    """Returns process and user at the other end, as the kernel knows them."""
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(data)
    return pid, uid


def listen(fd: int, name: str) -> socket.socket:
    """Listens under a name; raises `Refused` where something else than a socket stands there.

    A socket that is there is removed: whoever calls this has seen to it that nobody listens any more.
    """
    found = kind_of(fd, name)
    if found is not None:
        if not stat.S_ISSOCK(found.st_mode):
            raise Refused(
                f"{name} in the agent's directory is no socket",
                hint=_HINT,
            )
        os.unlink(name, dir_fd=fd)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(path_of(fd, name))
    except BaseException:
        listener.close()
        raise
    finally:
        os.umask(before)
    listener.listen(8)
    return listener
