"""What the tests of the protocol begin with."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from tests.protocol.play import Theatre
from tests.protocol.scene import inline_workers, set_stage
from tests.protocol.scripted import Play


def pytest_collection_modifyitems(config, items):
    """Leaves the long forms to those who ask for them, with `--hypothesis-profile long`."""
    if config.getoption("--hypothesis-profile", None) != "long":
        for item in items:
            if "tests/protocol/" in item.path.as_posix() and item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="long form, for --hypothesis-profile long"))


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """A directory in memory where there is one: caches are synced, and these tests open thousands."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path_factory.mktemp("quick")
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="respaldo-test-") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def stage(quick):
    """A repository with one snapshot and a source that has changed since. Nobody may write to it: it is copied."""
    with pytest.MonkeyPatch.context() as patch:
        inline_workers(patch)
        return set_stage(quick / "stage")


@pytest.fixture
def _inline(monkeypatch):
    """The sink seals and puts in its caller's thread, so that the k-th call is the same one every time."""
    inline_workers(monkeypatch)


@pytest.fixture
def _saves_always(monkeypatch):
    """A run makes durable what it has after every directory, as if each had taken half a minute."""
    monkeypatch.setattr("respaldo.catalog.session.CHECKPOINT_NS", 0)


@pytest.fixture(scope="module")
def theatre(quick):
    """What plays begin with."""
    with pytest.MonkeyPatch.context() as patch:
        inline_workers(patch)
        return Theatre(quick / "theatre")


@pytest.fixture
def play(theatre, monkeypatch):
    """A play after a script."""
    return Play(theatre, monkeypatch)
