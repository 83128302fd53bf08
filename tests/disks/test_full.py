"""Disks that fill up in the middle of a snapshot, as users meet them: by the command line, on ext4 and xfs."""

from __future__ import annotations

import os

import pytest

from tests.disks.client import MIB, Client
from tests.disks.disk import disk_of

pytestmark = pytest.mark.root


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_disk_that_fills_up_costs_no_snapshot_and_prune_gets_it_back_to_work(tmp_path, kind):
    """Status 1 and a clear message; what was committed restores; a prune makes room, and the next one succeeds."""
    with disk_of(kind, length_bytes=96 * MIB) as disk:
        client = Client(tmp_path / "client", disk.where / "repository")
        for seed in range(2):
            client.write(seed)
            client.take()
        disk.leave(56 * MIB)
        (client.source / "much").write_bytes(os.urandom(80 * MIB))
        ran = client.run("snapshot", client.source, expected=1)
        assert "no space left in the repository" in ran.err
        assert "free space on the repository's disk" in ran.err
        assert "Traceback" not in ran.err
        assert client.listed() == client.kept.keys()
        assert not list(client.repository.rglob(".tmp-*"))

        filled = disk.fill()
        client.check()
        client.run("verify", "--read-data")
        pruned = client.run("prune", "--json").json
        assert pruned["deleted_packs"] > 0
        assert pruned["deleted_bytes"] > 16 * MIB
        for path in filled:
            path.unlink()
        client.check()
        (client.source / "much").unlink()
        client.write(2)
        client.take()
        client.check(Client(tmp_path / "other", client.repository))
        client.run("verify", "--read-data")
