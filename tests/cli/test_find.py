"""Tests of `respaldo find` and `respaldo history`."""

from __future__ import annotations

import os
import shutil

import pytest

pytestmark = pytest.mark.usefixtures("repository")


@pytest.fixture
def made(cli, tree):
    """Has four snapshots made of a tree that changes; returns their ids."""
    (tree / "empty").touch()
    (tree / "docs" / "deep" / "er").mkdir(parents=True)
    (tree / "docs" / "deep" / "er" / "a.txt").write_text("deep")
    ids = [cli("snapshot", tree, "--json").json["snapshot"]]
    (tree / "docs" / "a.txt").write_text("second")
    ids.append(cli("snapshot", tree, "--json").json["snapshot"])
    (tree / "docs" / "b.log").unlink()
    ids.append(cli("snapshot", tree, "--json", "--host", "other").json["snapshot"])
    (tree / "docs" / "a.txt").chmod(0o600)
    (tree / "docs" / "b.log").write_text("back")
    ids.append(cli("snapshot", tree, "--json").json["snapshot"])
    return ids


def found(cli, made, tree, *words) -> list[tuple]:
    """Returns what was found: path, numbers of the first and last snapshot, how many hold it."""
    return [
        (item["path"].removeprefix(f"{tree}/"), made.index(item["first"]), made.index(item["last"]), item["count"])
        for item in cli("find", "--json", *words).json["found"]
    ]


def test_find_names_every_version(cli, made, tree):
    """Each version of each file of a name is found once, with the first and the last snapshot that hold it."""
    assert found(cli, made, tree, "a.txt") == [
        ("docs/a.txt", 0, 0, 1),
        ("docs/a.txt", 1, 2, 2),
        ("docs/a.txt", 3, 3, 1),
        ("docs/deep/er/a.txt", 0, 3, 4),
    ]
    assert found(cli, made, tree, "b.log") == [("docs/b.log", 0, 1, 2), ("docs/b.log", 3, 3, 1)]
    assert found(cli, made, tree, "nothing") == []
    text = cli("find", "b.log").out.splitlines()
    assert [line.split()[0] for line in text] == [made[0][:8], made[3][:8]]
    nothing = cli("find", "--json", "nothing").json
    assert nothing == {"found": [], "snapshots": 4, "failed": 0, "unread": [], "damaged": []}


def test_find_by_glob_and_path(cli, made, tree):
    """A pattern without a slash is for names, one with a slash for paths; ** goes across directories."""

    def paths(*words):
        return sorted({path for path, *_ in found(cli, made, tree, *words)})

    assert paths("*.log") == ["docs/b.log", "docs/keep.log"]
    assert paths("[ab].*") == ["docs/a.txt", "docs/b.log", "docs/deep/er/a.txt"]
    assert paths("KEEP.LOG") == []
    assert paths("-i", "KEEP.LOG") == ["docs/keep.log"]
    assert paths("docs/*.txt") == ["docs/a.txt"]
    assert paths("docs/**/*.txt") == ["docs/a.txt", "docs/deep/er/a.txt"]
    assert paths(f"{tree}/docs/a.txt") == ["docs/a.txt"]
    assert paths("/docs/a.txt") == []
    assert paths("er/") == ["docs/deep/er"]
    assert paths("a.txt/") == []


def test_find_by_size_time_and_type(cli, made, tree):
    """Criteria narrow it down; sizes are those of files."""

    def paths(*words):
        return sorted({path for path, *_ in found(cli, made, tree, *words)})

    inside = f"{tree}/**"
    assert paths(inside, "--min-size", "100K") == ["big"]
    assert paths(inside, "--max-size", "4") == ["docs/b.log", "docs/deep/er/a.txt", "empty"]
    assert paths(inside, "-t", "l") == ["link"]
    assert paths(inside, "-t", "d") == ["docs", "docs/deep", "docs/deep/er"]
    assert paths(inside, "-t", "f", "--older", "2001-01-01") == []
    os.utime(tree / "big", ns=(0, 10**18))
    made.append(cli("snapshot", tree, "--json").json["snapshot"])
    assert found(cli, made, tree, inside, "-t", "f", "--older", "2001-12-31") == [("big", 4, 4, 1)]
    assert found(cli, made, tree, "big", "--newer", "2002-01-01") == [("big", 0, 3, 4)]


