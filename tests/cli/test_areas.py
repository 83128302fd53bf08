"""The areas of clients, as the owner of their repository works on them: --client and --all-clients."""

from __future__ import annotations

import os

import pytest

from respaldo.cli.settings import Settings


@pytest.fixture
def clients(cli, place, monkeypatch):
    """Has two clients that have backed up once, and the owner, who has not; returns what backs up as one of them."""
    cli("init")
    source = place / "source"
    source.mkdir()
    (source / "a").write_bytes(b"text\n" * 1000)

    def backup(name):
        with monkeypatch.context() as patch:
            patch.delenv("RESPALDO_KEY_FILE")
            patch.setenv("XDG_CACHE_HOME", str(place / name / "cache"))
            patch.setenv("XDG_STATE_HOME", str(place / name / "state"))
            return cli("snapshot", source, "--client-file", place / f"{name}.client", "--json").json["snapshot"]

    for name in ("web", "ana"):
        cli("key", "client", "add", name, "--out", place / f"{name}.client")
        backup(name)
    return backup


def test_every_command_works_on_an_area(cli, place, clients):
    """Those that look, those that bring back, those that take away."""
    listed = cli("snapshots", "--client", "web", "--json").json
    (item,) = listed["snapshots"]
    assert listed["clients"] == []
    assert cli("ls", "latest", "--client", "web").out
    cli("restore", f"latest:{place}/source", place / "back", "--client", "web")
    assert (place / "back" / "a").read_bytes() == (place / "source" / "a").read_bytes()
    assert cli("verify", "--read-data", "--client", "web", "--json").json["snapshots"] == 1
    assert cli("find", "a", "--client", "web").out
    assert cli("stats", "--client", "web", "--json").json["snapshots"] == 1
    cli("pin", "latest", "--client", "web")
    cli("unpin", "latest", "--client", "web")
    assert [entry["verb"] for entry in cli("log", "show", "--client", "web", "--json").json["entries"]] == ["commit"]
    cli("forget", item["id"], "--client", "web")
    assert cli("prune", "--client", "web", "--json").json["deleted_packs"] > 0
    assert cli("snapshots", "--client", "web", "--json").json["snapshots"] == []
    assert len(cli("snapshots", "--client", "ana", "--json").json["snapshots"]) == 1


def test_client_is_named_by_name_or_id(cli, clients):
    """And one that is none is wrong usage."""
    ids = {item["name"]: item["id"] for item in cli("key", "client", "list", "--json").json["clients"]}
    assert cli("snapshots", "--client", ids["web"][:8], "--json").json["snapshots"]
    assert "no such client" in cli("snapshots", "--client", "nobody", expected=2).err


def test_area_itself_opens_with_no_passphrase(cli, place, clients):
    """Whoever names it as a repository is told what to name."""
    area = next((place / "repository" / "clients").iterdir())
    assert "--client NAME" in cli("snapshots", "-r", area, expected=12).err


@pytest.mark.parametrize("words", [("key", "list"), ("unlock", "--for", "1m")])
def test_an_area_has_no_keys_of_its_own(cli, clients, words):
    """Commands on keys are about the repository."""
    assert "leave out --client" in cli(*words, "--client", "web", expected=2).err


def test_the_key_is_rotated_between_two_areas(cli, clients, spawn, monkeypatch):
    """What opened the repository before opens it no more; the passphrase or key that was named does."""
    names = Settings.clients

    def rotated(settings):
        found = names(settings)
        assert spawn("key", "rotate", "--yes").wait(timeout=60) == 0
        return found

    monkeypatch.setattr(Settings, "clients", rotated)
    found = cli("snapshots", "--all-clients", "--json").json["repositories"]
    assert [item["status"] for item in found] == [0, 0, 0]


