"""What snapshots are called: kinds, versions and milestones, and that a label means one snapshot in every command."""

from __future__ import annotations

import json
import re

import pytest

from tests.cli.test_completion import completed

LABEL = re.compile(r"v(\d+\.\d+\.\d+)-\d{8}_\d{6}")


@pytest.fixture
def make(cli, repository, tree):
    """Makes a snapshot; returns what it says."""

    def run(*words):
        return cli("snapshot", tree, "--json", *words).json

    return run


def versions(cli):
    return [LABEL.fullmatch(item["label"])[1] for item in cli("snapshots", "--json").json["snapshots"]]


def test_versions_follow_one_another(cli, make, tree):
    """Patch by patch, or as the options say; each source has its own."""
    for words in ([], [], ["--minor"], ["--milestone", "x"], ["--major"], [], ["--label", "words"], []):
        make(*words)
    cli("forget", "words")
    assert versions(cli) == ["0.0.1", "0.0.2", "0.1.0", "0.1.1", "1.0.0", "1.0.1", "1.0.2"]
    other = cli("snapshot", tree / "docs", "--time", "2026-01-01 10:20:30", "--json").json
    assert other["label"] == "v0.0.1-20260101_102030"


def test_what_a_snapshot_says_is_what_is_listed(cli, make, tree):
    """Kind, label, tags, root and changes, in JSON and for people."""
    make("--reason", "first")
    (tree / "docs" / "a.txt").unlink()
    (tree / "new").write_text("new")
    made = make("--reason", "second", "--tag", "t", "--kind", "full")
    item = cli("snapshots", "--json").json["snapshots"][-1]
    assert item["id"] == made["snapshot"]
    for key in ("kind", "label", "tags", "root", "changes", "time", "parent"):
        assert item[key] == made[key], key
    assert (made["kind"], made["tags"], item["reason"]) == ("full", ["t"], "second")
    assert made["changes"] == {"added": 1, "changed": 0, "removed": 1}
    assert re.fullmatch("[0-9a-f]{64}", made["root"]) and re.fullmatch("[0-9a-f]{32}", item["session"])
    assert {"user", "host", "bytes", "new_bytes", "stored_bytes"} <= item.keys()
    text = cli("snapshots", "--last", "1", "-l").out
    for part in (
        made["snapshot"],
        made["label"],
        "full",
        "second",
        made["root"],
        item["session"],
        "1 added, 0 changed",
    ):
        assert part in text
    again = cli("snapshot", tree).out
    assert "0 added, 0 changed, 0 removed since " + made["snapshot"][:8] in again
    assert re.search(r"label +v0\.0\.3-\d+_\d+, incremental", again)
    dry = cli("snapshot", tree, "-n", "--json").json
    assert (dry["kind"], dry["changes"]) == ("incremental", {"added": 0, "changed": 0, "removed": 0})


def test_milestones_are_full_and_tagged(cli, make):
    """And kept by a policy that says so."""
    make()
    made = make("--milestone", " handed in ", "--tag", "x")
    assert (made["kind"], made["tags"]) == ("full", ["x", "milestone", "handed in"])
    last = make()
    cli("forget", "--keep-tag", "milestone")
    assert [item["id"] for item in cli("snapshots", "--json").json["snapshots"]] == [made["snapshot"], last["snapshot"]]


@pytest.mark.parametrize(
    "words",
    [
        ["--kind", "daily"],
        ["--minor", "--major"],
        ["--label", "x", "--major"],
        ["--milestone", " "],
        ["--milestone", "x", "--kind", "incremental"],
        ["--label", "v1.2.3-20261125_101500"],
        ["--label", "v1.2.3-20261125_101500+0a"],
    ],
)
def test_what_contradicts_itself_makes_no_snapshot(cli, repository, tree, words):
    """Wrong usage, before anything is read."""
    cli("snapshot", tree, *words, expected=2)
    assert cli("snapshots", "--json").json["snapshots"] == []


@pytest.fixture
def twins(cli, make, tree, monkeypatch):
    """Has two snapshots with one label, as clients make them that do not see one another; returns both names."""
    label = "v0.0.1-20261125_101500"
    with monkeypatch.context() as patch:
        patch.setattr("respaldo.flows.backup.naming.next_label", lambda *_, **__: label)
        made = [make()["snapshot"]]
        (tree / "new").write_text("new")
        made.append(make()["snapshot"])
    return label, [f"{label}+{item[:8]}" for item in made]


@pytest.mark.parametrize(
    "words",
    [
        ("ls", "{}"),
        ("restore", "{}:{tree}/docs", "{place}/back"),
        ("diff", "{}", "latest"),
        ("diff", "latest", "{}"),
        ("dump", "{}:{tree}/docs/a.txt"),
        ("export", "{}", "-o", "{place}/x.tar", "-f", "tar"),
        ("pin", "{}"),
        ("unpin", "{}"),
        ("forget", "{}"),
    ],
)
def test_label_of_two_is_refused_by_every_command(cli, twins, tree, place, words):
    """With both names to choose from; each of them means its own."""
    label, names = twins

    def said(name):
        return [word.format(name, tree=tree, place=place) for word in words]

    ran = cli(*said(label), expected=1)
    assert "several snapshots bear this label" in ran.err
    assert all(name in ran.err for name in names)
    cli(*said(names[0]))


def test_names_of_two_mean_one_each(cli, twins, tree, place):
    """In restores, in what is listed, in what is completed."""
    _, (first, second) = twins
    assert [item["label"] for item in cli("snapshots", "--json").json["snapshots"]] == [first, second]
    assert first in cli("snapshots").out and second in cli("snapshots", "-l").out
    assert "new" not in cli("ls", f"{first}:{tree}").out
    assert "new" in cli("ls", f"{second}:{tree}").out
    changes = json.loads(cli("diff", first, second, "--json").out)["counts"]
    assert (changes["added"], changes["removed"]) == (1, 0)


def test_completion_offers_names_that_mean_one(cli, twins, spawn):
    """Not the label that means none."""
    cli("snapshots")
    _, names = twins
    assert completed(spawn, "ls", "v0") == set(names)


def test_trash_makes_no_label_mean_another(cli, twins):
    """One of two in the trash: the label means none, each name its own, and what is forgotten for good frees it."""
    label, (first, second) = twins
    cli("forget", second, "--grace", "7d")
    assert "several snapshots bear" in cli("ls", label, expected=1).err
    assert "several snapshots bear" in cli("forget", label, expected=1).err
    cli("ls", second, expected=1)
    cli("ls", first)
    cli("undo", second)
    cli("forget", second)
    assert [item["label"] for item in cli("snapshots", "--json").json["snapshots"]] == [label]
    cli("ls", label)
    cli("ls", first)
