"""Standard streams that are closed do no harm: nothing is written into what takes their number."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from respaldo.api import Places, Secret, init, open_repository


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_closed_streams_do_no_harm(tmp_path, closed):
    """A snapshot with closed streams succeeds, says so by its status, and is whole."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_text("content")
    repository, cache, state = (str(tmp_path / name) for name in ("repository", "cache", "state"))
    places = Places(cache_dir=tmp_path / "own", state_dir=tmp_path / "state")
    init(repository, Secret(passphrase=b"x"), places=places)
    environment = {
        **os.environ,
        "RESPALDO_PASSWORD": "x",
        "RESPALDO_REPOSITORY": repository,
        "RESPALDO_CACHE_DIR": cache,
        "XDG_STATE_HOME": state,
    }
    command = f"'{sys.executable}' -m respaldo snapshot '{tmp_path / 'source'}' {closed}"
    done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    with open_repository(repository, Secret(passphrase=b"x"), places=places) as opened:
        [snapshot] = opened.snapshots().snapshots
        assert snapshot.manifest.figures.files == 1
