"""`respaldo stats`: what snapshots cost and what grew, as a person and a script see it."""

from __future__ import annotations

import os

import pytest


@pytest.fixture
def two(cli, repository, tree):
    """Has two snapshots made; their ids."""
    first = cli("snapshot", tree, "--json").json["snapshot"]
    (tree / "docs" / "new").write_bytes(os.urandom(200_000))
    return first, cli("snapshot", tree, "--label", "second", "--json").json["snapshot"]


def test_stats_says_what_each_snapshot_costs(cli, two, tree):
    """What only one holds, what forgetting it frees, and by how much it was deduplicated and compressed."""
    first, second = two
    found = cli("stats", "--json").json
    rows = {row["id"]: row for row in found["by_snapshot"]}
    assert list(rows) == [first, second]
    assert 200_000 < rows[second]["own_bytes"] < 205_000
    assert 200_000 < rows[second]["frees_bytes"] < 205_000
    assert rows[first]["own_bytes"] < 2000  # the directories that led to docs
    assert rows[second]["bytes"] == sum(path.stat().st_size for path in tree.rglob("*") if path.is_file()) - 600
    for row in rows.values():
        assert row["deduplication_ratio"] == round(row["bytes"] / row["data_bytes"], 3)
        assert row["compression_ratio"] == round((row["data_bytes"] + row["tree_bytes"]) / row["stored_bytes"], 3)
    assert found["missing_chunks"] == 0
    assert found["histogram"]
    frees = cli("forget", second, "--dry-run", "--json").json["frees_bytes"]
    assert rows[second]["frees_bytes"] == frees


def test_stats_says_what_grew(cli, two, tree):
    """Since the one before, by directory; of the newest, or of those that are named."""
    first, second = two
    (grew,) = cli("stats", "--json").json["grew"]
    assert (grew["snapshot"], grew["before"], grew["grown_bytes"]) == (second, first, 200_000)
    assert [(item["path"], item["rest_bytes"]) for item in grew["directories"]] == [(f"{tree}/docs", 200_000)]
    named = cli("stats", first, "second", "--json").json
    assert [item["before"] for item in named["grew"]] == [None, first]
    assert set(named) == {"by_snapshot", "missing_chunks", "grew"}


def test_stats_reads_well(cli, two, tree):
    """A table of snapshots and a list of directories, below the figures of the whole."""
    said = cli("stats")
    assert "ALONE" in said.out
    assert "FREES" in said.out
    assert f"+195.3 KiB  {tree}/docs" in said.out
    assert f"grew most in {two[1][:8]} since {two[0][:8]} (195.3 KiB came, 0 B went):" in said.out
    assert "as restored" in said.out
    alone = cli("stats", "second")
    assert "as restored" not in alone.out
    assert "from nothing" in cli("stats", two[0]).out


def test_stats_brief_reads_no_tree(cli, two):
    """It counts the whole alone."""
    found = cli("stats", "--brief", "--json").json
    assert "by_snapshot" not in found
    assert found["snapshots"] == 2
    assert cli("stats", "--brief", "second", expected=2).err


def test_stats_of_an_empty_repository(cli, repository):
    """There is nothing to cost anything."""
    found = cli("stats", "--json").json
    assert (found["by_snapshot"], found["grew"]) == ([], [])
    assert "ALONE" not in cli("stats").out


def test_stats_of_one_that_is_not_there(cli, two):
    """It is an error, as everywhere."""
    assert "no such snapshot" in cli("stats", "nonesuch", expected=1).err


def test_stats_of_a_damaged_repository(cli, two, repository):
    """What is left is counted, what is missing is said, and the status is 4."""
    packs = sorted(repository.glob("packs/*/*"), key=lambda path: path.stat().st_size)
    packs[0].unlink()
    said = cli("stats", "--json", expected=4)
    assert said.json["missing_chunks"] > 0
    assert "respaldo verify" in said.err


def test_stats_escapes_names(cli, repository, place):
    """No control character of a directory reaches the terminal."""
    tree = place / "evil"
    (tree / "\x1b]0;x\x07").mkdir(parents=True)
    (tree / "\x1b]0;x\x07" / "file").write_bytes(b"x" * 1000)
    cli("snapshot", tree, "--label", "\x1b[2J")
    said = cli("stats")
    assert "\\x1b]0;x\\x07" in said.out
    assert "\x1b" not in said.out + said.err
    assert "\x1b" not in cli("stats", "--json").out