def test_all_clients(cli, place, clients):
    """The repository itself first, then every area; one that fails keeps the others from nothing."""
    cli("snapshot", place / "source")
    found = cli("snapshots", "--all-clients", "--json").json["repositories"]
    assert [item["client"] for item in found] == [None, "web", "ana"]
    assert [len(item["result"]["snapshots"]) for item in found] == [1, 1, 1]
    pruned = cli("prune", "--all-clients", "--keep-last", "1", "--json").json["repositories"]
    assert [item["result"]["retention"]["kept"] for item in pruned] == [1, 1, 1]
    text = cli("verify", "--all-clients").out
    assert [line for line in text.splitlines() if line.endswith(":")] == [
        "the repository itself:",
        "client web:",
        "client ana:",
    ]
    client = next(
        item["id"] for item in cli("key", "client", "list", "--json").json["clients"] if item["name"] == "web"
    )
    os.rename(place / "repository" / "clients" / client, place / "away")
    broken = cli("verify", "--all-clients", "--json", expected=10).json["repositories"]
    assert [item["status"] for item in broken] == [0, 10, 0]
    assert broken[1]["result"] is None
    assert broken[1]["error"]


def test_gravest_status_is_the_one_of_all(cli, place, clients):
    """Damage in one area is damage."""
    spoil(next(path for path in (place / "repository" / "clients").iterdir() if list(path.glob("packs/*/*"))))
    found = cli("verify", "--all-clients", "--read-data", "--json", expected=4).json["repositories"]
    assert sorted(item["status"] for item in found) == [0, 0, 4]


def spoil(area):
    """Flips a bit of a pack of an area."""
    pack = next(area.glob("packs/*/*"))
    pack.chmod(0o600)
    data = bytearray(pack.read_bytes())
    data[1000] ^= 1
    pack.write_bytes(data)
    return f"packs/{pack.name}"


@pytest.mark.parametrize("words", [("verify", "--keyless"), ("parity", "mend", "--dry-run")])
def test_areas_are_checked_without_a_secret(cli, place, clients, monkeypatch, words):
    """By whoever keeps the storage, who knows the clients by their ids alone."""
    monkeypatch.delenv("RESPALDO_KEY_FILE")
    areas = sorted((place / "repository" / "clients").iterdir())
    found = cli(*words, "--all-clients", "--json").json["repositories"]
    assert [item["client"] for item in found] == [None, *(area.name for area in areas)]
    assert all(item["result"]["objects"] > 2 for item in found)
    name = spoil(areas[1])
    found = cli(*words, "--all-clients", "--json", expected=4).json["repositories"]
    assert [item["status"] for item in found] == [0, 0, 4]
    said = found[2]["result"]
    assert [item["name"] for item in said.get("damages") or said["damaged"]] == [name]
    assert areas[1].name in cli(*words, "--all-clients", expected=4).out


def test_area_is_mended_without_a_secret(cli, place, clients, monkeypatch):
    """Where it has parity: of the one that is damaged alone."""
    cli("parity", "on", "--client", "web")
    areas = sorted((place / "repository" / "clients").iterdir())
    area = next(area for area in areas if (area / "parity").is_dir() and any((area / "parity").iterdir()))
    monkeypatch.delenv("RESPALDO_KEY_FILE")
    name = spoil(area)
    found = cli("parity", "mend", "--all-clients", "--json").json["repositories"]
    mended = {item["client"]: item["result"]["damaged"] for item in found if item["result"]["damaged"]}
    assert {client: [item["name"] for item in items] for client, items in mended.items()} == {area.name: [name]}
    cli("verify", "--keyless", "--all-clients")


@pytest.mark.parametrize(
    "words",
    [
        ("snapshots", "--all-clients", "--client", "web"),
        ("prune", "--all-clients", "--free", "1GiB"),
        ("verify", "--keyless", "--client", "web"),
        ("snapshots", "--client", "web", "--client-file", "web.client"),
    ],
)
def test_contradictions(cli, clients, words):
    """Are wrong usage."""
    cli(*words, expected=2)


def test_owner_is_told_of_his_clients(cli, clients):
    """By what lists snapshots, and by what counts them."""
    ran = cli("snapshots")
    assert ran.out.strip() == "no snapshots"
    assert "2 clients that cannot read" in ran.err
    assert "web, ana" in cli("stats", "--brief").out
    assert cli("stats", "--brief", "--json").json["clients"] == ["web", "ana"]


def test_repository_leaves_areas_alone(cli, place, clients):
    """They are no litter, nothing misplaced, and none of its objects."""
    before = sorted(path for path in (place / "repository" / "clients").rglob("*") if path.is_file())
    assert cli("verify", "--keyless").out
    assert not cli("verify", "--json").json["notes"]
    cli("prune")
    cli("init", expected=1)
    assert sorted(path for path in (place / "repository" / "clients").rglob("*") if path.is_file()) == before
