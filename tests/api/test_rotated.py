"""A key that is rotated by somebody else just now is no history that was tampered with."""

from __future__ import annotations

import os
from contextlib import nullcontext

import pytest

from respaldo import api
from respaldo.api import mount
from respaldo.api.history import History
from respaldo.core.errors import HistoryChanged, KeyRotated
from respaldo.core.seams import Cancel, Silent
from respaldo.flows.check import objects
from respaldo.store.sweep import Sentence

REPAIR = api.RepairOptions()
REST = api.RestoreOptions()
SECRET = api.Secret(key=bytes(32))


@pytest.fixture(params=["here", "elsewhere"])
def machines(request, tmp_path):
    """Has the places of whoever opens the repository, and of whoever rotates its key."""
    return [
        api.Places(cache_dir=tmp_path / f"cache{number}", state_dir=tmp_path / f"state{state}")
        for number, state in enumerate((0, 0) if request.param == "here" else (0, 1))
    ]


@pytest.fixture
def place(tmp_path, machines):
    """Has a repository that both know, with a snapshot."""
    place = str(tmp_path / "repository")
    api.init(place, SECRET, places=machines[0])
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_bytes(b"content")
    for places in machines:
        with api.open_repository(place, SECRET, places=places, writes=True) as opened:
            opened.backup([bytes(tmp_path / "source")], api.BackupOptions(), progress=Silent(), cancel=Cancel())
    return place


def rotate(place, places):
    """Rotates the key and carries all over to it."""
    with api.open_repository(place, SECRET, places=places, writes=True) as opened:
        opened.slots.rotate(opened.slots.plan_rotation(None))
    with api.open_repository(place, SECRET, places=places, writes=True) as opened:
        opened.slots.reencrypt(progress=Silent(), cancel=Cancel())


def test_rotation_while_a_repository_is_opened(place, machines, monkeypatch):
    """It comes after epochs were looked at and before the log is: the repository is opened anew, under the new key."""
    follow = History.follow

    def rotated(history):
        monkeypatch.setattr(History, "follow", follow)
        rotate(place, machines[1])
        return follow(history)

    monkeypatch.setattr(History, "follow", rotated)
    with api.open_repository(place, SECRET, places=machines[0]) as opened:
        assert opened.within.epoch.number == 1
        assert len(opened.snapshots().snapshots) == 2


def test_rotation_while_a_repository_is_open(place, machines):
    """Who reads goes on under the new key; who writes is told that the key was rotated, and of nothing else."""
    for writes in (False, True):
        with api.open_repository(place, SECRET, places=machines[0], writes=writes) as opened:
            assert len(opened.snapshots().snapshots) == 2
            rotate(place, machines[1])
            with pytest.raises(KeyRotated) if writes else nullcontext():
                assert len(opened.snapshots().snapshots) == 2


def test_damage_that_is_met_before_a_reader_goes_on_is_none(place, machines, monkeypatch):
    """What was read with the old key, and was sealed anew meanwhile, is not reported once the new key is there."""
    with api.open_repository(place, SECRET, places=machines[0]) as opened:
        before = len(opened.snapshots().snapshots)
        read_config = objects.read_header

        def rotated(backend):
            monkeypatch.setattr(objects, "read_header", read_config)
            rotate(place, machines[1])
            return read_config(backend)

        monkeypatch.setattr(objects, "read_header", rotated)
        with pytest.raises(KeyRotated):
            verified(opened)
        assert opened.within.epoch.number == 1
        assert len(opened.snapshots().snapshots) == before
        assert not verified(opened).damages


def verified(opened):
    return opened.verify(api.VerifyOptions(read_data=True), progress=Silent(), cancel=Cancel())


def test_what_is_sealed_under_a_new_key_is_no_damage(place, machines):
    """Whoever looks for damage with the old key finds none, and plans no repair, but is told of the rotation."""
    with api.open_repository(place, SECRET, places=machines[0], writes=True) as opened:
        rotate(place, machines[1])
        for look in (verified, lambda opened: opened.prepare_repair(REPAIR, progress=Silent(), cancel=Cancel())):
            with pytest.raises(KeyRotated):
                look(opened)


def test_nothing_is_written_under_a_key_that_is_destroyed(place, machines, tmp_path):
    """Whoever begins a snapshot then is told before anything is stored that nobody could open."""
    (tmp_path / "source" / "more").write_bytes(b"more" * 99)
    with api.open_repository(place, SECRET, places=machines[0], writes=True) as opened:
        rotate(place, machines[1])
        with pytest.raises(KeyRotated):
            opened.backup([bytes(tmp_path / "source")], api.BackupOptions(), progress=Silent(), cancel=Cancel())
    with api.open_repository(place, SECRET, places=machines[0]) as opened:
        assert not verified(opened).damages


def test_log_that_goes_on_under_a_new_key_is_no_finding(place, machines):
    """Whoever compares the log with the old key, and cannot read what came since, is told of the rotation."""
    with api.open_repository(place, SECRET, places=machines[0], writes=True) as opened:
        head = opened.history.head()
        assert opened.history.survey() == ()
        rotate(place, machines[1])
        for look in (opened.history.survey, lambda: opened.history.check(head)):
            with pytest.raises(KeyRotated):
                look()


