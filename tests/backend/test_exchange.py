from __future__ import annotations

import errno
import os

import pytest

from respaldo.backend import publish
from respaldo.backend.local import LocalBackend
from respaldo.core.errors import ObjectMissing, StorageFailed, StorageFull
from tests.backend.places import NoSync

NAME = "pending/" + "1" * 32


class Steps(NoSync):
    """Notes what is made durable."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    def sync_file(self, fd):
        self.steps.append("file")

    def sync_dir(self, fd):
        self.steps.append("directory")


def lacking(number):
    """Returns a rename that a file system refuses."""

    def call(*_arguments):
        raise OSError(number, os.strerror(number))

    return call


@pytest.fixture
def syncer():
    return Steps()


@pytest.fixture
def backend(tmp_path, syncer):
    with LocalBackend(tmp_path / "repo", create=True, fsync=syncer) as backend:
        backend.put(NAME, [b"decayed"])
        syncer.steps.clear()
        yield backend


def test_replaced_file_is_durable_before_and_after_it_gets_the_name(backend, syncer, monkeypatch):
    """The new file is synced before the exchange, the directory after it."""
    whole = publish.exchange

    def exchange(*arguments):
        syncer.steps.append("exchange")
        whole(*arguments)

    monkeypatch.setattr("respaldo.backend.exchange.exchange", exchange)
    backend.replace(NAME, [b"as put"])
    assert syncer.steps == ["file", "exchange", "directory"]
    assert backend.get(NAME) == b"as put"


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP])
def test_file_system_without_exchange_renames_over(backend, monkeypatch, number):
    """Where two names cannot be exchanged, the object is replaced all the same; one that is gone stays gone."""
    monkeypatch.setattr(publish, "_renameat2", lacking(number))
    backend.replace(NAME, [b"as put"])
    assert backend.get(NAME) == b"as put"
    backend.delete(NAME)
    with pytest.raises(ObjectMissing):
        backend.replace(NAME, [b"as put"])
    assert backend.list("pending") == [] and backend.litter() == []


@pytest.mark.parametrize(("number", "kind"), [(errno.EIO, StorageFailed), (errno.ENOSPC, StorageFull)])
def test_replace_that_fails_leaves_the_object(backend, monkeypatch, number, kind):
    """An error of the file system leaves what was there, and no temporary file."""
    monkeypatch.setattr(publish, "_renameat2", lacking(number))
    with pytest.raises(kind):
        backend.replace(NAME, [b"as put"])
    assert backend.get(NAME) == b"decayed"
    assert backend.litter() == []


def test_replace_follows_no_link(backend, tmp_path):
    """A symbolic link that was planted under an object's name is replaced; what it leads to is not touched."""
    (tmp_path / "precious").write_bytes(b"precious")
    path = tmp_path / "repo" / NAME
    path.unlink()
    path.symlink_to(tmp_path / "precious")
    backend.replace(NAME, [b"as put"])
    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert backend.get(NAME) == b"as put"
