"""`copy`, `sync` and `import` as they are typed."""

from __future__ import annotations

import gzip
import subprocess

import pytest


@pytest.fixture
def second(cli, repository, place):
    """Has a second repository made that names content like the first."""
    cli("init", "-r", place / "second", "--like", repository)
    return place / "second"


def test_copy_says_what_it_brings(cli, tree, second):
    """Names choose snapshots; a second run brings nothing; all is in the JSON."""
    one = cli("snapshot", tree, "--json").json["snapshot"]
    (tree / "more").write_text("more")
    cli("snapshot", tree, "--label", "two", "--tag", "t", "--json")
    planned = cli("copy", "two", "--to", second, "--dry-run", "--json").json
    done = cli("copy", "two", "--to", second, "--json").json
    assert done["alike"]
    assert planned["copied"][0]["new_bytes"] == done["copied"][0]["new_bytes"] > 0
    assert (planned["copied"][0]["copy"], done["copied"][0]["label"]) == (None, "two")
    rest = cli("copy", "--to", second, "--json").json
    assert [item["source"] for item in rest["copied"]] == [one]
    assert "there already" in cli("copy", "--to", second).out
    here = cli("snapshots", "--json").json["snapshots"]
    shown = cli("snapshots", "-r", second, "--json").json["snapshots"]
    assert [item["label"] for item in shown] == [item["label"] for item in here]
    assert cli("verify", "--read-data", "-r", second).status == 0


def test_copy_from_reads_only(cli, tree, second, repository):
    """With --from the other one is the source; it is opened for reading."""
    cli("snapshot", tree)
    before = sorted(path for path in repository.rglob("*"))
    cli("copy", "--from", repository, "-r", second)
    assert sorted(path for path in repository.rglob("*")) == before
    assert len(cli("snapshots", "-r", second, "--json").json["snapshots"]) == 1


@pytest.mark.parametrize("words", [(), ("--to", "x", "--from", "y")])
def test_copy_wants_one_other(cli, repository, words):
    """Neither or both of --to and --from is wrong usage."""
    assert cli("copy", *words, expected=2).status == 2


def test_copy_into_itself_is_refused(cli, repository, place):
    """The same repository, and a copy of its files, are told as what they are."""
    assert "same repository" in cli("copy", "--to", repository, expected=2).err
    subprocess.run(["cp", "-a", repository, place / "clone"], check=True)
    assert "same repository" in cli("sync", "--to", place / "clone", expected=2).err


def test_other_secret_never_stands_on_the_command_line(cli, tree, place, repository, monkeypatch):
    """The second repository opens by a file, a key or the environment; a wrong one says how."""
    (place / "words").write_text("another\n")
    key = place / "other key"
    monkeypatch.delenv("RESPALDO_KEY_FILE")
    cli("init", "-r", place / "second", "--password-file", place / "words", "--new-key-file", key)
    monkeypatch.setenv("RESPALDO_KEY_FILE", str(place / "key"))
    cli("snapshot", tree)
    refused = cli("copy", "--to", place / "second", expected=12)
    assert "RESPALDO_OTHER_PASSWORD_COMMAND" in refused.err
    cli("copy", "--to", place / "second", "--other-password-file", place / "words")
    cli("copy", "--to", place / "second", "--other-key-file", key)
    monkeypatch.setenv("RESPALDO_OTHER_PASSWORD", "another")
    cli("copy", "--to", place / "second")
    monkeypatch.delenv("RESPALDO_OTHER_PASSWORD")
    monkeypatch.setenv("RESPALDO_OTHER_PASSWORD_COMMAND", f"cat '{place / 'words'}'")
    cli("copy", "--to", place / "second")


def test_sync_says_what_is_extra_and_deletes_on_demand(cli, tree, second, place):
    """What was forgotten here is extra there; --delete forgets it, but nothing pinned and nothing of others."""
    for number in range(4):
        (tree / "docs" / "a.txt").write_text(f"version {number}\n" * 100)
        cli("snapshot", tree, "--label", f"v{number}")
    cli("sync", "--to", second)
    cli("snapshot", tree, "-r", second, "--label", "own")
    cli("forget", "v0", "v1", "v2")
    cli("pin", "v1", "-r", second)
    told = cli("sync", "--to", second, "--json").json
    assert (len(told["extra"]), told["deleted"]) == (3, [])
    planned = cli("sync", "--to", second, "--delete", "--dry-run", "--json").json
    assert len(planned["deleted"]) == 2
    done = cli("sync", "--to", second, "--delete", "--grace", "7d", "--json").json
    assert done["deleted"] == planned["deleted"]
    labels = {item["label"] for item in cli("snapshots", "-r", second, "--json").json["snapshots"]}
    assert labels == {"v1", "v3", "own"}
    cli("undo", "v0", "-r", second)


