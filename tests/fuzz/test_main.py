"""What runs the fuzzers says what came of each, and fails where anything was found."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

run = importlib.import_module("tests.fuzz.__main__")


def test_each_target_has_its_row():
    """A run shows inputs, branches and findings of every target that was asked for."""
    command = [sys.executable, "-m", "tests.fuzz", "--all", "0.4", "--jobs", "1", "--only", "marker", "--only", "pin"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    head, marker, pin, last = done.stdout.splitlines()
    assert head.split() == ["TARGET", "INPUTS", "PER", "SECOND", "BRANCHES", "CORPUS", "FINDINGS"]
    assert [marker.split()[0], pin.split()[0]] == ["marker", "pin"]
    assert marker.split()[-1] == pin.split()[-1] == "0"
    assert int(marker.split()[1].replace(",", "")) > 10
    assert last.endswith(" inputs, 0 findings")


@pytest.fixture
def asked(monkeypatch):
    """Asks for two targets."""
    monkeypatch.setattr(run, "names", lambda: ["marker", "pin"])
    monkeypatch.setattr(sys, "argv", ["fuzz", "--all", "1", "--jobs", "1", "--only", "marker", "--only", "pin"])


def test_findings_fail_the_run(asked, monkeypatch, capsys):
    """One finding in one target is enough."""
    rows = [
        {"name": "marker", "executions": 5, "seconds": 1.0, "findings": {}},
        {"name": "pin", "executions": 5, "seconds": 1.0, "findings": {"KeyError at x.py:1": "pin-00"}},
    ]
    monkeypatch.setattr(run, "run_targets", lambda *_: rows)
    assert run.main() == 1
    assert "KeyError at x.py:1" in capsys.readouterr().out


def test_process_that_dies_is_a_finding(asked, monkeypatch, capsys):
    """What ends the process, as a fault in C does, is found in the target that was at work."""
    died = subprocess.CompletedProcess([], -11, stdout='{"name": "marker", "executions": 1, "findings": {}}\n')
    monkeypatch.setattr(run.subprocess, "run", lambda *_, **__: died)
    assert run.main() == 1
    assert "ended with status -11" in capsys.readouterr().out.splitlines()[2]


def test_target_that_is_none_is_wrong_usage(asked, monkeypatch):
    """A name that is mistyped fuzzes nothing."""
    monkeypatch.setattr(sys, "argv", ["fuzz", "--all", "1", "--only", "makrer"])
    with pytest.raises(SystemExit) as caught:
        run.main()
    assert caught.value.code == 2
