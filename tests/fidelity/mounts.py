"""Mounts for tests: always taken away again, also when a test fails."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fidelity.product import Product


def needs_fuse() -> None:
    """Skips, with the reason, where nothing can be mounted."""
    pytest.importorskip("mfusepy", reason="mounting needs mfusepy")
    if shutil.which("fusermount3") is None:
        pytest.skip("there is no fusermount3 (Debian: fuse3)")
    if not os.path.exists("/dev/fuse"):
        pytest.skip("there is no /dev/fuse")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("this user may not open /dev/fuse")


@dataclass(frozen=True)
class Mount:
    """Is a mount that a process serves."""

    where: Path
    pid: int

    def snapshots(self) -> list[str]:
        return sorted(os.listdir(self.where / "snapshots"))

    def latest(self, source: Path) -> Path:
        return self.where / "latest" / str(source).lstrip("/")

    def wait_for(self, is_so, what: str) -> None:
        """Waits until something is so; fails when it never is."""
        for _ in range(600):
            if is_so():
                return
            time.sleep(0.1)
        pytest.fail(f"it never happened that {what}")

    @property
    def is_there(self) -> bool:
        return str(self.where) in Path("/proc/self/mounts").read_text("utf-8")


@contextlib.contextmanager
def mounting(product: Product, where: Path, *words: str) -> Iterator[Mount]:
    """Mounts a repository in the background, as users do."""
    where.mkdir(exist_ok=True)
    process = product.spawn("mount", where, "--json", *words)
    try:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err.decode()
        yield Mount(where, json.loads(out)["pid"])
    finally:
        unmount(where)


def unmount(where: Path) -> None:
    """Takes a mount away, whoever is in it."""
    for _ in range(100):
        if str(where) not in Path("/proc/self/mounts").read_text("utf-8"):
            return
        command = ["umount", "-l"] if os.geteuid() == 0 else ["fusermount3", "-u", "-z"]
        subprocess.run([*command, str(where)], check=False, capture_output=True)
        time.sleep(0.05)
    pytest.fail(f"{where} cannot be unmounted")
