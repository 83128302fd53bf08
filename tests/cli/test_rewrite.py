"""`respaldo rewrite` as a person uses it."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def old(cli, repository, tree):
    """Has a snapshot made; its id."""
    return cli("snapshot", tree, "--label", "old", "--tag", "nightly", "--json").json["snapshot"]


def paths(cli, name):
    """Returns what a snapshot holds, below its source."""
    found = cli("ls", "-R", name, "--json").json
    rows = found["entries"] if isinstance(found, dict) else found
    return {row["path"].partition("/tree/")[2] for row in rows} - {""}


def test_rewrite_leaves_out_and_keeps_the_rest(cli, old):
    """Patterns in their order; the new one answers to the label, the old one is there by its id."""
    said = cli("rewrite", "old", "--exclude", "*.log", "--include", "keep.log", "--exclude", "big")
    assert "without 2 files, 0 directories" in said.out
    assert "stay until they are forgotten" in said.out
    assert paths(cli, "old") == {"docs", "docs/a.txt", "docs/keep.log", "link"}
    assert "docs/b.log" in paths(cli, old)
    assert len(cli("snapshots", "--json").json["snapshots"]) == 2


def test_rewrite_forgets_only_when_asked(cli, old, place):
    """The old one goes, and with prune its content."""
    before = cli("stats", "--json").json["stored_bytes"]
    done = cli("rewrite", old, "--exclude", "big", "--forget", "--tag", "clean", "--untag", "nightly", "--json").json
    assert done["forgotten"] == [old]
    (item,) = done["rewritten"]
    assert item["excluded"] == {"files": 1, "directories": 0, "others": 0, "bytes": 300_000}
    assert item["words"] == ["tags"]
    (left,) = cli("snapshots", "--json").json["snapshots"]
    assert (left["id"], left["tags"], left["rewrites"]) == (item["new"], ["clean"], old)
    cli("prune", "-q")
    assert cli("stats", "--json").json["stored_bytes"] < before - 100_000
    cli("verify", "--read-data", "-q")
    cli("restore", "old", place / "back")


def test_rewrite_dry_run_does_nothing(cli, old):
    """It says what it would leave out."""
    said = cli("rewrite", "latest", "--exclude", "docs/", "--forget", "--dry-run")
    assert "would become another one: without 3 files, 1 directory" in said.out
    assert [item["id"] for item in cli("snapshots", "--json").json["snapshots"]] == [old]


def test_rewrite_of_what_has_nothing_of_it(cli, old):
    """Nothing changes, nothing is forgotten, and that is said."""
    said = cli("rewrite", "old", "--exclude", "nothing", "--forget")
    assert "holds nothing of that" in said.out
    assert [item["id"] for item in cli("snapshots", "--json").json["snapshots"]] == [old]


def test_rewrite_obeys_pins(cli, old):
    """A pinned snapshot is not forgotten, and the hint says what to do."""
    cli("pin", "old")
    said = cli("rewrite", "old", "--exclude", "big", "--forget", expected=1)
    assert "pinned" in said.err
    assert "respaldo unpin" in said.err
    assert [item["id"] for item in cli("snapshots", "--json").json["snapshots"]] == [old]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "say what to leave out"),
        (("--label", "v1.2.3-20261125_101500"), "given by rule"),
        (("--kind", "odd"), "is not one of"),
        (("--label", "latest"), "cannot be labelled"),
        (("--tag", "a", "--untag", "a"), "which?"),
        (("--time", "yesterday-ish"), "is not a time"),
    ],
)
def test_rewrite_refuses_what_makes_no_sense(cli, old, words, says):
    """With a message that says so."""
    said = cli("rewrite", "old", *words, expected=2)
    assert says in said.err


def test_rewrite_changes_words_alone(cli, old):
    """Without patterns no tree is touched."""
    root = cli("snapshots", "--json").json["snapshots"][0]
    done = cli(
        "rewrite", "old", "--host", "h", "--user", "u", "--kind", "full", "--label", "new", "--reason", "r",
        "--time", "2020-01-02 03:04:05", "--forget", "--json",
    ).json  # fmt: skip
    assert done["rewritten"][0]["words"] == ["host", "user", "kind", "label", "reason", "time"]
    (left,) = cli("snapshots", "--json").json["snapshots"]
    assert (left["host"], left["label"], left["time"][:4]) == ("h", "new", "2020")
    assert left["files"] == root["files"]


def test_rewrite_names_no_control_characters(cli, repository, place):
    """Neither labels nor paths reach a terminal as they are."""
    tree = place / "evil"
    (tree / "\x1b[2Jdir").mkdir(parents=True)
    (tree / "\x1b[2Jdir" / "file").write_text("x")
    cli("snapshot", tree)
    said = cli("rewrite", "latest", "--exclude", "file", "-vv", "--label", "\x1b]0;x\x07")
    assert "\x1b" not in said.out + said.err
    assert json.loads(cli("rewrite", "latest", "--reason", "again", "--json").out)["rewritten"]
