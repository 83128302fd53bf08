"""A disk that can be pulled out: an image with a file system, mounted, filled, taken away, mounted again."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fidelity.disks import MAKE, PATH, XFS_BYTES_MIN, reachable

MAKE_ALL = {
    **MAKE,
    "exfat": ["mkfs.exfat"],
    "ntfs": ["mkntfs", "-F", "-Q", "-q"],
}
SHUTDOWN = 0x8004587D
"""The ioctl of xfs and ext4 by which a file system acts from then on as if its device had gone."""
WITHOUT_FLUSHING_THE_LOG = 2
NAMES_FOLDED = frozenset({"exfat", "ntfs"})
_MOUNTED_WITHIN_S = 60


def tool(name: str) -> str:
    """Returns where a tool lies; skips, with the reason, where it is not installed."""
    found = shutil.which(name, path=PATH)
    if found is None:
        pytest.skip(f"there is no {name}")
    return found


def run(*words: str | Path) -> None:
    """Runs a command that has to succeed."""
    ran = subprocess.run(list(map(str, words)), check=False, capture_output=True, text=True)
    assert ran.returncode == 0, f"{words}: {ran.stderr}"


class Disk:
    """Is a disk of a kind; ``where`` is its mount point."""

    def __init__(self, kind: str, parent: Path, length_bytes: int) -> None:
        self.kind = kind
        self.image = parent / f"{kind}.image"
        self.where = parent / kind
        self.where.mkdir()
        self._device = ""
        self._daemon: subprocess.Popen[bytes] | None = None
        make = MAKE_ALL[kind]
        self._tools = {name: tool(name) for name in (make[0], *DAEMONS.get(kind, ()))}
        with self.image.open("wb") as file:
            file.truncate(max(length_bytes, XFS_BYTES_MIN) if kind == "xfs" else length_bytes)
        run(self._tools[make[0]], *make[1:], self.image)

    def mount(self, options: str = "") -> None:
        """Mounts it; skips, with the reason, where that is not possible."""
        if self.kind == "ntfs":
            words = [self._tools["lowntfs-3g"], "-o", "ignore_case,no_detach", self.image, self.where]
            self._daemon = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            until = time.monotonic() + _MOUNTED_WITHIN_S
            while not os.path.ismount(self.where):
                if self._daemon.poll() is not None or time.monotonic() > until:
                    pytest.skip("ntfs-3g cannot mount here")
                time.sleep(0.01)
            return
        if self.kind == "exfat":
            self._device = subprocess.run(
                ["losetup", "--find", "--show", self.image], check=True, capture_output=True, text=True
            ).stdout.strip()
            words = [self._tools["mount.exfat-fuse"], self._device, self.where]
        else:
            words = ["mount", "-o", ",".join(filter(None, ("loop", options))), self.image, self.where]
        ran = subprocess.run(words, check=False, capture_output=True, text=True)
        if ran.returncode:
            self.unmount()
            pytest.skip(f"{self.kind} cannot be mounted here: {ran.stderr.strip()}")

    def unmount(self) -> None:
        """Unmounts it, whatever state it is in, and lets go of the device."""
        dead = self._daemon is not None and self._daemon.poll() is not None
        if str(self.where) in Path("/proc/self/mounts").read_text("utf-8"):  # a look at a dead one is an error
            run("umount", *(["--lazy"] if dead else []), self.where)
        if self._daemon is not None:
            self._daemon.wait(_MOUNTED_WITHIN_S)
            self._daemon = None
        if self._device:
            run("losetup", "--detach", self._device)
            self._device = ""

    def vanish(self) -> None:
        """Takes the disk away from under whoever uses it, with all that was not made durable."""
        if self._daemon is not None:
            self._daemon.send_signal(signal.SIGKILL)
            self._daemon.wait()
            return
        fd = os.open(self.where, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(fd, SHUTDOWN, struct.pack("I", WITHOUT_FLUSHING_THE_LOG))
        finally:
            os.close(fd)

    def come_back(self) -> None:
        """Mounts it again."""
        self.unmount()
        self.mount()

    def leave(self, length_bytes: int) -> Path:
        """Fills it until so much is free; returns what fills it."""
        junk = self.where / "junk"
        free = os.statvfs(self.where).f_bavail * os.statvfs(self.where).f_frsize
        with junk.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, free - length_bytes)
        return junk

    def fill(self) -> list[Path]:
        """Takes its last byte; returns what took it."""
        files = []
        for number, size in enumerate((1 << 20, 4096, 1)):
            path = self.where / f"filled{number}"
            with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
                files.append(path)
                while file.write(os.urandom(size)) == size:
                    os.fsync(file.fileno())
        return files


DAEMONS = {"exfat": ("mount.exfat-fuse",), "ntfs": ("lowntfs-3g",)}


@contextlib.contextmanager
def disk_of(kind: str, *, length_bytes: int = 160 << 20) -> Iterator[Disk]:
    """Makes and mounts a disk; skips, with the reason, where that is not possible."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a file system")
    with reachable() as parent:
        disk = Disk(kind, parent, length_bytes)
        try:
            disk.mount()
            yield disk
        finally:
            disk.unmount()
