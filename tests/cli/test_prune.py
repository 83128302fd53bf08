from __future__ import annotations

import os
import re
import time

import pytest

from respaldo.core.seams import SystemClock


@pytest.fixture
def forgotten(cli, place, repository, tree):
    """A repository with two snapshots, of which the first was forgotten."""
    cli("snapshot", tree)
    (tree / "big").write_bytes(os.urandom(400_000))
    cli("snapshot", tree)
    cli("forget", cli("snapshots", "--json").json["snapshots"][0]["id"])
    return repository


def packs(repository) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in (repository / "packs").rglob("*") if path.is_file()}


def test_prune_frees_what_a_forgotten_snapshot_leaves(cli, forgotten, tree, place):
    """Space is free afterwards, and the snapshot that is left restores and verifies."""
    before = packs(forgotten)
    done = cli("prune", "--json").json
    after = packs(forgotten)
    assert done["dry_run"] is False
    assert done["snapshots"] == 1
    assert done["freed_bytes"] == sum(before.values()) - sum(after.values()) > 0
    assert done["deleted_packs"] == len(before.keys() - after.keys())
    assert done["new_packs"] == len(after.keys() - before.keys())
    assert done["ballast"]
    cli("verify", "--read-data")
    cli("restore", f"latest:{tree}", place / "back")
    assert (place / "back" / "big").read_bytes() == (tree / "big").read_bytes()
    again = cli("prune", "--json").json
    assert (again["deleted_packs"], again["new_packs"], again["freed_bytes"]) == (0, 0, 0)


def test_prune_dry_run_changes_nothing_and_says_what_prune_does(cli, forgotten):
    """A dry run writes nothing; its plan is the one that is carried out."""
    before = {path: path.stat().st_mtime_ns for path in forgotten.rglob("*")}
    plan = cli("prune", "--dry-run", "--json").json
    assert plan["dry_run"] is True
    assert {path: path.stat().st_mtime_ns for path in forgotten.rglob("*")} == before
    done = cli("prune", "--json").json
    for key in ("dead", "repack", "left", "live_bytes", "pack_bytes", "copied_bytes"):
        assert done[key] == plan[key]
    assert plan["dead"]["packs"] + plan["repack"]["packs"] == done["deleted_packs"]


def test_prune_says_what_it_did(cli, forgotten):
    """People are told what was deleted, copied and freed, and with -v of each pack what would happen."""
    told = cli("prune", "-n", "-v")
    assert "would free" in told.out
    assert re.search("^(delete|repack) [0-9a-f]{16} ", told.out, re.MULTILINE)
    done = cli("prune")
    assert "freed" in done.out and "deleted" in done.out
    assert cli("prune", "-q").out == ""


def test_prune_copies_no_more_than_it_may(cli, forgotten):
    """With nothing to be copied, what would have to be is left, and is said to be."""
    plan = cli("prune", "-n", "--json", "--repack-below", "100%").json
    assert plan["repack"]["packs"]
    limited = cli("prune", "--json", "--repack-below", "100%", "--max-repack", "0").json
    assert limited["repack"]["packs"] == 0
    assert limited["left"] == plan["repack"]
    assert limited["new_packs"] == 0
    assert "left by limit" in cli("prune", "--repack-below", "100%", "--max-repack", "0").out


@pytest.mark.parametrize(
    "words", [("--repack-below", "101%"), ("--repack-below", "x"), ("--max-repack", "much"), ("something",)]
)
def test_prune_refuses_what_makes_no_sense(cli, repository, words):
    """Wrong usage is exit status 2."""
    cli("prune", *words, expected=2)


def test_prune_of_damaged_repository_deletes_nothing(cli, forgotten):
    """Where a snapshot needs what is not there, prune says so, exits with 4, and deletes nothing."""
    victim = max((forgotten / "packs").rglob("*"), key=lambda path: path.stat().st_mtime_ns if path.is_file() else 0)
    victim.unlink()
    before = packs(forgotten)
    failed = cli("prune", expected=4)
    assert "is in no pack" in failed.err
    assert packs(forgotten) == before
    assert not list((forgotten / "condemned").glob("*"))


def names(repository) -> set[str]:
    return {
        f"{path.parent.name}/{path.name}" for folder in ("pending", "trash") for path in (repository / folder).glob("*")
    }