def test_sync_deletes_nothing_for_an_empty_source(cli, tree, second):
    """A source without snapshots is no reason to forget all there is in the target."""
    cli("snapshot", tree, "--label", "only")
    cli("sync", "--to", second)
    cli("forget", "only")
    told = cli("sync", "--to", second, "--delete", expected=1)
    assert "nothing was forgotten" in told.err
    assert "extra in the target" in told.out
    assert "nothing was forgotten" in cli("sync", "--to", second, "--delete", "--json", expected=1).json["refused"]
    assert len(cli("snapshots", "-r", second, "--json").json["snapshots"]) == 1


@pytest.mark.parametrize("command", ["copy", "sync"])
def test_unreadable_manifest_keeps_no_other_snapshot_back(cli, tree, second, repository, command):
    """It is named, the others are copied, what the target has of it is not extra there, and the status is 4."""
    made = [cli("snapshot", tree, "--json").json["snapshot"] for _ in range(3)]
    cli("copy", made[0], "--to", second)
    for each in made[:2]:
        path = repository / "pending" / each
        path.chmod(0o600)
        path.write_bytes(path.read_bytes()[:-1])
    fresh = ("--cache-dir", repository.parent / "fresh")
    planned = cli(command, "--to", second, "--dry-run", "--json", *fresh, expected=4).json
    done = cli(command, "--to", second, "--json", *fresh, expected=4)
    assert (
        [item["source"] for item in planned["copied"]] == [item["source"] for item in done.json["copied"]] == made[2:]
    )
    assert sorted(item["source"] for item in done.json["failed"]) == sorted(made[:2])
    assert done.json.get("extra", []) == []
    assert all(f"snapshot {each[:8]} cannot be copied: damaged object pending/{each}" in done.err for each in made[:2])
    told = cli(command, "--to", second, *fresh, expected=4)
    assert "not copied: " in told.out
    assert "respaldo repair" in told.out
    assert "name another snapshot" not in told.out + told.err
    assert len(cli("snapshots", "-r", second, "--json").json["snapshots"]) == 2
    cli("copy", made[2], "--to", second, *fresh)
    cli("forget", made[2])
    (tree / "more").write_text("more")
    more = cli("snapshot", tree, "--json", *fresh).json["snapshot"]
    kept = cli("sync", "--to", second, "--delete", "--json", *fresh, expected=4).json
    assert [item["source"] for item in kept["copied"]] == [more]
    assert (len(kept["extra"]), kept["deleted"]) == (1, [])
    assert "this one is damaged" in kept["refused"]


def test_alike_stays_alike_when_the_configuration_changes(cli, tree, second):
    """Content keys are in every later configuration; a third repository can be made like the second."""
    cli("snapshot", tree)
    cli("parity", "on", "5%", "-r", second)
    assert cli("sync", "--to", second, "--json").json["alike"]
    cli("parity", "off", "-r", second)
    assert cli("copy", "--to", second, "--json").json["present"]
    cli("init", "-r", second.with_name("third"), "--like", second)
    assert cli("sync", "--to", second.with_name("third"), "--json").json["alike"]
    assert cli("verify", "--read-data", "-r", second.with_name("third")).status == 0


def test_copies_between_strangers_are_cut_anew(cli, tree, repository, place):
    """Repositories that were not made alike are copied between all the same, and it is said."""
    cli("init", "-r", place / "stranger")
    cli("snapshot", tree)
    assert "--like" in cli("copy", "--to", place / "stranger").out
    cli("restore", f"latest:{tree}", place / "back", "-r", place / "stranger")
    assert (place / "back" / "big").read_bytes() == (tree / "big").read_bytes()


def test_import_takes_times_from_names(cli, tree, repository, place):
    """Archives of a series get their times from their names, share content and have parents."""
    for day in ("2026-01-05", "2026-01-06"):
        (tree / "day").write_text(day)
        subprocess.run(["tar", "-czf", place / f"home-{day}.tar.gz", "-C", tree, "."], check=True)
    archives = sorted(place.glob("home-*.tar.gz"))
    words = ("--time-from-name", "home-%Y-%m-%d", "--host", "laptop", "--as", "/home/ana", "--tag", "old")
    made = cli("import", *archives, *words, "--json").json
    assert [item["time"][:10] for item in made] in (
        ["2026-01-05", "2026-01-06"],
        ["2026-01-04", "2026-01-05"],  # east of Greenwich
    )
    assert made[1]["parent"] == made[0]["snapshot"]
    assert made[1]["new_bytes"] < 2000
    assert [item["present"] for item in cli("import", *archives, *words, "--json").json] == [True, True]
    cli("restore", f"{made[0]['snapshot']}:/home/ana", place / "back")
    assert (place / "back" / "day").read_text() == "2026-01-05"
    assert "no time like" in cli("import", archives[0], "--time-from-name", "%Y_%m_%d", expected=2).err


