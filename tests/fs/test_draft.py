"""Drafts: whole or absent, and nothing but what was made."""

from __future__ import annotations

import errno
import os
import stat

import pytest

from respaldo.core.errors import TargetError
from respaldo.fs import draft as drafts
from respaldo.fs.draft import Draft, link, resumable_name
from respaldo.fs.place import Target, is_temporary


@pytest.fixture
def place(tmp_path):
    with Target(os.fsencode(tmp_path / "t")) as target:
        yield target.root


@pytest.fixture
def folder(tmp_path, place):
    return tmp_path / "t"


def test_a_file_appears_when_it_is_published(place, folder):
    """Until then it has another name, and no other access than its owner's."""
    with Draft.file(place) as draft:
        os.write(draft.fd, b"content")
        (name,) = os.listdir(folder)
        assert is_temporary(os.fsencode(name))
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
        draft.publish(b"x", replace=False)
    assert os.listdir(folder) == ["x"]
    assert (folder / "x").read_bytes() == b"content"


def test_a_draft_that_is_not_published_is_removed(place, folder):
    """An error leaves nothing behind."""
    with pytest.raises(ZeroDivisionError), Draft.file(place):
        raise ZeroDivisionError
    assert os.listdir(folder) == []


def test_what_fails_and_leaves_something_is_removed(place, folder, monkeypatch):
    """Some file systems make a file of what they cannot keep, and say that they could not."""

    def mknod(name, _mode, _device, *, dir_fd):
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, dir_fd=dir_fd))
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "mknod", mknod)
    with pytest.raises(OSError, match="Input/output error"):
        Draft.node(place, stat.S_IFIFO, 0)
    assert os.listdir(folder) == []


def test_publish_replaces_only_when_told_to(place, folder):
    """A file that is there stays, unless its replacement was decided."""
    (folder / "x").write_bytes(b"old")
    with Draft.file(place) as draft, pytest.raises(FileExistsError):
        draft.publish(b"x", replace=False)
    assert (folder / "x").read_bytes() == b"old"
    with Draft.file(place) as draft:
        draft.publish(b"x", replace=True)
    assert (folder / "x").read_bytes() == b""
    with Draft.file(place) as draft, pytest.raises(TargetError):
        draft.publish(b"../x", replace=True)
    assert os.listdir(folder) == ["x"]


@pytest.mark.parametrize("refusing", ["rename", "rename and link"])
def test_publish_finds_another_way(place, folder, monkeypatch, refusing):
    """File systems without no-replace renames, or without links, still never lose a file."""

    def refuse(*_, **__):
        raise OSError(errno.EINVAL, "no")

    monkeypatch.setattr(drafts, "rename_noreplace", refuse)
    if "link" in refusing:
        monkeypatch.setattr(os, "link", lambda *_, **__: (_ for _ in ()).throw(OSError(errno.EPERM, "no")))
    (folder / "x").write_bytes(b"old")
    with Draft.file(place) as draft, pytest.raises(FileExistsError):
        draft.publish(b"x", replace=False)
    with Draft.file(place) as draft:
        draft.publish(b"y", replace=False)
    assert sorted(os.listdir(folder)) == ["x", "y"]
    assert (folder / "x").read_bytes() == b"old"


def test_a_killed_run_is_gone_on_with(place, folder):
    """A long file's draft is found again by its key, with what it holds."""
    with Draft.file(place, key=b"k") as draft:
        os.write(draft.fd, b"half")
        assert not draft.resumed
        draft.keep()
    with Draft.file(place, key=b"k") as draft:
        assert draft.resumed
        assert os.pread(draft.fd, 9, 0) == b"half"
        draft.publish(b"x", replace=False)
    assert os.listdir(folder) == ["x"]


def test_two_runs_never_share_a_draft(place, folder):
    """What another run is writing is left to it."""
    with Draft.file(place, key=b"k") as one, Draft.file(place, key=b"k") as two:
        assert not two.resumed
        os.write(one.fd, b"1")
        assert os.pread(two.fd, 9, 0) == b""
    assert os.listdir(folder) == []


@pytest.mark.parametrize("trap", ["symlink", "hard link", "fifo", "readable"])
def test_a_planted_draft_is_not_trusted(place, folder, tmp_path, trap):
    """Whoever can guess the name gets nothing written through it."""
    name = folder / os.fsdecode(resumable_name(b"k"))
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    if trap == "symlink":
        name.symlink_to("../outside")
    elif trap == "hard link":
        os.link(outside, name)
    elif trap == "fifo":
        os.mkfifo(name)
    else:
        name.touch(mode=0o644)
    with Draft.file(place, key=b"k") as draft:
        assert not draft.resumed
        os.write(draft.fd, b"secret")
        draft.publish(b"x", replace=False)
    assert outside.read_bytes() == b"precious"
    assert (folder / "x").read_bytes() == b"secret"


def test_links_and_fifos_and_sockets_are_made(place, folder):
    """Every type that an ordinary user can make."""
    for name, draft in (
        (b"link", Draft.symlink(place, b"to/nowhere")),
        (b"fifo", Draft.node(place, stat.S_IFIFO | 0o644, 0)),
        (b"socket", Draft.node(place, stat.S_IFSOCK | 0o755, 0)),
    ):
        with draft:
            draft.publish(name, replace=False)
    assert os.readlink(folder / "link") == "to/nowhere"
    assert (folder / "fifo").is_fifo()
    assert (folder / "socket").is_socket()
    assert stat.S_IMODE((folder / "fifo").stat().st_mode) == 0o600


@pytest.mark.root
def test_devices_are_made(place, folder):
    """Devices with big numbers, too."""
    for kind in (stat.S_IFBLK, stat.S_IFCHR):
        with Draft.node(place, kind | 0o600, 259 << 32 | 70000) as draft:
            draft.publish(b"d", replace=True)
        found = (folder / "d").lstat()
        assert stat.S_IFMT(found.st_mode) == kind
        assert (os.major(found.st_rdev), os.minor(found.st_rdev)) == (259, 70000)


def test_an_ordinary_user_is_told_about_devices(ordinary):
    """What only root can make is an error, and leaves nothing."""
    with Target(os.fsencode(ordinary)) as target:
        with pytest.raises(PermissionError):
            Draft.node(target.root, stat.S_IFCHR | 0o600, 1 << 32 | 3)
        assert os.listdir(ordinary) == []


def test_hard_links_are_never_made_through_a_symlink(place, folder, tmp_path):
    """A link to a symlink is another name of the symlink, never of what it leads to."""
    (tmp_path / "precious").write_bytes(b"")
    (folder / "s").symlink_to("../precious")
    link(place, b"s", place, b"t", replace=False)
    assert (folder / "t").is_symlink()
    assert (tmp_path / "precious").stat().st_nlink == 1


@pytest.mark.parametrize("same", [True, False])
def test_a_hard_link_takes_a_files_place(place, folder, same):
    """Also where the two are one file already, which a rename silently does nothing about."""
    (folder / "a").write_bytes(b"a")
    if same:
        os.link(folder / "a", folder / "b")
    else:
        (folder / "b").write_bytes(b"b")
    with pytest.raises(FileExistsError):
        link(place, b"a", place, b"b", replace=False)
    link(place, b"a", place, b"b", replace=True)
    assert (folder / "a").samefile(folder / "b")
    assert sorted(os.listdir(folder)) == ["a", "b"]
