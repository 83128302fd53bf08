"""Folders below a target: nothing outside is reached, and no depth or length is too much."""

from __future__ import annotations

import os
import stat
import subprocess

import pytest

from respaldo.core.errors import TargetError
from respaldo.fs.place import AWAKE_MAX, Target, check_name, is_temporary, open_own


@pytest.fixture
def target(tmp_path):
    with Target(os.fsencode(tmp_path / "target")) as opened:
        yield opened


def open_descriptors():
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"/", b"a\0b", b"x" * 256])
def test_names_that_leave_their_directory_are_refused(target, name):
    """No name of a snapshot is handed to the system unless it is one name."""
    for call in (check_name, target.root.look, target.root.enter, target.root.make):
        with pytest.raises(TargetError):
            call(name)


def test_target_is_created_with_its_parents(tmp_path):
    """A restore may go where nothing is yet."""
    with Target(os.fsencode(tmp_path / "a/b/c")) as target:
        assert target.created
        assert target.root.path == b""
    with Target(os.fsencode(tmp_path / "a/b/c")) as target:
        assert not target.created


def test_target_that_cannot_be_is_a_clear_error(tmp_path):
    """A file in the way of the target is said to be."""
    (tmp_path / "file").touch()
    for path in ("file", "file/below"):
        with pytest.raises(TargetError):
            Target(os.fsencode(tmp_path / path))


def test_a_symlink_is_never_entered(target, tmp_path):
    """A link where the snapshot has a directory leads nowhere."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "target/link").symlink_to("../outside")
    with pytest.raises(NotADirectoryError):
        target.root.enter(b"link")
    with pytest.raises(OSError, match="Not a directory"):
        target.open([b"link"])
    assert stat.S_ISLNK(target.root.look(b"link").st_mode)
    assert target.root.look(b"nothing") is None


def test_a_new_folder_is_private_until_it_is_settled(target, tmp_path):
    """Nobody reads half a restore; an inherited group is not handed on."""
    (tmp_path / "target").chmod(0o2777)
    folder = target.root.make(b"new")
    assert stat.S_IMODE((tmp_path / "target/new").stat().st_mode) == 0o700
    assert folder.path == b"new"
    folder.close()


def test_ten_thousand_levels_need_few_descriptors(target):
    """A deep tree is written and left again, its paths being longer than a path can be."""
    before = open_descriptors()
    folder = target.root
    for _ in range(10_000):
        folder = folder.make(b"d" * 20)
    assert open_descriptors() <= before + AWAKE_MAX + 1
    assert len(folder.path) > 200_000
    while folder.parent is not None:
        above = folder.parent
        os.close(os.open(b"file", os.O_CREAT | os.O_WRONLY, dir_fd=folder.fd))
        folder.close()
        folder = above
    assert open_descriptors() <= before
    found = target.open([b"d" * 20] * 5000)
    assert found.look(b"file") is not None
    found.close()
    # Nothing of Python's removes what is that deep.
    subprocess.run(["rm", "-rf", target.path], check=True)


def test_a_folder_that_was_moved_is_noticed(target, tmp_path):
    """When the way back leads elsewhere, the restore stops instead of writing there."""
    folder = top = target.root.make(b"top")
    for _ in range(AWAKE_MAX + 5):
        folder = folder.make(b"d")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "target/top/d").rename(tmp_path / "elsewhere/d")
    (tmp_path / "target/top/d").mkdir()

    def leave(folder):
        while folder is not top:
            folder.close()
            folder = folder.parent

    with pytest.raises(TargetError, match="moved"):
        leave(folder)
    assert list((tmp_path / "elsewhere").iterdir()) == [tmp_path / "elsewhere/d"]


def test_a_sleeping_folder_wakes_from_above(target):
    """A folder whose children are closed out of order is found again by its names."""
    folder = target.root
    chain = [folder := folder.make(b"d") for _ in range(AWAKE_MAX + 10)]
    assert chain[0].held < 0
    assert chain[0].look(b"d") is not None
    assert chain[5].look(b"d") is not None


def test_an_ordinary_user_fills_a_folder_without_permissions(ordinary):
    """A directory that its owner may not even list is opened, filled and left."""
    (ordinary / "closed").mkdir(mode=0o000)
    with Target(os.fsencode(ordinary)) as target:
        folder = target.root.enter(b"closed")
        folder.make_writable()
        folder.make(b"inside").close()
        folder.close()
    assert (ordinary / "closed/inside").is_dir()


def test_an_ordinary_user_reads_a_file_without_permissions(ordinary):
    """Its mode is as before; links, directories and what has set-id bits stay closed."""
    (ordinary / "f").write_bytes(b"content")
    for name, mode in (("f", 0o200), ("set-id", 0o4200)):
        (ordinary / name).touch()
        (ordinary / name).chmod(mode)
    (ordinary / "link").symlink_to("f")
    folder = os.open(ordinary, os.O_RDONLY)
    try:
        fd = open_own(folder, b"f")
        assert os.read(fd, 100) == b"content"
        os.close(fd)
        assert stat.S_IMODE((ordinary / "f").stat().st_mode) == 0o200
        for name in (b"link", b"set-id", b"."):
            with pytest.raises(PermissionError):
                open_own(folder, name)
        assert stat.S_IMODE((ordinary / "set-id").stat().st_mode) == 0o4200
    finally:
        os.close(folder)


def test_temporaries_are_recognised(target):
    """Only names that a restore gives are taken for its leftovers."""
    assert is_temporary(target.prefix + b"12")
    assert is_temporary(b".respaldo-0123456789abcdef")
    for name in (b".respaldo", b".respaldo-", b".respaldo-0123456789abcdef.txt", b"x.respaldo-0123456789abcdef"):
        assert not is_temporary(name)


def test_the_root_of_the_file_system_is_known_by_any_path(tmp_path):
    """/ is / by whatever name."""
    (tmp_path / "link").symlink_to("/")
    with Target(os.fsencode(tmp_path / "link")) as target:
        assert target.is_filesystem_root()
    with Target(os.fsencode(tmp_path)) as target:
        assert not target.is_filesystem_root()