def test_import_goes_on_after_what_is_no_archive(cli, repository, place, tree):
    """What is no archive is told, the others are imported, and the status is 1."""
    (place / "no.tar").write_text("no archive at all")
    subprocess.run(["tar", "-cf", place / "yes.tar", "-C", tree, "docs"], check=True)
    ran = cli("import", place / "no.tar", place / "missing.tar", place / "yes.tar", expected=1)
    assert "it is no tar archive" in ran.err
    assert len(cli("snapshots", "--json").json["snapshots"]) == 1


def test_import_of_a_damaged_archive_is_incomplete(cli, repository, place, tree):
    """A cut-off archive gives what is left of it, and status 3."""
    subprocess.run(["tar", "-cf", place / "whole.tar", "-C", tree, "docs", "big"], check=True)
    data = (place / "whole.tar").read_bytes()
    (place / "cut.tar.gz").write_bytes(gzip.compress(data[:-150_000]))
    made = cli("import", place / "cut.tar.gz", "--json", expected=3).json[0]
    assert made["errors"] == 2
    assert made["failed"][0]["path"] == "big"


@pytest.mark.parametrize(
    "words",
    [("--as", "relative"), ("--label", "latest"), ("--time", "2026-01-01", "--time-from-name", "%Y")],
)
def test_import_refuses_what_makes_no_sense(cli, repository, place, tree, words):
    """Wrong usage is told before an archive is read."""
    subprocess.run(["tar", "-cf", place / "a.tar", "-C", tree, "docs"], check=True)
    cli("import", place / "a.tar", *words, expected=2)


@pytest.fixture
def client(cli, tree, place, monkeypatch):
    """Returns what backs the tree up as a client with an area of its own."""
    cli("key", "client", "add", "web", "--out", place / "web")

    def backed_up(*words):
        with monkeypatch.context() as patch:
            patch.delenv("RESPALDO_KEY_FILE")
            patch.setenv("XDG_CACHE_HOME", str(place / "there" / "cache"))
            patch.setenv("XDG_STATE_HOME", str(place / "there" / "state"))
            return cli("snapshot", tree, "--client-file", place / "web", "--json", *words).json["snapshot"]

    return backed_up


def test_area_of_a_client_is_copied_elsewhere(cli, tree, second, client, place, monkeypatch):
    """By its owner, whatever the environment says of a credential; a second run copies nothing."""
    one = client()
    assert "sync --client NAME" in cli("sync", "--to", second).err
    assert cli("sync", "--to", second, "--quiet").err == ""
    monkeypatch.setenv("RESPALDO_CLIENT_FILE", str(place / "web"))
    done = cli("copy", "--client", "web", "--to", second, "--json").json
    assert [item["source"] for item in done["copied"]] == [one]
    (tree / "more").write_text("more")
    two = client()
    ran = cli("sync", "--client", "web", "--to", second, "--json")
    assert [item["source"] for item in ran.json["copied"]] == [two]
    assert ran.json["present"] == [one]
    assert not ran.err
    monkeypatch.delenv("RESPALDO_CLIENT_FILE")
    assert cli("verify", "--read-data", "-r", second).status == 0
    copies = cli("snapshots", "-r", second, "--json").json["snapshots"]
    cli("restore", f"{copies[1]['id']}:{tree}", place / "out", "-r", second)
    assert (place / "out" / "more").read_text() == "more"


def test_copy_into_the_area_of_a_client(cli, tree, second, client, place):
    """The owner's own snapshots there do not stop the client; area and repository do not go into one another."""
    cli("snapshot", tree, "-r", second)
    cli("copy", "--client", "web", "--from", second)
    client()
    assert len(cli("snapshots", "--client", "web", "--json").json["snapshots"]) == 2
    assert (
        "cannot be copied into one another"
        in cli("copy", "--client", "web", "--to", place / "repository", expected=2).err
    )


def test_copy_says_which_times_are_in_doubt(cli, tree, second, client):
    """In an area they do not count; in the copy they do."""
    odd = client("--time", "2001-02-03 04:05")
    ran = cli("copy", "--client", "web", "--to", second)
    assert f"snapshot {odd[:8]}: its time is not when it was made" in ran.err
    assert "counts by that time" in ran.err
    assert not cli("copy", "--client", "web", "--to", second).err
