"""Checksums and verification that is remembered: lists that `sha256sum -c` checks, and which snapshots were whole."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess

import pytest

pytestmark = pytest.mark.usefixtures("repository")


@pytest.fixture
def odd(tree):
    """Puts files into a tree whose names and contents are no usual ones; returns the tree."""
    folder = os.fsencode(tree / "docs")
    for name in (b"new\nline", b"back\\slash", b"carriage\r", b"\xff\xfe", b"-", b" space", b"*star", b"\\n"):
        with open(os.path.join(folder, name), "wb") as file:
            file.write(b"content of " + name)
    (tree / "empty").touch()
    with (tree / "holes").open("wb") as file:
        file.seek(3_000_000)
        file.write(b"end")
        file.truncate(5_000_000)
    os.link(tree / "big", tree / "twin")
    os.mkfifo(tree / "fifo")
    return tree


@pytest.fixture
def saved(cli, odd):
    """Has that tree backed up."""
    return cli("snapshot", odd, "--json").json["snapshot"]


def printed(spawn, *words) -> bytes:
    """What a command prints, byte by byte."""
    out, err = (process := spawn(*words)).communicate()
    assert process.returncode == 0, err
    return out


def check(listed: bytes, folder) -> list[bytes]:
    """What `sha256sum -c` says, which must be content; strictly, with no line that it passes over."""
    done = subprocess.run(["sha256sum", "--strict", "-c"], input=listed, cwd=folder, check=True, capture_output=True)
    return done.stdout.split(b"\n")[:-1]


def objects(repository, folder: str) -> list[str]:
    path = repository / folder
    return sorted(item.name for item in path.iterdir()) if path.is_dir() else []


def age(cli) -> dict[str, dict | None]:
    return {item["id"]: item["verified"] for item in cli("snapshots", "--json").json["snapshots"]}


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="sha256sum is not installed")
def test_list_is_checked_by_sha256sum_on_a_restored_tree(cli, spawn, odd, place, saved):
    """Odd names, an empty file, holes, hard links: every file is listed, and is right where it was restored to."""
    listed = printed(spawn, "checksums", f"latest:{odd}")
    cli("restore", f"latest:{odd}", place / "back")
    files = subprocess.run(["find", ".", "-type", "f", "-print0"], cwd=odd, check=True, capture_output=True).stdout
    assert len(check(listed, place / "back")) == files.count(b"\0") == 15
    whole = printed(spawn, "checksums", "latest")
    cli("restore", "latest", place / "whole")
    assert len(check(whole, place / "whole")) == 15
    (place / "back" / "big").write_bytes(b"other")
    with pytest.raises(subprocess.CalledProcessError):
        check(listed, place / "back")


def test_list_is_what_sha256sum_prints(cli, spawn, odd, saved):
    """Line by line, in the order of names, but that sha256sum leaves a file without a name for its input alone."""
    listed = printed(spawn, "checksums", f"latest:{odd}")
    names = subprocess.run(["find", ".", "-type", "f", "-print0"], cwd=odd, check=True, capture_output=True).stdout
    own = subprocess.run(["sha256sum", "--", *names.split(b"\0")[:-1]], cwd=odd, check=True, capture_output=True).stdout
    assert sorted(listed.splitlines()) == sorted(own.splitlines())


def test_list_of_one_file_and_as_json(cli, tree, saved):
    """A file alone is listed under its name; JSON has the hash of the list as it is printed."""
    digest = hashlib.sha256((tree / "docs" / "a.txt").read_bytes()).hexdigest()
    assert cli("checksums", f"latest:{tree}/docs/a.txt").raw == f"{digest}  ./a.txt\n".encode()
    done = cli("checksums", "latest", "--json").json
    assert done["sha256"] == hashlib.sha256(cli("checksums", "latest").raw).hexdigest()
    assert done["count"] == len(done["files"]) == 15
    assert done["failures"] == []


def test_what_was_computed_is_kept_and_not_read_again(cli, tree, repository, saved):
    """The second list needs no content: not from the cache, and not on another machine."""
    first = cli("checksums", "latest").raw
    assert len(objects(repository, "sums")) == 1
    for pack in repository.glob("packs/*/*"):
        data = bytearray(pack.read_bytes())
        data[: 1 << 15] = bytes(1 << 15)  # content comes first in a pack
        pack.chmod(0o600)
        pack.write_bytes(data)
    assert cli("checksums", "latest").raw == first
    assert cli("checksums", "latest", "--cache-dir", tree.parent / "elsewhere").raw == first
    assert len(objects(repository, "sums")) == 1
    ran = cli("checksums", "latest", "--read-data", "--json", expected=4)
    assert ran.json["failures"]


def test_unchanged_files_are_computed_once(cli, tree, repository, saved):
    """A second snapshot adds what is new in it, and nothing where nothing is."""
    cli("checksums", "latest")
    cli("snapshot", tree)
    cli("checksums", "latest")
    assert len(objects(repository, "sums")) == 1
    (tree / "new").write_text("new")
    cli("snapshot", tree)
    cli("checksums", "latest")
    assert len(objects(repository, "sums")) == 2


@pytest.mark.parametrize("form", ["tar", "tar.zst", "zip"])
def test_export_remembers_what_it_read(cli, tree, repository, saved, place, form):
    """Every file's checksum, holes and hard links included; and, where nothing was left out, that all was read."""
    cli("export", f"latest:{tree}", "--format", form, "-o", place / "a", expected=None)
    assert objects(repository, "verified") == []
    [name] = objects(repository, "sums")
    cli("export", "latest", "--format", form, "-o", place / "b", expected=None)
    assert objects(repository, "sums") == [name]
    if form == "zip":  # which cannot hold the FIFO
        assert age(cli)[saved] is None
    else:
        assert age(cli)[saved]["how"] == "export"
    listed = cli("checksums", f"latest:{tree}").raw
    assert objects(repository, "sums") == [name]
    check(listed, tree)


