from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from respaldo.core.seams import SystemClock

pytestmark = pytest.mark.usefixtures("repository")


def names(cli, name: str = "latest") -> set[str]:
    """Returns the paths of a snapshot that are no directories, relative to the tree."""
    entries = cli("ls", "-R", name, "--json").json["entries"]
    return {entry["path"].partition("/tree/")[2] for entry in entries if entry["type"] != "directory"}


def test_figures(cli, tree):
    """The JSON of a snapshot says what was there, what was read and what it cost."""
    made = cli("snapshot", tree, "--json").json
    assert made["complete"] is True
    assert made["sources"] == [{"path": str(tree)}]
    figures = made["figures"]
    assert (figures["files"], figures["files_new"], figures["files_unchanged"]) == (4, 4, 0)
    assert figures["others"] == 1
    assert figures["read_bytes"] == figures["bytes"] == 300_000 + 600 + 400 + 5
    assert figures["stored_bytes"] > 300_000
    assert made["failed"] == []


def test_second_snapshot_reads_nothing(cli, tree):
    """What has not changed is not read, and the second snapshot names the first as its parent."""
    old_ns = time.time_ns() - 10**11
    for path in (tree / "docs", tree):
        for file in path.iterdir():
            os.utime(file, ns=(old_ns, old_ns), follow_symlinks=False)
    first = cli("snapshot", tree, "--json").json
    time.sleep(2.1)
    cli("snapshot", tree)
    again = cli("snapshot", tree, "--json").json
    assert again["figures"]["read_bytes"] == 0
    assert again["figures"]["files_unchanged"] == 4
    assert again["parent"] != first["parent"]


def test_text_for_people(cli, tree):
    """Without --json there are a few lines, and with -q none."""
    text = cli("snapshot", tree).out
    assert text.startswith("snapshot ")
    assert "4 new, 0 read again, 0 as before" in text
    assert "iB/s" in text
    assert cli("snapshot", tree, "-q").out == ""


def test_verbose_says_why_a_file_was_read(cli, tree):
    """-v names each file that was read, and the reason."""
    assert f"{tree}/big: new" in cli("snapshot", tree, "-v").err
    (tree / "big").write_bytes(b"other")
    assert f"{tree}/big: " in cli("snapshot", tree, "-v").err


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (["--exclude", "*.log"], {"docs/a.txt", "big", "link"}),
        (["--exclude", "*.log", "--include", "keep.log"], {"docs/a.txt", "docs/keep.log", "big", "link"}),
        (["--include", "keep.log", "--exclude", "*.log"], {"docs/a.txt", "big", "link"}),
        (["--exclude=*.log", "--include=keep.*", "--exclude", "keep.log"], {"docs/a.txt", "big", "link"}),
        (["--exclude", "/docs/"], {"big", "link"}),
        (["--exclude-larger-than", "100KiB"], {"docs/a.txt", "docs/b.log", "docs/keep.log", "link"}),
    ],
)
def test_patterns_count_in_their_order(cli, tree, words, left):
    """The last pattern that matches decides, across --exclude and --include."""
    cli("snapshot", tree, *words)
    assert names(cli) == left


def test_pattern_files_stand_in_the_same_order(cli, tree, place):
    """--exclude-file counts where it stands."""
    (place / "rules").write_text("# logs\n*.log\n\n!keep.log\n")
    cli("snapshot", tree, "--exclude-file", place / "rules")
    assert "docs/keep.log" in names(cli)
    cli("snapshot", "--exclude-file", place / "rules", "--exclude", "keep.*", tree)
    assert "docs/keep.log" not in names(cli)
    cli("snapshot", tree, "--include", "b.log", "--exclude-file", place / "rules")
    assert "docs/b.log" not in names(cli)


def test_exclude_caches(cli, tree):
    """A directory with a CACHEDIR.TAG is recorded without what is in it."""
    (tree / "docs" / "CACHEDIR.TAG").write_bytes(b"Signature: 8a477f597d28d172789f06886806bc55\n")
    cli("snapshot", tree, "--exclude-caches")
    assert names(cli) - {"docs/CACHEDIR.TAG"} == {"big", "link"}


