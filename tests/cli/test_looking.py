"""Tests of the commands that look: snapshots, ls, stats, verify."""

from __future__ import annotations

import base64
import os

import pytest

pytestmark = pytest.mark.usefixtures("repository")


def test_no_snapshots(cli):
    """An empty repository has an empty list, and says so to people."""
    assert cli("snapshots").out == "no snapshots\n"
    assert cli("snapshots", "--json").json == {"snapshots": [], "undecided": [], "damaged": [], "clients": []}


def test_snapshots_are_filtered(cli, tree):
    """By host, tag, path and number."""
    cli("snapshot", tree, "--host", "a", "--tag", "x", "--tag", "y")
    cli("snapshot", tree / "docs", "--host", "b", "--tag", "x")

    def found(*words):
        return [item["host"] for item in cli("snapshots", "--json", *words).json["snapshots"]]

    assert found() == ["a", "b"]
    assert found("--host", "a") == ["a"]
    assert found("--tag", "x") == ["a", "b"]
    assert found("--tag", "x", "--tag", "y") == ["a"]
    assert found("--path", tree / "docs" / "a.txt") == ["a", "b"]
    assert found("--path", tree / "big") == ["a"]
    assert found("--path", f"{tree}x") == []
    assert found("--last", "1") == ["b"]


def test_table_of_snapshots(cli, tree):
    """Columns stand under their headings; those that nothing stands in are left out."""
    cli("snapshot", tree)
    heading, row = cli("snapshots").out.splitlines()
    assert "TAGS" not in heading
    assert heading.index("SOURCES") == row.index(str(tree))
    cli("snapshot", tree, "--tag", "second")
    assert "TAGS" in cli("snapshots").out


def test_ls_of_a_directory_and_a_file(cli, tree):
    """A directory lists what is directly in it, -R everything, a file itself."""
    cli("snapshot", tree)
    assert cli("ls", f"latest:{tree}").out.split() == [f"{tree}/big", f"{tree}/docs/", f"{tree}/link"]
    assert f"{tree}/docs/a.txt" in cli("ls", "-R", "latest").out.splitlines()
    assert cli("ls", f"latest:{tree}/docs/a.txt").out == f"{tree}/docs/a.txt\n"
    assert cli("ls", "latest").out == f"/{tree.parts[1]}/\n"


def test_ls_long(cli, tree):
    """-l has mode, size and where a link leads to."""
    (tree / "docs" / "a.txt").chmod(0o640)
    cli("snapshot", tree)
    line = cli("ls", "-l", f"latest:{tree}/docs/a.txt").out
    assert line.startswith("-rw-r-----")
    assert " 600 " in line
    assert "link -> docs/a.txt" in cli("ls", "-l", f"latest:{tree}").out


def test_names_cannot_write_to_the_terminal(cli, tree):
    """Control characters, bytes that are no UTF-8 and direction marks are escaped wherever names are shown."""
    names = [b"\x1b]0;title\x07", b"line\nbreak", b"\xff\xfe", "a\u202eb".encode(), b"\x9b31m"]
    for name in names:
        with open(os.path.join(os.fsencode(tree), name), "wb") as file:
            file.write(b"x")
    made = cli("snapshot", tree, "-v")
    listed = cli("ls", "-lR", "latest").out
    for text in (made.out, made.err, listed):
        assert all(letter == "\n" or letter.isprintable() for letter in text)
    assert "/\\x1b]0;title\\x07\n" in listed
    assert "/line\\x0abreak\n" in listed
    assert "/\\xff\\xfe\n" in listed
    assert "/a\\u202eb\n" in listed


def test_json_keeps_every_byte_of_a_name(cli, tree):
    """In JSON a name that is no UTF-8 has its bytes beside it."""
    odd = os.path.join(os.fsencode(tree), b"\xff\n")
    with open(odd, "wb"):
        pass
    cli("snapshot", tree)
    ran = cli("ls", f"latest:{tree}", "--json")
    assert ran.out.isascii()
    (entry,) = [entry for entry in ran.json["entries"] if "path_b64" in entry]
    assert base64.b64decode(entry["path_b64"]) == odd
    assert os.fsencode(entry["path"]) == odd


