"""Key slots as objects: added, listed, removed; the last one stays."""

from __future__ import annotations

import os
import socket

import pytest

from respaldo.backend.faults import CHANGES, Fault, Faults, lasting_failure
from respaldo.backend.local import LocalBackend
from respaldo.backend.memory import MemoryBackend
from respaldo.codec.slots import SLOTS_MAX, Kdf, Secret
from respaldo.core.errors import Corruption, StorageDenied, StorageError, StorageFailed, UsageError, WrongSecret
from respaldo.store import slots
from tests.flows.check.scenes import flipped
from tests.store.repositories import OTHER, SECRET, initialise, opened

CHEAP = Kdf(passes=1, memory_kib=64 << 10)


@pytest.fixture
def backend():
    made = MemoryBackend()
    initialise(made)
    return made


@pytest.fixture
def repo(backend, tmp_path):
    with opened(backend, tmp_path / "cache") as made:
        yield made


def add(repo, secret=OTHER, label="second", random=os.urandom):
    return slots.add(
        repo.backend, repo.ring, repo.vault, secret=secret, kdf=CHEAP, label=label, now_ns=7, random=random
    )


def opens(repo, secret):
    return slots.open_master(repo.backend, repo.header, secret) == repo.ring.master


def test_slot_that_was_added_opens_the_same_repository(repo):
    """Two secrets, one master key; each opens, others do not."""
    name = add(repo)
    assert (opens(repo, SECRET), opens(repo, OTHER)) == (True, True)
    for wrong in (Secret(key=b"w" * 32), Secret(passphrase=b"no slot of this method")):
        with pytest.raises(WrongSecret):
            opens(repo, wrong)
    infos, damaged = slots.describe(repo.backend, repo.vault)
    assert damaged == []
    assert {(info.label, info.method, info.kdf) for info in infos} == {("first", "key", None), ("second", "key", None)}
    assert next(info.created_ns for info in infos if info.name == name) == 7


def test_passphrase_opens_with_the_cost_of_its_slot(repo):
    """A passphrase is any bytes; its slot says what turning it into a key costs."""
    phrase = Secret(passphrase="contraseña".encode())
    name = add(repo, phrase)
    assert opens(repo, phrase)
    [info] = [info for info in slots.describe(repo.backend, repo.vault)[0] if info.name == name]
    assert (info.method, info.kdf) == ("argon2id", CHEAP)


def test_slot_that_was_removed_opens_nothing_more(repo):
    """Without its slot a secret is wrong."""
    name = add(repo)
    slots.remove(repo.backend, name)
    with pytest.raises(WrongSecret):
        opens(repo, OTHER)
    assert opens(repo, SECRET)


def test_last_slot_is_not_removed(repo):
    """Nobody can lock everybody out by mistake; slots that are damaged do not count."""
    [(first, _)] = repo.backend.list("keys")
    with pytest.raises(UsageError, match="last key slot"):
        slots.remove(repo.backend, first)
    other = add(repo)
    repo.backend.damage(other, flipped(repo.backend.get(other), 50))
    with pytest.raises(UsageError, match="last key slot"):
        slots.remove(repo.backend, first)
    slots.remove(repo.backend, other)
    assert opens(repo, SECRET)


def test_slot_that_is_not_there_cannot_be_removed(repo):
    """A wrong name is a wrong use, whatever it is."""
    for name in ("keys/ffff", "header", "keys/../header", ""):
        with pytest.raises(UsageError):
            slots.remove(repo.backend, name)


def test_there_are_at_most_sixteen_slots(repo):
    """The seventeenth is refused; where somebody put one all the same, it is said."""
    for number in range(SLOTS_MAX - 1):
        add(repo, Secret(key=bytes([number]) * 32))
    assert opens(repo, Secret(key=bytes([14]) * 32))
    with pytest.raises(UsageError, match="16 key slots"):
        add(repo, OTHER)
    [*_, (name, _)] = repo.backend.list("keys")
    repo.backend.damage("keys/ffffffffffffffff", repo.backend.get(name))
    with pytest.raises(Corruption):
        opens(repo, SECRET)


def test_damaged_slots_do_not_keep_another_from_opening(repo):
    """As long as one sound slot fits; where none does and some are damaged, the damage is named, not the secret."""
    other = add(repo)
    content = repo.backend.get(other)
    for bad in (b"", content[:-1], flipped(content, 3), b"\0" * 5000):
        repo.backend.damage(other, bad)
        assert opens(repo, SECRET)
        with pytest.raises(Corruption) as caught:
            opens(repo, OTHER)
        assert caught.value.name == other
        infos, damaged = slots.describe(repo.backend, repo.vault)
        assert ([info.label for info in infos], [error.name for error in damaged]) == (["first"], [other])


KINDS = ["directory", "FIFO", "socket", "symlink", "unreadable"]


def misplace(path, kind):
    """Puts something under a name that is no object, or cannot be read."""
    if kind == "directory":
        path.mkdir()
    elif kind == "FIFO":
        os.mkfifo(path)
    elif kind == "socket":
        before = os.getcwd()
        os.chdir(path.parent)
        try:
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(path.name)
        finally:
            os.chdir(before)
    elif kind == "symlink":
        path.symlink_to("nowhere")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_slot_does_not_keep_another_from_opening(tmp_path, kind):
    """Whatever stands in the place of one slot, the others open; where none does, that one is named."""
    local = LocalBackend(tmp_path / "repository", create=True)
    initialise(local)
    with opened(local, tmp_path / "cache") as repo:
        name = "keys/" + "0" * 16
        misplace(tmp_path / "repository" / name, kind)
        if kind == "unreadable":
            local.put(name, [b"x"])
            real = local.get

            def get(asked, offset=0, length=None):
                if asked == name:
                    raise StorageDenied(name, "Permission denied")
                return real(asked, offset, length)

            local.get = get
        assert opens(repo, SECRET)
        with pytest.raises((Corruption, StorageError), match=name) as caught:
            opens(repo, OTHER)
        assert "no other key slot opens" in caught.value.hint
        assert not isinstance(caught.value, WrongSecret)


def test_label_may_be_long_but_not_longer(repo):
    """A label is up to 256 bytes of anything; storage sees no difference."""
    name = add(repo, label="é" * 128)
    short = add(repo, Secret(key=b"s" * 32), label="")
    assert len(repo.backend.get(name)) == len(repo.backend.get(short))
    with pytest.raises(UsageError):
        add(repo, label="é" * 129)


def test_slot_that_cannot_be_put_is_an_error(repo):
    """A slot whose put failed is not there."""
    failing = Faults(repo.backend, [Fault(at=1, error=lasting_failure, verbs=CHANGES)])
    repo.backend = failing
    with pytest.raises(StorageFailed):
        add(repo)
    assert len(failing.inner.list("keys")) == 1
