"""Where tests of the local backend lay repositories, and as whom: syncers that record, ordinary users, small disks."""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import respaldo

NOBODY = 65534


class NoSync:
    """Syncs nothing: for tests that are about something else and should not wait for the disk."""

    def sync_file(self, fd: int) -> None:
        pass

    def sync_dir(self, fd: int) -> None:
        pass


class Recorder:
    """Records what is synced, as paths below a root, and raises what it is told to."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.events: list[str] = []
        self.fail_file: OSError | None = None
        self.fail_dir: OSError | None = None

    def sync_file(self, fd: int) -> None:
        self.events.append(f"file {self.name(fd)}")
        if self.fail_file:
            raise self.fail_file

    def sync_dir(self, fd: int) -> None:
        self.events.append(f"dir {self.name(fd)}")
        if self.fail_dir:
            raise self.fail_dir

    def name(self, fd: int) -> str:
        path = Path(os.readlink(f"/proc/self/fd/{fd}"))
        relative = os.path.relpath(path, self.root)
        return ".tmp" if path.name.startswith(".tmp-") else relative


@functools.cache
def load_all() -> None:
    """Loads what the product loads when it is asked for: an ordinary user may not be able to read where it lies."""
    names = {"respaldo"}
    for path in Path(respaldo.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module)
    for name in (*sorted(names), "encodings.ascii", "encodings.latin_1"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def in_child(function: Callable[[], None], *, nobody: bool = False, file_size: int | None = None) -> None:
    """Runs a function in a process of its own, as an ordinary user if asked for, and fails with what it raised."""
    if nobody and os.geteuid() == 0:
        load_all()
    reader, writer = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reader)
            if file_size is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
            if nobody and os.geteuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            function()
            status = 0
        except BaseException:  # noqa: BLE001
            os.write(writer, traceback.format_exc()[-4000:].encode())
        finally:
            os._exit(status)
    os.close(writer)
    with open(reader, "rb") as pipe:
        said = pipe.read().decode()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, said


@contextlib.contextmanager
def anybodys_directory() -> Iterator[Path]:
    """Makes a directory that an ordinary user owns and can reach, even when root runs the tests."""
    path = Path(tempfile.mkdtemp(prefix="respaldo-test-"))
    try:
        if os.geteuid() == 0:
            os.chown(path, NOBODY, NOBODY)
        try:
            in_child(lambda: os.listdir(path) and None, nobody=True)
        except AssertionError:
            pytest.skip(f"{path.parent} is out of an ordinary user's reach")
        yield path
    finally:
        os.chmod(path, 0o700)
        for folder, below, _ in os.walk(path):
            for name in below:  # before the walk looks into it
                os.chmod(os.path.join(folder, name), 0o700)
        shutil.rmtree(path)


@contextlib.contextmanager
def small_disk(kind: str, parent: Path) -> Iterator[Path]:
    """Mounts a file system of a few MiB ("tmpfs" or "ext4"); needs root, and skips where it cannot be had."""
    where = parent / "disk"
    where.mkdir()
    if kind == "tmpfs":
        command = ["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "none", str(where)]
    else:
        make = shutil.which("mkfs.ext4", path=f"{os.environ.get('PATH', '')}:/sbin:/usr/sbin")
        if make is None:
            pytest.skip("there is no mkfs.ext4")
        image = parent / "image"
        with image.open("wb") as file:
            file.truncate(12 << 20)
        subprocess.run([make, "-q", "-F", "-m", "0", str(image)], check=True, capture_output=True)
        command = ["mount", "-o", "loop", str(image), str(where)]
    mounted = subprocess.run(command, check=False, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"{kind} cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield where
    finally:
        subprocess.run(["umount", str(where)], check=True)
