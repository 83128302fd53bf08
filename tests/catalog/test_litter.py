"""What killed runs left is cleared away by later ones, and nothing that anybody is at."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from respaldo.backend.local import LocalBackend
from respaldo.core.errors import StorageFailed
from respaldo.core.seams import Cancel, Silent
from respaldo.flows.check.options import VerifyOptions
from respaldo.flows.check.run import run_verify
from respaldo.format.snapshot import Marker
from tests.flows.backup.world import World

DAY_S = 24 * 3600


@pytest.fixture
def local(tmp_path: Path) -> World:
    """A world whose repository lies on a disk, and whose client's clock is right."""
    world = World(tmp_path, backend=LocalBackend(tmp_path / "repository", create=True))
    world.clock.shift_ns = 0
    (world.source / "f").write_bytes(b"1")
    return world


def temporary(world: World, folder: str, age_s: float) -> Path:
    path = world.path / "repository" / folder / f".tmp-{age_s}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * 1000)
    os.utime(path, (time.time() - age_s, time.time() - age_s))
    return path


def marker(world: World, age_s: float, session: int, *, arrived_s: float | None = None) -> str:
    """Puts a marker of an age, by its own time and, unless told otherwise, by the storage's."""
    repo = world.repo
    name = f"sessions/{bytes([session] * 16).hex()}.0"
    record = Marker(session=bytes([session] * 16), time_ns=time.time_ns() - int(age_s * 1e9)).encode()
    repo.backend.put(name, [repo.vault.seal_record("marker", name, record)])
    arrived_s = time.time() - (age_s if arrived_s is None else arrived_s)
    os.utime(world.path / "repository" / name, (arrived_s, arrived_s))
    return name


def markers(world: World) -> list[str]:
    return sorted(name for name, _ in world.repo.backend.list("sessions"))


def test_what_is_older_than_a_day_goes(local: World):
    """Temporaries in every folder, and markers of dead sessions; what is younger stays."""
    old = [temporary(local, folder, DAY_S + 60) for folder in ("packs", "packs/ab", "sessions", "pending", "")]
    young = [temporary(local, folder, DAY_S - 600) for folder in ("packs/ab", "segments")]
    marker(local, DAY_S + 60, 1)
    alive = [marker(local, DAY_S - 600, 2), marker(local, 400 * DAY_S, 3, arrived_s=600)]
    local.backup()
    assert [path.exists() for path in old] == [False] * 5
    assert [path.exists() for path in young] == [True] * 2
    assert markers(local) == alive


def test_a_client_clears_away_once_a_day(local: World):
    """The next run leaves it, one of another day does not."""
    local.backup()
    left = temporary(local, "packs", 2 * DAY_S)
    local.reopen()
    local.backup()
    assert left.exists()
    local.clock.shift_ns = (DAY_S + 600) * 10**9
    local.backup()
    assert not left.exists()


@pytest.mark.parametrize("days", [-400, -1, 2, 400])
def test_wrong_clock_of_a_client_takes_nothing_from_others(local: World, days: int):
    """The storage's own clock says how old a temporary is; where it disagrees, markers are nobody's to judge."""
    local.clock.shift_ns = days * DAY_S * 10**9
    young, old = temporary(local, "packs", 600), temporary(local, "packs", 2 * DAY_S)
    alive = marker(local, 600, 3)
    local.backup()
    assert (young.exists(), old.exists()) == (True, False)
    assert markers(local) == [alive]


def test_storage_that_will_not_clear_away_costs_no_backup(local: World, monkeypatch):
    """It is a courtesy to whoever pays for the disk."""

    def sweep(_before_ns: int) -> int:
        raise StorageFailed("packs", "no")

    monkeypatch.setattr(local.backend, "sweep_litter", sweep)
    assert local.backup().complete


def test_verify_says_how_much_there_is(local: World):
    """A note, no damage: it may be of a run that is at work."""
    local.backup()
    options = VerifyOptions()
    assert run_verify(local.repo, options, progress=Silent(), cancel=Cancel()).notes == ()
    temporary(local, "packs", 2 * DAY_S)
    temporary(local, "pending", 1)
    result = run_verify(local.repo, options, progress=Silent(), cancel=Cancel())
    assert result.damages == ()
    assert [note.text[:14] for note in result.notes] == ["2 (2000 bytes)"]
