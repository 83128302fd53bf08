"""Tests of `respaldo export`."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import tarfile
import zipfile

import pytest
import zstandard

pytestmark = pytest.mark.usefixtures("repository")
FORMATS = ("tar", "tar.gz", "tar.zst", "zip")


@pytest.fixture
def made(cli, tree):
    """Has a snapshot with holes, a hard link and an empty file made; returns what it says."""
    with (tree / "holes").open("wb") as file:
        file.seek(3 << 20)
        file.write(b"end")
        file.truncate(5 << 20)
    os.link(tree / "docs" / "a.txt", tree / "linked")
    (tree / "empty").touch()
    return cli("snapshot", tree, "--json", "--host", "host/of mine").json


def contents(path, form: str) -> dict[str, bytes]:
    """Returns the files in an archive."""
    if form == "zip":
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
            return {item.filename: archive.read(item) for item in archive.infolist() if item.external_attr >> 28 == 8}
    raw = path.read_bytes()
    if form == "tar.zst":
        raw = zstandard.ZstdDecompressor().decompressobj().decompress(raw)
    with tarfile.open(fileobj=io.BytesIO(raw), mode="r:*") as archive:
        return {
            os.path.normpath(item.name): archive.extractfile(item).read()
            for item in archive
            if item.isreg() or item.islnk()
        }


@pytest.mark.parametrize("form", FORMATS)
def test_export_holds_every_file_and_is_the_same_every_time(cli, made, tree, place, form):
    """The archive has the files; its SHA-256 is printed and stands beside it; a second one has the same bytes."""
    for name in ("one", "two"):
        (place / name).mkdir()
        ran = cli("export", f"latest:{tree}", "--format", form, "-o", place / name, "--json").json
        path = place / name / os.path.basename(ran["file"])
        assert str(path) == ran["file"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == ran["sha256"]
        assert path.name.startswith("host_of mine_snapshot_")
        assert path.name.endswith(f"_{ran['sha256'][:8]}.{form}")
        subprocess.run(["sha256sum", "-c", "--quiet", f"{path.name}.sha256"], cwd=path.parent, check=True)
        assert sorted(item.name for item in path.parent.iterdir()) == [path.name, f"{path.name}.sha256"]
    assert (place / "one" / path.name).read_bytes() == path.read_bytes()
    files = [file for file in tree.rglob("*") if file.is_file() and not file.is_symlink()]
    assert contents(path, form) == {str(file.relative_to(tree)): file.read_bytes() for file in files}


def test_export_to_a_stream(cli, made, spawn, tree, place):
    """To standard output goes the archive alone; a whole snapshot has whole paths in it."""
    process = spawn("export", "latest", "-f", "tar", "-o", "-")
    out, err = process.communicate()
    assert process.returncode == 0
    assert err.decode() == f"{hashlib.sha256(out).hexdigest()}  -\n"
    (place / "x.tar").write_bytes(out)
    assert f"{tree}/big"[1:] in contents(place / "x.tar", "tar")


def test_export_does_not_write_over(cli, made, tree, place):
    """A file that exists stays, unless --force says otherwise; nothing else is left behind."""
    target = place / "x.tar"
    target.write_bytes(b"precious")
    cli("export", f"latest:{tree}", "-f", "tar", "-o", target, expected=1)
    assert target.read_bytes() == b"precious"
    cli("export", f"latest:{tree}", "-f", "tar", "-o", target, "--force")
    assert tarfile.is_tarfile(target)
    words = ("export", f"latest:{tree}/docs", "-f", "tar", "-o", place, "--name-template", "{id}-{label}x")
    cli(*words)
    cli(*words, expected=1)
    assert (place / f"{made['snapshot']}-{made['label']}x.tar").exists()
    assert not [name for name in os.listdir(place) if name.startswith(".respaldo-export")]


@pytest.mark.parametrize(
    "template", ["{nothing}", "{", "a/b", "", "..", "{time.__class__}", "{id[0]}", "{0}", "{time:%Y/}"]
)
def test_export_refuses_templates_that_make_no_name(cli, made, tree, place, template):
    """What makes no name of a file is wrong usage, found out before anything is written."""
    before = sorted(os.listdir(place))
    cli("export", "latest", "-o", place, "--name-template", template, expected=2)
    assert sorted(os.listdir(place)) == before


def test_export_leaves_out_what_is_damaged(cli, made, tree, place, repository):
    """What is damaged is named and not in the archive, which holds all else; the status is 4."""
    for path in (repository / "packs").rglob("*"):
        if path.is_file() and path.stat().st_size > 200_000:
            with path.open("r+b") as file:
                file.seek(1000)
                byte = file.read(1)
                file.seek(1000)
                file.write(bytes([byte[0] ^ 1]))
    (place / "out").mkdir()
    ran = cli("export", f"latest:{tree}", "-f", "tar", "-o", place / "out", "--json", expected=4)
    assert ran.json["damaged"] > 0
    assert ran.json["left_out"] == 0
    assert "left out" in ran.err
    found = contents(place / "out" / os.path.basename(ran.json["file"]), "tar")
    for name, content in found.items():
        assert (tree / name).read_bytes() == content
    files = [path for path in tree.rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(found) == len(files) - ran.json["damaged"]


def test_unzip_accepts_the_archive(cli, made, tree, place):
    """Info-ZIP unpacks it, with links, modes and times to the second."""
    (tree / "docs" / "keep.log").chmod(0o640)
    os.utime(tree / "docs" / "keep.log", ns=(0, 1_500_000_000_123_456_789))
    with open(os.path.join(os.fsencode(tree), "ñ ü".encode()), "wb") as file:
        file.write(b"accents")
    cli("snapshot", tree)
    cli("export", f"latest:{tree}", "-f", "zip", "-o", place / "x.zip")
    ran = subprocess.run(["unzip", "-q", "x.zip", "-d", "unpacked"], cwd=place, capture_output=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, b"")
    status = (place / "unpacked" / "docs" / "keep.log").stat()
    assert (status.st_mode & 0o777, status.st_mtime) == (0o640, 1_500_000_000)
    assert os.readlink(place / "unpacked" / "link") == "docs/a.txt"
    assert (place / "unpacked" / "ñ ü").read_bytes() == b"accents"


def test_nothing_but_a_file_is_replaced(cli, repository, tree, place):
    """A FIFO, as a device, stays what it is, also with --force; and nothing is put beside it."""
    cli("snapshot", tree)
    os.mkfifo(place / "fifo")
    ran = cli("export", "latest", "-o", place / "fifo", "--force", expected=1)
    assert "no regular file" in ran.err
    assert (place / "fifo").is_fifo()
    assert not (place / "fifo.sha256").exists()
