from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from respaldo.cli.signals import stopping
from respaldo.core.errors import Interrupted

pytestmark = pytest.mark.usefixtures("repository")


@pytest.fixture
def slow(place, spawn):
    """Starts a snapshot that takes ten seconds, and waits until it is under way."""

    def start(*words: str) -> subprocess.Popen:
        (place / "slow").mkdir()
        for number in range(20):
            (place / "slow" / f"{number}").write_bytes(os.urandom(2 << 20))
        process = spawn("snapshot", place / "slow", "--limit", "4MiB/s", "-v", *words)
        os.set_blocking(process.stderr.fileno(), True)
        line = process.stderr.readline()
        assert b": new" in line, line
        return process

    return start


def test_interrupted_snapshot_is_none(slow, cli):
    """Ctrl-C ends a snapshot with status 130, and there is none; the next command works."""
    process = slow()
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert b"error: interrupted by SIGINT" in err
    assert b"Traceback" not in err
    assert cli("snapshots", "--json").json["snapshots"] == []
    cli("verify")


def test_second_signal_ends_at_once(slow, cli):
    """Whoever asks twice does not wait."""
    process = slow()
    process.send_signal(signal.SIGTERM)
    while b"stopping" not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGTERM)
    started_s = time.monotonic()
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert time.monotonic() - started_s < 5
    assert cli("snapshots", "--json").json["snapshots"] == []


def test_signal_while_waiting_for_a_stream(spawn, cli):
    """A stream that says nothing for long does not keep a run from stopping."""
    process = spawn("snapshot", "--command", "sh -c 'echo x; echo running >&2; exec sleep 60'", "--stdin", "x")
    while b"running" not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=20)
    assert process.returncode == 130
    assert cli("snapshots", "--json").json["snapshots"] == []


def test_signal_outside_a_run(spawn, place, monkeypatch):
    """A signal while a passphrase command runs ends the command with 130 too."""
    monkeypatch.delenv("RESPALDO_KEY_FILE")
    monkeypatch.setenv("RESPALDO_PASSWORD_COMMAND", "sh -c 'echo running >&2; exec sleep 60'")
    process = spawn("snapshots")
    while b"running" not in process.stderr.readline():
        pass
    time.sleep(0.3)  # the parent may still be starting it
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 130


def test_interrupted_while_it_starts():
    """Ctrl-C before a command has been loaded ends it without a trace."""
    program = """
import builtins, os, signal, sys
from respaldo.cli.main import main

signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may have it ignored
loading = builtins.__import__

def interrupted(name, *rest):
    if name == "respaldo.cli.run":
        os.kill(os.getpid(), signal.SIGINT)
    return loading(name, *rest)

builtins.__import__ = interrupted
sys.argv = ["respaldo", "snapshots"]
sys.exit(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, b"", b"")


class _Asked:
    """Is asked to end just as it goes, where whatever is raised is swallowed."""

    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)  # the handler raises here


def test_a_signal_that_is_swallowed_is_heeded_all_the_same(capfdbinary):
    """A command does not go on because a signal came where nothing can be raised; and no trace is printed."""
    before = signal.getsignal(signal.SIGALRM)

    def go_on():
        asked = _Asked()
        del asked
        for _ in range(100):
            time.sleep(0.1)

    with pytest.raises(Interrupted, match="SIGTERM"), stopping(for_good=False):
        go_on()
    assert signal.getsignal(signal.SIGALRM) == before
    assert b"Traceback" not in capfdbinary.readouterr().err
