"""What is open while the key is rotated and everything is sealed anew: it goes on, or says what to do."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from respaldo.api import Places, RestoreOptions, Secret, open_repository
from respaldo.api.mount import _Look
from respaldo.core.errors import KeyRotated
from respaldo.core.seams import Cancel, Silent
from respaldo.store import rotating, succession
from respaldo.store.retiring import Retired

pytestmark = pytest.mark.usefixtures("repository")
SECRET = Secret(key=bytes(range(32)))


@pytest.fixture
def opened(cli, tree, place):
    """Has a repository with a snapshot and a second key; opens it as another process would, for as long as a test."""
    cli("snapshot", tree, "--label", "one")
    cli("key", "add", "--new-key-file", place / "second")
    there = []

    def run(secret=SECRET, **options):
        close()  # one process opens a cache once
        places = Places(cache_dir=place / "other cache", state_dir=place / "other state")
        there.append(open_repository(str(place / "repository"), secret, places=places, **options))
        return there[-1]

    def close():
        if there:
            there.pop().within.close()

    yield run
    close()


def labels(repository):
    return [item.manifest.label for item in repository.snapshots().snapshots]


def restored(repository, found, target):
    result = repository.restore(found, os.fsencode(target), RestoreOptions(), progress=Silent(), cancel=Cancel())
    assert result.complete
    return (target / "big").read_bytes()


def sealed_anew(cli):
    cli("key", "rotate")
    cli("key", "reencrypt")


def test_reader_goes_on_under_the_new_key(cli, tree, place, opened):
    """It sees what is new, restores what it found before, and asks nobody; twice, too."""
    reader = opened()
    found = reader.find(f"one:{tree}")
    for number, label in enumerate(("two", "three"), 1):
        sealed_anew(cli)
        (tree / "big").write_bytes(os.urandom(100_000))
        cli("snapshot", tree, "--label", label)
        assert restored(reader, reader.find(f"{label}:{tree}"), place / label) == (tree / "big").read_bytes()
        assert reader.within.epoch.number == number
    assert labels(reader) == ["one", "two", "three"]
    assert len(restored(reader, found, place / "one")) == 300_000
    assert [entry.verb for entry in reader.history.entries()][-1] == "commit"


def test_what_is_read_is_looked_for_under_the_new_key(cli, tree, place, opened):
    """In the middle of a restore, say, before anything is listed again."""
    reader = opened()
    found = reader.find(f"one:{tree}")
    sealed_anew(cli)
    assert len(restored(reader, found, place / "back")) == 300_000


@pytest.mark.parametrize("how", ["writer", "master key"])
def test_who_cannot_go_on_is_told_to_open_it_again(cli, tree, place, opened, how):
    """Who writes stays in its epoch, and a master key opens no other one: nothing is called damaged or gone."""
    other = opened(writes=True) if how == "writer" else opened(opened().opened)
    found = other.find(f"one:{tree}")
    cli("key", "rotate")
    assert labels(other) == ["one"]
    cli("key", "reencrypt")
    with pytest.raises(KeyRotated, match="epoch 1") as caught:
        other.snapshots()
    assert "open the repository again" in caught.value.hint
    with pytest.raises(KeyRotated):
        restored(other, found, place / "back")
    assert labels(opened()) == ["one"]


def test_snapshots_that_were_carried_over_are_not_called_gone(cli, opened, monkeypatch):
    """Also while the old keys are still there: a snapshot is being made under one, say."""
    other = opened(opened().opened)
    assert labels(other) == ["one"]
    cli("key", "rotate")
    with monkeypatch.context() as patch:
        patch.setattr("respaldo.api.reencrypting.retire", lambda *_: Retired(busy=True))
        cli("key", "reencrypt")
    with pytest.raises(KeyRotated):
        other.snapshots()


def test_who_was_left_out_reads_what_is_old_as_long_as_it_is_there(cli, tree, place, opened, monkeypatch):
    """And is told then; the secret is tried once."""
    reader = opened()
    found = reader.find(f"one:{tree}")
    monkeypatch.setenv("RESPALDO_KEY_FILE", str(place / "second"))
    cli("key", "rotate", "--without", reader.within.slot.partition("/")[2])
    tried = []
    open_newest = succession.open_newest
    monkeypatch.setattr(succession, "open_newest", lambda *words: tried.append(1) or open_newest(*words))
    assert len(restored(reader, found, place / "back")) == 300_000
    assert labels(reader) == labels(reader) == ["one"]
    cli("key", "reencrypt")
    with pytest.raises(KeyRotated):
        reader.snapshots()
    assert tried == [1]


def test_epoch_that_does_not_come_from_this_one_is_not_taken_over(cli, opened, monkeypatch):
    """Storage and an old key can make one that opens: it does not know the one that is open."""
    reader = opened()
    with monkeypatch.context() as patch:
        former = rotating._former
        patch.setattr(rotating, "_former", lambda repo: replace(former(repo), check=bytes(32)))
        cli("key", "rotate")
    assert labels(reader) == ["one"]
    assert reader.within.epoch.number == 0


def test_mount_that_stands_goes_on(cli, tree, place, opened):
    """What it shows is what is there, under whatever key: the snapshot of before, and the new one."""
    look = _Look(opened().within)
    assert [item.manifest.label for item in look()] == ["one"]
    sealed_anew(cli)
    cli("snapshot", tree, "--label", "two")
    assert [item.manifest.label for item in look()] == ["one", "two"]
