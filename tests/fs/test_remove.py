"""Removal: all that is below, and nothing that is elsewhere."""

from __future__ import annotations

import os
import subprocess

import pytest

from respaldo.core.errors import Interrupted
from respaldo.core.seams import Cancel
from respaldo.fs.meta import IMMUTABLE, write_flags
from respaldo.fs.place import Target
from respaldo.fs.remove import holds_mount, is_mount, remove


@pytest.fixture
def place(tmp_path):
    with Target(os.fsencode(tmp_path / "t")) as target:
        yield target.root


@pytest.fixture
def folder(tmp_path, place):
    return tmp_path / "t"


def mount(*arguments):
    if subprocess.run(["mount", *arguments], check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount")


def test_a_tree_is_removed_without_following_links(place, folder, tmp_path):
    """Directories, files and links go; what links lead to stays."""
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/file").touch()
    (folder / "x/y/z").mkdir(parents=True)
    (folder / "x/y/file").touch()
    (folder / "x/link").symlink_to("../../precious")
    removal = remove(place, b"x", Cancel())
    assert (removal.entries, removal.kept) == (5, 0)
    assert os.listdir(folder) == []
    assert (tmp_path / "precious/file").exists()


def test_a_file_or_link_is_removed_by_itself(place, folder):
    """No directory needed; what is gone already is no error."""
    (folder / "f").touch()
    (folder / "l").symlink_to("f")
    assert remove(place, b"l", Cancel()).entries == 1
    assert remove(place, b"f", Cancel()).entries == 1
    assert remove(place, b"f", Cancel()).entries == 0


def test_a_deep_tree_is_removed(place):
    """Depth costs neither descriptors nor stack."""
    below = place
    for _ in range(3000):
        below = below.make(b"d" * 100)
    while below is not place:
        below.close()
        below = below.parent
    assert remove(place, b"d" * 100, Cancel()).entries == 3000


@pytest.mark.root
@pytest.mark.parametrize("bound", [False, True])
def test_a_mount_is_never_touched(place, folder, tmp_path, bound):
    """Neither another file system nor another place of the same one is emptied; what is beside goes."""
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/file").touch()
    (folder / "x/mount").mkdir(parents=True)
    (folder / "x/beside").touch()
    mount(*(["--bind", str(tmp_path / "precious")] if bound else ["-t", "tmpfs", "none"]), str(folder / "x/mount"))
    try:
        (folder / "x/mount/inside").touch()
        assert is_mount(place.enter(b"x"), b"mount")
        assert holds_mount(place, b"x", Cancel())
        removal = remove(place, b"x", Cancel())
        assert (removal.entries, removal.kept, removal.first_kept) == (1, 1, b"x/mount")
        assert (folder / "x/mount/inside").exists()
        assert not (folder / "x/beside").exists()
        assert remove(place.enter(b"x"), b"mount", Cancel()).kept == 1
    finally:
        subprocess.run(["umount", folder / "x/mount"], check=True)
    assert not holds_mount(place, b"x", Cancel())


@pytest.mark.root
def test_immutable_entries_are_removed(place, folder):
    """Root decided to remove them: the flag does not stop it."""
    (folder / "x").mkdir()
    (folder / "x/f").touch()
    for path in (folder / "x/f", folder / "x"):
        fd = os.open(path, os.O_RDONLY)
        missed = write_flags(fd, IMMUTABLE)
        os.close(fd)
        if missed:
            pytest.skip("needs a file system with inode flags")
    assert remove(place, b"x", Cancel()).entries == 2


def test_an_ordinary_user_removes_what_it_closed(ordinary):
    """Directories without permissions are opened by their owner."""
    (ordinary / "x/y").mkdir(parents=True)
    (ordinary / "x/y/f").touch()
    (ordinary / "x/y").chmod(0)
    (ordinary / "x").chmod(0o500)
    with Target(os.fsencode(ordinary)) as target:
        assert remove(target.root, b"x", Cancel()).entries == 3


def test_removal_stops_when_asked(place, folder):
    """A long removal can be interrupted."""
    (folder / "x/y").mkdir(parents=True)
    cancel = Cancel()
    cancel.request()
    with pytest.raises(Interrupted):
        remove(place, b"x", cancel)
    assert (folder / "x/y").exists()
