"""Unfinished directories: nobody's but their run's, removed when that was killed, and nothing else with them."""

from __future__ import annotations

import errno
import fcntl
import os

import pytest

from respaldo.fs.place import Target
from respaldo.fs.unfinished import is_unfinished, make_unfinished, measure_unfinished, publish, remove_unfinished

LEFT = b".respaldo-0123456789abcdef-directory"
LIKE_ALL = 0o755


@pytest.fixture
def target(tmp_path):
    with Target(os.fsencode(tmp_path / "t")) as target:
        yield target


@pytest.fixture
def place(tmp_path, target):
    return tmp_path / "t"


def leave(place, mode=0o700):
    left = place / os.fsdecode(LEFT)
    left.mkdir()
    (left / "f").write_bytes(bytes(5000))
    left.chmod(mode)
    return left


def test_names_are_recognised(target):
    """Only those that it gives."""
    assert is_unfinished(LEFT)
    assert is_unfinished(make_unfinished(target.root).name)
    for name in (LEFT[:-1], LEFT + b"x", b"x" + LEFT, LEFT.replace(b"0", b"g"), LEFT.replace(b"a", b"A")):
        assert not is_unfinished(name)


def test_each_has_a_name_of_its_own(target, place):
    """One that could not be removed is in no other's way."""
    folders = [make_unfinished(target.root) for _ in range(3)]
    publish(folders[2], b"c")
    assert len({*os.listdir(place)} - {"c"}) == 2


def test_one_that_another_run_takes_for_a_leftover_is_made_again(target, place, monkeypatch):
    """Between the making and the lock it looks like what a killed run left: whoever makes it notices."""
    real, at = fcntl.flock, []

    def flock(fd, operation):
        at.append(fd)
        if len(at) == 1:
            remove_unfinished(target.root, os.fsencode(os.listdir(place)[0]))
        elif len(at) == 3:  # of the removal was the second
            raise BlockingIOError(errno.EWOULDBLOCK, "somebody is at it")
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    folder = make_unfinished(target.root)
    publish(folder, b"d")
    (place / "d" / "f").touch()
    assert os.fstat(folder.fd).st_ino == (place / "d").stat().st_ino


def test_one_is_locked_until_it_is_gone(target, place, monkeypatch):
    """Whoever makes one of that name meanwhile must see that somebody is at it."""
    leave(place)
    seen = []
    real = os.rmdir

    def rmdir(name, **where):
        fd = os.open(place / os.fsdecode(name), os.O_RDONLY)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            seen.append(name)
        finally:
            os.close(fd)
        real(name, **where)

    monkeypatch.setattr(os, "rmdir", rmdir)
    remove_unfinished(target.root, LEFT)
    assert (seen, os.listdir(place)) == ([LEFT], [])


@pytest.mark.parametrize("mode", [0o700, 0o2700])
def test_one_that_was_left_is_removed(target, place, mode):
    """Also one that a set-group-id directory handed its bit down to, by a run that was killed right then."""
    leave(place, mode)
    entries, length = measure_unfinished(target.root, LEFT)
    assert entries == 2
    assert 5000 <= length < 1 << 20
    remove_unfinished(target.root, LEFT)
    assert os.listdir(place) == []


def test_one_is_removed_where_all_directories_look_alike(target, place, monkeypatch):
    """FAT has no modes of its own: what was left there looks just as what is made there now."""
    leave(place, 0o755)
    remove_unfinished(target.root, LEFT)
    assert os.listdir(place) == [os.fsdecode(LEFT)]
    real = os.mkdir

    def mkdir(name, _mode, **where):
        real(name, 0o755, **where)
        os.chmod(name, LIKE_ALL, **where)

    monkeypatch.setattr(os, "mkdir", mkdir)
    remove_unfinished(target.root, LEFT)
    assert os.listdir(place) == []


def test_one_that_cannot_be_opened_is_not_left(target, place, monkeypatch):
    """There may be too many open files."""
    real = os.open

    def open_(name, *args, **kwargs):
        if isinstance(name, bytes) and is_unfinished(name):
            raise OSError(errno.EMFILE, "Too many open files")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(os, "open", open_)
    with pytest.raises(OSError, match="Too many"):
        make_unfinished(target.root)
    assert os.listdir(place) == []
