"""Tests of `respaldo diff`."""

from __future__ import annotations

import os
import shutil

import pytest

pytestmark = pytest.mark.usefixtures("repository")


def told(ran, below) -> dict[str, tuple]:
    """Returns what a diff said: by path, the change, and what differs or the path before."""
    told = {}
    for item in ran.json["changes"]:
        detail = item["was"].removeprefix(f"{below}/") if "was" in item else ",".join(item.get("fields", ()))
        told[item["path"].removeprefix(f"{below}/")] = (item["change"], detail)
    return told


def change(tree) -> dict[str, tuple]:
    """Changes a tree in every way there is; returns what a diff has to say."""
    (tree / "new").write_text("new\n")
    (tree / "docs" / "b.log").write_text("other\n")
    (tree / "docs" / "keep.log").chmod(0o600)
    (tree / "big").rename(tree / "docs" / "moved")
    (tree / "link").unlink()
    (tree / "link").mkdir()
    (tree / "link" / "inside").write_text("inside\n")
    (tree / "gone").unlink()
    (tree / "folder").rename(tree / "renamed")
    return {
        "docs/b.log": ("modified", "content,mtime"),
        "docs/keep.log": ("metadata", "mode"),
        "docs/moved": ("renamed", "big"),
        "gone": ("removed", ""),
        "link": ("type", "type"),
        "link/inside": ("added", ""),
        "new": ("added", ""),
        "renamed": ("renamed", "folder"),
    }


@pytest.fixture
def changing(tree):
    """Has a file that will be deleted and a directory that will be renamed, too."""
    (tree / "gone").write_text("gone")
    (tree / "folder" / "below").mkdir(parents=True)
    (tree / "folder" / "one").write_text("one of it\n")
    (tree / "folder" / "below" / "two").write_text("two of it, longer\n")
    return tree


def test_diff_of_two_snapshots(cli, changing):
    """Each kind of change is told once; a renamed directory is one change, whatever is in it."""
    one = cli("snapshot", changing, "--json").json["snapshot"]
    expected = change(changing)
    other = cli("snapshot", changing, "--json").json["snapshot"]
    ran = cli("diff", one, other, "--json")
    assert told(ran, changing) == expected
    assert ran.json["counts"] == {"added": 2, "removed": 1, "modified": 1, "type": 1, "metadata": 1, "renamed": 2}
    assert (ran.json["before"]["snapshot"], ran.json["after"]["snapshot"]) == (one, other)
    assert told(cli("diff", f"{one}:{changing}", other, "--json"), changing) == expected
    text = cli("diff", one, other).out
    assert f"R  {'':>10}" in text
    assert f"{changing}/folder -> {changing}/renamed/\n" in text
    assert text.splitlines()[-1].startswith(
        "2 added, 1 removed, 1 modified, 1 of another type, 1 with other attributes"
    )
    assert cli("diff", other, other).out == "no difference\n"
    assert cli("diff", other, other, "--json").json["changes"] == []


def test_diff_the_other_way_round(cli, changing):
    """What was added one way was removed the other."""
    one = cli("snapshot", changing, "--json").json["snapshot"]
    change(changing)
    other = cli("snapshot", changing, "--json").json["snapshot"]
    back = told(cli("diff", other, one, "--json"), changing)
    assert back["new"] == ("removed", "")
    assert back["gone"] == ("added", "")
    assert back["big"] == ("renamed", "docs/moved")
    assert back["link/inside"] == ("removed", "")


def test_diff_with_what_is_there_now(cli, changing):
    """A snapshot is compared with the same path, or with another one; of a directory that moved, its files are told."""
    cli("snapshot", changing)
    assert cli("diff", f"latest:{changing}", "--live").out == "no difference\n"
    expected = change(changing)
    del expected["renamed"]
    expected |= {
        "folder": ("removed", ""),
        "folder/below": ("removed", ""),
        "renamed": ("added", ""),
        "renamed/below": ("added", ""),
        "renamed/one": ("renamed", "folder/one"),
        "renamed/below/two": ("renamed", "folder/below/two"),
    }
    for words in (("latest", "--live"), (f"latest:{changing}", "--live"), (f"latest:{changing}", changing)):
        assert told(cli("diff", *words, "--json"), changing) == expected, words


def test_diff_with_a_copy_reads_files_if_asked(cli, tree, place):
    """Equal size and time pass for equal content, unless --checksum reads it."""
    cli("snapshot", tree)
    shutil.copytree(tree, place / "copy", symlinks=True)
    assert cli("diff", f"latest:{tree}", place / "copy").out == "no difference\n"
    file = place / "copy" / "big"
    before = file.stat()
    with file.open("r+b") as opened:
        opened.seek(200_000)
        byte = opened.read(1)
        opened.seek(200_000)
        opened.write(bytes([byte[0] ^ 1]))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert cli("diff", f"latest:{tree}", place / "copy").out == "no difference\n"
    ran = cli("diff", f"latest:{tree}", place / "copy", "--checksum", "--json")
    assert told(ran, place / "copy") == {"big": ("modified", "content")}
    os.utime(file, ns=(1, 1))
    assert told(cli("diff", f"latest:{tree}", place / "copy", "--json"), place / "copy") == {
        "big": ("modified", "content,mtime")
    }


def test_diff_leaves_out_what_the_snapshot_left_out(cli, tree):
    """What the rules of the snapshot exclude was not added since."""
    cli("snapshot", tree, "--exclude", "*.log")
    assert cli("diff", f"latest:{tree}", "--live").out == "no difference\n"
    assert cli("diff", f"latest:{tree}/docs", "--live").out == "no difference\n"


def test_diff_does_not_read_equal_subtrees(cli, tree, monkeypatch):
    """Of directories with equal ids, neither is read: only those on the way to what changed are."""
    from respaldo.core.ids import Kind
    from respaldo.store.source import ChunkSource

    for number in range(20):
        (tree / f"same {number}").mkdir()
        (tree / f"same {number}" / "file").write_text(str(number))
    one = cli("snapshot", tree, "--json").json["snapshot"]
    (tree / "docs" / "a.txt").write_text("changed")
    cli("snapshot", tree)
    read = set()
    get = ChunkSource.get

    def counted(self, kind, chunk_id):
        assert kind is Kind.TREE
        read.add(chunk_id)
        return get(self, kind, chunk_id)

    monkeypatch.setattr(ChunkSource, "get", counted)
    assert list(told(cli("diff", one, "latest", "--json"), tree)) == ["docs/a.txt"]
    assert len(read) == 2 * len((tree / "docs").parts)


def test_diff_of_a_long_directory_reads_the_runs_that_differ(cli, tree):
    """Of a directory of thousands, one change is found, and the names around it are not told."""
    for number in range(6000):
        (tree / "docs" / f"{number:05}").touch()
    one = cli("snapshot", tree, "--json").json["snapshot"]
    (tree / "docs" / "03000").unlink()
    (tree / "docs" / "03001").write_text("x")
    cli("snapshot", tree)
    assert told(cli("diff", one, "latest", "--json"), tree / "docs") == {
        "03000": ("removed", ""),
        "03001": ("modified", "content,mtime"),
    }


def test_diff_of_nonsense(cli, tree):
    """What makes no sense is wrong usage; a path that is not there is an error."""
    cli("snapshot", tree)
    cli("diff", "latest", expected=2)
    cli("diff", "latest", "latest", "--live", expected=2)
    cli("diff", "latest", "latest", "--checksum", expected=2)
    cli("diff", f"latest:{tree}", "/nothing/there", expected=1)
    cli("diff", "latest", "nothing", expected=1)
