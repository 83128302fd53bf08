"""File systems by FUSE that lack hard links, or a way to rename without replacing, or upper case: the full cycle."""

from __future__ import annotations

import os

import pytest

from tests.disks.client import MIB, Client
from tests.disks.disk import disk_of

pytestmark = pytest.mark.root


@pytest.mark.parametrize("kind", ["exfat", "ntfs"])
def test_full_cycle_on_a_file_system_by_fuse(tmp_path, kind):
    """Made, filled by two clients, forgotten, repacked, verified and restored; names may be folded, links refused."""
    with disk_of(kind) as disk:
        (disk.where / "case").write_bytes(b"1")
        assert (disk.where / "CASE").exists(), "this file system does not fold names: it tests nothing"
        client = Client(tmp_path / "client", disk.where / "repository")
        for seed in range(4):
            client.write(seed, files=30, length_bytes=3 * MIB)
            if seed == 2:
                for number in range(0, 30, 2):
                    (client.source / "folder0" / f"0-{number}").unlink()
            client.take()
        other = Client(tmp_path / "other", client.repository, host="two")
        other.write(9)
        other.take()
        client.check(other)
        for snapshot in list(client.kept)[:2]:
            client.run("forget", snapshot)
            del client.kept[snapshot]
        pruned = client.run("prune", "--repack-below", "100%", "--json").json
        assert pruned["copied_blocks"] + pruned["copied_chunks"] > 0
        assert pruned["deleted_packs"] > 0
        for who in (client, other):
            who.run("verify", "--read-data")
            client.check(who)
            other.check(who)
        disk.come_back()
        assert client.listed() == client.kept.keys() | other.kept.keys()
        client.write(5)
        client.take()
        client.run("verify", "--read-data")
        client.check(Client(tmp_path / "third", client.repository))
        assert not [name for _, _, names in os.walk(client.repository) for name in names if name.startswith(".tmp-")]


def test_disk_by_fuse_that_fills_up_costs_no_snapshot(tmp_path):
    """Where an object is written under its final name, or renamed, a full disk leaves none that is torn."""
    with disk_of("exfat", length_bytes=64 * MIB) as disk:
        client = Client(tmp_path / "client", disk.where / "repository")
        client.write(1)
        client.take()
        (client.source / "much").write_bytes(os.urandom(90 * MIB))
        ran = client.run("snapshot", client.source, expected=1)
        assert "no space left in the repository" in ran.err
        client.run("verify", "--read-data")
        client.check()
        assert client.run("prune", "--json").json["deleted_bytes"] > 16 * MIB
        (client.source / "much").unlink()
        client.write(2)
        client.take()
        client.check()
        client.run("verify", "--read-data")
