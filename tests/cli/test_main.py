from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from respaldo import __version__
from respaldo.cli.run import COMMANDS

HEAVY = ("blake3", "click", "cryptography", "lmdb", "msgpack", "nacl", "platformdirs", "rich", "zstandard")


def loaded_by(*words: str) -> set[str]:
    """Returns which heavy modules a command line loads."""
    code = (
        "import sys; from respaldo.cli.main import main\n"
        f"main({list(words)!r}); sys.stderr.write(' '.join(set(sys.modules) & set({HEAVY!r})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def test_version_is_printed(cli):
    """`--version` says which one it is."""
    assert cli("--version").out == f"respaldo {__version__}\n"
    assert cli("-V").out == f"respaldo {__version__}\n"


def test_version_loads_nothing_heavy():
    """`--version` costs the start of Python and no more."""
    assert loaded_by("--version") == set()


def test_help_loads_nothing_but_click():
    """The list of commands is printed without loading one."""
    assert loaded_by("--help") == {"click"}


def test_help_lists_every_command(cli):
    """The first page names every command."""
    text = cli("--help").out
    assert all(f"  {name} " in text for name in COMMANDS)


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in {"key", "log", "parity"}])
def test_page_has_examples_statuses_and_common_options(cli, name):
    """Every command has a page with three to five examples, the exit statuses and the common options."""
    text = cli(name, "--help").out
    examples = text.partition("Examples:")[2]
    assert 3 <= sum("respaldo " in line for line in examples.splitlines()) <= 6
    assert "Exit status:" in text
    assert "--password-file" in text
    assert all(len(line) <= 100 for line in text.splitlines() if "respaldo " not in line)


@pytest.mark.parametrize(
    ("group", "name"),
    [
        *(("key", name) for name in ("list", "add", "remove", "passwd")),
        *(("log", name) for name in ("show", "head", "check")),
        *(("parity", name) for name in ("on", "off", "status", "mend")),
    ],
)
def test_pages_of_subcommands(cli, group, name):
    """The subcommands of groups have pages as well."""
    assert "Examples:" in cli(group, name, "--help").out


@pytest.mark.parametrize(
    "words", [(), ("nonsense",), ("snapshot",), ("ls",), ("snapshots", "--last", "0"), ("snapshots", "--nonsense")]
)
def test_wrong_usage_is_2(cli, words):
    """What makes no sense ends with status 2 and nothing on standard output."""
    ran = cli(*words, expected=2)
    assert ran.err
    assert not ran.out


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("snapshto", "snapshot"),
        ("backup", "snapshot"),
        ("help", "--help"),
        ("umount", "umount DIR"),
        ("xyzzy", "--help"),
    ],
)
def test_command_that_there_is_not_leads_to_the_one_that_was_meant(cli, name, meant):
    """Whoever mistypes a name, or knows it from another program, is told the right one."""
    assert meant in cli(name, expected=2).err


def test_second_init_is_said_in_words(cli, place):
    """And what is there stays as it is."""
    cli("init")
    ran = cli("init", expected=1)
    assert ran.err.startswith("error: there is a repository already\n")
    assert "hint: " in ran.err


def test_no_repository_is_10(cli):
    """A place without a repository ends with status 10 and a hint."""
    ran = cli("snapshots", expected=10)
    assert ran.err.startswith("error: no repository at ")
    assert "whether its disk is mounted" in ran.err


def test_no_repository_named_is_2(cli, monkeypatch):
    """Without -r and RESPALDO_REPOSITORY there is nothing to work on."""
    monkeypatch.delenv("RESPALDO_REPOSITORY")
    assert "RESPALDO_REPOSITORY" in cli("snapshots", expected=2).err


def test_error_as_json(cli):
    """With --json an error is an object on standard error, and standard output is empty."""
    ran = cli("snapshots", "--json", expected=10)
    assert not ran.out
    error = json.loads(ran.err)["error"]
    assert error["kind"] == "NotARepository"
    assert error["exit_status"] == 10
    assert error["message"]
    assert error["hint"]


