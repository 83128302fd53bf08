from __future__ import annotations

import pytest

pytestmark = pytest.mark.usefixtures("repository")


def test_init_says_what_it_made(cli, place):
    """`init --json` has the repository's id and where the recovery key lies."""
    made = cli("init", "-r", place / "other", "--new-key-file", place / "recovery", "--json").json
    assert len(made["repository"]) == 32
    assert made["recovery_key_file"] == str(place / "recovery")
    assert (place / "recovery").stat().st_mode & 0o777 == 0o600
    keys = cli("key", "list", "-r", place / "other", "--key-file", place / "recovery", "--json").json["keys"]
    assert [key["label"] for key in keys] == ["", "recovery"]


def test_init_refuses_what_is_there(cli, place):
    """A repository is never made over another, and no key is left behind that opens nothing."""
    assert "repository already" in cli("init", "--new-key-file", place / "recovery", expected=1).err
    assert not (place / "recovery").exists()


def test_init_refuses_a_directory_with_other_things(cli, place):
    """A repository is not strewn into somebody's home; an empty directory or a fresh disk will do."""
    (place / "other").mkdir()
    cli("init", "-r", place, expected=2)
    assert not (place / "packs").exists()
    (place / "other" / "lost+found").mkdir()
    cli("init", "-r", place / "other")


def test_init_keeps_an_existing_key_file(cli, place):
    """A file that is there is never taken for a new key, and no repository is made."""
    (place / "precious").write_text("not a key")
    cli("init", "-r", place / "other", "--new-key-file", place / "precious", expected=2)
    assert (place / "precious").read_text() == "not a key"
    assert not (place / "other").exists()


def test_key_is_added_listed_used_and_removed(cli, place):
    """A second key opens the repository until it is removed."""
    added = cli("key", "add", "--new-key-file", place / "second", "--label", "cron", "--json").json
    listed = cli("key", "list", "--key-file", place / "second", "--json").json["keys"]
    assert [key["label"] for key in listed] == ["", "cron"]
    assert listed[1]["id"] == added["key"]
    assert cli("key", "remove", added["key"][:5], "--json").json == {"removed": added["key"]}
    cli("key", "list", "--key-file", place / "second", expected=12)


def test_last_key_stays(cli):
    """Nobody locks everybody out."""
    key = cli("key", "list", "--json").json["keys"][0]["id"]
    assert "last key" in cli("key", "remove", key, expected=2).err
    assert len(cli("key", "list", "--json").json["keys"]) == 1


@pytest.mark.parametrize("name", ["ffff", "keys/", "../header", ""])
def test_unknown_key_is_wrong_usage(cli, name):
    """What names no key removes none."""
    cli("key", "remove", name, expected=2)
    assert len(cli("key", "list", "--json").json["keys"]) == 1


def test_passphrase_is_changed(cli, place):
    """The new passphrase opens, the old one does not, and other keys stay."""
    (place / "old").write_text("old\n")
    (place / "new").write_text("new\n")
    cli("key", "add", "--new-password-file", place / "old", "--label", "ana")
    changed = cli(
        "key", "passwd", "--password-file", place / "old", "--new-password-file", place / "new", "--json"
    ).json
    keys = cli("key", "list", "--password-file", place / "new", "--json").json["keys"]
    assert [(key["id"], key["label"]) for key in keys if key["method"] == "argon2id"] == [(changed["key"], "ana")]
    assert len(keys) == 2
    cli("key", "list", "--password-file", place / "old", expected=12)


def test_same_passphrase_is_no_change(cli, place):
    """A change to what it was is refused, and nothing happens."""
    (place / "old").write_text("old\n")
    cli("key", "add", "--new-password-file", place / "old")
    cli("key", "passwd", "--password-file", place / "old", "--new-password-file", place / "old", expected=2)
    assert len(cli("key", "list", "--json").json["keys"]) == 2
