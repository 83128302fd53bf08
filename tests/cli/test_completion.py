"""Tests of what a shell completes: commands, options, snapshots, keys and clients, without a word to anybody."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.cli.test_unlock import run_dir, unlock

__all__ = ["run_dir", "unlock"]
pytestmark = pytest.mark.usefixtures("repository")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(cli, shell):
    """Each shell gets a script that asks this program."""
    assert "_RESPALDO_COMPLETE" in cli("completion", shell).out


def test_completion_script_is_accepted_by_bash(cli, place):
    """Bash can read what it is given."""
    (place / "script").write_text(cli("completion", "bash").out)
    subprocess.run(["bash", "-n", place / "script"], check=True)


def completed(spawn, *words: str) -> set[str]:
    """Returns what the last word can become."""
    environment = os.environ | {
        "_RESPALDO_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(("respaldo", *words)),
        "COMP_CWORD": str(len(words)),
    }
    out, err = spawn(env=environment).communicate()
    assert not err
    return {line.partition(",")[2] for line in out.decode().splitlines()}


def test_completion_of_commands_options_and_snapshots(cli, spawn, tree, monkeypatch):
    """Commands, options and, from the cache, the snapshots; without any secret."""
    made = cli("snapshot", tree, "--label", "monday", "--json").json["snapshot"]
    cli("snapshots")
    monkeypatch.delenv("RESPALDO_KEY_FILE")
    assert completed(spawn, "sna") == {"snapshot", "snapshots"}
    assert "--exclude-caches" in completed(spawn, "snapshot", "--exclude-c")
    assert completed(spawn, "ls", "") == {"latest", "monday", made[:8]}
    assert completed(spawn, "ls", "mo") == {"monday"}


def test_completion_leaves_out_labels_that_a_terminal_would_obey(cli, spawn, tree):
    """A label that is not printable, or not UTF-8, is not offered, and does not end the completion of the others."""
    (tree / "odd\x1b[31m").mkdir()
    for label in ("monday", "\x1b[31mred", "two\nlines", "odd\udcff"):
        cli("snapshot", tree / "odd\x1b[31m", "--label", label)
    ids = {item["id"][:8] for item in cli("snapshots", "--json").json["snapshots"]}
    assert completed(spawn, "ls", "") == {"latest", "monday", *ids}
    environment = os.environ | {"_RESPALDO_COMPLETE": "zsh_complete", "COMP_WORDS": "respaldo ls ", "COMP_CWORD": "2"}
    out, _ = spawn(env=environment).communicate()
    assert b"\x1b" not in out


@pytest.mark.parametrize("words", [("log", "head", "--svg"), ("key", "client", "add", "--out")])
def test_completion_of_files_that_are_made(spawn, words):
    """The shell completes them: what is printed is only that it is a file."""
    assert completed(spawn, *words, "") == {""}


@pytest.fixture
def named(cli, place):
    """Has a second key and three clients, one of them removed; returns ids of keys, and of clients by name."""
    cli("key", "add", "--new-key-file", place / "second", "--label", "ana")
    keys = [key["id"] for key in cli("key", "list", "--json").json["keys"]]
    clients = {}
    for name in ("web-1", "web-2", "gone"):
        made = cli("key", "client", "add", name, "--restore", "--out", place / name, "--json").json["client"]
        clients[name] = made["id"][:8]
    cli("key", "client", "remove", "gone")
    return keys, clients


@pytest.mark.parametrize("words", [("key", "remove"), ("key", "rotate", "--without")])
def test_completion_of_keys(named, spawn, monkeypatch, words):
    """Their ids lie open: nothing opens the repository, and nothing is asked or said."""
    keys, _ = named
    monkeypatch.delenv("RESPALDO_KEY_FILE")
    monkeypatch.setenv("RESPALDO_PASSWORD_COMMAND", "false")
    assert completed(spawn, *words, "") == set(keys)
    assert completed(spawn, *words, keys[1][:5]) == {keys[1]}


def shown_by_fish(spawn, *words):
    """Returns what the last word can become, with what is said of each."""
    environment = os.environ | {
        "_RESPALDO_COMPLETE": "fish_complete",
        "COMP_WORDS": " ".join(("respaldo", *words)),
        "COMP_CWORD": "",
    }
    out, err = spawn(env=environment).communicate()
    assert not err
    return dict(line.partition(",")[2].split("\t") for line in out.decode().splitlines())


def test_completion_of_what_an_agent_opens(named, unlock, cli, spawn):
    """Names and labels, as long as the key is in memory; ids before and after."""
    keys, clients = named
    left = {clients["web-1"], clients["web-2"]}
    assert completed(spawn, "key", "client", "remove", "") == left
    assert completed(spawn, "snapshots", "--client", "") == set(clients.values())
    unlock("--for", "10m", "--idle", "5m")
    assert completed(spawn, "key", "client", "remove", "") == {"web-1", "web-2"}
    assert completed(spawn, "snapshots", "--client", "g") == {"gone"}
    assert shown_by_fish(spawn, "key", "remove")[keys[1]] == "ana"
    assert shown_by_fish(spawn, "verify", "--client")["web-1"] == "write, list, restore"
    cli("lock")
    assert completed(spawn, "key", "client", "remove", "") == left
    assert shown_by_fish(spawn, "key", "remove") == dict.fromkeys(keys, "key")


def test_completion_of_what_a_key_in_a_file_opens(named, spawn, place, monkeypatch):
    """A key that does not open, is not there, or would have to be waited for leaves the ids."""
    assert completed(spawn, "key", "client", "remove", "web-2") == {"web-2"}
    ids = set(named[1].values()) - {named[1]["gone"]}
    (place / "wrong").write_bytes(bytes(32))
    os.mkfifo(place / "pipe")
    for name in ("wrong", "pipe", "missing"):
        monkeypatch.setenv("RESPALDO_KEY_FILE", str(place / name))
        assert completed(spawn, "key", "client", "remove", "") == ids
    monkeypatch.setenv("RESPALDO_REPOSITORY", str(place / "nowhere"))
    assert completed(spawn, "key", "client", "remove", "") == {""}
    assert completed(spawn, "key", "remove", "") == {""}
