from __future__ import annotations

import os
import random
import sys

import pytest

SECTOR = 4096


def strike(path, count: int = 1, seed: int = 0) -> None:
    """Overwrites so many sectors of a file with other bytes."""
    source = random.Random(seed)
    data = bytearray(path.read_bytes())
    for number in source.sample(range(-(-len(data) // SECTOR)), count):
        end = min((number + 1) * SECTOR, len(data))
        data[number * SECTOR : end] = source.randbytes(end - number * SECTOR)
    path.write_bytes(data)


def files(repository, folder: str):
    """Returns the files of a folder, the longest first."""
    found = [path for path in (repository / folder).rglob("*") if path.is_file()]
    return sorted(found, key=lambda path: -path.stat().st_size)


@pytest.fixture
def protected(cli, place, tree):
    """A repository with parity and a snapshot."""
    (tree / "big").write_bytes(os.urandom(3_000_000))
    made = cli("init", "--parity", "5%", "--json")
    assert made.json["parity"] == 0.05
    assert made.err == ""
    assert cli("snapshot", tree).err == ""
    return place / "repository"


def contents(top):
    """Returns what is in the files below a directory."""
    return {path.relative_to(top): path.read_bytes() for path in top.rglob("*") if path.is_file()}


def test_restore_reads_around_damage_and_says_so(cli, place, tree, protected):
    """With damaged sectors in every kind of object a restore is whole, exits with 0, and warns."""
    for folder in ("keys", "config", "pending", "outcome", "segments"):
        strike(files(protected, folder)[0])
    strike(protected / "header")
    pack = files(protected, "packs")[0]
    strike(pack, count=pack.stat().st_size // SECTOR * 5 // 100)
    cli("snapshots")
    ran = cli("restore", f"latest:{tree}", place / "back")
    assert contents(place / "back") == contents(tree)
    assert f"warning: packs/{pack.name} is damaged" in ran.err
    assert "warning: header is damaged" in ran.err
    assert "respaldo parity mend" in ran.err


def test_mend_puts_the_repository_right(cli, place, tree, protected):
    """Without a passphrase: what is damaged is said, then mended, and then nothing is left to find."""
    pack = files(protected, "packs")[0]
    before = pack.read_bytes()
    strike(pack, count=20)
    strike(protected / "header")
    damaged = pack.read_bytes()
    verified = cli("verify", "--read-data", expected=4)
    assert "nothing is lost: parity mends it" in verified.out
    assert "respaldo parity mend" in verified.out
    (place / "key").rename(place / "away")
    looked = cli("parity", "mend", "--dry-run", expected=4)
    assert f"would mend: packs/{pack.name}" in looked.out
    assert pack.read_bytes() == damaged
    done = cli("parity", "mend", "--json").json
    assert done["ok"] and {item["name"] for item in done["damaged"]} == {"header", f"packs/{pack.name}"}
    assert pack.read_bytes() == before
    assert (protected / "lost+found" / f"packs.{pack.name}").read_bytes() == damaged
    (place / "away").rename(place / "key")
    assert "no damage found" in cli("verify", "--read-data").out
    assert cli("parity", "mend").out.endswith("no damage found\n")


def test_repair_takes_from_parity_what_it_gives_and_does_the_rest(cli, tree, protected):
    """Objects whose parity suffices are what they were, with copies set aside; a second repair has nothing to do."""
    pack = files(protected, "packs")[0]
    before = pack.read_bytes()
    strike(pack, count=len(before) // SECTOR * 5 // 100)
    segment = files(protected, "segments")[0]
    segment_before = segment.read_bytes()
    strike(segment)
    plan = cli("repair", "--read-data", "--dry-run", "--json", expected=4).json["plan"]
    assert {(step["verb"], step["name"].split("/")[0]) for step in plan} == {("mend", "packs"), ("mend", "segments")}
    done = cli("repair", "--read-data", "--yes", "--json").json
    assert [step["verb"] for step in done["done"]] == ["mend", "mend"]
    assert len(done["aside"]) == 2
    assert (pack.read_bytes(), segment.read_bytes()) == (before, segment_before)
    assert "nothing to repair" in cli("repair", "--read-data", "--yes").out
    assert cli("verify", "--read-data").status == 0


def test_more_than_the_share_is_left(cli, protected):
    """What cannot be mended is named, stays as it is, and the exit status says so."""
    pack = files(protected, "packs")[0]
    strike(pack, count=pack.stat().st_size // SECTOR // 5)
    damaged = pack.read_bytes()
    assert f"left: packs/{pack.name}" in cli("parity", "mend", expected=4).out
    assert cli("-q", "parity", "mend", expected=4).err.startswith("left: ")
    assert pack.read_bytes() == damaged
    assert "parity mends it" not in cli("verify", "--read-data", expected=4).out


def test_on_status_off(cli, repository, tree):
    """Parity can be switched on later, changed and switched off; status says how it stands."""
    cli("snapshot", tree)
    assert cli("parity", "status", "--json").json["share"] == 0
    assert "off" in cli("parity", "status").out
    done = cli("parity", "on", "--json").json
    assert done["share"] == 0.05 and done["made"] >= 7 and done["unsound"] == []
    status = cli("parity", "status", "--json").json
    assert status["library"] and status["missing"] == status["orphans"] == 0
    assert status["sidecars"] == status["objects"]
    assert cli("parity", "on", "--json").json["made"] == 0
    assert "10%" in cli("parity", "on", "10%").out
    (tree / "new").write_bytes(b"new")
    cli("snapshot", tree)
    assert cli("parity", "status", "--json").json["missing"] == 0
    assert cli("parity", "off", "--json").json["removed"] >= status["sidecars"]
    assert files(repository, "parity") == []
    assert cli("verify").err == ""
    cli("parity", "on", "60%", expected=2)


def test_prune_takes_the_parity_of_what_it_deletes(cli, protected, tree):
    """After a prune every sidecar is of an object that is there."""
    (tree / "big").write_bytes(os.urandom(2_000_000))
    cli("snapshot", tree)
    cli("prune", "--keep-last", "1")
    status = cli("parity", "status", "--json").json
    assert status["missing"] == status["orphans"] == 0
    assert status["sidecars"] == status["objects"]
    assert len(files(protected, "pending")) == 1


def test_removed_key_leaves_no_copy(cli, place, protected):
    """The sidecar of a key slot goes with it."""
    made = cli("key", "add", "--new-key-file", place / "other", "--json").json["key"]
    assert (protected / "parity" / f"keys.{made}").exists()
    cli("key", "remove", made)
    assert not (protected / "parity" / f"keys.{made}").exists()


def test_without_the_library_all_works_but_parity(cli, place, tree, protected, monkeypatch):
    """A client that lacks it backs up and restores, says what it leaves out, and how to get it."""
    monkeypatch.setitem(sys.modules, "reed_solomon_leopard", None)
    refused = cli("init", "-r", place / "other", "--parity", "5%", expected=2)
    assert "respaldo[parity]" in refused.err
    assert not (place / "other").exists()
    (tree / "new").write_bytes(os.urandom(100_000))
    ran = cli("snapshot", tree)
    assert "warning: no parity was made for" in ran.err and "respaldo[parity]" in ran.err
    cli("restore", f"latest:{tree}", place / "back")
    assert contents(place / "back") == contents(tree)
    assert "missing" in cli("parity", "status").out
    assert "respaldo[parity]" in cli("parity", "on", "10%", expected=2).err
    assert "note: parity: " in cli("verify").out
    monkeypatch.undo()


def test_missing_header_is_mended(cli, protected, tree):
    """A repository without its header opens by the copy, and mend puts it back."""
    (protected / "header").unlink()
    assert "header is damaged" in cli("snapshots").err
    assert "mended: header: it is missing" in cli("parity", "mend").out
    assert cli("snapshots").err == ""


def test_mend_is_for_repositories(cli, place):
    """Where there is no repository, it says so."""
    (place / "empty").mkdir()
    cli("parity", "mend", "-r", place / "empty", expected=10)


def test_parity_holds_across_a_rotation(cli, tree, protected):
    """What says that an epoch is retiring holds nothing but a closing hash: it is sound, and mended by its copy."""
    cli("key", "rotate")
    assert cli("key", "reencrypt", "--json").json["retired"] == [0]
    assert cli("verify", "--read-data").status == 0
    sign = protected / "epochs" / f"{0:016x}.retiring"
    content = sign.read_bytes()
    sign.write_bytes(bytes(len(content)))
    assert f"mended: epochs/{sign.name}" in cli("parity", "mend").out
    assert sign.read_bytes() == content
    assert cli("verify", "--read-data").status == 0