@pytest.mark.parametrize(("option", "end"), [("--files-from", b"\n"), ("--files-from0", b"\0")])
def test_paths_from_a_file(cli, tree, place, option, end):
    """Paths come from a file too, as bytes, relative to the working directory."""
    odd = os.fsencode(tree) + b"/\xff odd"
    with open(odd, "w"):
        pass
    (place / "list").write_bytes(b"tree/docs" + end + odd + end)
    os.chdir(place)
    made = cli("snapshot", option, place / "list", "--json").json
    assert sorted(item["path"] for item in made["sources"]) == sorted([f"{tree}/docs", os.fsdecode(odd)])


def test_list_with_the_wrong_ends_is_wrong_usage(cli, tree, place):
    """A list with NUL between its paths, read as lines, leads to the option that reads it."""
    (place / "list").write_bytes(os.fsencode(tree) + b"\0" + os.fsencode(tree / "docs") + b"\0")
    ran = cli("snapshot", "--files-from", place / "list", expected=2)
    assert "--files-from0" in ran.err


def test_in_a_directory_that_is_gone_only_whole_paths_are_understood(place, tree, spawn, repository):
    """A path from the root needs no current directory; a relative one does, which is said."""
    gone = place / "gone"
    gone.mkdir()
    words = ["sh", "-c", 'rmdir "$PWD" && exec "$@"', "sh", sys.executable, "-m", "respaldo", "snapshot"]
    found = [
        subprocess.run([*words, path], cwd=gone, capture_output=True, text=True, check=False)
        for path in (str(tree), "tree")
        if gone.mkdir(exist_ok=True) is None
    ]
    assert [done.returncode for done in found] == [0, 2], found
    assert "the directory that this runs in is gone" in found[1].stderr


def test_long_list_of_paths_is_cut_in_text(cli, tree, place):
    """Of many paths the text names a few, the JSON all."""
    paths = [tree / "docs" / f"file{number:04}" for number in range(1000)]
    for path in paths:
        path.touch()
    (place / "list").write_text("\n".join(map(str, paths)))
    text = cli("snapshot", "--files-from", place / "list").out
    assert f"{paths[7]}, and 992 more" in text
    assert "and 992 more" in cli("snapshots").out
    assert str(paths[8]) not in text
    assert len(cli("snapshots", "--json").json["snapshots"][0]["sources"]) == 1000


def test_times_before_the_epoch(cli, tree):
    """A fraction of a second counts forward before 1970 too."""
    cli("snapshot", tree, "--time", "1969-12-31T23:59:58.25+00:00")
    (item,) = cli("snapshots", "--json").json["snapshots"]
    assert item["time"] == "1969-12-31T23:59:58.250000+00:00"


def test_paths_from_standard_input(place, tree, spawn):
    """`-` is standard input."""
    process = spawn("snapshot", "--files-from", "-", stdin=subprocess.PIPE)
    out, err = process.communicate(os.fsencode(tree / "docs"))
    assert process.returncode == 0, err
    assert b"3 new" in out


def test_standard_input_is_stored(spawn, cli):
    """--stdin stores what comes in as one file."""
    process = spawn("snapshot", "--stdin", "dumps/shop.sql", "--json", stdin=subprocess.PIPE)
    _, err = process.communicate(b"select 1;" * 10_000)
    assert process.returncode == 0, err
    (entry,) = cli("ls", "latest:/dumps", "--json").json["entries"]
    assert entry["path"] == "/dumps/shop.sql"
    assert entry["size"] == 90_000


def test_command_output_is_stored(cli):
    """--command stores what a command prints, under its own name unless --stdin says another."""
    cli("snapshot", "--command", "printf '%s' 'a b'")
    assert [item["size"] for item in cli("ls", "latest:/printf", "--json").json["entries"]] == [3]
    cli("snapshot", "--command", "echo x", "--stdin", "x")
    assert cli("ls", "latest:/x").out == "/x\n"