def test_snapshot_is_named_by_id_and_label(cli, tree):
    """An id, its beginning and a label name a snapshot; what is ambiguous or unknown is an error."""
    made = cli("snapshot", tree, "--label", "first", "--json").json["snapshot"]
    for name in (made, made[:6], "first", "latest"):
        assert cli("ls", name, "--json").json["snapshot"] == made
    assert "hint: " in cli("ls", "nonsense", expected=1).err
    cli("ls", "", expected=2)


def test_latest_is_the_latest_that_covers_the_path(cli, tree):
    """A newer snapshot of something else does not hide a path."""
    first = cli("snapshot", tree, "--json").json["snapshot"]
    cli("snapshot", tree / "docs")
    assert cli("ls", f"latest:{tree}/big", "--json").json["snapshot"] == first
    assert cli("ls", f"latest:{tree}/docs/a.txt", "--json").json["snapshot"] != first
    assert "no snapshot" in cli("ls", "latest:/elsewhere", expected=1).err


def test_path_that_is_gone_names_the_last_snapshot_with_it(cli, tree):
    """What was deleted is never taken from an older snapshot silently."""
    first = cli("snapshot", tree, "--json").json["snapshot"]
    (tree / "big").unlink()
    cli("snapshot", tree)
    ran = cli("ls", f"latest:{tree}/big", expected=1)
    assert f"the last snapshot that holds it is {first[:8]}" in ran.err
    assert cli("ls", f"{first[:8]}:{tree}/big").out == f"{tree}/big\n"
    assert "last snapshot" not in cli("ls", f"latest:{tree}/never", expected=1).err


def test_host_leaves_others_aside(cli, tree):
    """The latest of this machine is not that of another."""
    first = cli("snapshot", tree, "--host", "here", "--json").json["snapshot"]
    cli("snapshot", tree, "--host", "there")
    assert cli("ls", f"latest:{tree}", "--host", "here", "--json").json["snapshot"] == first


def test_stats(cli, tree):
    """Figures add up: two snapshots of the same stand for twice what is stored once."""
    cli("snapshot", tree)
    cli("snapshot", tree)
    stats = cli("stats", "--json").json
    assert stats["snapshots"] == 2
    assert stats["raw_bytes"] == 2 * stats["deduplicated_bytes"] == 2 * 301_005
    assert stats["deduplication_ratio"] == 2.0
    assert stats["stored_bytes"] >= stats["compressed_bytes"] > 300_000
    assert sum(row["chunks"] for row in stats["histogram"]) <= stats["chunks"]
    assert "2.00 : 1" in cli("stats").out


def damage(repository) -> str:
    """Changes one byte of the biggest pack; returns its name."""
    pack = max(repository.glob("packs/*/*"), key=lambda path: path.stat().st_size)
    pack.chmod(0o600)
    with pack.open("r+b") as file:
        file.seek(100_000)
        byte = file.read(1)
        file.seek(100_000)
        file.write(bytes([byte[0] ^ 1]))
    return f"packs/{pack.name}"


def test_verify_finds_nothing(cli, tree):
    """A sound repository verifies, in each of the ways."""
    cli("snapshot", tree)
    assert "no damage found" in cli("verify").out
    found = cli("verify", "--read-data", "--json").json
    assert found["ok"] is True
    assert found["read_bytes"] == found["pack_bytes"]
    assert found["damages"] == []
    assert cli("verify", "--subset", "50%", "--json").json["packs_read"] == 1
    assert cli("verify", "--keyless", "--json").json["ok"] is True
    assert cli("verify", "-q").out == ""