def test_verify_remembers_what_was_whole(cli, tree, repository, saved):
    """Only what was read whole counts; `latest:verified` is the newest of it, and each run leaves one record."""
    cli("verify")
    cli("verify", "--subset", "50%")
    cli("verify", "--read-data", "--no-record")
    assert age(cli) == {saved: None}
    assert "respaldo verify --read-data" in cli("ls", "latest:verified", expected=1).err
    assert cli("verify", "--read-data", "--json").json["whole"] == [saved]
    assert age(cli)[saved]["how"] == "verify"
    assert "VERIFIED" in cli("snapshots").out
    (tree / "new").write_text("new")
    later = cli("snapshot", tree, "--json").json["snapshot"]
    assert cli("ls", "latest:verified", "--json").json["snapshot"] == saved
    cli("verify", "--read-data")
    assert cli("ls", "latest:verified", "--json").json["snapshot"] == later
    assert len(objects(repository, "verified")) == 1


def test_what_is_found_damaged_counts_as_verified_no_more(cli, tree, repository, saved):
    """The record of it goes, those of others stay."""
    big = repository / "packs"
    sound = max(big.glob("*/*"), key=lambda path: path.stat().st_mtime_ns)
    (tree / "later").write_bytes(os.urandom(100_000))
    later = cli("snapshot", tree, "--json").json["snapshot"]
    cli("verify", "--read-data")
    assert None not in age(cli).values()
    pack = next(path for path in big.glob("*/*") if path != sound and path.stat().st_size > 100_000)
    data = bytearray(pack.read_bytes())
    data[1000] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(data)
    cli("verify", "--read-data", expected=4)
    assert age(cli)[later] is None
    assert age(cli)[saved] is not None
    assert cli("ls", "latest:verified", "--json").json["snapshot"] == saved


def test_verify_computes_checksums_as_it_reads(cli, tree, repository, saved):
    """Of all snapshots, each content once; then lists need no reading. Not where it is told not to."""
    (tree / "new").write_text("new")
    cli("snapshot", tree)
    for option in ("--no-checksums", "--no-record"):
        assert cli("verify", "--read-data", option, "--json").json["checksums"] == 0
    assert objects(repository, "sums") == []
    done = cli("verify", "--read-data", "--json").json
    assert (done["checksums"], done["checksums_left"]) == (14, 0)  # "big" and "twin" are one
    [name] = objects(repository, "sums")
    check(cli("checksums", f"latest:{tree}").raw, tree)
    assert objects(repository, "sums") == [name]
    assert cli("verify", "--read-data", "--checksums", "--json").json["checksums"] == 0
    cli("verify", "--checksums", expected=2)


def test_reading_all_anew_counts_as_verified(cli, saved):
    """A list from what was kept does not."""
    cli("checksums", "latest")
    assert age(cli)[saved] is None
    cli("checksums", "latest", "--read-data")
    assert age(cli)[saved]["how"] == "checksums"