def test_find_by_regular_expression_and_place(cli, made, tree):
    """--regex searches in names; --under leaves what lies elsewhere aside, and takes a path from where one is."""
    assert {path for path, *_ in found(cli, made, tree, "--regex", "^[ab][.](txt|log)$")} == {
        "docs/a.txt",
        "docs/b.log",
        "docs/deep/er/a.txt",
    }
    assert {path for path, *_ in found(cli, made, tree, "a.txt", "--under", f"{tree}/docs/deep")} == {
        "docs/deep/er/a.txt"
    }
    assert found(cli, made, tree, "a.txt", "--under", "/nowhere") == []
    assert "regular expression" in cli("find", "--regex", "(", expected=2).err
    assert "\\[ for a bracket" in cli("find", "--regex", "[[a]", expected=2).err


def test_find_in_snapshots_of_a_kind_or_tag(cli, made, tree):
    """--kind and --tag leave the others aside."""
    made.append(cli("snapshot", tree, "--json", "--kind", "full", "--tag", "milestone").json["snapshot"])
    assert found(cli, made, tree, "b.log", "--tag", "milestone") == [("docs/b.log", 4, 4, 1)]
    assert found(cli, made, tree, "b.log", "--tag", "milestone", "--kind", "full") == [("docs/b.log", 4, 4, 1)]
    assert found(cli, made, tree, "b.log", "--tag", "milestone", "--kind", "incremental") == []
    assert len(cli("history", tree / "docs" / "a.txt", "--tag", "milestone", "--json").json["versions"]) == 1


def test_find_in_one_machines_snapshots(cli, made, tree):
    """--host leaves the others aside."""
    assert found(cli, made, tree, "a.txt", "--host", "other") == [
        ("docs/a.txt", 2, 2, 1),
        ("docs/deep/er/a.txt", 2, 2, 1),
    ]


def test_find_agrees_with_ls(cli, made, tree):
    """What is found of everything is what ls lists of every snapshot, long directories and odd names included."""
    for number in range(5000):
        (tree / "docs" / "deep" / f"{number:04}").touch()
    with open(os.path.join(os.fsencode(tree), b"\xff\n*"), "wb") as file:
        file.write(b"odd")
    os.setxattr(tree / "docs" / "keep.log", "user.a", b"b")
    os.link(tree / "docs" / "a.txt", tree / "linked")
    with (tree / "holes").open("wb") as file:
        file.truncate(1 << 20)
    made.append(cli("snapshot", tree, "--json").json["snapshot"])
    (tree / "docs" / "deep" / "2500").write_text("x")
    made.append(cli("snapshot", tree, "--json").json["snapshot"])
    expected = {
        (entry["path"], entry["size"], entry["mtime_ns"], entry["mode"])
        for name in made
        for entry in cli("ls", "-R", name, "--json").json["entries"]
        if entry["type"] != "directory"
    }
    ran = cli("find", "*", "--json").json["found"]
    seen = {(item["path"], item["size"], item["mtime_ns"], item["mode"]) for item in ran if item["type"] != "directory"}
    assert seen == expected


def test_find_reads_every_tree_once(cli, made, tree, monkeypatch):
    """A block of trees is opened once, however many snapshots and directories need it."""
    from respaldo.store.source import ChunkSource

    opened = []
    block = ChunkSource.block
    monkeypatch.setattr(ChunkSource, "block", lambda self, *at: opened.append(at) or block(self, *at))
    assert found(cli, made, tree, "a.txt")
    assert len(opened) == len(set(opened))


def test_history_of_a_file(cli, made, tree):
    """Each state stands with what changed, and where the file was gone it says so."""
    ran = cli("history", tree / "docs" / "a.txt", "--json").json
    assert [(made.index(item["first"]), item["count"], item["changed"]) for item in ran["versions"]] == [
        (0, 1, []),
        (1, 2, ["content", "mtime"]),
        (3, 1, ["mode"]),
    ]
    text = cli("history", tree / "docs" / "b.log").out.splitlines()
    assert [line.split()[-1] for line in text[1:]] == ["first", "gone", "back"]
    ran = cli("history", tree / "docs", "--json").json
    assert [item["changed"] for item in ran["versions"]] == [[], ["entries"], ["entries"], ["entries"]]


def test_history_of_what_never_was(cli, made, tree):
    """A path that no snapshot holds, or none covers, is an error."""
    assert "no snapshot holds" in cli("history", tree / "nothing", expected=1).err
    assert "covers" in cli("history", "/nothing", expected=1).err
    cli("history", "/", expected=2)


def test_find_looks_as_well_when_it_says_nothing(cli, made, tree, repository):
    """With --quiet nothing is printed, and what cannot be looked into still makes the status."""
    assert cli("find", "a.txt", "-q").out == ""
    for path in (repository / "packs").rglob("*"):
        if path.is_file():
            path.write_bytes(bytes(path.stat().st_size))
    for register in tree.parent.rglob("register"):
        shutil.rmtree(register)
    ran = cli("find", "a.txt", "-q", expected=4)
    assert ran.out == ""
    assert "could not be looked into" in ran.err