@pytest.mark.parametrize("grace", ["0d", "7d"])
def test_prune_of_damaged_repository_forgets_nothing(cli, repository, tree, monkeypatch, grace):
    """With a policy it looks first: nothing is forgotten or put into the trash, and what is due there stays."""
    for _ in range(3):
        (tree / "big").write_bytes(os.urandom(400_000))
        there = packs(repository).keys()
        cli("snapshot", tree)
    cli("forget", cli("snapshots", "--json").json["snapshots"][0]["id"], "--grace", "1h")
    later_ns = time.time_ns() + 2 * 3600 * 10**9
    monkeypatch.setattr(SystemClock, "now_ns", lambda _self: later_ns)
    for name in packs(repository).keys() - there:
        next((repository / "packs").rglob(name)).unlink()
    before = names(repository)
    assert len(before) == 4
    assert "is in no pack" in cli("prune", expected=4).err
    assert "is in no pack" in cli("prune", "--keep-last", "1", "--grace", grace, expected=4).err
    assert "is in no pack" in cli("prune", "--keep-last", "1", "--free", "1", expected=4).err
    assert names(repository) == before
    cli("snapshot", tree / "docs", "--as", tree, "--prune", "--policy", "aggressive", expected=4)
    assert names(repository) > before


def test_prune_collects_where_only_what_goes_is_damaged(cli, repository, tree):
    """What is to be forgotten is not asked for what it has lost, unless it goes into the trash, where it is needed."""
    there = packs(repository).keys()
    cli("snapshot", tree)
    for name in packs(repository).keys() - there:
        next((repository / "packs").rglob(name)).unlink()
    (tree / "big").unlink()
    cli("snapshot", tree)
    cli("prune", "--keep-last", "1", "--grace", "7d", expected=4)
    done = cli("prune", "--keep-last", "1", "--json").json
    assert (done["snapshots"], len(done["retention"]["forgotten"])) == (1, 1)
    cli("verify", "--read-data")


def test_init_keeps_a_ballast_and_prune_puts_it_back(cli, repository):
    """The ballast is there from the first day, whole as verify --keyless sees it; gone, the next prune puts it back."""
    ballast = repository / "ballast" / "0"
    assert ballast.stat().st_size == 1 << 20
    cli("verify", "--keyless")
    ballast.unlink()
    cli("prune")
    assert ballast.stat().st_size == 1 << 20


def test_prune_page_has_examples(cli):
    """The page tells what it does, with examples and exit statuses."""
    page = cli("prune", "--help").out
    words = ("--dry-run", "--repack-below", "--max-repack", "Examples", "Exit status", "Without a policy")
    assert [word for word in words if word not in page] == []


def test_prune_with_a_policy_forgets_first_and_then_frees(cli, repository, tree):
    """What the policy does not keep is forgotten, and its space is free; the dry run says it, and does nothing."""
    cli("snapshot", tree)
    (tree / "big").write_bytes(os.urandom(400_000))
    cli("snapshot", tree)
    (tree / "big").unlink()
    cli("snapshot", tree)
    ids = [item["id"] for item in cli("snapshots", "--json").json["snapshots"]]
    plan = cli("prune", "--keep-last", "1", "--dry-run", "--json").json
    assert (plan["snapshots"], plan["retention"]["forgotten"]) == (1, ids[:2])
    assert len(cli("snapshots", "--json").json["snapshots"]) == 3
    done = cli("prune", "--keep-last", "1", "--json").json
    assert done["retention"]["forgotten"] == ids[:2]
    assert [item["id"] for item in cli("snapshots", "--json").json["snapshots"]] == ids[2:]
    for key in ("snapshots", "dead", "repack", "live_bytes", "pack_bytes"):
        assert done[key] == plan[key], key
    assert done["freed_bytes"] > 0
    cli("verify", "--read-data")


def test_prune_leaves_the_trash_until_its_time_is_over(cli, repository, tree):
    """With a grace, what is forgotten stays a root, and comes back."""
    cli("snapshot", tree)
    (tree / "big").write_bytes(os.urandom(400_000))
    cli("snapshot", tree)
    old, new = [item["id"] for item in cli("snapshots", "--json").json["snapshots"]]
    done = cli("prune", "--keep-last", "1", "--grace", "7d", "--json").json
    assert (done["snapshots"], done["emptied"], done["retention"]["forgotten"]) == (2, [], [old])
    assert [item["id"] for item in cli("snapshots", "--json").json["snapshots"]] == [new]
    cli("undo", old)
    cli("verify", "--read-data")
    cli("forget", old, "--grace", "1h")
    assert cli("prune", "--json").json["emptied"] == []


def test_bare_prune_forgets_nothing(cli, repository, tree):
    """Without a policy every snapshot stays."""
    for _ in range(3):
        cli("snapshot", tree)
    assert "retention" not in cli("prune", "--json").json
    assert len(cli("snapshots", "--json").json["snapshots"]) == 3
