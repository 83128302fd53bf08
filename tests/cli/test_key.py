from __future__ import annotations

import pytest

from tests.cli.test_passphrase import talk

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
    assert cli("key", "remove", added["key"][:5], "--dry-run").out == f"would remove key {added['key']}\n"
    removed = cli("key", "remove", added["key"][:5], "--json").json
    assert removed == {"removed": added["key"], "opened": False, "dry_run": False}
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


def test_whoever_makes_a_repository_is_told_of_recovery_keys(cli, place, monkeypatch):
    """Once, where a passphrase is all that opens it."""
    (place / "words").write_text("words\n")
    monkeypatch.delenv("RESPALDO_KEY_FILE")
    made = cli("init", "-r", place / "other", "--password-file", place / "words").out
    assert made.endswith("respaldo key recovery\n")
    with_key = ("--password-file", place / "words", "--new-key-file", place / "stick")
    assert "key recovery" not in cli("init", "-r", place / "third", *with_key).out


def test_recovery_key_is_not_taken_away_by_a_new_passphrase(cli, place):
    """Whoever has forgotten the passphrase and changes "it" with a recovery key keeps that, and is told the way."""
    (place / "new").write_text("new\n")
    cli("key", "recovery", "--output", place / "paper")
    before = cli("key", "list", "--json").json["keys"]
    ran = cli("key", "passwd", "--key-file", place / "paper", "--new-password-file", place / "new", expected=2)
    assert "respaldo key add" in ran.err
    assert [key["id"] for key in cli("key", "list", "--json").json["keys"]] == [key["id"] for key in before]
    cli("key", "add", "--key-file", place / "paper", "--new-password-file", place / "new")
    cli("key", "test", "--password-file", place / "new")
    cli("key", "test", "--key-file", place / "paper")


def test_same_passphrase_is_no_change(cli, place):
    """A change to what it was is refused, and nothing happens."""
    (place / "old").write_text("old\n")
    cli("key", "add", "--new-password-file", place / "old")
    cli("key", "passwd", "--password-file", place / "old", "--new-password-file", place / "old", expected=2)
    assert len(cli("key", "list", "--json").json["keys"]) == 2


def test_list_says_when_this_client_used_which_key(cli, place):
    """Whoever clears keys out sees which ones are in use here, and which one is in use now."""
    first = cli("key", "list", "--json").json["keys"][0]
    assert first["last_used"] >= first["created"]
    assert first["opened"]
    added = cli("key", "add", "--new-key-file", place / "second", "--json").json["key"]
    before = {key["id"]: key for key in cli("key", "list", "--json").json["keys"]}
    assert before[added]["last_used"] is None
    assert not before[added]["opened"]
    cli("snapshots", "--key-file", place / "second")
    after = {key["id"]: key for key in cli("key", "list", "--json").json["keys"]}
    assert after[added]["last_used"] > before[first["id"]]["last_used"]
    shown = cli("key", "list").out.splitlines()
    assert [first["id"] + "*" in line for line in shown[1:]] == [True, False]
    for path in (place / "state").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 100, b"keys/0 12\nkeys/0000000000000000 x\n", b"keys/" + b"9" * 5000]
)
def test_record_of_uses_that_is_none_is_written_again(cli, place, content):
    """What this client remembers may be damaged; it keeps nobody from opening anything."""
    cli("snapshots")
    [path] = (place / "state" / "respaldo" / "uses").iterdir()
    path.write_bytes(content)
    [key] = cli("key", "list", "--json").json["keys"]
    assert key["last_used"] > key["created"]


def test_key_that_one_has_opened_with_is_removed_with_a_warning(cli, place):
    """It is said before it happens, and afterwards it does not open any more."""
    own = cli("key", "list", "--json").json["keys"][0]["id"]
    cli("key", "add", "--new-key-file", place / "second")
    assert "warning" in cli("key", "remove", own, "--dry-run").err
    refused = cli("key", "remove", own, "--json", expected=2)
    assert "--yes" in refused.err
    assert len(cli("key", "list", "--json").json["keys"]) == 2
    removed = cli("key", "remove", own, "--json", "--yes")
    assert removed.json["opened"] is True
    assert f"warning: {own} is the key that the repository was opened with" in removed.err
    cli("snapshots", expected=12)
    cli("snapshots", "--key-file", place / "second")


def test_key_test_says_which_one_opens(cli, place):
    """It names the slot, or ends with 12, and nothing has changed."""
    added = cli("key", "add", "--new-key-file", place / "second", "--label", "cron", "--json").json["key"]
    told = cli("key", "test", "--key-file", place / "second", "--json").json
    assert (told["id"], told["label"], told["method"]) == (added, "cron", "key")
    assert f"opened with key {added} (cron): key file" in cli("key", "test", "--key-file", place / "second").out
    (place / "wrong").write_bytes(b"w" * 32)
    cli("key", "test", "--key-file", place / "wrong", expected=12)


@pytest.mark.parametrize(("kdf", "memory_kib"), [("standard", 64 << 10), ("sensitive", 256 << 10)])
def test_kdf_sets_the_cost_of_a_passphrase(cli, place, kdf, memory_kib):
    """By name, for a key that is added as for one that is changed; a key has none."""
    (place / "a").write_text("one\n")
    (place / "b").write_text("two\n")
    cli("key", "add", "--new-password-file", place / "a", "--kdf", "standard" if kdf == "sensitive" else "sensitive")
    cli("key", "passwd", "--password-file", place / "a", "--new-password-file", place / "b", "--kdf", kdf)
    told = cli("key", "test", "--password-file", place / "b", "--json").json
    assert (told["passes"], told["memory_kib"]) == (3, memory_kib)
    cli("key", "add", "--new-key-file", place / "key2", "--kdf", kdf, expected=2)


def test_person_is_asked_before_the_own_key_goes(cli, place):
    """At a terminal a no keeps it, a yes removes it, and --yes does not ask."""
    own = cli("key", "list", "--json").json["keys"][0]["id"]
    cli("key", "add", "--new-key-file", place / "second")
    status, shown = talk(["key", "remove", own], [b"n"])
    assert (status, b"nothing was removed" in shown) == (1, True)
    assert len(cli("key", "list", "--json").json["keys"]) == 2
    assert talk(["key", "remove", own], [b"y"])[0] == 0
    cli("snapshots", expected=12)
    cli("key", "add", "--new-key-file", place / "third", "--key-file", place / "second")
    [left] = [key for key in cli("key", "list", "--key-file", place / "second", "--json").json["keys"] if key["opened"]]
    assert talk(["key", "remove", left["id"], "--yes", "--key-file", str(place / "second")], [])[0] == 0
    cli("snapshots", "--key-file", place / "third")


def test_init_takes_no_recovery_key(cli, place):
    """It makes keys; what is to be typed is made by `key recovery` afterwards."""
    assert "key recovery" in cli("init", "-r", place / "other", "--recovery", expected=2).err
    assert not (place / "other").exists()
