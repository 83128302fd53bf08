"""Tests of snapshot --prune: the policy of a source runs once the snapshot is made, and about that source alone."""

from __future__ import annotations

import errno
import os

import pytest

from respaldo.api.pruning import PreparedPrune, Pruning
from respaldo.core.errors import ChunkMissing, Interrupted, StorageFull
from respaldo.core.ids import ChunkId
from respaldo.flows.backup.reader import FileReader

pytestmark = pytest.mark.usefixtures("repository")
LOOK, RUN = (Pruning, "prepare"), (PreparedPrune, "run")


@pytest.fixture
def policies(place, monkeypatch):
    """Has a file of policies of one's own; returns what writes it."""
    path = place / "policies.toml"
    monkeypatch.setenv("RESPALDO_POLICIES", str(path))
    path.write_text("[unused]\nkeep-last = 9\n")
    return path.write_text


@pytest.fixture
def broken(tree, monkeypatch):
    """Has a file that cannot be read."""
    (tree / "big").write_bytes(os.urandom(2 << 20))

    def failing(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(FileReader, "read", failing)


def there(cli):
    return [item["id"] for item in cli("snapshots", "--json").json["snapshots"]]


def test_policy_runs_after_the_snapshot_and_frees(cli, tree, place):
    """The snapshot counts as the newest; what was forgotten is freed; snapshots of other paths stay."""
    other = [cli("snapshot", place / "key", "--json").json["snapshot"] for _ in range(2)]
    (tree / "now").write_bytes(os.urandom(3_000_000))
    first = cli("snapshot", tree, "--json").json["snapshot"]
    (tree / "now").write_bytes(os.urandom(3_000_000))
    aggressive = place / "policies.toml"
    aggressive.write_text("[one]\nkeep-last = 1\n")
    done = cli("snapshot", tree, "--prune", "--policy", aggressive, "--json").json
    assert done["complete"] is True
    assert done["prune"]["retention"]["forgotten"] == [first]
    assert [len(group["snapshots"]) for group in done["prune"]["retention"]["groups"]] == [2]
    assert done["prune"]["freed_bytes"] > 2_000_000
    assert there(cli) == [*other, done["snapshot"]]
    text = cli("snapshot", tree, "--prune", "--policy", aggressive).out
    assert text.index("snapshot ") < text.index("forgot 1 snapshot, kept 1\n") < text.index("freed")
    cli("verify", "--read-data")
    assert cli("snapshot", tree, "--prune", "--policy", aggressive, "-q").out == ""


def test_policy_of_the_source_is_found_by_its_paths(cli, tree, place, policies):
    """That policy runs whose sources hold the paths; one of the same name as the program's goes before it."""
    cli("snapshot", tree, "--prune", expected=2)
    policies(f'[standard]\nkeep-last = 2\nsources = ["{tree}/", "/elsewhere"]\n[other]\nkeep-last = 1\n')
    for _ in range(3):
        done = cli("snapshot", tree, "--prune", "--json").json
    assert done["prune"]["retention"]["policy"]["keep"] == {"last": 2}
    assert there(cli)[-1] == done["snapshot"]
    assert len(there(cli)) == 2
    cli("snapshot", place / "key", "--prune", expected=2)
    cli("snapshot", tree, place / "key", "--prune", expected=2)
    moved = cli("snapshot", place / "key", "--as", "/elsewhere", "--prune", "--json").json
    assert moved["prune"]["retention"]["policy"]["keep"] == {"last": 2}
    assert cli("forget", "--policy", "standard", "-n", "--json").json["policy"]["keep"] == {"last": 2}
    assert cli("prune", "--policy", "other", "-n", "--json").json["retention"]["policy"]["keep"] == {"last": 1}
    policies(f'[a]\nkeep-last = 2\nsources = ["{tree}"]\n[b]\nkeep-last = 1\nsources = ["{tree}"]\n')
    assert "several policies" in cli("snapshot", tree, "--prune", expected=2).err
    assert len(there(cli)) == 3


@pytest.mark.parametrize(
    "text", ['sources = "/home"', 'sources = ["home"]', "sources = []", 'sources = ["/home", 3]', "source = []"]
)
def test_sources_of_a_policy_are_absolute_paths(cli, tree, policies, text):
    """Anything else names the key, and no snapshot is made."""
    policies(f"[mine]\nkeep-last = 1\n{text}\n")
    assert "[mine]: source" in cli("snapshot", tree, "--prune", expected=2).err
    assert there(cli) == []


def test_prune_afterwards_needs_a_policy_and_a_snapshot(cli, tree, monkeypatch, place):
    """Wrong usage is found before anything is read."""
    cli("snapshot", tree, "--prune", expected=2)
    cli("snapshot", tree, "--policy", "standard", expected=2)
    cli("snapshot", tree, "--prune", "--policy", "nonsense", expected=2)
    cli("snapshot", tree, "--prune", "--policy", "standard", "--dry-run", expected=2)
    monkeypatch.setenv("RESPALDO_POLICIES", str(place / "missing.toml"))
    cli("snapshot", tree, "--prune", "--policy", "standard", expected=2)
    assert there(cli) == []


def test_incomplete_snapshot_pushes_no_complete_one_out(cli, tree, policies, broken):
    """Status 3 stays 3, the policy runs, and the last complete snapshot stays beside the newest."""
    policies(f'[mine]\nkeep-last = 1\nsources = ["{tree}"]\n')
    (tree / "big").rename(tree.parent / "big")
    old, complete = (cli("snapshot", tree, "--json").json["snapshot"] for _ in range(2))
    (tree.parent / "big").rename(tree / "big")
    for _ in range(2):
        done = cli("snapshot", tree, "--prune", "--json", expected=3).json
        assert there(cli) == [complete, done["snapshot"]]
    rules = {item["id"]: item["rules"] for group in done["prune"]["retention"]["groups"] for item in group["snapshots"]}
    assert rules[complete] == [{"rule": "complete", "of": ""}]
    assert old not in rules
    (tree / "big").unlink()
    done = cli("snapshot", tree, "--prune", "--json").json
    assert there(cli) == [done["snapshot"]]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (StorageFull("packs/x"), 1),
        (ChunkMissing("tree", ChunkId(bytes(32))), 4),
        (Interrupted("SIGINT"), 130),
    ],
)
@pytest.mark.parametrize("where", [LOOK, RUN])
def test_snapshot_stands_where_what_follows_fails(cli, tree, monkeypatch, where, error, status):
    """It is reported, the error after it, and the exit status is the error's."""

    def failing(*_, **__):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(*where, failing)
        ran = cli("snapshot", tree, "--prune", "--policy", "standard", expected=status)
        assert ran.out.startswith("snapshot ")
        assert "the snapshot is made; what was to follow failed" in ran.err
        told = cli("snapshot", tree, "--prune", "--policy", "standard", "--json", expected=status).json
        assert told["prune"]["error"] == str(error)
        assert ("retention" in told["prune"]) == (where == RUN), "what was forgotten is said, and only that"
    assert there(cli)[-1] == told["snapshot"]
    cli("verify", "--read-data")


def test_grace_of_the_policy_holds(cli, tree, policies):
    """What the policy lets go lies in the trash for the time that it says, and comes back."""
    policies(f'[mine]\nkeep-last = 1\ngrace = "7d"\nsources = ["{tree}"]\n')
    first = cli("snapshot", tree, "--prune", "--json").json["snapshot"]
    done = cli("snapshot", tree, "--prune", "--json").json
    assert done["prune"]["retention"]["forgotten"] == [first]
    assert done["prune"]["snapshots"] == 2
    cli("undo", first)
    assert there(cli) == [first, done["snapshot"]]


def test_stream_has_a_policy_too(cli, policies):
    """A stream is a source like any other, by the path that it is recorded under."""
    policies('[dumps]\nkeep-last = 1\nsources = ["/shop.dump"]\n')
    for _ in range(2):
        done = cli("snapshot", "--command", "echo x", "--stdin", "shop.dump", "--prune", "--json").json
    assert there(cli) == [done["snapshot"]]
