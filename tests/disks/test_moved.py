"""Repositories that are moved, copied to another machine, or shared by clients that run at the same time."""

from __future__ import annotations

import shutil
import subprocess

from tests.disks.client import MIB, Client


def test_repository_that_was_moved_is_the_same(tmp_path):
    """Under another path the same client goes on: nothing is stored again, everything restores."""
    client = Client(tmp_path / "client", tmp_path / "disk" / "repository")
    for seed in range(2):
        client.write(seed)
        client.take()
    moved = tmp_path / "elsewhere" / "deep" / "backup"
    moved.parent.mkdir(parents=True)
    client.repository.rename(moved)
    assert client.run("snapshots", expected=10).out == ""
    client.repository = moved
    result = client.snapshot(client.source, "--host", client.host)
    assert result["figures"]["new_bytes"] < 64 << 10
    client.check()
    client.write(5)
    client.take()
    client.run("prune")
    client.run("verify", "--read-data")
    client.check(Client(tmp_path / "other", moved))


def test_repository_that_was_copied_to_another_machine_serves_there(tmp_path):
    """Copied without times, with another cache, state, host and path: it restores, stores once, and collects."""
    client = Client(tmp_path / "client", tmp_path / "repository")
    for seed in range(3):
        client.write(seed)
        client.take()
    copied = tmp_path / "machine" / "copy"
    copied.parent.mkdir()
    subprocess.run(["cp", "-r", client.repository, copied], check=True)
    shutil.rmtree(client.repository)
    there = Client(tmp_path / "machine" / "client", copied, host="another")
    client.check(there)
    result = there.snapshot(client.source, "--host", there.host)
    assert result["figures"]["new_bytes"] < 64 << 10, "content was stored again"
    there.run("forget", gone := next(iter(client.kept)))
    del client.kept[gone]
    there.run("prune", "--repack-below", "100%")
    there.run("verify", "--read-data")
    client.check(there)
    there.run("prune", "--keep-last", "1")
    rows = there.run("snapshots", "--json").json["snapshots"]
    assert {row["host"] for row in rows} == {"one", "another"}, "one host's policy took the other's last snapshot"


def test_two_clients_share_a_directory_at_once(tmp_path):
    """Their runs overlap all the time, a prune among them; each sees what both made, and all of it restores."""
    repository = tmp_path / "shared" / "repository"
    clients = [Client(tmp_path / name, repository, host=name) for name in ("one", "two")]
    for seed in range(3):
        for number, client in enumerate(clients):
            client.write(10 * number + seed, length_bytes=4 * MIB)
            shutil.copy(client.source / "changing", clients[1 - number].source / "theirs")
        started = [client.start("snapshot", client.source, "--host", client.host, "--json") for client in clients]
        pruning = clients[seed % 2].start("prune", "--repack-below", "100%")
        for client, process in zip(clients, started, strict=True):
            ran = client.finish(process)
            assert ran.status == 0, ran.err
            copy = client.place / f"copy-{ran.json['snapshot']}"
            subprocess.run(["cp", "-a", client.source, copy], check=True)
            client.kept[ran.json["snapshot"]] = copy
        ran = clients[0].finish(pruning)
        assert ran.status == 0, ran.err
    everything = clients[0].kept.keys() | clients[1].kept.keys()
    assert len(everything) == 6
    for client in clients:
        assert client.listed() == everything
        clients[0].check(client)
        clients[1].check(client)
        client.run("verify", "--read-data")
