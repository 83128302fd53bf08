"""Clients that write and cannot read, as people use them: two machines, one disk."""

from __future__ import annotations

import hashlib
import os
import stat
import tarfile

import pytest


@pytest.fixture
def machines(cli, place, monkeypatch):
    """Makes a repository and a tree; returns what runs a command as the client whose credential is named."""
    cli("init")
    source = place / "source"
    (source / "below").mkdir(parents=True)
    (source / "a").write_bytes(os.urandom(50_000))
    (source / "below" / "b").write_bytes(b"text\n" * 1000)
    for path in (source / "a", source / "below" / "b"):
        os.utime(path, ns=(10**18, 10**18))

    def client(credential, *words, expected=0):
        with monkeypatch.context() as patch:
            patch.delenv("RESPALDO_KEY_FILE")
            patch.setenv("XDG_CACHE_HOME", str(place / "there" / "cache"))
            patch.setenv("XDG_STATE_HOME", str(place / "there" / "state"))
            return cli(*words, "--client-file", credential, expected=expected)

    return client


def test_client_is_added_listed_and_removed(cli, place, machines):
    """Its credential is a file for its owner alone; its area is made."""
    added = cli("key", "client", "add", "web-1", "--write-only", "--out", place / "web", "--json").json
    assert stat.S_IMODE((place / "web").stat().st_mode) == 0o600
    assert (place / "repository" / "clients" / added["client"]["id"] / "header").exists()
    assert added["area"].endswith(added["client"]["id"])
    cli("key", "client", "add", "ana", "--restore", "--out", place / "ana")
    listed = cli("key", "client", "list", "--json").json["clients"]
    assert [(item["name"], item["rights"], item["removed"]) for item in listed] == [
        ("web-1", [], None),
        ("ana", ["list", "restore"], None),
    ]
    assert "write, list, restore" in cli("key", "client", "list").out
    assert cli("key", "client", "remove", "web-1", "--dry-run", "--json").json["dry_run"]
    assert cli("key", "client", "remove", "web-1", "--json").json["removed"]["removed"]
    cli("key", "client", "remove", "web-1", expected=2)
    cli("key", "client", "remove", "nobody", expected=2)


def test_file_that_exists_and_name_that_is_none_make_no_client(cli, place, machines):
    """And a file for a client that was not made does not stay."""
    (place / "there").mkdir()
    cli("key", "client", "add", "web", "--out", place / "key", expected=2)
    cli("key", "client", "add", "a b", "--out", place / "new", expected=2)
    assert not (place / "new").exists()
    assert not cli("key", "client", "list", "--json").json["clients"]


def test_a_credential_has_its_space_before_there_is_a_client(cli, place, machines, monkeypatch):
    """On a full disk no client is made, and none gets other keys, whose credential nobody would have."""
    cli("key", "client", "add", "web", "--out", place / "web")
    assert 100 < (place / "web").stat().st_size < 4096
    with monkeypatch.context() as patch:
        patch.setattr("respaldo.cli.passphrase.make_private", lambda *_: os.open("/dev/full", os.O_WRONLY))
        for words in (("add", "ana"), ("renew", "web")):
            failed = cli("key", "client", *words, "--out", place / "new", expected=1)
            assert f"No space left on device: {place / 'new'}" in failed.err
    assert [item["name"] for item in cli("key", "client", "list", "--json").json["clients"]] == ["web"]
    machines(place / "web", "snapshot", place / "source")
    cli("key", "client", "renew", "web", "--out", place / "new")
    machines(place / "new", "snapshot", place / "source")


def test_a_client_is_renewed_again_and_again(cli, place, machines):
    """Each new credential is the owner's word that the keys are others now: that is no history that changed."""
    cli("key", "client", "add", "web", "--out", place / "web0")
    for number in range(3):
        machines(place / f"web{number}", "snapshot", place / "source")
        cli("key", "client", "renew", "web", "--out", place / f"web{number + 1}")
        machines(place / f"web{number}", "snapshot", place / "source", expected=12)
    machines(place / "web3", "snapshot", place / "source")
    assert len(cli("snapshots", "--client", "web", "--json").json["snapshots"]) == 4