def test_client_that_is_renewed_while_its_area_is_opened(place, machines, tmp_path, monkeypatch):
    """Its owner, who has seen the new key meanwhile, is told that there is one, and not that history was changed."""
    with api.open_repository(place, SECRET, places=machines[0], writes=True) as opened:
        opened.clients.add("web", [])
    follow = History.follow

    def renewed(history):
        monkeypatch.setattr(History, "follow", follow)
        with api.open_repository(place, SECRET, places=machines[1], writes=True) as opened:
            opened.clients.renew("web")
            with api.open_area(opened, "web", places=machines[1], writes=True) as area:
                area.prune(api.PruneOptions(), progress=Silent(), cancel=Cancel())
        return follow(history)

    with api.open_repository(place, SECRET, places=machines[0]) as opened:
        monkeypatch.setattr(History, "follow", renewed)
        with pytest.raises(KeyRotated):
            api.open_area(opened, "web", places=machines[0])
        with api.open_area(opened, "web", places=machines[0]) as area:
            assert area.snapshots().snapshots == ()


@pytest.mark.parametrize("work", ["backup", "prune", "forget"])
def test_who_works_with_the_old_key_meets_no_damage(place, machines, tmp_path, work):
    """Snapshots and condemnations under the new key, which the old one does not open, say that there is a new one."""

    def others():
        with api.open_repository(place, SECRET, places=machines[1], writes=True) as opened:
            opened.slots.rotate(opened.slots.plan_rotation(None))
        with api.open_repository(place, SECRET, places=machines[1], writes=True) as opened:
            backup(opened)
            repo = opened.within
            Sentence.pass_on(repo, repo.random(16), [], [])

    def backup(opened):
        (tmp_path / "source" / "more").write_bytes(os.urandom(99))
        opened.backup([bytes(tmp_path / "source")], api.BackupOptions(), progress=Silent(), cancel=Cancel())

    works = {
        "backup": backup,
        "prune": lambda opened: opened.prune(api.PruneOptions(), progress=Silent(), cancel=Cancel()),
        "forget": lambda opened: opened.forget(["latest"], cancel=Cancel()),
    }

    def overtaken():
        with api.open_repository(place, SECRET, places=machines[0], writes=True) as opened:
            others()
            works[work](opened)

    with pytest.raises(KeyRotated):
        overtaken()
    with api.open_repository(place, SECRET, places=machines[0]) as opened:
        assert len(opened.snapshots().snapshots) == 3
        assert not verified(opened).damages


def unlocked(place, places):
    """Returns what an agent holds: it opens the repository until the key is rotated, and nothing that comes after."""
    with api.open_repository(place, SECRET, places=places) as opened:
        return opened.opened


def test_mounted_snapshots_stay_listed(place, machines):
    """A mount that stands does not show less, as if snapshots were forgotten: all, or nothing new."""
    with api.open_repository(place, SECRET, places=machines[0]) as opened:
        look = mount._Look(opened.within)
        assert len(look()) == 2
        rotate(place, machines[1])
        assert len(look()) == 2
    with api.open_repository(place, unlocked(place, machines[0]), places=machines[0]) as opened:
        look = mount._Look(opened.within)
        assert len(look()) == 2
        rotate(place, machines[1])
        with pytest.raises(KeyRotated):
            look()


class Heard(Silent):
    """Keeps what was said to be missing."""

    def __init__(self):
        self.failures = []

    def note(self, level, message, path=b""):
        if level < 0:
            self.failures.append((path, message))


@pytest.mark.parametrize("agent", [False, True])
def test_content_that_was_carried_over_is_no_damage(place, machines, tmp_path, agent):
    """A restore that finds its packs gone goes on with the new key; without one it says so, and names no damage."""
    secret = unlocked(place, machines[0]) if agent else SECRET
    progress = Heard()
    with api.open_repository(place, secret, places=machines[0]) as opened:
        found = opened.find("latest")
        rotate(place, machines[1])
        with pytest.raises(KeyRotated) if agent else nullcontext():
            done = opened.restore(found, bytes(tmp_path / "out"), REST, progress=progress, cancel=Cancel())
            assert (done.failed, done.damaged) == (0, 0)
    assert not progress.failures, "said once, and of no name"
    if agent:
        with api.open_repository(place, SECRET, places=machines[0]) as opened:
            done = opened.restore(
                opened.find("latest"), bytes(tmp_path / "out"), REST, progress=progress, cancel=Cancel()
            )
        assert not done.failures
    assert [path.read_bytes() for path in (tmp_path / "out").rglob("file")] == [b"content"]


def test_what_is_gone_is_reported_after_a_rotation_too(place, machines, tmp_path):
    """A snapshot that vanishes afterwards is no rotation."""
    rotate(place, machines[1])
    with api.open_repository(place, SECRET, places=machines[0]) as opened:
        [first, _] = opened.snapshots().snapshots
        (tmp_path / "repository" / "pending" / first.hex).unlink()
        with pytest.raises(HistoryChanged):
            opened.snapshots()
