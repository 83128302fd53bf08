"""Tests of `respaldo dump`."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile

import pytest

pytestmark = pytest.mark.usefixtures("repository")


@pytest.fixture
def dump(spawn):
    """Runs dump as a process of its own: its output is bytes."""

    def run(*words, expected: int = 0) -> tuple[bytes, bytes]:
        process = spawn("dump", *words)
        out, err = process.communicate()
        assert process.returncode == expected, err
        return out, err

    return run


def test_dump_prints_a_file(cli, dump, tree):
    """A file comes out as it is, named by one word or by two; JSON says on standard error what it was."""
    made = cli("snapshot", tree, "--json").json["snapshot"]
    content = (tree / "big").read_bytes()
    assert dump(f"latest:{tree}/big") == (content, b"")
    assert dump("latest", tree / "big") == (content, b"")
    out, err = dump(made[:8], tree / "big", "--json")
    assert out == content
    said = json.loads(err)
    assert (said["snapshot"], said["type"], said["bytes"]) == (made, "file", len(content))
    assert said["sha256"] == hashlib.sha256(content).hexdigest()


def test_dump_of_a_file_with_holes(cli, dump, tree):
    """Holes come out as zeros."""
    with (tree / "holes").open("wb") as file:
        file.seek(5 << 20)
        file.write(b"end")
        file.truncate(9 << 20)
    (tree / "empty").touch()
    cli("snapshot", tree)
    assert dump("latest", tree / "holes")[0] == (tree / "holes").read_bytes()
    assert dump("latest", tree / "empty")[0] == b""


def test_dump_of_a_directory_is_a_tar(cli, dump, tree):
    """A directory comes out as an archive of what is in it; the same bytes every time."""
    cli("snapshot", tree)
    out, _ = dump("latest", tree)
    with tarfile.open(fileobj=io.BytesIO(out)) as archive:
        assert archive.getnames() == [
            ".",
            "./big",
            "./docs",
            "./docs/a.txt",
            "./docs/b.log",
            "./docs/keep.log",
            "./link",
        ]
        assert archive.extractfile("./big").read() == (tree / "big").read_bytes()
        assert archive.getmember("./link").linkname == "docs/a.txt"
    assert dump("latest", tree)[0] == out


def test_dump_of_what_has_no_content(cli, dump, tree):
    """A link, a FIFO or a path that is not there prints nothing, and says what it is."""
    os.mkfifo(tree / "fifo")
    cli("snapshot", tree)
    for name, what in (("link", b"a symbolic link"), ("fifo", b"a FIFO")):
        out, err = dump("latest", tree / name, expected=2)
        assert not out
        assert what in err
    assert not dump("latest", tree / "nothing", expected=1)[0]
    dump(f"latest:{tree}/big", tree / "big", expected=2)


def test_dump_says_what_the_archive_leaves_out(cli, dump, tree):
    """What tar cannot hold is named, and the status says that it is incomplete."""
    import socket

    here = os.getcwd()
    with socket.socket(socket.AF_UNIX) as one:
        os.chdir(tree)
        one.bind("socket")
        os.chdir(here)
    cli("snapshot", tree)
    out, err = dump("latest", tree, expected=3)
    assert b"./socket: left out: a tar archive cannot hold a socket" in err
    with tarfile.open(fileobj=io.BytesIO(out)) as archive:
        assert "./socket" not in archive.getnames()


def test_dump_of_damaged_content_fails(cli, dump, tree, repository):
    """What is damaged never comes out: the dump ends with status 4 before it."""
    cli("snapshot", tree / "big")
    for path in (repository / "packs").rglob("*"):
        if path.is_file() and path.stat().st_size > 200_000:
            with path.open("r+b") as file:
                file.seek(1000)
                byte = file.read(1)
                file.seek(1000)
                file.write(bytes([byte[0] ^ 1]))
    out, err = dump("latest", tree / "big", expected=4)
    assert b"damaged object" in err
    assert (tree / "big").read_bytes().startswith(out)
