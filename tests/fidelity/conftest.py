from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.backend.places import anybodys_directory
from tests.fidelity.disks import KINDS, mounted, reachable
from tests.fidelity.product import Product
from tests.fidelity.trees import thaw


@pytest.fixture
def product(tmp_path):
    """Has an empty repository and what runs commands on it."""
    return Product(tmp_path / "product")


@pytest.fixture
def room(tmp_path):
    """Names a directory for trees; takes the flags off in the end that would keep them from being removed."""
    place = tmp_path / "room"
    place.mkdir()
    yield place
    thaw(place)
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def memory():
    """Names a directory in memory, where there is such a place, for what is many."""
    shared = "/dev/shm"
    place = Path(tempfile.mkdtemp(prefix="respaldo-test-", dir=shared if os.access(shared, os.W_OK) else None))
    yield place
    # No call of Python's removes a tree of any depth.
    subprocess.run(["rm", "-rf", "--", str(place)], check=True)


@pytest.fixture(scope="module", params=KINDS)
def any_disk(request):
    """Mounts each kind of file system once a module."""
    with reachable() as place, mounted(request.param, place) as where:
        yield where
        thaw(where)


@pytest.fixture(scope="module")
def ext4():
    """Mounts an ext4 once a module: of those that are everywhere, it has most kinds of attributes."""
    with reachable() as place, mounted("ext4", place) as where:
        yield where
        thaw(where)


@pytest.fixture
def anybodys():
    """Names a directory of the ordinary user."""
    with anybodys_directory() as path:
        yield path
