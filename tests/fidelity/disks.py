"""Real file systems for tests: a fresh ext4, xfs or tmpfs, mounted for as long as it is needed."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

KINDS = ("ext4", "xfs", "tmpfs")
PATH = f"{os.environ.get('PATH', '')}:/sbin:/usr/sbin"
MAKE = {
    "ext4": ["mkfs.ext4", "-q", "-F", "-m", "0", "-I", "256", "-E", "lazy_itable_init=1,nodiscard"],
    "xfs": ["mkfs.xfs", "-q", "-f", "-K"],
}
XFS_BYTES_MIN = 320 << 20


@contextlib.contextmanager
def reachable() -> Iterator[Path]:
    """Makes a directory that an ordinary user can go through."""
    path = Path(tempfile.mkdtemp(prefix="respaldo-disk-"))
    try:
        path.chmod(0o755)
        yield path
    finally:
        shutil.rmtree(path)


@contextlib.contextmanager
def mounted(kind: str, parent: Path, *, length_bytes: int = 256 << 20, inodes: int = 0) -> Iterator[Path]:
    """Mounts a fresh file system; skips, with the reason, where that is not possible."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a file system")
    where = parent / kind
    where.mkdir(parents=True)
    if kind == "tmpfs":
        command = ["mount", "-t", "tmpfs", "-o", f"size={length_bytes},mode=755", "none", str(where)]
    else:
        make = shutil.which(MAKE[kind][0], path=PATH)
        if make is None:
            pytest.skip(f"there is no {MAKE[kind][0]}")
        image = parent / f"{kind}.image"
        with image.open("wb") as file:
            file.truncate(max(length_bytes, XFS_BYTES_MIN) if kind == "xfs" else length_bytes)
        more = ["-N", str(inodes)] if inodes else []
        subprocess.run([make, *MAKE[kind][1:], *more, str(image)], check=True, capture_output=True)
        command = ["mount", "-o", "loop", str(image), str(where)]
    ran = subprocess.run(command, check=False, capture_output=True, text=True)
    if ran.returncode:
        pytest.skip(f"{kind} cannot be mounted here: {ran.stderr.strip()}")
    try:
        lost = where / "lost+found"
        if lost.exists():
            lost.rmdir()
        yield where
    finally:
        unmount(where)


@contextlib.contextmanager
def tmpfs_on(where: Path) -> Iterator[Path]:
    """Mounts a small tmpfs on a directory that is there."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a file system")
    ran = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(where)], check=False, capture_output=True, text=True
    )
    if ran.returncode:
        pytest.skip(f"tmpfs cannot be mounted here: {ran.stderr.strip()}")
    try:
        yield where
    finally:
        unmount(where)


def unmount(where: Path) -> None:
    if subprocess.run(["umount", str(where)], check=False, capture_output=True).returncode:
        subprocess.run(["umount", "-l", str(where)], check=True)
