"""A repository that is mounted, and its disk goes: errors at once, no hang, and the mount can be taken away."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess

import pytest

from tests.disks.disk import disk_of, run
from tests.fidelity.mounts import mounting, needs_fuse, unmount
from tests.fidelity.product import Product

pytestmark = pytest.mark.root
MIB = 1 << 20
_ANSWERED_WITHIN_S = 120


@pytest.fixture(params=["ext4", "ntfs"])
def disk(request):
    needs_fuse()
    with disk_of(request.param) as made:
        yield made


def ended(*words: str | os.PathLike) -> int:
    """Returns the status of a command, which has to end."""
    command = list(map(str, words))
    return subprocess.run(command, check=False, capture_output=True, timeout=_ANSWERED_WITHIN_S).returncode


def first_error(fd: int, content: bytes, start: int) -> int | None:
    """Returns the errno that reading on from an offset ends with, None where all is read."""
    for at in range(start, len(content), MIB):
        try:
            found = os.pread(fd, MIB, at)
        except OSError as error:
            return error.errno
        assert found == content[at : at + MIB]
    return None


def test_disk_that_vanishes_under_a_mount(disk, tmp_path):
    """What needs the disk is an error, what is known is still there, and both are told at once; it unmounts."""
    product = Product(tmp_path / "product")
    shutil.copytree(product.repository, disk.where / "repository")
    run("sync", "--file-system", disk.where)
    shutil.rmtree(product.repository)
    product.repository.symlink_to(disk.where / "repository")
    source = tmp_path / "source"
    (source / "folder").mkdir(parents=True)
    content = os.urandom(48 * MIB)
    (source / "big").write_bytes(content)
    product.snapshot(source, "--label", "one")
    where = tmp_path / "mount"
    with mounting(product, where) as mount:
        fd = os.open(mount.latest(source) / "big", os.O_RDONLY)
        try:
            assert os.pread(fd, 4096, 0) == content[:4096]
            disk.vanish()
            assert first_error(fd, content, 40 * MIB) == errno.EIO
            assert mount.snapshots() == ["one"]
            assert ended("ls", "-lR", where / "latest") in {0, 1, 2}
            assert ended("cat", mount.latest(source) / "big") == 1
            assert ended("df", where) == 0
        finally:
            os.close(fd)
        unmount(where)
        mount.wait_for(lambda: not os.path.exists(f"/proc/{mount.pid}"), "its process had ended")
    disk.come_back()
    with mounting(product, where) as mount:
        assert (mount.latest(source) / "big").read_bytes() == content
