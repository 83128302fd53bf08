"""Every hostile repository meets every command: no trace, no hang, no way out, and the exit status that is true."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.hostile.every import SCENARIOS
from tests.hostile.forge import DIRECTORY, FILE, Forger
from tests.hostile.ground import COMMANDS, KEPT, Ground, listing
from tests.hostile.mounting import wrong
from tests.hostile.runner import Runner

ENDLESS_S = 0.3


@pytest.fixture(scope="module")
def runner():
    with Runner() as running:
        yield running


@pytest.fixture
def memory():
    """Names a directory in memory, where there is such a place."""
    shared = "/dev/shm"
    place = Path(tempfile.mkdtemp(prefix="respaldo-test-", dir=shared if os.access(shared, os.W_OK) else None))
    yield place
    # No call of Python's removes a tree of any depth.
    subprocess.run(["rm", "-rf", "--", str(place)], check=True)


def lay(scenario, place, runner):
    """Makes the repository of a scenario, in which there is an honest snapshot, too; and the room for what comes."""
    with Forger(place / "product") as forger:
        folder = forger.tree((b"kept", FILE, KEPT["folder/kept"]))
        forger.commit(forger.tree((b"folder", DIRECTORY, folder), (b"kept", FILE, KEPT["kept"])), label="good")
        scenario.make(forger)
    ground = Ground(place, runner)
    ground.prepare(scenario.spoil)
    return ground


@pytest.mark.slow
@pytest.mark.timeout(900)  # thirty commands, each of which has its own limit
@pytest.mark.parametrize("name", SCENARIOS)
def test_every_command_on(name, memory, runner):
    """What is asserted of all of them stands in `Ground`; what of this one, in its scenario."""
    scenario = SCENARIOS[name]
    ground = lay(scenario, memory, runner)
    found = {}
    for command in COMMANDS:
        ended = ground.do(command, timeout_s=ENDLESS_S if command in scenario.endless else 20)
        found[command] = ended.status
        assert ended.peak_mib <= scenario.peak_mib, (command, ended.peak_mib)
        assert ended.interrupted == (command in scenario.endless), (command, ended.err)
        if command in scenario.says:
            printed = ended.out.decode("utf-8", "replace") + ended.err
            assert re.search(scenario.says[command], printed), printed
        if command == "mount":
            assert wrong(scenario, ended) == {}
    for command, words in scenario.more.items():
        found[command] = ground.words(command, words).status
    wanted = dict.fromkeys(found, 0) | dict(scenario.statuses) | dict.fromkeys(scenario.endless, 130)
    other = {command: (found[command], wanted[command]) for command in found if found[command] != wanted[command]}
    assert not other, {command: (*both, ground.results[command].err[-300:]) for command, both in other.items()}
    if scenario.there is not None:
        assert listing(ground.room / "target") == scenario.there
    if scenario.look is not None:
        scenario.look(ground)
    ground.look_at_repository()
