from __future__ import annotations

import os
import subprocess

import pytest

pytestmark = pytest.mark.usefixtures("repository")


@pytest.fixture
def saved(cli, repository, tree):
    """Has the tree backed up."""
    return cli("snapshot", tree, "--json").json["snapshot"]


def same(one, other) -> bool:
    return not subprocess.run(["diff", "-r", "--no-dereference", one, other], check=False, capture_output=True).stdout


@pytest.mark.usefixtures("saved")
def test_directory_lands_in_the_target(cli, tree, place):
    """With a path, what is in the directory lands directly in the target."""
    done = cli("restore", f"latest:{tree}", place / "back", "--json").json
    assert done["complete"] is True
    assert (done["created"], done["failed"]) == (5, 0)
    assert done["target"] == str(place / "back")
    assert same(tree, place / "back")


def test_whole_snapshot_keeps_its_paths(cli, tree, place, saved):
    """Without a path, everything lands below the target under its full path."""
    cli("restore", saved[:8], place / "back")
    assert same(tree, place / "back" / str(tree).lstrip("/"))


@pytest.mark.usefixtures("saved")
def test_file_becomes_or_lands_in_the_target(cli, tree, place):
    """A file becomes the target, or lands in it where that is a directory."""
    assert "1 created\n" in cli("restore", f"latest:{tree}/docs/a.txt", place / "b.txt").out
    assert (place / "b.txt").read_bytes() == (tree / "docs" / "a.txt").read_bytes()
    (place / "directory").mkdir()
    cli("restore", f"latest:{tree}/docs/a.txt", place / "directory")
    assert (place / "directory" / "a.txt").exists()


@pytest.mark.usefixtures("saved")
def test_dry_run_says_what_would_be_done(cli, tree, place):
    """--dry-run lists what would be created, overwritten and deleted, and does none of it."""
    back = place / "back"
    cli("restore", f"latest:{tree}", back)
    (back / "big").write_bytes(b"other")
    (back / "docs" / "a.txt").unlink()
    (back / "surplus").write_bytes(b"12345")
    before = sorted(back.rglob("*"))
    plan = cli("restore", f"latest:{tree}", back, "--delete", "--dry-run", "--json").json
    assert plan["dry_run"] is True
    assert cli("restore", f"latest:{tree}", back, "--preview", "--json").json["dry_run"] is True
    assert cli("restore", f"latest:{tree}", place / "elsewhere", "--json").json["dry_run"] is False
    assert {(item["verb"], item["path"].rpartition("/")[2], item["size"]) for item in plan["actions"]} >= {
        ("overwrite", "big", 300_000),
        ("create", "a.txt", 600),
        ("delete", "surplus", 5),
    }
    assert sorted(back.rglob("*")) == before
    text = cli("restore", f"latest:{tree}", back, "--delete", "-n").out
    assert "delete             5 B  " in text
    cli("restore", f"latest:{tree}", back, "--delete")
    assert same(tree, back)


def test_single_file_is_shown_where_it_lands(cli, tree, place):
    """A dry run and a preview name the file that it becomes, and nothing that stands beside it."""
    cli("snapshot", tree)
    (place / "beside").mkdir(parents=True)
    wanted = f"latest:{tree}/docs/a.txt"
    for target, lands in ((place / "new", place / "new"), (place / "beside", place / "beside" / "a.txt")):
        assert f"  {lands}\n" in cli("restore", wanted, target, "--dry-run").out
        shown = cli("restore", wanted, target, "--preview").out
        assert shown.splitlines()[0].split()[-3] == f"{lands.parent}/"
        assert f"└── {lands.name}\n" in shown
        assert "kept" not in shown


@pytest.mark.usefixtures("saved")
def test_overwrite_policies(cli, tree, place):
    """What is there is replaced, kept or looked at closely, as asked for."""
    back = place / "back"
    cli("restore", f"latest:{tree}", back)
    file = back / "docs" / "a.txt"
    seen = file.stat()
    file.write_bytes(b"X" * 600)
    os.utime(file, ns=(seen.st_mtime_ns, seen.st_mtime_ns))
    cli("restore", f"latest:{tree}", back)
    assert file.read_bytes() == b"X" * 600
    cli("restore", f"latest:{tree}", back, "--overwrite", "always")
    assert same(tree, back)
    file.write_bytes(b"newer")
    cli("restore", f"latest:{tree}", back, "--overwrite", "if-newer")
    cli("restore", f"latest:{tree}", back, "--overwrite", "never")
    assert file.read_bytes() == b"newer"
    cli("restore", f"latest:{tree}", back, "--overwrite", "sometimes", expected=2)


