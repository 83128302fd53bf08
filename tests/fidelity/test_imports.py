"""Archives that GNU tar made of everything a file system can hold become snapshots, and come back."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest

from tests.fidelity.compare import rsync_differences
from tests.fidelity.trees import write_attributes, write_ordinary, write_roots

PACK = ("tar", "--create", "--xattrs", "--xattrs-include=*", "--acls", "--selinux", "--sparse", "--file=-")


def tar(top: Path, *more: str) -> bytes:
    """Packs a tree with GNU tar."""
    words = [*PACK, *more, "-C", str(top.parent), top.name]
    return subprocess.run(words, check=True, capture_output=True).stdout


def nasty(top: Path) -> None:
    """Writes a tree of everything that tar can hold."""
    write_ordinary(top)
    write_attributes(top)
    write_roots(top)
    without_what_tar_loses(top)


def without_what_tar_loses(top: Path) -> None:
    """Removes sockets, and second names of FIFOs and devices: GNU tar packs those as files of their own."""
    for path in top.rglob("*"):
        status = path.lstat()
        plain = stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode) or stat.S_ISLNK(status.st_mode)
        if stat.S_ISSOCK(status.st_mode) or (not plain and path.name.endswith(" too")):
            path.unlink()


@pytest.mark.root
@pytest.mark.parametrize(
    "how",
    [
        ("--format=posix",),
        ("--format=posix", "--sparse-version=0.1", "--zstd"),
        ("--format=posix", "--sparse-version=0.0", "--xz"),
        ("--format=posix", "--sort=name", "--numeric-owner", "--gzip"),
    ],
    ids=["pax", "sparse 0.1, zstd", "sparse 0.0, xz", "numbers, gzip"],
)
def test_what_gnu_tar_packed_comes_back(product, ext4, how):
    """Owners, modes, times, links, devices, holes, attributes and ACLs, to rsync's eyes."""
    top = ext4 / "packed by tar"
    if not top.exists():
        nasty(top)
    archive = product.place / "archive"
    archive.write_bytes(tar(top, *how))
    made = product.run("import", archive, "--as", "/base", "--json").json[0]
    assert (made["errors"], made["sources"]) == (0, [{"path": "/base/packed by tar"}])
    target = ext4 / f"back {abs(hash(how))}"
    product.run("restore", f"{made['snapshot']}:/base/packed by tar", target)
    assert rsync_differences(top, target) == []


@pytest.mark.root
def test_old_gnu_format_comes_back(product, ext4):
    """The format of GNU tar before pax: long names, big numbers, its own map of holes; times to the second."""
    top = ext4 / "old"
    write_ordinary(top)
    without_what_tar_loses(top)
    archive = product.place / "archive"
    words = ["tar", "--create", "--format=gnu", "--sparse", "--file=-", "-C", str(top.parent), top.name]
    archive.write_bytes(subprocess.run(words, check=True, capture_output=True).stdout)
    made = product.run("import", archive, "--json").json[0]
    assert made["errors"] == 0
    target = ext4 / "old back"
    product.run("restore", f"{made['snapshot']}:/old", target)
    assert rsync_differences(top, target, "--modify-window=1") == []
    for name in ("holes", "only a hole"):
        assert (target / name).stat().st_blocks <= (top / name).stat().st_blocks + 8


@pytest.mark.root
def test_an_export_comes_back(product, ext4):
    """An exported snapshot of a real tree, imported elsewhere and restored, is the tree."""
    top = ext4 / "exported and imported"
    nasty(top)
    product.snapshot(top, "--label", "before", "--tag", "t")
    made = product.run("export", "latest", "-o", product.place, "--json").json
    found = product.run("import", made["file"], "--host", "elsewhere", "--json").json[0]
    assert found["errors"] == 0
    assert found["sources"] == [{"path": str(top)}]
    target = ext4 / "imported back"
    product.run("restore", f"{found['snapshot']}:{top}", target)
    assert rsync_differences(top, target) == []
