"""`respaldo key rotate`: who keeps access, who is shut out, and what storage cannot take back."""

from __future__ import annotations

import shutil

import pytest

pytestmark = pytest.mark.usefixtures("repository")


@pytest.fixture
def second(cli, place):
    """Has a second key added; returns its id."""
    return cli("key", "add", "--new-key-file", place / "second", "--label", "laptop", "--json").json["key"]


def snapshots(cli, *words):
    return [item["label"] for item in cli("snapshots", *words, "--json").json["snapshots"]]


def test_key_is_rotated_and_all_goes_on(cli, place, tree, second):
    """Old snapshots are restored, new ones deduplicate against them, and every key opens."""
    cli("snapshot", tree, "--label", "before")
    rotated = cli("key", "rotate", "--json").json
    assert (rotated["epoch"], len(rotated["keys"]), rotated["left_out"]) == (1, 2, [])
    assert second in rotated["keys"]
    made = cli("snapshot", tree, "--label", "after", "--json").json
    assert made["figures"]["chunks_new"] <= 1  # a directory above has changed
    for words in ((), ("--key-file", place / "second")):
        assert snapshots(cli, *words) == ["before", "after"]
    for label in ("before", "after"):
        cli("restore", f"{label}:{tree}", place / label)
        assert (place / label / "big").read_bytes() == (tree / "big").read_bytes()
    assert cli("verify", "--read-data").status == 0
    listed = cli("key", "list", "--json").json["keys"]
    assert [(key["epoch"], key["label"]) for key in listed] == [(1, ""), (1, "laptop")]
    assert "EPOCH" in cli("key", "list").out


def test_key_that_is_left_out_opens_no_more(cli, place, second):
    """And `--dry-run` says so before."""
    planned = cli("key", "rotate", "--without", second[:6], "--dry-run", "--json").json
    assert (planned["left_out"], planned["dry_run"], planned["epoch"]) == ([second], True, 1)
    assert cli("key", "list", "--json").json["keys"][0]["epoch"] == 0
    assert cli("key", "rotate", "--without", second[:6], "--json").json["left_out"] == [second]
    cli("snapshots", "--key-file", place / "second", expected=12)
    cli("snapshots")


def test_key_in_use_is_left_out_only_where_that_is_said(cli, place, second):
    """Where nobody can be asked, it takes --yes; a dry run warns."""
    first = next(key["id"] for key in cli("key", "list", "--json").json["keys"] if key["opened"])
    refused = cli("key", "rotate", "--without", first, expected=2).err
    assert f"{first} is the key that the repository was opened with, and there is nobody to ask" in refused
    assert "--yes" in refused
    planned = cli("key", "rotate", "--without", first, "--dry-run")
    assert "opened with: it will open it no more" in planned.err
    assert all(key["epoch"] == 0 for key in cli("key", "list", "--json").json["keys"])
    done = cli("key", "rotate", "--without", first, "--yes", "--json")
    assert (done.json["left_out"], done.json["epoch"]) == ([first], 1)
    assert "it will open it no more" in done.err
    cli("snapshots", expected=12)
    cli("snapshots", "--key-file", place / "second")


def test_nothing_to_finish(cli):
    """`--resume` without anything cut off changes nothing, and goes with nothing else."""
    assert "nothing to finish" in cli("key", "rotate", "--resume").out
    cli("key", "rotate", "--resume", "--dry-run", expected=2)


def test_keys_are_added_changed_and_removed_after_a_rotation(cli, place, second):
    """All that could be done before."""
    cli("key", "rotate")
    third = cli("key", "add", "--new-key-file", place / "third", "--json").json["key"]
    cli("snapshots", "--key-file", place / "third")
    cli("key", "rotate")
    assert third not in [key["id"] for key in cli("key", "list", "--json").json["keys"]]
    cli("snapshots", "--key-file", place / "third")
    words = ("--key-file", place / "third")
    for key in cli("key", "list", *words, "--json").json["keys"]:
        if not key["opened"]:
            cli("key", "remove", key["id"], *words)
    [left] = cli("key", "list", *words, "--json").json["keys"]
    cli("key", "remove", left["id"], *words, expected=2)


def test_storage_that_shows_the_time_before_is_found_out(cli, place, repository, tree):
    """Rolled back to before the rotation: status 4, and again the next time, until it is accepted."""
    cli("snapshot", tree, "--label", "first")
    shutil.copytree(repository, place / "old")
    cli("key", "rotate")
    cli("snapshots")
    shutil.rmtree(repository)
    (place / "old").rename(repository)
    for _ in range(2):
        assert "rotated to epoch 1, and only epoch 0" in cli("snapshots", expected=4).err
    assert "only epoch 0" in cli("snapshots", "--accept-rollback").err
    cli("snapshots")
    cli("key", "rotate")
    cli("snapshots")


def test_key_of_another_world_is_found_out(cli, place, repository, tree, monkeypatch):
    """Somebody who holds the old key and the storage rotates on his own: the same epoch, or a later one."""
    cli("snapshot", tree)
    shutil.copytree(repository, place / "fork")
    cli("key", "rotate")
    cli("snapshots")
    for times, words in ((1, "another one than this client has seen"), (2, "does not come from the one of epoch 1")):
        with monkeypatch.context() as patch:
            patch.setenv("XDG_STATE_HOME", str(place / f"thief{times}"))
            cli("key", "rotate", "-r", place / "fork")
        repository.rename(place / "honest")
        (place / "fork").rename(repository)
        assert words in cli("snapshots", expected=4).err
        repository.rename(place / "fork")
        (place / "honest").rename(repository)
    cli("snapshots")


def test_old_admin_key_forgets_nothing_unnoticed(cli, place, repository, tree, second, monkeypatch):
    """Who was shut out cannot say in the log that a snapshot was forgotten, neither in its name nor by putting back."""
    cli("snapshot", tree, "--label", "one")
    cli("snapshot", tree, "--label", "two")
    cli("forget", "two")
    cli("snapshots")
    shutil.copytree(repository, place / "thief")
    cli("key", "rotate", "--without", second)
    cli("snapshots")
    with monkeypatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(place / "elsewhere"))
        cli("forget", "one", "-r", place / "thief", "--key-file", place / "second")
    known = {path.name for path in (repository / "log").iterdir()}
    for path in (place / "thief" / "log").iterdir():
        if path.name not in known:
            shutil.copy(path, repository / "log")
    for folder in ("pending", "outcome"):
        for path in (repository / folder).iterdir():
            path.unlink()
    assert "no admin key that was valid then" in cli("snapshots", expected=4).err