@pytest.mark.usefixtures("saved")
def test_patterns_and_options(cli, tree, place):
    """A part is chosen by patterns; the other options are taken."""
    cli("restore", f"latest:{tree}", place / "a", "--include", "*.log", "--exclude", "keep.*")
    assert [path.name for path in (place / "a").rglob("*") if path.is_file()] == ["b.log"]
    cli(
        *(
            "restore",
            f"latest:{tree}",
            place / "b",
            "--verify",
            "--no-owner",
            "--numeric-ids",
            "--sparse",
            "--in-place",
        ),
        "--no-space-check",
    )
    assert same(tree, place / "b")
    cli("restore", f"latest:{tree}", place / "a", "--include", "x", "--delete", expected=2)


@pytest.mark.usefixtures("saved")
def test_damage_is_4_and_the_rest_comes_back(cli, tree, place, repository):
    """One bad chunk fails its file, is named, and everything else is restored."""
    pack = max(repository.glob("packs/*/*"), key=lambda path: path.stat().st_size)
    pack.chmod(0o600)
    (tree / "later").write_text("after the damage")
    cli("snapshot", tree)
    with pack.open("r+b") as file:
        file.seek(100_000)
        file.write(b"damage")
    ran = cli("restore", f"latest:{tree}", place / "back", expected=4)
    assert f"warning: {tree}/big: " in ran.err
    assert "incomplete: " in ran.out
    assert (place / "back" / "later").read_text() == "after the damage"
    assert not (place / "back" / "big").exists()


def test_path_that_is_gone_is_not_restored_from_elsewhere(cli, tree, place, saved):
    """A path that the latest snapshot lacks is an error that names the one to take."""
    (tree / "big").unlink()
    cli("snapshot", tree)
    ran = cli("restore", f"latest:{tree}/big", place / "big", expected=1)
    assert saved[:8] in ran.err
    assert not (place / "big").exists()


@pytest.mark.usefixtures("saved")
def test_target_that_cannot_be(cli, tree, place):
    """A target below a file is an error with a path."""
    ran = cli("restore", f"latest:{tree}", place / "key" / "x", expected=1)
    assert str(place / "key") in ran.err


def objects_of(repository):
    return {path: path.read_bytes() for path in repository.rglob("*") if path.is_file() and "log" not in path.parts}


@pytest.mark.parametrize("below", ["", "disk"])
def test_delete_spares_the_repository_itself(cli, repository, tree, place, monkeypatch, below):
    """Whoever makes a disk equal to a snapshot, with --delete, keeps the repository that lies on it."""
    disk = place / "disk"
    moved = disk / below / "backup"
    moved.parent.mkdir(parents=True)
    repository.rename(moved)
    monkeypatch.setenv("RESPALDO_REPOSITORY", str(moved))
    cli("snapshot", tree)
    before = objects_of(moved)
    (disk / "else").write_bytes(b"goes")
    planned = cli("restore", f"latest:{tree}", disk, "--delete", "--dry-run", "--json").json
    done = cli("restore", f"latest:{tree}", disk, "--delete", "--json")
    assert planned["deleted"] == done.json["deleted"] == 1
    assert "the repository itself, which lies there, was not deleted" in done.json["notes"]
    assert not (disk / "else").exists()
    assert objects_of(moved) == before
    cli("verify", "--read-data")
    assert cli("restore", f"latest:{tree}", disk, "--delete", "--verify").status == 0


def test_nothing_is_restored_into_the_repository_itself(cli, repository, tree, place):
    """Neither as a target, nor below it, nor where a snapshot has something of its own in its place."""
    (place / "link").symlink_to(repository)
    other = place / "source" / repository.name
    other.mkdir(parents=True)
    (other / "header").write_bytes(b"another")
    (place / "source2").mkdir()
    (place / "source2" / repository.name).write_bytes(b"a file")
    for source in (tree, place / "source", place / "source2"):
        cli("snapshot", source, "--label", source.name)
    before = objects_of(repository)
    for target in (repository, repository / "packs", repository / "new" / "er", place / "link", repository / "file"):
        for part in (tree, tree / "big"):
            for more in ((), ("--delete",), ("--dry-run",)):
                failed = cli("restore", f"tree:{part}", target, *more, expected=2)
                assert "in the repository itself" in failed.err
    for name in ("source", "source2"):
        failed = cli("restore", f"{name}:{place / name}", place, "--no-safety", expected=3)
        assert "the repository itself" in failed.err
    assert objects_of(repository) == before
