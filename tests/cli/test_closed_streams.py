"""Standard streams that are closed do no harm: nothing is written into what takes their number."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from respaldo.api import BackupOptions, Places, Secret, init, open_repository
from respaldo.core.seams import Cancel, Silent

KEY = bytes(range(32))
SECRET = Secret(key=KEY)  # which costs no Argon2id


def key_file(folder):
    path = folder / "key"
    path.write_bytes(KEY)
    return path


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_closed_streams_do_no_harm(tmp_path, closed):
    """A snapshot with closed streams succeeds, says so by its status, and is whole."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_text("content")
    repository, cache, state = (str(tmp_path / name) for name in ("repository", "cache", "state"))
    places = Places(cache_dir=tmp_path / "own", state_dir=tmp_path / "state")
    init(repository, SECRET, places=places)
    environment = {
        **os.environ,
        "RESPALDO_KEY_FILE": str(key_file(tmp_path)),
        "RESPALDO_REPOSITORY": repository,
        "RESPALDO_CACHE_DIR": cache,
        "XDG_STATE_HOME": state,
    }
    command = f"'{sys.executable}' -m respaldo snapshot '{tmp_path / 'source'}' {closed}"
    done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    with open_repository(repository, SECRET, places=places) as opened:
        [snapshot] = opened.snapshots().snapshots
        assert snapshot.manifest.figures.files == 1


@pytest.mark.parametrize("command", ["snapshots", "key list", "export latest -o -", "checksums latest"])
def test_a_full_output_is_named(tmp_path, command):
    """An error of standard output says so: without that it could be one of the repository."""
    (tmp_path / "file").write_text("content")
    environment = {
        **os.environ,
        "RESPALDO_KEY_FILE": str(key_file(tmp_path)),
        "RESPALDO_REPOSITORY": str(tmp_path / "repository"),
        "RESPALDO_CACHE_DIR": str(tmp_path / "cache"),
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }
    places = Places(cache_dir=tmp_path / "cache", state_dir=tmp_path / "state" / "respaldo")
    init(str(tmp_path / "repository"), SECRET, places=places)
    with open_repository(str(tmp_path / "repository"), SECRET, places=places, writes=True) as opened:
        opened.backup([bytes(tmp_path / "file")], BackupOptions(), progress=Silent(), cancel=Cancel())
    line = f"'{sys.executable}' -m respaldo {command} >/dev/full"
    done = subprocess.run(["sh", "-c", line], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: No space left on device: standard output"