def test_usage_error_as_json(cli):
    """Wrong usage is such an object too."""
    assert json.loads(cli("snapshots", "--json", "--nonsense", expected=2).err)["error"]["exit_status"] == 2


@pytest.mark.usefixtures("repository")
def test_options_stand_before_or_after_the_command(cli, place, monkeypatch):
    """The common options may stand on both sides, and the later one counts."""
    monkeypatch.delenv("RESPALDO_REPOSITORY")
    where = place / "repository"
    assert cli("-r", where, "snapshots", "--json").json["snapshots"] == []
    assert cli("--json", "snapshots", "-r", where).json["snapshots"] == []
    assert cli("-r", "/nowhere", "snapshots", "--repo", where, "--json").json["snapshots"] == []
    assert len(cli("-r", where, "key", "--json", "list").json["keys"]) == 1


def test_error_shows_no_escape_sequences(cli):
    """A location with control characters in it cannot write to the terminal."""
    ran = cli("snapshots", "-r", "/nowhere/\x1b[31mred", expected=10)
    assert "\x1b" not in ran.err
    assert "\\x1b[31mred" in ran.err


@pytest.mark.usefixtures("repository", "tree")
def test_reader_that_goes_away_is_no_error(cli, spawn, place):
    """`respaldo ls | head` ends quietly."""
    for number in range(3000):
        (place / "tree" / f"a name that takes room in the pipe {number:08}").touch()
    cli("snapshot", place / "tree")
    process = spawn("ls", "-R", "latest")
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 1


@pytest.mark.usefixtures("repository")
@pytest.mark.parametrize("words", [["--version"], ["snapshots"], ["snapshots", "--json"]])
def test_output_that_cannot_be_written_is_an_error(place, words):
    """A full disk under standard output is no success, and no trace."""
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "respaldo.cli.main", *words], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 1
    assert b"No space left" in done.stderr
    assert b"Traceback" not in done.stderr


def test_unexpected_error_is_told_without_a_trace(cli, monkeypatch):
    """What should not happen is two lines; the trace comes with RESPALDO_DEBUG=1."""
    from respaldo.cli.settings import Settings

    def broken(self):
        raise RuntimeError("boom")

    monkeypatch.setattr(Settings, "location", broken)
    ran = cli("snapshots", expected=1)
    assert "RuntimeError: boom" in ran.err
    assert "Traceback" not in ran.err
    monkeypatch.setenv("RESPALDO_DEBUG", "1")
    with pytest.raises(RuntimeError):
        cli("snapshots")


@pytest.mark.usefixtures("repository")
def test_missing_kernel_is_said_once(cli, monkeypatch):
    """Without the C kernel there is one warning on standard error."""
    from respaldo import api

    monkeypatch.setattr(api, "KERNEL", api.KernelState(native=False, reason="not built"))
    assert cli("snapshots").err.count("warning: ") == 1


@pytest.mark.usefixtures("repository")
def test_unusable_cache_directory(cli, place, monkeypatch):
    """Where no cache can be kept, a listing works without one; a directory that was asked for is an error."""
    blocked = place / "blocked"
    blocked.write_text("a file where a directory should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    assert "warning: " in cli("snapshots").err
    cli("snapshots", "--cache-dir", blocked / "x", expected=2)


def test_warnings_of_python_reach_nobody():
    """They are for whoever writes the program, who asks for them with PYTHONWARNINGS."""
    program = (
        "import warnings; from respaldo.cli import main, run;"
        "run.run = lambda *_, **__: warnings.warn('odd', FutureWarning) or 0; main.main()"
    )
    for asked in ("", "default"):
        environment = os.environ | {"PYTHONWARNINGS": asked}
        ran = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
        assert ("odd" in ran.stderr) == bool(asked)


def test_module_ends_with_the_status_of_the_command(place):
    """`python -m respaldo` tells a script of failure as the command does."""
    words = [sys.executable, "-m", "respaldo", "snapshots", "-r", place / "nowhere"]
    assert subprocess.run(words, capture_output=True, check=False).returncode == 10
