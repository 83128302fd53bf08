from __future__ import annotations

import os
import pty
import subprocess
import sys
import time

import pytest

SOURCES = ("RESPALDO_KEY_FILE", "RESPALDO_PASSWORD_FILE", "RESPALDO_PASSWORD_COMMAND", "RESPALDO_PASSWORD")


@pytest.fixture
def bare(place, monkeypatch):
    """Has no secret in the environment."""
    for name in SOURCES:
        monkeypatch.delenv(name, raising=False)
    return place


@pytest.fixture
def locked(bare, cli, monkeypatch):
    """Has a repository that opens with "sésame" (with blanks around it)."""
    (bare / "passphrase").write_bytes(" sésame \r\n".encode())
    cli("init", "--password-file", bare / "passphrase")
    return bare


def test_password_file(locked, cli):
    """All of the file but one line end is the passphrase."""
    cli("snapshots", "--password-file", locked / "passphrase")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RESPALDO_PASSWORD_FILE", "{place}/passphrase"),
        ("RESPALDO_PASSWORD_COMMAND", "sed 's/sésame/sésame/' '{place}/passphrase'"),
        ("RESPALDO_PASSWORD", " sésame "),
    ],
)
def test_environment(locked, cli, monkeypatch, name, value):
    """Each variable is a source."""
    monkeypatch.setenv(name, value.format(place=locked))
    cli("snapshots")


def test_wrong_passphrase_is_12(locked, cli, monkeypatch):
    """A passphrase that opens no slot ends with status 12."""
    monkeypatch.setenv("RESPALDO_PASSWORD", "sesame")
    ran = cli("snapshots", expected=12)
    assert "wrong passphrase" in ran.err


def test_option_goes_before_the_environment(locked, cli, monkeypatch):
    """What stands on the command line wins over what is in the environment."""
    monkeypatch.setenv("RESPALDO_PASSWORD", "wrong")
    cli("snapshots", "--password-file", locked / "passphrase")
    cli("snapshots", expected=12)


def test_failing_command_is_no_passphrase(locked, cli, monkeypatch):
    """A command that fails is an error, whatever it printed."""
    monkeypatch.setenv("RESPALDO_PASSWORD_COMMAND", f"sh -c 'cat {locked}/passphrase; exit 3'")
    assert "status 3" in cli("snapshots", expected=2).err


def test_two_secrets_are_wrong_usage(locked, cli):
    """A passphrase and a key exclude each other on the command line."""
    cli("snapshots", "--password-file", "a", "--key-file", "b", expected=2)


def test_empty_passphrase_is_refused(bare, cli, monkeypatch):
    """Nobody locks a repository with nothing by mistake."""
    monkeypatch.setenv("RESPALDO_PASSWORD", "")
    assert "empty" in cli("init", expected=2).err
    assert not (bare / "repository" / "header").exists()


def test_without_terminal_nothing_is_asked(bare):
    """Where nobody can answer, the error names the other ways."""
    done = subprocess.run(
        [sys.executable, "-m", "respaldo.cli.main", "init"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "RESPALDO_PASSWORD_FILE" in done.stderr


def talk(words: list[str], answers: list[bytes]) -> tuple[int, bytes]:
    """Runs a command on a terminal of its own and answers what it asks; returns the status and what was shown."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-m", "respaldo.cli.main", *words])  # noqa: S606 - the child
    shown = b""
    for answer in answers:
        while not shown.rstrip().endswith(b":"):
            shown += os.read(terminal, 1000)
        time.sleep(0.05)
        os.write(terminal, answer + b"\n")
        shown += b"|"
    while True:
        try:
            more = os.read(terminal, 1000)
        except OSError:
            break
        if not more:
            break
        shown += more
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown


def test_passphrase_is_asked_twice_and_not_echoed(bare):
    """A new passphrase is typed twice, unseen; then once."""
    status, shown = talk(["init"], [b"sesame", b"sesame"])
    assert status == 0, shown
    assert b"sesame" not in shown
    status, shown = talk(["snapshots"], [b"sesame"])
    assert status == 0
    assert b"no snapshots" in shown
    assert talk(["snapshots"], [b"shut"])[0] == 12


def test_two_different_passphrases_make_no_repository(bare):
    """A typing error locks nobody out."""
    status, shown = talk(["init"], [b"open", b"opne"])
    assert status == 2
    assert b"differ" in shown
    assert not (bare / "repository" / "header").exists()


@pytest.mark.parametrize("content", [bytes(range(32)), bytes(range(32)).hex().encode() + b"\n"])
def test_key_file_raw_or_hex(bare, cli, content):
    """A key file holds 32 bytes or their digits; both mean the same."""
    (bare / "raw").write_bytes(bytes(range(32)))
    (bare / "given").write_bytes(content)
    cli("init", "--key-file", bare / "raw")
    cli("snapshots", "--key-file", bare / "given")


@pytest.mark.parametrize("content", [b"", b"\0" * 31, b"zz" * 32, b"00" * 33])
def test_key_file_of_the_wrong_kind(bare, cli, content):
    """Anything else is no key file."""
    (bare / "given").write_bytes(content)
    assert "no key file" in cli("init", "--key-file", bare / "given", expected=2).err
