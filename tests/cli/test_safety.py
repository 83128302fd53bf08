"""What a restore would take away is shown before, put away first, and comes back by the command that is printed."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess

import pytest

pytestmark = pytest.mark.usefixtures("repository")


@pytest.fixture
def saved(cli, repository, tree):
    """Has the tree backed up."""
    return cli("snapshot", tree, "--json").json["snapshot"]


def rsync(one, other) -> str:
    """What rsync would still have to do to make the second equal the first: nothing, where they are equal."""
    words = ["rsync", "-naHAXi", "--checksum", "--delete", f"{one}/", f"{other}/"]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def changed(tree):
    """Changes a tree in every way that a restore with --delete undoes."""
    (tree / "big").write_bytes(b"other")
    (tree / "docs" / "a.txt").unlink()
    (tree / "docs" / "b.log").chmod(0o600)
    (tree / "link").unlink()
    (tree / "link").symlink_to("elsewhere")
    (tree / "surplus").mkdir()
    (tree / "surplus" / "deep").write_text("mine")
    os.link(tree / "surplus" / "deep", tree / "surplus" / "twin")
    os.setxattr(tree / "docs", "user.colour", b"red")
    os.utime(tree / "surplus", ns=(5, 5))


def snapshots(cli) -> list[dict]:
    return cli("snapshots", "--json").json["snapshots"]


def run_printed(cli, command: str):
    """Runs a command as it was printed."""
    program, *words = shlex.split(command)
    assert program == "respaldo"
    return cli(*words)


@pytest.mark.skipif(shutil.which("rsync") is None, reason="rsync is not installed")
@pytest.mark.parametrize("options", [(), ("--delete",), ("--overwrite", "always", "--delete"), ("--in-place",)])
def test_printed_command_gets_back(cli, saved, tree, place, options):
    """Over a changed tree and back again, nothing differs from what was there."""
    changed(tree)
    shutil.copytree(tree, place / "copy", symlinks=True)
    subprocess.run(["rsync", "-aHAX", "--delete", f"{tree}/", f"{place}/copy/"], check=True)
    done = cli("restore", f"latest:{tree}", tree, *options, "--json").json
    [safety] = done["safety"]
    assert safety["path"] == str(tree)
    assert rsync(place / "copy", tree) != ""
    run_printed(cli, safety["command"])
    assert rsync(place / "copy", tree) == ""


def test_same_size_and_time_come_back(cli, saved, tree):
    """What only a look at the content told apart is told apart on the way back, too."""
    seen = (tree / "docs" / "a.txt").stat()
    (tree / "docs" / "a.txt").write_bytes(b"X" * seen.st_size)
    os.utime(tree / "docs" / "a.txt", ns=(seen.st_atime_ns, seen.st_mtime_ns))
    done = cli("restore", f"latest:{tree}", tree, "--overwrite", "always", "--json").json
    assert (tree / "docs" / "a.txt").read_bytes() != b"X" * seen.st_size
    run_printed(cli, done["safety"][0]["command"])
    assert (tree / "docs" / "a.txt").read_bytes() == b"X" * seen.st_size


def test_snapshot_for_safety_says_what_it_is(cli, saved, tree):
    """It has a tag and a reason, is announced before anything happens, and is never the latest."""
    (tree / "big").write_bytes(b"other")
    ran = cli("restore", f"latest:{tree}", tree)
    [made] = [item for item in snapshots(cli) if item["tags"] == ["safety"]]
    assert made["reason"] == f"before the restore of {saved[:8]}:{tree} to {tree}"
    assert f"note: what is in {tree} was put away: snapshot {made['id'][:8]}" in ran.err
    assert f"note: to get it back: respaldo restore {made['id'][:8]}:{tree} {tree} --delete" in ran.err
    assert cli("ls", "latest", "--json").json["snapshot"] == saved
    assert cli("ls", f"latest:tag=safety:{tree}", "--json").json["snapshot"] == made["id"]
    assert made["kind"] == "incremental"
    assert made["parent"] == saved
    assert json.loads(cli("snapshot", tree, "--json").out)["snapshot"] != made["id"]
    [later] = [item for item in snapshots(cli) if item["id"] not in {saved, made["id"]}]
    assert later["parent"] == saved
    plan = cli("forget", "--keep-daily", "1", "--dry-run", "--json").json
    assert plan["forgotten"] == [saved]


def test_file_is_put_away_alone(cli, saved, tree):
    """Over one file that one file is stored, and comes back."""
    (tree / "docs" / "a.txt").write_text("mine")
    [safety] = cli("restore", f"latest:{tree}/docs/a.txt", tree / "docs", "--json").json["safety"]
    assert safety["path"] == f"{tree}/docs/a.txt"
    assert (tree / "docs" / "a.txt").read_text() != "mine"
    run_printed(cli, safety["command"])
    assert (tree / "docs" / "a.txt").read_text() == "mine"


def test_nothing_to_lose_means_no_snapshot(cli, saved, tree, place):
    """Neither over an equal tree, nor where something is only missing, nor for another time, nor beside the source."""
    for prepare in (
        lambda: None,
        (tree / "docs" / "a.txt").unlink,
        lambda: (tree / "surplus").write_text("it stays"),
        lambda: os.utime(tree / "big", ns=(5, 5)),
    ):
        prepare()
        assert cli("restore", f"latest:{tree}", tree, "--json").json["safety"] == []
    cli("restore", f"latest:{tree}", place / "back")
    (place / "back" / "big").write_bytes(b"other")
    assert cli("restore", f"latest:{tree}", place / "back", "--json").json["safety"] == []
    assert len(snapshots(cli)) == 1


def test_safety_is_wanted_or_not(cli, saved, tree, place):
    """Either option goes before the rule; without anything to lose, none is taken whatever is wanted."""
    (tree / "big").write_bytes(b"other")
    assert cli("restore", f"latest:{tree}", tree, "--no-safety", "--json").json["safety"] == []
    cli("restore", f"latest:{tree}", place / "back", "--safety")
    assert len(snapshots(cli)) == 1
    (place / "back" / "big").write_bytes(b"other")
    [safety] = cli("restore", f"latest:{tree}", place / "back", "--safety", "--json").json["safety"]
    assert safety["path"] == str(place / "back")


def test_whole_snapshot_in_its_place_puts_its_sources_away(cli, saved, tree, place):
    """Restored to /, what is touched are the sources, each with a command of its own."""
    other = place / "other"
    other.mkdir()
    (other / "file").write_text("one")
    cli("snapshot", tree, other)
    (other / "file").write_text("two")
    (tree / "big").write_bytes(b"other")
    done = cli("restore", "latest", "/", "--json").json
    assert [item["path"] for item in done["safety"]] == [str(other), str(tree)]
    for item in done["safety"]:
        run_printed(cli, item["command"])
    assert ((other / "file").read_text(), (tree / "big").read_bytes()) == ("two", b"other")


def test_link_to_a_source_leads_there(cli, saved, tree, place):
    """A target that is named by way of a link is the directory behind it."""
    (place / "short").symlink_to(tree)
    (tree / "big").write_bytes(b"other")
    [safety] = cli("restore", f"latest:{tree}", place / "short", "--json").json["safety"]
    assert safety["path"] == str(tree)


def test_repository_inside_the_target_is_no_part_of_it(cli, place, tree, repository):
    """It would be stored in itself, and taken away on the way back."""
    cli("snapshot", place)
    (tree / "big").write_bytes(b"other")
    [safety] = cli("restore", f"latest:{tree}", tree, "--json").json["safety"]
    (tree / "big").write_bytes(b"third")
    done = cli("restore", f"latest:{place}", place, "--delete", "--json").json
    [safety] = done["safety"]
    held = cli("ls", "-R", f"{safety['snapshot']}:{place}").out
    assert f"{tree}/big" in held
    assert f"{repository}/" not in held
    run_printed(cli, safety["command"])
    assert (tree / "big").read_bytes() == b"third"
    cli("verify")


def test_where_it_cannot_be_put_away_nothing_is_touched(cli, saved, tree, monkeypatch):
    """A repository that takes nothing, and a file that cannot be read: an error, and all is as it was."""
    from respaldo.api import safety  # the flow that is made to fail
    from respaldo.core.errors import StorageFull

    (tree / "big").write_bytes(b"other")

    def full(*_args, **_more):
        raise StorageFull("packs")

    with monkeypatch.context() as patched:
        patched.setattr(safety, "run_backup", full)
        ran = cli("restore", f"latest:{tree}", tree, "--delete", "--json", expected=1)
    error = json.loads(ran.err)["error"]
    assert "nothing was touched" in error["message"]
    assert "--no-safety" in error["hint"]
    assert (tree / "big").read_bytes() == b"other"


def test_repository_that_cannot_be_written_to_refuses(cli, saved, tree, monkeypatch):
    """As on a disk that is mounted read-only; --no-safety goes on, and what takes nothing away needs nothing."""
    from respaldo.backend import open as opening
    from respaldo.backend.wrap import ReadOnly

    inner = opening.LocalBackend
    monkeypatch.setattr(opening, "LocalBackend", lambda *args, **more: ReadOnly(inner(*args, **more)))
    (tree / "docs" / "a.txt").unlink()
    cli("restore", f"latest:{tree}", tree)
    (tree / "big").write_bytes(b"other")
    ran = cli("restore", f"latest:{tree}", tree, expected=1)
    assert "nothing was touched" in ran.err
    assert (tree / "big").read_bytes() == b"other"
    cli("restore", f"latest:{tree}", tree, "--no-safety")
    assert (tree / "big").read_bytes() != b"other"


def test_command_names_the_repository_where_it_was_named(cli, saved, tree, place, monkeypatch):
    """With -r, the way back has it, too; odd names are quoted for a shell."""
    odd = tree / "it's a\ndirectory"
    odd.mkdir()
    (odd / "f").write_text("1")
    cli("snapshot", tree)
    (odd / "f").write_text("22")
    repo = os.environ["RESPALDO_REPOSITORY"]
    monkeypatch.delenv("RESPALDO_REPOSITORY")
    done = cli("restore", f"latest:{odd}", odd, "-r", repo, "--json").json
    command = done["safety"][0]["command"]
    assert command.isprintable()
    words = (
        subprocess.run(["bash", "-c", f"printf '%s\\0' {command}"], check=True, capture_output=True)
        .stdout.decode()
        .split("\0")[:-1]
    )
    assert words[-2:] == ["-r", repo]
    cli(*words[1:])
    assert (odd / "f").read_text() == "22"


# --- previews -------------------------------------------------------------------------------------------------------


def previewed(cli, *words):
    ran = cli("restore", *words, "--preview", "--json").json
    return {item["path"]: item for item in ran["entries"]}, ran


def test_preview_says_what_becomes_of_each_name(cli, saved, tree):
    """Added, overwritten, deleted, with other attributes, kept; sizes before and after; and nothing changes."""
    changed(tree)
    before = subprocess.run(["find", tree, "-printf", "%p %s %T@ %m\n"], check=True, capture_output=True).stdout
    found, whole = previewed(cli, f"latest:{tree}", tree, "--delete")
    assert {path: item["what"] for path, item in found.items()} == {
        "": "metadata",
        "big": "overwritten",
        "docs": "metadata",
        "docs/a.txt": "added",
        "docs/b.log": "metadata",
        "link": "overwritten",
        "surplus": "deleted",
    }
    assert (found["big"]["size_before"], found["big"]["size"]) == (5, 300_000)
    assert (found["docs/a.txt"]["size_before"], found["docs/a.txt"]["size"]) == (None, 600)
    assert found["surplus"]["size_before"] == 8
    assert whole["safety"] is True
    assert whole["counts"]["deleted"] == 3
    found, _ = previewed(cli, f"latest:{tree}", tree)
    assert found["surplus"]["what"] == "kept"
    text = cli("restore", f"latest:{tree}", tree, "--delete", "--preview").out
    assert "overwritten         5 B -> 293.0 KiB  ├── big\n" in text
    assert re.search(r"^added +600 B  │   └── a\.txt$", text, re.MULTILINE)
    assert "put away first" in text
    assert subprocess.run(["find", tree, "-printf", "%p %s %T@ %m\n"], check=True, capture_output=True).stdout == before
    assert len(snapshots(cli)) == 1


@pytest.mark.parametrize("options", [(), ("--delete",), ("--overwrite", "never"), ("--include", "*.log")])
def test_preview_counts_what_a_dry_run_counts(cli, saved, tree, options):
    """Both read the same plan."""
    changed(tree)
    plan = cli("restore", f"latest:{tree}", tree, *options, "--dry-run", "--json").json
    found, whole = previewed(cli, f"latest:{tree}", tree, *options)
    counts = whole["counts"]
    assert (counts["overwritten"], counts["deleted"]) == (plan["overwritten"], plan["deleted"])
    assert counts["added"] == plan["created"]
    files = sum(item["what"] == "metadata" and not item["directory"] for item in found.values())
    assert files == plan["attributes"]
    assert (whole["write_bytes"], whole["delete_bytes"]) == (plan["write_bytes"], plan["delete_bytes"])


def test_preview_of_a_new_place_shows_all(cli, saved, tree, place):
    """Where nothing is there, all is added."""
    found, whole = previewed(cli, f"latest:{tree}", place / "new")
    assert set(found) == {"", "big", "docs", "docs/a.txt", "docs/b.log", "docs/keep.log", "link"}
    assert {item["what"] for item in found.values()} == {"added"}
    assert found["docs"]["size"] == 600 + 400 + 5
    assert whole["safety"] is False
    assert not (place / "new").exists()


def test_preview_of_what_is_unchanged_is_short(cli, place, repository, tree):
    """Directories in which nothing changes are counted, not opened; of many, only some are named."""
    for number in range(50):
        (tree / f"d{number}").mkdir()
        (tree / f"d{number}" / "f").write_text("x")
    cli("snapshot", tree)
    (tree / "d7" / "f").write_text("other")
    found, whole = previewed(cli, f"latest:{tree}", tree)
    assert whole["counts"]["unchanged"] >= 100
    assert len(found) < 30
    assert found["d7/f"]["what"] == "overwritten"
    assert found["d7"]["counts"] == {"overwritten": 1}


def test_preview_and_dry_run_are_one_too_many(cli, saved, tree):
    """Two forms of one thing."""
    cli("restore", f"latest:{tree}", tree, "--preview", "--dry-run", expected=2)
