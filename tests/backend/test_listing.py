"""Listing one directory: all at once and one by one must tell the same, whatever lies in it."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from respaldo import kernel
from respaldo.backend.base import is_leaf
from respaldo.backend.folders import shard
from respaldo.backend.listing import arrivals, names, objects
from respaldo.core.errors import Corruption
from respaldo.kernel import layout, reference

LEAVES = st.text("ab0-.", min_size=1, max_size=4) | st.sampled_from(["A", "é", "a" * 128, "a" * 129, "a\n", "\udcff"])
KINDS = st.sampled_from(["file", "file", "file", "directory", "link", "pipe"])


def make(folder: str, name: str, kind: str, length: int) -> None:
    path = os.path.join(folder, name)
    if kind == "file":
        with open(path, "wb") as file:
            file.truncate(length)
    elif kind == "directory":
        os.mkdir(path)
    elif kind == "link":
        os.symlink("elsewhere", path)
    else:
        os.mkfifo(path)


def expected(path: str, folder: str, subfolder: str) -> dict[str, int] | None:
    """Lists by the contract's words; None for an error."""
    found = {}
    for entry in os.scandir(path):
        if not is_leaf(entry.name) or (subfolder and shard(folder, entry.name) != subfolder):
            continue
        if entry.is_file(follow_symlinks=False):
            found[f"{folder}/{entry.name}"] = entry.stat(follow_symlinks=False).st_size
        elif folder == "keys":
            found[f"{folder}/{entry.name}"] = 0
        elif not entry.is_dir(follow_symlinks=False):
            return None
    return found


@given(
    entries=st.dictionaries(LEAVES.filter(lambda leaf: leaf not in {".", ".."}), st.tuples(KINDS, st.integers(0, 9))),
    place=st.sampled_from([("log", ""), ("keys", ""), ("packs", "ab"), ("packs", "a"), ("packs", "a.")]),
)
def test_a_listing_is_what_the_contract_says(entries, place):
    """Files under objects' names are listed with their sizes, strangers are not, what poses as one is an error."""
    with tempfile.TemporaryDirectory() as path:
        for name, (kind, length) in entries.items():
            make(path, name, kind, length)
        wanted = expected(path, *place)
        fd = os.open(path, os.O_RDONLY)
        try:
            if wanted is None:
                for look in (objects, names):
                    with pytest.raises(Corruption):
                        look(fd, *place)
            else:
                listed = objects(fd, *place)
                assert len(listed) == len(wanted)
                assert dict(listed) == wanted
                assert sorted(names(fd, *place)) == sorted(wanted)
        finally:
            os.close(fd)


@pytest.fixture
def directory(tmp_path):
    """Is a directory with two objects and a temporary, open."""
    for name, length in (("aa", 3), ("bb", 1 << 33), (".tmp-1", 5)):
        with open(tmp_path / name, "wb") as file:
            file.truncate(length)
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("scan", [kernel.scan, reference.scan])
def test_a_listing_is_the_same_by_both_kernels(directory, monkeypatch, scan):
    """Without the C module, Python lists the same."""
    monkeypatch.setattr(kernel, "scan", scan)
    assert objects(directory, "log") == [("log/aa", 3), ("log/bb", 1 << 33)]


@pytest.mark.parametrize("mtime_ns", [-1, 0, 10**9 + 1])
def test_arrivals_are_modification_times(directory, mtime_ns):
    """Objects alone have one, whatever it is."""
    os.utime("aa", ns=(5, mtime_ns), dir_fd=directory)
    os.utime("bb", ns=(5, 7), dir_fd=directory)
    assert arrivals(directory, "log") == {"log/aa": mtime_ns, "log/bb": 7}


class Shown:
    """Is an entry as `scandir` shows it, of a file system that tells no types where ``is_file`` fails."""

    def __init__(self, name: str, *, file: bool) -> None:
        self.name = name
        self._file = file

    def is_file(self, *, follow_symlinks: bool) -> bool:
        assert not follow_symlinks
        return self._file


@pytest.mark.parametrize("told", [False, True])
def test_names_that_a_directory_shows_twice_are_listed_once(directory, monkeypatch, told):
    """A directory that changes while it is read may show a name twice; where it tells no types, each is looked at."""
    entries = [Shown("aa", file=told), Shown("bb", file=told), Shown("aa", file=told)]
    monkeypatch.setattr(os, "scandir", lambda _fd: contextlib.nullcontext(iter(entries)))
    assert names(directory, "log") == ["log/aa", "log/bb"]


def failing(error: int):
    """Returns a `scan` that could not look at the second of two objects."""

    def scan(fd, _recent_ns, _options):
        names, meta, ident = kernel_scan(fd, 0, 0)
        rows = [list(layout.IDENT.unpack_from(ident, at)) for at in range(0, len(ident), layout.IDENT.size)]
        rows[-1][2:] = error, layout.ENTRY_FAILED
        size = layout.META.size
        meta = meta[:-size] + layout.META.pack(stat.S_IFREG, *[0] * 6)
        return names, meta, b"".join(layout.IDENT.pack(*row) for row in rows)

    return scan


kernel_scan = kernel.scan


def test_what_the_kernel_cannot_look_at_is_looked_at_again(directory, monkeypatch):
    """A system call that is forbidden to the kernel is no reason to list a size of 0."""
    monkeypatch.setattr(kernel, "scan", failing(errno.EPERM))
    assert objects(directory, "log") == [("log/aa", 3), ("log/bb", 1 << 33)]
    os.unlink("bb", dir_fd=directory)
    os.mkdir("bb", dir_fd=directory)
    assert objects(directory, "log") == [("log/aa", 3)]


def test_what_nobody_can_look_at_is_an_error(directory, monkeypatch):
    """An object on a bad sector makes no shorter listing."""

    def broken(*_arguments, **_options):
        raise OSError(errno.EIO, "bad sector")

    monkeypatch.setattr(kernel, "scan", failing(errno.EIO))
    monkeypatch.setattr(os, "stat", broken)
    with pytest.raises(OSError, match="bad sector"):
        objects(directory, "log")
