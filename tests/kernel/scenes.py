"""Directories to work on, and an ordinary user to work as."""

from __future__ import annotations

import os
import pickle
import socket
import stat
import subprocess
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

T = TypeVar("T")
NOBODY = 65534


class Folder:
    """Is a directory with a descriptor that stays open."""

    def __init__(self, path: Path) -> None:
        path.mkdir(exist_ok=True)
        self.path = path
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)

    def write(self, name: str, content: bytes) -> Path:
        (self.path / name).write_bytes(content)
        return self.path / name

    def names(self) -> list[bytes]:
        return sorted(os.listdir(os.fsencode(self.path)))


def fill_with_every_type(path: Path) -> None:
    """Makes an entry of every type that this user can make, under names that are hard to sort or to decode."""
    (path / "regular").write_bytes(b"content")
    (path / "empty").touch()
    (path / "directory").mkdir()
    (path / "directory" / "inside").touch()
    (path / "link").symlink_to("regular")
    (path / "dangling").symlink_to("nowhere/at all")
    (path / "long link").symlink_to("x" * 4000)
    os.link(path / "regular", path / "hard link")
    os.mkfifo(path / "fifo")
    with socket.socket(socket.AF_UNIX) as made:
        here = Path.cwd()
        os.chdir(path)  # the address of a socket is short
        try:
            made.bind("socket")
        finally:
            os.chdir(here)
    with (path / "sparse").open("wb") as file:
        file.truncate(1 << 20)
    with (path / "sparse at its end").open("wb") as file:
        file.write(bytes(4096))
        file.truncate(4097)
    for name in (
        b"\xff\xfe not utf-8",
        "señal".encode(),
        b"new\nline",
        b"\x01",
        b"a",
        b"a.",
        b"A",
        b"n" * 255,
        b"~",
        b"-",
    ):
        Path(os.fsdecode(os.path.join(os.fsencode(path), name))).touch()
    for shared in (b"12345678", b"123456789", b"1234567", b"12345678\x80", b"12345678\x7f"):
        Path(os.fsdecode(os.path.join(os.fsencode(path), shared))).touch()
    (path / "secret").write_bytes(b"x")
    (path / "secret").chmod(0)
    (path / "set-id").touch()
    (path / "set-id").chmod(0o6755)
    os.utime(path / "a", ns=(0, 1))
    os.utime(path / "A", ns=(0, -1_500_000_001))
    if os.geteuid() == 0:
        try:
            os.mknod(path / "character", stat.S_IFCHR | 0o600, os.makedev(1, 3))
            os.mknod(path / "block", stat.S_IFBLK | 0o600, os.makedev(259, 70_000))
        except PermissionError:
            pass  # root of a container without CAP_MKNOD; /dev is scanned elsewhere
        os.chown(path / "-", 12345, 54321)


def as_ordinary_user(work: Callable[[], T]) -> T:
    """Returns what ``work`` returns for a user without privileges: in a child that gives them up, for root."""
    if os.geteuid() != 0:
        return work()
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(receive)
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            with os.fdopen(send, "wb") as file:
                pickle.dump(work(), file)
            status = 0
        except BaseException:  # noqa: BLE001 - the child must not run on as a second test session
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(send)
    with os.fdopen(receive, "rb") as file:
        answer = file.read()
    _, status = os.waitpid(child, 0)
    assert status == 0, "the child failed; its traceback is in the captured output"
    found: T = pickle.loads(answer)  # noqa: S301 - from ourselves
    return found


@contextmanager
def tmpfs(path: Path, options: str) -> Iterator[None]:
    """Mounts a file system in memory; skips the test where that is not allowed."""
    path.mkdir(exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "none", path], check=False, capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a tmpfs: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", path], check=True)