def test_verify_names_what_is_affected(cli, tree, repository):
    """Damage is status 4, and the files that cannot be restored are named."""
    cli("snapshot", tree)
    pack = damage(repository)
    found = cli("verify", "--read-data", "--json", expected=4).json
    assert found["ok"] is False
    assert [item["name"] for item in found["damages"]] == [pack]
    assert str(tree / "big") in [item["path"] for item in found["damages"][0]["affected"]]
    ran = cli("verify", "--read-data", expected=4)
    assert f":{tree}/big" in ran.out
    ran = cli("verify", "--read-data", "-q", expected=4)
    assert ran.out == ""
    assert pack in ran.err


def test_verify_without_a_key(cli, tree, repository, monkeypatch):
    """Whoever stores a repository finds damage without being able to read it."""
    cli("snapshot", tree)
    monkeypatch.delenv("RESPALDO_KEY_FILE")
    cli("verify", "--keyless")
    pack = damage(repository)
    assert cli("verify", "--keyless", "--json", expected=4).json["damages"][0]["name"] == pack


@pytest.mark.parametrize("folder", ["config", "pending", "outcome", "segments", "packs", "condemned", "sessions"])
def test_object_of_a_terabyte_is_not_read(cli, tree, repository, place, folder):
    """Storage may put any length under a name: it is named by what needs the object, and costs no memory."""
    cli("snapshot", tree)
    path = next((path for path in sorted((repository / folder).rglob("*")) if path.is_file()), None)
    path = path or repository / folder / ("0" * 32)
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    name = path.name
    with path.open("wb") as file:
        file.truncate(1 << 40)
    for words in (["verify", "--read-data"], ["verify", "--keyless"]):
        ran = cli(*words, expected=4)
        assert f"{folder}/{name}: it" in ran.out + ran.err
        assert f"it is {1 << 40} bytes long, more than such an object can be" in ran.out + ran.err
    assert cli("snapshots", expected=None).status == (4 if folder == "config" else 0)
    other = ["--cache-dir", place / "another client's"]  # who made a snapshot knows its manifest
    assert cli(*other, "snapshots", expected=None).status == (4 if folder in {"config", "pending"} else 0)


def test_condemnation_that_does_not_open_stops_nobody_who_reads(cli, tree, repository, place):
    """It may condemn any pack, which concerns writers: a file that anybody can put there keeps nobody from reading."""
    cli("snapshot", tree)
    (repository / "condemned").mkdir(exist_ok=True)
    (repository / "condemned" / ("0" * 32)).write_bytes(b"x" * 200)
    cli("ls", "latest")
    cli("restore", "latest", place / "target")
    assert (place / "target" / tree.relative_to("/") / "docs" / "a.txt").exists()
    assert "condemned/" in cli("stats", expected=4).err
    assert "condemned/" in cli("snapshot", tree, expected=4).err


def test_latest_is_not_taken_from_before_a_damaged_snapshot(cli, tree, repository, place):
    """Where the latest snapshot may be the damaged one, neither ls nor restore takes an older one for it.

    Only the client that made it knows what its manifest was.
    """
    cli("snapshot", tree)
    [first] = cli("snapshots", "--json").json["snapshots"]
    cli("snapshot", tree)
    [damaged] = {path.name for path in (repository / "pending").iterdir()} - {first["id"]}
    with (repository / "pending" / damaged).open("r+b") as file:
        file.seek(100)
        byte = file.read(1)
        file.seek(100)
        file.write(bytes([byte[0] ^ 1]))
    cli("ls", damaged)
    other = ["--cache-dir", place / "another client's"]
    for name in ("latest", f"latest:{tree}", damaged):
        for words in (["ls", name], ["restore", name, place / "target"]):
            assert f"pending/{damaged}" in cli(*other, *words, expected=4).err
    assert not (place / "target").exists()
    cli(*other, "restore", first["id"], place / "target")


@pytest.mark.parametrize(
    "words", [["--subset", "0%"], ["--subset", "3/2"], ["--subset", "x"], ["--keyless", "--read-data"]]
)
def test_verify_of_nonsense(cli, words):
    """What cannot be understood is wrong usage."""
    cli("verify", *words, expected=2)
