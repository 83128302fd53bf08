"""What the tests of rewriting begin with."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from tests.flows.rewrite.world import World


@pytest.fixture(scope="session")
def quick(tmp_path_factory):
    """A directory in memory where there is one."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path_factory.mktemp("quick")
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="respaldo-test-") as folder:
        yield Path(folder)


@pytest.fixture
def world(quick):
    """A source with nothing in it, and a new repository."""
    with tempfile.TemporaryDirectory(dir=quick) as folder:
        made = World(Path(folder))
        yield made
        made.repo.close()


@pytest.fixture
def _short_runs(monkeypatch):
    """Directories are split into runs of a few entries."""
    for name, value in (
        ("RUN_ENTRIES_SPLIT", 6),
        ("RUN_ENTRIES_MIN", 2),
        ("RUN_ENTRIES_MAX", 5),
        ("_RUN_MASK", 3),
    ):
        monkeypatch.setattr(f"respaldo.catalog.runs.{name}", value)
