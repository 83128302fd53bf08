"""Writers that are killed, and writers that work at once, as processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent.parent


def thrash(*arguments: object) -> dict:
    """Runs the program; returns what it found, and fails with what it said."""
    words = [sys.executable, "-m", "tests.protocol.thrash", *map(str, arguments)]
    done = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=290)
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads(done.stdout)


def test_killed_writers_lose_nothing(quick):
    """A writer is killed 200 times; whatever it had reported is there and whole, and so is all else that is there."""
    found = thrash("kill", quick / "killed", 200, 1)
    assert found["kills"] == 200
    assert found["reported"] > 60
    assert found["snapshots"] >= found["reported"]
    assert len(found["moments"]) > 2, "the kills did not hit different moments"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 7))
def test_killed_writers_lose_nothing_on_a_real_disk(tmp_path, seed):
    """The same on a disk, with other moments."""
    assert thrash("kill", tmp_path, 200, seed)["reported"] > 40


@pytest.mark.parametrize("sources", ["same", "different"])
@pytest.mark.parametrize("caches", ["same", "different"])
@pytest.mark.parametrize("writers", [2, 3])
def test_writers_at_once_all_succeed(quick, writers, caches, sources):
    """Any number of snapshots may be made at once, with one cache or several: all of them succeed and are whole."""
    found = thrash("race", quick / f"{writers}-{caches}-{sources}", writers, 5, caches, sources)
    assert found["snapshots"] == writers * 5


def test_killed_collectors_lose_nothing(quick):
    """Writers, a forgetter and two collectors work at once and are killed 60 times and more: what is there is whole."""
    found = thrash("collect", quick / "collected", 60, 1)
    assert found["kills"] >= 60
    assert min(found["reported"], found["forgotten"], found["collections"], found["deleted"], found["new"]) > 3, found


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 7))
def test_killed_collectors_lose_nothing_for_longer(quick, seed):
    """The same with other moments, and more of them."""
    thrash("collect", quick / f"collected{seed}", 300, seed)
