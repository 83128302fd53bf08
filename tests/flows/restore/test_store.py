"""Restores from a real repository: backed up, damaged, restored."""

from __future__ import annotations

import os

import pytest

from respaldo.api.making import init
from respaldo.api.opening import open_repository
from respaldo.api.places import Places
from respaldo.codec.slots import Secret
from respaldo.core.seams import Cancel, Silent
from respaldo.flows.backup.options import BackupOptions
from respaldo.flows.restore.options import RestoreOptions
from tests.flows.restore.test_whole import fill, fill_as_root, melt
from tests.flows.restore.world import TIME, picture

SECRET = Secret(key=bytes(32))


@pytest.fixture
def places(tmp_path):
    return Places(cache_dir=tmp_path / "cache", state_dir=tmp_path / "state")


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    fill(folder)
    if os.geteuid() == 0:
        fill_as_root(folder)
    (folder / "sparse").write_bytes(b"x")
    os.truncate(folder / "sparse", 40 << 20)
    os.utime(folder, ns=(TIME, TIME))
    yield folder
    melt(folder, tmp_path / "target")


@pytest.fixture
def repository(tmp_path, places, source):
    location = str(tmp_path / "repository")
    init(location, SECRET, places=places)
    with open_repository(location, SECRET, places=places, writes=True) as opened:
        opened.backup([os.fsencode(source)], BackupOptions(host="host"), progress=Silent(), cancel=Cancel())
    return location


def restore(location, places, source, target, options=None):
    with open_repository(location, SECRET, places=places) as opened:
        found = opened.find(f"latest:{source}")
        return opened.restore(
            found, os.fsencode(target), options or RestoreOptions(), progress=Silent(), cancel=Cancel()
        )


def test_a_repository_gives_back_what_it_was_given(repository, places, source, tmp_path):
    """Everything, exactly; a second run finds nothing to do."""
    target = tmp_path / "target"
    result = restore(repository, places, source, target, RestoreOptions(verify=True))
    assert (result.failures, result.missed, result.exit_status) == ((), (), 0)
    assert picture(target) == picture(source)
    assert (target / "sparse").stat().st_blocks * 512 < 1 << 20
    again = restore(repository, places, source, target)
    assert (again.written_bytes, again.attributes, again.failed) == (0, 0, 0)


def test_a_damaged_pack_costs_what_lies_in_it(repository, places, source, tmp_path):
    """The run goes on, names what is damaged, and what it wrote is right."""
    for pack in (tmp_path / "repository/packs").rglob("*"):
        if pack.is_file():
            data = bytearray(pack.read_bytes())
            data[len(data) // 3] ^= 1
            pack.chmod(0o600)
            pack.write_bytes(data)
    target = tmp_path / "target"
    result = restore(repository, places, source, target)
    assert result.exit_status == 4
    assert 0 < result.failed < 705
    assert all("damaged object" in reason for _, reason in result.failures)
    before, after = picture(source), picture(target)
    files = [path for path in after if isinstance(path, bytes) and path.startswith(b"many/")]
    assert files
    assert all(after[path] == before[path] for path in files)
