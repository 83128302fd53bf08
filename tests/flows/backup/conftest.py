"""What the tests of the backup flow share."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.flows.backup.world import Reads, World

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A source with nothing in it, and a new repository."""
    made = World(tmp_path)
    yield made
    made.repo.close()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    """Counts what is read."""
    return Reads(monkeypatch)


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory with a short path, for trees that are deep."""
    path = Path(tempfile.mkdtemp(prefix="r-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)
