"""Hostile repositories under the kernel itself: an answer for whoever looks, and no process that stays behind."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
import time

import pytest

from tests.fidelity.mounts import mounting, needs_fuse, unmount
from tests.fidelity.product import Product
from tests.hostile.every import SCENARIOS
from tests.hostile.forge import DIRECTORY, FILE, Forger

LOOK = """
import errno, os, sys
for name in sorted(os.listdir(sys.argv[1])):
    path = os.path.join(sys.argv[1], name)
    try:
        seen = os.stat(path)
        with open(path, "rb") as file:
            said = len(file.read(4096)), len(os.pread(file.fileno(), 4096, max(0, seen.st_size - 4096)))
            said += (os.lseek(file.fileno(), 0, os.SEEK_HOLE) == seen.st_size,)
    except OSError as error:
        said = errno.errorcode[error.errno]
    print(name, said)
"""


@pytest.fixture(autouse=True)
def _fuse():
    needs_fuse()


@pytest.fixture
def where(tmp_path):
    """Names a directory to mount at, and sees to it that nothing stays mounted there."""
    place = tmp_path / "mount"
    yield place
    unmount(place)


@pytest.mark.parametrize(("name", "length"), [("exabyte_of_lists", 1 << 60), ("petabytes_of_lists_with_holes", None)])
def test_kernel_gets_an_answer_about_archives(tmp_path, where, name, length):
    """The archive of lists that name one another has its length, or is an error where they have holes; no hang."""
    with Forger(tmp_path / "product") as forger:
        SCENARIOS[name].make(forger)
    with mounting(Product(tmp_path / "product"), where):
        words = ["stat", "-c", "%s %n", *(where / "snapshot" / item for item in os.listdir(where / "snapshot"))]
        ran = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        found = {item.split(" ", 1)[1]: int(item.split()[0]) for item in ran.stdout.splitlines()}
        sizes = [size for item, size in found.items() if item.endswith(".tar")]
        if length is None:
            assert sizes == []
            assert "Input/output error" in ran.stderr
        else:
            assert len(sizes) == 1
            assert length < sizes[0] < length + (1 << 16)


@pytest.mark.parametrize(
    ("name", "below", "seen"),
    [
        ("exabyte_of_lists", ".", {"exabyte": "(4096, 4096, True)", "kept": "(4, 4, True)", "folder": "EISDIR"}),
        ("chunks_that_are_nowhere", "bad", {"1": "EIO", "3": "EIO"}),
        ("names_that_climb", ".", {"a0": "EIO", "kept": "(4, 4, True)"}),
    ],
)
def test_kernel_gets_an_answer(tmp_path, where, name, below, seen):
    """A process that looks ends by itself, with what is there or an error of that place; the mount ends when told."""
    with Forger(tmp_path / "product") as forger:
        folder = forger.tree((b"kept", FILE, b"kept, too"))
        forger.commit(forger.tree((b"folder", DIRECTORY, folder), (b"kept", FILE, b"kept")), label="good")
        SCENARIOS[name].make(forger)
    with mounting(Product(tmp_path / "product"), where) as mount:
        top = where / "latest" / "source" / below
        words = [sys.executable, "-c", LOOK, str(top)]
        ran = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
        said = dict(line.split(" ", 1) for line in ran.stdout.splitlines())
        if name == "names_that_climb":
            with pytest.raises(OSError, match="Input/output error") as caught:
                os.listdir(top / "a0")
            assert caught.value.errno == errno.EIO
            said["a0"] = "EIO"
        assert {key: said.get(key) for key in seen} == seen
    for _ in range(100):
        with contextlib.suppress(ProcessLookupError):
            os.kill(mount.pid, 0)
            time.sleep(0.1)
            continue
        break
    else:
        pytest.fail("its process goes on")