def test_prune_takes_away_what_is_about_nothing_any_more(cli, tree, repository, saved, place):
    """Records of forgotten snapshots, checksums of contents that are gone; those of what is there stay."""
    (tree / "big").write_bytes(os.urandom(500_000))
    (tree / "twin").unlink()
    for folder in ("docs", "more"):
        (tree / folder).mkdir(exist_ok=True)
        for number in range(30):
            (tree / folder / f"only-{number}").write_text(f"{folder} {number}")
    cli("snapshot", tree)
    later = tree / "later"
    shutil.rmtree(tree / "more")
    for number in range(30):
        (tree / "docs" / f"only-{number}").unlink()
    later.write_text("later")
    cli("snapshot", tree)
    cli("verify", "--read-data", "--checksums")
    before = cli("checksums", "latest").raw
    cli("forget", saved, "latest~1")
    cli("prune")
    assert len(age(cli)) == 1
    assert None not in age(cli).values()
    [name] = objects(repository, "sums")
    assert cli("verify", "--read-data", "--keyless", expected=2)
    cli("verify", "--keyless")
    assert cli("checksums", "latest", "--cache-dir", place / "elsewhere").raw == before
    assert objects(repository, "sums") == [name], "something that is there was forgotten and computed again"
    (tree / "x").write_text("x")
    cli("snapshot", tree)
    cli("forget", "latest~1", "latest")
    cli("prune")
    assert (objects(repository, "sums"), objects(repository, "verified")) == ([], [])


def test_many_small_records_are_merged(cli, tree, repository, saved):
    """A record for each day becomes one."""
    for number in range(17):
        (tree / "day").write_text(f"day {number}")
        cli("snapshot", tree)
        cli("checksums", "latest")
    assert len(objects(repository, "sums")) >= 16
    before = cli("checksums", "latest").raw
    cli("prune")
    assert len(objects(repository, "sums")) <= 2
    assert cli("checksums", "latest").raw == before


def test_damaged_records_harm_nothing(cli, tree, repository, saved):
    """They are damage that verify names and repair sets aside; whoever reads does without."""
    first = cli("checksums", "latest").raw
    cli("verify", "--read-data")
    for folder in ("sums", "verified"):
        [path] = (repository / folder).iterdir()
        path.chmod(0o600)
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert cli("checksums", "latest", "--cache-dir", tree.parent / "elsewhere").raw == first
    assert age(cli)[saved] is None
    names = {item["name"].partition("/")[0] for item in cli("verify", "--json", expected=4).json["damages"]}
    assert names == {"sums", "verified"}
    cli("repair", "--yes", expected=None)
    cli("verify")


def test_false_checksum_is_put_right_by_reading(cli, tree, repository, saved):
    """What is kept is never trusted over the content: --read-data finds it, says so, and corrects it for everybody."""
    from respaldo.catalog import sums  # what is made to lie

    cli("checksums", "latest")
    original = sums.SumsKept.add
    (tree / "new").write_text("new")
    (tree / "also").write_text("also")
    cli("snapshot", tree)

    def listed(*words, expected=0) -> str:
        return cli("checksums", f"latest:{tree}/new", "--json", *words, expected=expected).json["files"][0]["sha256"]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sums.SumsKept, "add", lambda kept, content, _: original(kept, content, bytes(32)))
        cli("checksums", "latest")
    assert listed() == "0" * 64
    true = hashlib.sha256(b"new").hexdigest()
    assert listed("--read-data", expected=4) == true
    for machine in range(3):
        assert listed("--cache-dir", tree.parent / f"elsewhere-{machine}") == true
    assert listed("--read-data") == true


def test_read_only_repository_is_read_all_the_same(cli, tree, repository, saved, monkeypatch, place):
    """Nothing is remembered, and nothing is an error."""
    from respaldo.backend import open as opening
    from respaldo.backend.wrap import ReadOnly

    inner = opening.LocalBackend
    with monkeypatch.context() as patched:
        patched.setattr(opening, "LocalBackend", lambda *args, **more: ReadOnly(inner(*args, **more)))
        cli("verify", "--read-data", "--checksums")
        cli("checksums", "latest", "--read-data")
        cli("export", "latest", "-o", place / "a.tar")
        assert age(cli) == {saved: None}
    assert objects(repository, "sums") == []


def test_file_without_content_is_named(cli, tree, saved, monkeypatch):
    """A file that could not be read when it was backed up has no checksum: status 3."""
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    (tree / "secret").write_text("x")
    (tree / "secret").chmod(0)
    cli("snapshot", tree, expected=3)
    ran = cli("checksums", f"latest:{tree}", "--json", expected=3)
    assert ran.json["failures"][0]["path"] == "./secret"
