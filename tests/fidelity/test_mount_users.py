"""Mounts and users: an ordinary user mounts and sees all; other users are held to modes and ACLs, or stay outside."""

from __future__ import annotations

import ctypes
import encodings.ascii
import encodings.latin_1
import errno
import importlib
import os
import pkgutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import respaldo
from tests.backend.places import NOBODY, in_child
from tests.fidelity.disks import reachable
from tests.fidelity.mounts import mounting, needs_fuse, unmount
from tests.fidelity.product import Product
from tests.fidelity.trees import data

pytestmark = pytest.mark.root
OTHER = 4321
_CLONE_NEWNS = 0x20000
_MS_BIND, _MS_REC, _MS_PRIVATE = 4096, 16384, 1 << 18
_MNT_DETACH = 2
__all__ = ["encodings"]


@pytest.fixture(autouse=True)
def _fuse():
    needs_fuse()


@pytest.fixture
def place():
    """Is a directory that every user reaches."""
    with reachable() as made:
        made.chmod(0o777)
        yield made


def as_user(uid: int, gid: int, *words: str | Path) -> subprocess.CompletedProcess:
    """Runs a command as somebody else, until it ends."""
    return subprocess.run(
        list(map(str, words)),
        check=False,
        capture_output=True,
        user=uid,
        group=gid,
        extra_groups=[],
        cwd="/",
        timeout=60,
    )


def test_mount_of_root_is_closed_to_others(place):
    """Without --allow-other nobody but who mounts gets in."""
    product = Product(place / "product")
    (place / "file").write_text("content")
    product.snapshot(place / "file")
    with mounting(product, place / "mount") as mount:
        assert as_user(NOBODY, NOBODY, "ls", mount.where).returncode != 0
        assert (mount.latest(place) / "file").read_text() == "content"


def test_mount_for_others_holds_them_to_modes_and_acls(place):
    """With --allow-other, each user reads what modes and ACLs let them read, and nothing else; root reads all."""
    source = place / "source"
    source.mkdir()
    for name, mode in (("open", 0o644), ("closed", 0o600), ("ours", 0o640), ("acl", 0o640)):
        (source / name).write_text(name)
        (source / name).chmod(mode)
        os.chown(source / name, 0, OTHER)
    try:
        rows = ((1, 6, -1), (2, 4, NOBODY), (4, 0, -1), (16, 4, -1), (32, 0, -1))
        value = b"\2\0\0\0" + b"".join(
            tag.to_bytes(2, "little") + perm.to_bytes(2, "little") + (who & 0xFFFFFFFF).to_bytes(4, "little")
            for tag, perm, who in rows
        )
        os.setxattr(source / "acl", "system.posix_acl_access", value)
    except OSError:
        pytest.skip("this file system has no ACLs")
    product = Product(place / "product")
    product.snapshot(source)
    with mounting(product, place / "mount", "--allow-other") as mount:
        seen = mount.latest(source)
        allowed = {
            (NOBODY, NOBODY): {"open", "acl"},
            (OTHER, OTHER): {"open", "ours"},
        }
        for (uid, gid), expected in allowed.items():
            got = {name for name in os.listdir(seen) if as_user(uid, gid, "cat", seen / name).returncode == 0}
            assert got == expected
        assert {name: (seen / name).read_text() for name in os.listdir(seen)} == {
            name: name for name in ("open", "closed", "ours", "acl")
        }


def _own_namespace(place: Path) -> None:
    """Gives this process a device that everybody may open, as nearly all systems have it; nobody else sees it."""
    libc = ctypes.CDLL(None, use_errno=True)
    node = os.fsencode(place / "fuse")
    os.mknod(node, 0o20666, os.stat("/dev/fuse").st_rdev)
    os.chmod(node, os.stat("/dev/zero").st_mode & 0o777)
    assert libc.unshare(_CLONE_NEWNS) == 0, os.strerror(ctypes.get_errno())
    assert libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None) == 0
    for line in Path("/proc/self/mounts").read_text("utf-8").splitlines():
        if "/respaldo-disk-" in line:  # of other tests, which wait for the disks to be free again
            libc.umount2(line.split()[1].encode(), _MNT_DETACH)
    assert libc.mount(node, b"/dev/fuse", None, _MS_BIND, None) == 0


def _load_all() -> None:
    """Imports all that a command may need: an ordinary user may not be able to read this interpreter's files."""
    os.environ["FUSE_LIBRARY_NAME"] = "fuse3"
    sys.modules.pop("mfusepy", None)
    for module in pkgutil.walk_packages(respaldo.__path__, "respaldo."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in ("mfusepy", "difflib", "zoneinfo", "sqlite3", "encodings.idna"):
        importlib.import_module(name)


def _until(is_so, what: str) -> None:
    for _ in range(600):
        if is_so():
            return
        time.sleep(0.1)
    raise AssertionError(f"it never happened that {what}")


def _mounts_as_itself(place: Path) -> None:
    product = Product(place / "product")
    source = place / "source"
    source.mkdir()
    content = data(9 << 20, 4)
    (source / "big").write_bytes(content)
    (source / "shut").write_text("shut")
    (source / "shut").chmod(0)
    product.snapshot(source, "--label", "first", expected=3 if not os.access(source / "shut", os.R_OK) else 0)
    (source / "big").write_bytes(b"small now")
    product.snapshot(source, "--label", "second", expected=3)
    where = place / "mount"
    where.mkdir()
    child = os.fork()  # what is mounted goes on in a child of whoever mounts
    if not child:
        status = 1
        try:
            status = product.run("mount", where, expected=None).status
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    try:
        _uses(product, source, where, content)
    finally:
        subprocess.run(["fusermount3", "-u", "-z", str(where)], check=True)
    assert os.listdir(where) == []


def _uses(product: Product, source: Path, where: Path, content: bytes) -> None:
    first = where / "snapshots/first" / str(source)[1:]
    assert (first / "big").read_bytes() == content
    assert (first / "shut").stat().st_size == 4
    fd = os.open(first / "big", os.O_RDONLY)
    product.run("forget", "first")
    product.run("prune")
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    number = 0
    try:
        os.pread(fd, 4096, 5 << 20)
    except OSError as error:
        number = error.errno
    assert number in {0, errno.EIO, errno.ESTALE}  # some blocks may still be known
    os.close(fd)
    _until(lambda: os.listdir(where / "snapshots") == ["second"], "the forgotten one was gone")


def test_mount_by_an_ordinary_user(place):
    """Who is not root mounts, reads, forgets under the mount and unmounts, with nobody's help."""

    def everything() -> None:
        _load_all()
        _own_namespace(place)
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        _mounts_as_itself(place)

    try:
        in_child(everything)
    finally:
        unmount(place / "mount")