@pytest.mark.parametrize("text", ["sh -c 'echo half; exit 3'", "sh -c 'echo half; kill -9 $$'", "/no/such/program"])
def test_failing_command_makes_no_snapshot(cli, text):
    """Half a dump is no backup: status 1, and nothing is there."""
    ran = cli("snapshot", "--command", text, expected=1)
    assert "hint: nothing was backed up" in ran.err
    listed = cli("snapshots", "--json").json
    assert listed["snapshots"] == []


@pytest.mark.parametrize(
    "words",
    [
        [""],
        ["--stdin", "x", "/etc"],
        ["--command", "true", "/etc"],
        ["--command", "'"],
        ["--command", " "],
        ["--stdin", "/"],
        ["--stdin", "x/"],
        ["--as", "/x", "/etc/hosts", "/etc/passwd"],
        ["--as", "x", "/etc/hosts"],
        ["--as", "", "/etc/hosts"],
        ["--label", "latest", "/etc/hosts"],
        ["--label", "a:/b", "/etc/hosts"],
        ["--time", "yesterday", "/etc/hosts"],
        ["--time", "9999-12-31", "/etc/hosts"],
        ["--tag", "x" * 70_000, "/etc/hosts"],
        ["--limit", "fast", "/etc/hosts"],
        ["--exclude-larger-than", "big", "/etc/hosts"],
        ["--exclude-file", "/no/such/file", "/etc/hosts"],
        ["--files-from", "/no/such/file"],
    ],
)
def test_what_makes_no_sense(cli, words):
    """Options that exclude each other or cannot be understood are wrong usage, and nothing is stored."""
    cli("snapshot", *words, expected=2)
    assert cli("snapshots", "--json").json["snapshots"] == []


def test_dry_run_leaves_nothing(cli, tree, repository):
    """A dry run counts and stores nothing, and the next run reads everything."""
    before = sorted(path for path in repository.rglob("*") if path.is_file())
    made = cli("snapshot", tree, "--dry-run", "--json").json
    assert (made["snapshot"], made["dry_run"]) == (None, True)
    assert made["figures"]["files_new"] == 4
    assert sorted(path for path in repository.rglob("*") if path.is_file()) == before
    done = cli("snapshot", tree, "--json").json
    assert (done["figures"]["files_new"], done["dry_run"]) == (4, False)


def test_record_of_a_snapshot(cli, tree):
    """What is said of a snapshot is recorded, at the time that was given."""
    cli(
        *(
            "snapshot",
            tree / "docs",
            "--as",
            "/srv/docs",
            "--label",
            "before",
            "--reason",
            "upgrade",
            "--kind",
            "full",
        ),
        *("--tag", "a", "--tag", "b", "--tag", "a", "--host", "there", "--time", "2026-01-31T12:00:00+01:00"),
    )
    (item,) = cli("snapshots", "--json").json["snapshots"]
    assert item["time"] == "2026-01-31T11:00:00.000000+00:00"
    assert (item["label"], item["reason"], item["kind"], item["host"]) == ("before", "upgrade", "full", "there")
    assert item["tags"] == ["a", "b"]
    assert item["sources"] == [{"path": "/srv/docs"}]
    assert cli("ls", "before:/srv/docs/a.txt").out == "/srv/docs/a.txt\n"


def test_missing_source_is_no_snapshot(cli, tree):
    """A source that is not there fails the whole run: it may be a disk that is not mounted."""
    ran = cli("snapshot", tree, tree / "nowhere", expected=1)
    assert "nothing was backed up" in ran.err
    assert cli("snapshots", "--json").json["snapshots"] == []