def test_client_backs_up_and_reads_nothing(cli, place, machines):
    """It finds its area by the repository's place and by its own; what it lacks, it is told."""
    area = cli("key", "client", "add", "web", "--out", place / "web", "--json").json["area"]
    first = machines(place / "web", "snapshot", place / "source", "--json").json
    again = machines(place / "web", "snapshot", place / "source", "-r", area, "--json").json
    assert first["figures"]["new_bytes"] > 50_000
    assert again["figures"]["new_bytes"] < 2000
    assert again["parent"] == first["snapshot"]
    assert again["changes"] == {"added": 0, "changed": 0, "removed": 0}
    for words, lacks in (
        (("snapshots",), "the right to list"),
        (("ls", "latest"), "the right to list"),
        (("restore", "latest", place / "out"), "the right to restore"),
        (("mount", place / "out"), "the right to restore"),
        (("stats",), "the right to list"),
        (("prune",), "owner alone"),
        (("forget", "latest"), "owner alone"),
        (("key", "list"), "owner alone"),
        (("verify",), "owner alone"),
    ):
        ran = machines(place / "web", *words, expected=1)
        assert lacks in ran.err
        assert not ran.out
    machines(place / "web", "snapshot", place / "source", "--prune", "--policy", "standard", expected=2)
    assert not cli("snapshots", "--json").json["snapshots"]


@pytest.mark.parametrize(
    "words", [("key", "rotate"), ("key", "passwd"), ("key", "add"), ("unlock",), ("prune",), ("bench",)]
)
def test_nobody_is_asked_for_a_passphrase_that_is_of_no_use(cli, place, machines, words):
    """What is the owner's alone is refused before a secret is looked for; so is what an area has none of."""
    cli("key", "client", "add", "web", "--out", place / "web")
    assert "owner alone" in machines(place / "web", *words, expected=1).err
    if words[0] == "key":
        missing = place / "no such key"
        assert "leave out --client" in cli(*words, "--client", "web", "--key-file", missing, expected=2).err


def test_write_only_excludes_rights(cli, place, machines):
    """Nobody is left to guess which of the two was meant."""
    for right in ("--list", "--restore"):
        ran = cli("key", "client", "add", "web", "--write-only", right, "--out", place / "web", expected=2)
        assert "exclude each other" in ran.err
    assert not (place / "web").exists()


def test_clients_that_share_a_name_are_named_by_ids(cli, place, machines):
    """Which is said where the name does not tell."""
    added = []
    for number in range(2):
        made = cli("key", "client", "add", "web", "--out", place / f"web{number}", "--json").json
        added.append(made["client"]["id"])
        cli("key", "client", "remove", "web")
    assert "by its id" in cli("snapshots", "--client", "web", expected=2).err
    assert not cli("snapshots", "--client", added[0][:12], "--json").json["snapshots"]


def test_client_that_lists_is_told_whose_log_it_sees(cli, place, machines):
    """An empty log would look like one that was taken away."""
    cli("key", "client", "add", "ana", "--list", "--out", place / "ana")
    machines(place / "ana", "snapshot", place / "source")
    assert "for the owner to read" in machines(place / "ana", "log", "show").err
    assert "for the owner to read" not in machines(place / "ana", "log", "show", "--access").err


def test_client_with_the_right_to_restore_does(cli, place, machines):
    """And sees its own snapshots only."""
    cli("snapshot", place / "source")
    cli("key", "client", "add", "ana", "--restore", "--out", place / "ana")
    made = machines(place / "ana", "snapshot", place / "source", "--json").json
    listed = machines(place / "ana", "snapshots", "--json").json["snapshots"]
    assert [item["id"] for item in listed] == [made["snapshot"]]
    target = place / "out"
    machines(place / "ana", "restore", f"latest:{place / 'source'}", target)
    assert (target / "a").read_bytes() == (place / "source" / "a").read_bytes()
    assert (target / "below" / "b").read_bytes() == b"text\n" * 1000
    assert "below" in machines(place / "ana", "ls", f"latest:{place / 'source'}").out


def test_client_with_the_right_to_list_lists(cli, place, machines):
    """And restores nothing."""
    cli("key", "client", "add", "ana", "--list", "--out", place / "ana")
    machines(place / "ana", "snapshot", place / "source")
    assert "below" in machines(place / "ana", "ls", f"latest:{place / 'source'}").out
    assert "the right to restore" in machines(place / "ana", "restore", "latest", place / "out", expected=1).err


