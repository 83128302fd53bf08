"""Files of the tool's own: read without waiting, and only where they are files."""

from __future__ import annotations

import os
import socket
import stat

import pytest

from respaldo.core.private import open_file, read_file


def _fifo(path):
    os.mkfifo(path)


def _socket(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(path))


def _device(path):
    path.symlink_to("/dev/null")


@pytest.mark.parametrize("make", [_fifo, _socket, _device])
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY | os.O_CREAT | os.O_APPEND, os.O_RDWR | os.O_CREAT])
def test_open_file_refuses_what_is_no_file(tmp_path, monkeypatch, make, flags):
    """A FIFO, a socket and a device are refused at once, by name, and no descriptor stays open."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "memory"
    make(path)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match="it is no regular file") as caught:
        open_file(path, flags)
    assert caught.value.filename == str(path)
    assert os.listdir("/proc/self/fd") == before


def test_open_file_says_of_a_directory_that_it_is_one(tmp_path):
    """A directory is refused as one."""
    with pytest.raises(IsADirectoryError):
        open_file(tmp_path)


def test_open_file_makes_a_file_for_its_owner_alone(tmp_path):
    """What is made has mode 0600, whatever the umask."""
    before = os.umask(0)
    try:
        os.close(open_file(tmp_path / "lock", os.O_RDWR | os.O_CREAT))
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(tmp_path / "lock").st_mode) == 0o600


def test_read_file_reads_as_much_as_is_wanted(tmp_path):
    """All, or the beginning."""
    (tmp_path / "file").write_bytes(b"0123456789")
    assert read_file(tmp_path / "file") == b"0123456789"
    assert read_file(tmp_path / "file", 4) == b"0123"