@pytest.fixture
def nobody(cli, tree, monkeypatch):
    """Gives a directory that belongs to an ordinary user, and becomes that user as long as a command runs."""
    cli("snapshot", tree)  # imports everything: an ordinary user may not be allowed to
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        place.chmod(0o755)
        for name, path in (("RESPALDO_REPOSITORY", "r"), ("XDG_CACHE_HOME", "c"), ("XDG_STATE_HOME", "s")):
            (place / path).mkdir()
            monkeypatch.setenv(name, str(place / path))
        shutil.copy(os.environ["RESPALDO_KEY_FILE"], place / "key")
        monkeypatch.setenv("RESPALDO_KEY_FILE", str(place / "key"))
        if os.geteuid() == 0:
            for path in (place, *place.rglob("*")):
                os.chown(path, 65534, 65534)
            monkeypatch.setattr("respaldo.cli.run.stopping", as_nobody)
        yield place


@contextlib.contextmanager
def as_nobody(*, for_good):
    """Takes root's rights away while a command runs."""
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_unreadable_file_is_3(cli, tree, nobody):
    """A file that cannot be read is named, everything else is backed up, and the status is 3."""
    shutil.copytree(tree, nobody / "tree", symlinks=True)
    (nobody / "tree" / "docs" / "a.txt").chmod(0)
    cli("init", "-r", nobody / "r")
    ran = cli("snapshot", nobody / "tree", "--json", expected=3)
    assert f"warning: {nobody}/tree/docs/a.txt: " in ran.err
    assert [item["path"] for item in ran.json["failed"]] == [f"{nobody}/tree/docs/a.txt"]
    assert ran.json["complete"] is False
    assert ran.json["figures"]["errors"] == 1
    cli("snapshot", nobody / "tree", "-q", expected=3)


def test_limit_slows_down(cli, tree):
    """--limit keeps what is written to a rate."""
    started_s = time.monotonic()
    cli("snapshot", tree, "--limit", "300KB/s")
    assert time.monotonic() - started_s > 0.8


def test_repository_inside_a_source_is_left_out(cli, place, tree):
    """A repository is not backed up into itself, and whoever wants to look at it says so."""
    odd = place / "tree" / "a [b] * c"
    cli("init", "-r", odd)
    ran = cli("snapshot", place / "tree", "-r", odd)
    assert "note: the repository itself is left out" in ran.err
    entries = cli("ls", "-R", "latest", "-r", odd, "--json").json["entries"]
    assert not [entry["path"] for entry in entries if "a [b]" in entry["path"]]
    assert [entry["path"] for entry in entries if entry["path"].endswith("/big")]
    cli("snapshot", odd, "-r", odd, expected=2)
    assert cli("snapshot", tree).err == ""


def test_cache_is_marked_as_one(cli, place, tree):
    """The cache says that it is one, so that a backup of the home can leave it out."""
    cli("snapshot", tree)
    assert (place / "cache" / "respaldo" / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f0688")


def test_paranoid_snapshot_names_rot_and_exits_with_3(cli, repository, tree, place, monkeypatch):
    """A flipped byte under times that were put back: named, not stored, and what is restored is the old content."""
    monkeypatch.setattr(SystemClock, "now_ns", lambda _: time.time_ns() + 3600 * 10**9)  # what was just written is old
    path = tree / "docs" / "a.txt"
    content = path.read_bytes()
    cli("snapshot", tree)
    status = path.stat()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    cli("snapshot", tree, "--ignore-ctime")
    ran = cli("snapshot", tree, "--ignore-ctime", "--paranoid", "100%", "--json", expected=3)
    assert [item["path"] for item in ran.json["rotten"]] == [str(path)]
    assert ran.json["reread"]["files"] >= 1
    assert f"warning: {path}: its content differs from byte 0 on" in ran.err
    text = cli("snapshot", tree, "--ignore-ctime", "--paranoid", "100%", expected=3).out
    assert ": 1 with other content than stored\n" in text
    cli("restore", f"latest:{path}", place / "back")
    assert (place / "back").read_bytes() == content
    cli("restore", f"latest:{tree}", tree, "--overwrite", "always")
    assert path.read_bytes() == content
    assert "all as stored" in cli("snapshot", tree, "--ignore-ctime", "--paranoid", "100%").out
    cli("snapshot", tree, "--paranoid", "lots", expected=2)