def test_credential_of_another_repository_is_refused(cli, place, machines, monkeypatch):
    """Nothing is written where the header is not the one that it pins."""
    cli("key", "client", "add", "web", "--out", place / "web")
    cli("init", "-r", place / "other")
    before = sorted(os.listdir(place / "other"))
    ran = machines(place / "web", "snapshot", place / "source", "-r", place / "other", expected=4)
    assert "not the one of the area" in ran.err
    assert "with -r" in ran.err
    assert "respaldo verify" not in ran.err
    assert sorted(os.listdir(place / "other")) == before


def test_credential_that_is_none_and_a_key_beside_it_are_wrong_usage(cli, place, machines):
    """Both are said before anything is opened."""
    assert "no client's credential" in machines(place / "key", "snapshot", place / "source", expected=2).err
    cli("key", "client", "add", "web", "--out", place / "web")
    machines(place / "web", "snapshot", place / "source", "--key-file", place / "key", expected=2)


def test_client_stores_what_a_command_prints(cli, place, machines):
    """Twice: what the first stream held is not read again to compare."""
    cli("key", "client", "add", "web", "--out", place / "web")
    words = ("snapshot", "--command", "echo hello", "--stdin", "/dump", "--json")
    first = machines(place / "web", *words).json
    second = machines(place / "web", *words).json
    assert second["parent"] == first["snapshot"]
    assert second["changes"] is None
    assert cli("dump", "latest:/dump", "--client", "web").out == "hello\n"


def test_credential_that_others_can_read_is_warned_about(cli, place, machines):
    """And taken."""
    cli("key", "client", "add", "web", "--out", place / "web")
    assert "warning" not in machines(place / "web", "snapshot", place / "source").err
    (place / "web").chmod(0o644)
    assert "others than its owner" in machines(place / "web", "snapshot", place / "source").err


def test_rollback_of_its_area_is_reported_to_the_client(cli, place, machines):
    """Status 4, and on with --accept-rollback."""
    area = cli("key", "client", "add", "web", "--out", place / "web", "--json").json["area"]
    made = machines(place / "web", "snapshot", place / "source", "--json").json
    os.unlink(os.path.join(area, "runs", made["snapshot"]))
    ran = machines(place / "web", "snapshot", place / "source", expected=4)
    assert "are gone" in ran.err
    machines(place / "web", "snapshot", place / "source", "--accept-rollback")
    machines(place / "web", "snapshot", place / "source")


def test_clients_outlive_a_rotation_of_the_owners_key(cli, place, machines):
    """Also when everything was sealed anew and the old master key is gone; removed ones stay removed."""
    cli("key", "client", "add", "web", "--out", place / "web")
    cli("key", "client", "add", "gone", "--out", place / "gone")
    cli("key", "client", "remove", "gone")
    first = machines(place / "web", "snapshot", place / "source", "--json").json
    before = cli("key", "client", "list", "--json").json
    assert "the areas of clients (web) keep" in cli("key", "rotate").err
    assert cli("key", "client", "list", "--json").json == before
    cli("key", "reencrypt")
    assert cli("key", "client", "list", "--json").json == before
    names = sorted(os.listdir(place / "repository" / "enrolled"))
    assert len(names) == 6
    assert all(name.removesuffix(".copy").endswith("-1") for name in names)
    cli("key", "client", "remove", "gone", expected=2)
    second = machines(place / "web", "snapshot", place / "source", "--json").json
    listed = cli("snapshots", "--client", "web", "--json").json["snapshots"]
    assert [item["id"] for item in listed] == [first["snapshot"], second["snapshot"]]
    cli("key", "client", "add", "new", "--out", place / "new")
    assert len(cli("key", "client", "list", "--json").json["clients"]) == 3
    assert not cli("key", "rotate", "--quiet").err


