"""Archives of everything a file system can hold, unpacked by the tools that people have."""

from __future__ import annotations

import subprocess

import pytest

from tests.fidelity.compare import rsync_differences
from tests.fidelity.trees import write_attributes, write_ordinary, write_roots

EXTRACT = (
    "tar",
    "--extract",
    "--preserve-permissions",
    "--xattrs",
    "--xattrs-include=*",
    "--acls",
    "--same-owner",
    "--warning=no-timestamp",
)


def untar(archive: bytes, target) -> None:
    """Unpacks as the page of the command says."""
    target.mkdir()
    ran = subprocess.run([*EXTRACT, "-C", str(target)], input=archive, capture_output=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, b"")


@pytest.fixture
def top(product, ext4, request):
    """Has everything that an archive can hold backed up."""
    folder = ext4 / request.node.name
    write_ordinary(folder)
    write_attributes(folder)
    write_roots(folder)
    (folder / "socket").unlink()
    product.snapshot(folder)
    return folder


@pytest.mark.root
def test_gnu_tar_unpacks_everything(product, ext4, top):
    """GNU tar gives back owners, modes, times, links, devices, holes, attributes and ACLs, to rsync's eyes."""
    process = product.spawn("dump", "latest", top)
    archive, errors = process.communicate()
    assert (process.returncode, errors) == (0, b"")
    untar(archive, ext4 / "target")
    assert rsync_differences(top, ext4 / "target") == []
    for name in ("holes", "only a hole", "small with a hole"):
        assert (ext4 / "target" / name).stat().st_blocks <= (top / name).stat().st_blocks + 8


@pytest.mark.root
def test_gnu_tar_unpacks_an_export(product, ext4, top):
    """An exported archive gives everything back as well, through zstd."""
    made = product.run("export", f"latest:{top}", "--format", "tar.zst", "-o", product.place, "--json").json
    archive = subprocess.run(["zstd", "-dc", made["file"]], check=True, capture_output=True).stdout
    untar(archive, ext4 / "unpacked")
    assert rsync_differences(top, ext4 / "unpacked") == []
