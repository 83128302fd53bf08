from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from respaldo.cli.main import main


@dataclass
class Ran:
    """Is what a command did; ``raw``: what it printed, byte by byte."""

    status: int
    raw: bytes
    err: str

    @property
    def out(self) -> str:
        return self.raw.decode("utf-8", "replace")

    @property
    def json(self):
        return json.loads(self.out)


Cli = Callable[..., Ran]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Names a repository that opens with a key file (which costs no Argon2id), in the environment as users do."""
    key = tmp_path / "key"
    key.write_bytes(bytes(range(32)))
    monkeypatch.setenv("RESPALDO_REPOSITORY", str(tmp_path / "repository"))
    monkeypatch.setenv("RESPALDO_KEY_FILE", str(key))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path


@pytest.fixture
def cli(place, capfdbinary):
    """Runs a command through the real entry point, in this process."""

    def run(*words: str | Path, expected: int | None = 0) -> Ran:
        capfdbinary.readouterr()
        status = main([os.fspath(word) for word in words])
        out, err = capfdbinary.readouterr()
        ran = Ran(status, out, err.decode("utf-8", "replace"))
        if expected is not None:
            assert status == expected, f"{words}: {ran.out}\n{ran.err}"
        return ran

    return run


@pytest.fixture
def repository(cli, place):
    """Has an empty repository made."""
    cli("init")
    return place / "repository"


@pytest.fixture
def tree(place):
    """Has a small tree of files made."""
    top = place / "tree"
    (top / "docs").mkdir(parents=True)
    (top / "docs" / "a.txt").write_text("alpha\n" * 100)
    (top / "docs" / "b.log").write_text("log\n" * 100)
    (top / "docs" / "keep.log").write_text("keep\n")
    (top / "big").write_bytes(os.urandom(300_000))
    (top / "link").symlink_to("docs/a.txt")
    return top


@pytest.fixture
def spawn(place):
    """Starts a command as a process of its own."""
    started = []

    def start(*words: str | Path, **more) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-m", "respaldo.cli.main", *map(os.fspath, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **more,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