def test_client_with_the_right_to_restore_exports_and_sums_up(cli, place, machines):
    """What that would remember in the repository stays on its machine: it writes nothing there while it reads."""
    cli("snapshot", place / "source")
    cli("key", "client", "add", "ana", "--restore", "--out", place / "ana")
    machines(place / "ana", "snapshot", place / "source")
    before = sorted(path for path in (place / "repository").rglob("*"))
    out = place / "out.tar"
    done = machines(place / "ana", "export", "latest", "--format", "tar", "-o", out, "--json").json
    assert done["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    with tarfile.open(out) as archive:
        names = {name.rpartition("/")[2] for name in archive.getnames()}
    assert {"a", "b", "below"} <= names
    for more in ((), ("--read-data",)):
        sums = machines(place / "ana", "checksums", f"latest:{place / 'source'}", *more).out
        assert hashlib.sha256((place / "source" / "a").read_bytes()).hexdigest() in sums
    assert sorted(path for path in (place / "repository").rglob("*")) == before
    assert machines(place / "ana", "log", "show", "--access", "--json").json["accesses"][-1]["verb"] == "checksums"


def test_client_with_a_right_counts_what_is_its_own(cli, place, machines):
    """To list is enough: no content is read for it; without any right nothing is counted."""
    cli("snapshot", place / "source")
    cli("key", "client", "add", "ana", "--list", "--out", place / "ana")
    cli("key", "client", "add", "web", "--out", place / "web")
    for name in ("ana", "web"):
        machines(place / name, "snapshot", place / "source")
    made = machines(place / "ana", "snapshots", "--json").json["snapshots"]
    found = machines(place / "ana", "stats", "--json").json
    assert found["snapshots"] == 1
    assert [item["id"] for item in found["by_snapshot"]] == [item["id"] for item in made]
    assert found["by_snapshot"][0]["data_bytes"] >= 55_000
    assert found["missing_chunks"] == 0
    assert found == cli("stats", "--client", "ana", "--json").json | {
        key: found[key] for key in ("index_bytes", "cached_bytes", "free_bytes")
    }
    assert "the right to list" in machines(place / "web", "stats", expected=1).err
    assert "the right to restore" in machines(place / "ana", "export", "latest", "-o", place / "x", expected=1).err
    assert "the right to restore" in machines(place / "ana", "mount", place / "x", expected=1).err


def test_client_is_renewed(cli, place, machines):
    """The old file is over at once, the new one goes on where that was; the rotation says who is left to renew."""
    cli("key", "client", "add", "web", "--out", place / "web")
    first = machines(place / "web", "snapshot", place / "source", "--json").json
    dry = cli("key", "client", "renew", "web", "--out", place / "new", "--dry-run", "--json").json
    assert dry["dry_run"] and dry["client"]["renewed"] == 0
    assert not (place / "new").exists()
    assert "respaldo key client renew" in cli("key", "rotate").err
    assert cli("key", "rotate", "--json").json["clients"] == ["web"]
    ran = cli("key", "client", "renew", "web", "--out", place / "new", "--json").json
    assert (ran["client"]["renewed"], ran["client"]["id"]) == (1, dry["client"]["id"])
    assert ran["client"]["keys"] >= ran["client"]["added"] == dry["client"]["keys"]
    assert stat.S_IMODE((place / "new").stat().st_mode) == 0o600
    late = machines(place / "web", "snapshot", place / "source", expected=12)
    assert "web was renewed" in late.err
    assert "respaldo key client renew" in late.err
    assert "1 session of the client web came after" in cli("snapshots", "--client", "web").err
    assert not cli("snapshots", "--client", "web", "--quiet").err
    again = machines(place / "new", "snapshot", place / "source", "--json").json
    assert again["parent"] == first["snapshot"]
    assert again["figures"]["new_bytes"] < 2000
    listed = cli("snapshots", "--client", "web", "--json").json["snapshots"]
    assert [item["id"] for item in listed] == [first["snapshot"], again["snapshot"]]
    for item in listed:
        target = place / item["id"]
        cli("restore", f"{item['id']}:{place / 'source'}", target, "--client", "web")
        assert (target / "a").read_bytes() == (place / "source" / "a").read_bytes()
    cli("verify", "--read-data", "--client", "web")
    assert cli("verify").status == 0
    cli("key", "reencrypt")
    machines(place / "new", "snapshot", place / "source")
    cli("prune", "--client", "web")
    assert cli("key", "client", "list", "--json").json["clients"][0]["renewed"] == 1
    assert "renew" in cli("log", "show").out
    assert "1 pack" in cli("key", "reencrypt", "--client", "web", "--dry-run").out
    done = cli("key", "reencrypt", "--client", "web", "--json").json
    assert (done["snapshots"], done["retired"], done["left"], done["new_packs"] > 0) == ({}, [], [], True)
    assert "manifests and logs" in cli("key", "reencrypt", "--client", "web").out
    epochs = cli("key", "epochs", "--client", "web", "--json").json
    assert [(item["epoch"], "packs" in item["objects"]) for item in epochs["epochs"]] == [(0, False), (1, True)]
    cli("verify", "--read-data", "--client", "web")
    machines(place / "new", "snapshot", place / "source")
    cli("restore", f"{first['snapshot']}:{place / 'source'}", place / "sealed anew", "--client", "web")
    cli("key", "client", "remove", "web")
    cli("key", "client", "renew", "web", "--out", place / "newer", expected=2)
    assert not (place / "newer").exists()


def test_client_with_rights_reads_what_was_with_both_lines(cli, place, machines):
    """As the command says: the new file alone opens what comes."""
    cli("key", "client", "add", "ana", "--restore", "--out", place / "ana")
    first = machines(place / "ana", "snapshot", place / "source", "--json").json
    machines(place / "ana", "restore", f"latest:{place / 'source'}", place / "before")
    assert "cat NEW >> OLD" in cli("key", "client", "renew", "ana", "--out", place / "new").out
    second = machines(place / "new", "snapshot", place / "source", "--json").json
    with (place / "ana").open("ab") as file:
        file.write((place / "new").read_bytes())
    listed = machines(place / "ana", "snapshots", "--json").json["snapshots"]
    assert [item["id"] for item in listed] == [first["snapshot"], second["snapshot"]]
    machines(place / "ana", "restore", f"{first['snapshot']}:{place / 'source'}", place / "out")
    assert (place / "out" / "a").read_bytes() == (place / "source" / "a").read_bytes()
    machines(place / "ana", "snapshot", place / "source")
    verbs = [item["verb"] for item in machines(place / "ana", "log", "show", "--access", "--json").json["accesses"]]
    assert verbs == ["restore", "restore"]


def test_client_with_rights_and_only_its_new_line_is_told(cli, place, machines):
    """That there is something from before, why it does not open, and three ways to have it: all of them do."""
    cli("key", "client", "add", "ana", "--restore", "--out", place / "ana")
    first = machines(place / "ana", "snapshot", place / "source", "--json").json["snapshot"]
    cli("key", "client", "renew", "ana", "--out", place / "new")
    assert "renewed" in machines(place / "new", "snapshots").err
    second = machines(place / "new", "snapshot", place / "source", "--json").json["snapshot"]
    listed = machines(place / "new", "snapshots", "--json")
    assert [item["id"] for item in listed.json["snapshots"]] == [second]
    failed = machines(place / "new", "restore", second, place / "out", expected=4)
    for ran in (listed, failed):
        assert "before the credential was renewed" in ran.err
        for way in ("cat OLD >> FILE", "--client NAME", "key reencrypt --client"):
            assert way in ran.err
    cli("restore", f"{first}:{place / 'source'}", place / "by the owner", "--client", "ana")
    cli("key", "reencrypt", "--client", "ana")
    machines(place / "new", "restore", f"{second}:{place / 'source'}", place / "sealed anew")
    (place / "both").write_bytes((place / "new").read_bytes() + (place / "ana").read_bytes())
    (place / "both").chmod(0o600)
    ran = machines(place / "both", "restore", f"{first}:{place / 'source'}", place / "with both")
    assert "renewed" not in ran.err
    for name in ("by the owner", "sealed anew", "with both"):
        assert (place / name / "a").read_bytes() == (place / "source" / "a").read_bytes()


def test_removed_client_is_told(cli, place, machines):
    """By status 12, a message that says what to do, and no snapshot; what it stored stays for the owner."""
    cli("key", "client", "add", "web", "--out", place / "web")
    machines(place / "web", "snapshot", place / "source")
    cli("key", "client", "remove", "web")
    ran = machines(place / "web", "snapshot", place / "source", expected=12)
    assert "the client web was removed" in ran.err
    assert "respaldo key client add" in ran.err
    assert len(cli("snapshots", "--client", "web", "--json").json["snapshots"]) == 1
    for name in (place / "repository" / "enrolled").glob("*.removed*"):
        name.unlink()
    listed = cli("key", "client", "list", "--json", expected=4).json
    assert listed["clients"][0]["removed"]
    (damage,) = cli("verify", "--json", expected=4).json["damages"]
    assert "respaldo key client remove web" in damage["reason"]
    assert "respaldo key client remove web" in cli("repair", "--yes", expected=4).out
    cli("key", "client", "remove", "web")
    cli("key", "client", "list")
    cli("verify")
