"""A repository that an earlier build wrote reads as it did."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from respaldo.api import Places, RestoreOptions, Secret, VerifyOptions, open_repository, verify_keyless
from respaldo.core.seams import Cancel, Silent
from tests.golden.repository import ARCHIVES, CONTENTS, PASSPHRASE, describe

SECRET = Secret(passphrase=PASSPHRASE.encode())
READER = Path(__file__).parents[1] / "second_reader" / "reader.py"


@pytest.fixture(params=ARCHIVES)
def repository(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Unpacks the golden repository of each suite."""
    with tarfile.open(ARCHIVES[request.param]) as archive:
        archive.extractall(tmp_path)  # noqa: S202 - our own; Python 3.11.2 knows no filters
    return tmp_path / "repository"


def test_golden_repository_restores_what_was_in_it(repository: Path, tmp_path: Path) -> None:
    """Every file, link, hole and time comes back as it was when the repository was written."""
    places = Places(cache_dir=tmp_path / "cache", state_dir=tmp_path / "state")
    with open_repository(str(repository), SECRET, places=places) as opened:
        found = opened.find("latest:/golden")
        options = RestoreOptions(owners=False)
        opened.restore(found, os.fsencode(tmp_path / "target"), options, progress=Silent(), cancel=Cancel())
        checked = opened.verify(VerifyOptions(read_data=True), progress=Silent(), cancel=Cancel())
    assert describe(tmp_path / "target") == json.loads(CONTENTS.read_text())
    assert (tmp_path / "target" / "text").stat().st_ino == (tmp_path / "target" / "directory" / "twin").stat().st_ino
    assert not checked.damages
    assert not verify_keyless(str(repository), progress=Silent(), cancel=Cancel()).damages


def test_golden_repository_is_read_by_the_second_reader(repository: Path, tmp_path: Path) -> None:
    """The reader that shares no code with the product finds the same."""
    target = tmp_path / "second"
    subprocess.run(
        [sys.executable, str(READER), str(repository), "", str(target)],
        check=True,
        env={**os.environ, "RESPALDO_PASSWORD": PASSPHRASE},
        capture_output=True,
    )
    assert describe(target / "golden") == json.loads(CONTENTS.read_text())
