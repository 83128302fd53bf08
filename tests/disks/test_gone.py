"""Disks that disappear in the middle: a clear error, no hang, no signal, and what was committed is there afterwards."""

from __future__ import annotations

import shutil

import pytest

from tests.disks.client import MIB, Client
from tests.disks.disk import Disk, disk_of, run

pytestmark = pytest.mark.root
KINDS = ["ext4", "xfs", "ntfs"]


@pytest.fixture(params=KINDS)
def disk(request):
    with disk_of(request.param) as made:
        yield made


@pytest.fixture
def client(disk, tmp_path):
    """A client with two snapshots."""
    made = Client(tmp_path / "client", disk.where / "repository")
    for seed in range(2):
        made.write(seed)
        made.take()
    return made


def assert_told(ran) -> None:
    """Fails unless a command ended with a message for a person."""
    assert ran.status == 1, (ran.status, ran.err)
    assert "Traceback" not in ran.err
    assert "check that the repository's disk is connected" in ran.err, ran.err


def assert_all_is_well(disk: Disk, client: Client, tmp_path) -> None:
    """Fails unless the disk, mounted again, has every snapshot, and takes another."""
    disk.come_back()
    client.check()
    client.run("verify", "--read-data")
    client.write(7)
    client.take()
    client.run("prune")
    client.check(Client(tmp_path / "other", client.repository))


def test_disk_that_vanishes_under_a_snapshot(disk, client, tmp_path):
    """The run fails; nothing that was committed is lost, and the next one succeeds."""
    assert_told(client.stream(disk.vanish))
    for words in (("snapshots",), ("snapshot", client.source), ("prune",), ("verify",)):
        ran = client.finish(client.start(*words))
        assert ran.status in {1, 10}, ran.err
        assert "Traceback" not in ran.err
    assert_all_is_well(disk, client, tmp_path)


def test_disk_that_vanishes_under_a_restore(disk, client, tmp_path):
    """The run fails, with the storage's error and not as if files were damaged; again, it goes on."""
    client.write(3, files=400, length_bytes=8 * MIB)
    (client.source / "big").write_bytes(bytes(range(256)) * 4 * 1024 * 48)
    latest = client.take()
    target = tmp_path / "target"
    words = ("restore", f"{latest}:{client.source}", target)
    assert_told(client.stopped(*words, when=target.exists, action=disk.vanish))
    disk.come_back()
    client.restore(f"{latest}:{client.source}", target)
    shutil.rmtree(target)
    assert_all_is_well(disk, client, tmp_path)


def test_disk_that_vanishes_under_a_prune(disk, client, tmp_path):
    """Between condemning and deleting: nothing that is needed is lost, and the next prune finishes."""
    first = next(iter(client.kept))
    client.run("forget", first)
    shutil.rmtree(client.kept.pop(first))
    condemned = client.repository / "condemned"
    there = len(list(condemned.iterdir())) if condemned.exists() else 0

    def when() -> bool:
        return condemned.exists() and len([one for one in condemned.iterdir() if one.name[0] != "."]) > there

    ran = client.stopped("prune", "--repack-below", "100%", when=when, action=disk.vanish)
    if ran.status:  # else it was done before it could be stopped
        assert_told(ran)
    assert_all_is_well(disk, client, tmp_path)
    assert not [one for one in condemned.iterdir() if one.name[0] != "."]


def test_disk_that_vanishes_under_a_verify(disk, client, tmp_path):
    """What cannot be read because the disk is gone is no damage."""
    client.write(3, length_bytes=24 * MIB)
    client.take()
    process = client.start("verify", "--read-data")
    disk.vanish()
    ran = client.finish(process)
    if ran.status:  # else it was done before
        assert ran.status in {1, 10}, ran.err
        assert "Traceback" not in ran.err
    assert_all_is_well(disk, client, tmp_path)


def test_disk_that_is_unmounted_by_force_under_a_snapshot(tmp_path):
    """Whoever has it open goes on writing to it until the end: what it then reports is on the disk."""
    with disk_of("ext4") as disk:
        client = Client(tmp_path / "client", disk.where / "repository")
        client.write(1)
        client.take()
        ran = client.stream(lambda: run("umount", "--lazy", disk.where))
        assert ran.status in {0, 1}, ran.err
        assert "Traceback" not in ran.err
        assert not (disk.where / "repository").exists(), "it wrote to what was below the mount point"
        disk.come_back()
        assert len(client.listed()) == 2 - ran.status
        client.check()
        client.run("verify", "--read-data")
        client.write(2)
        client.take()
        client.check()
