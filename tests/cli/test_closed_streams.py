"""Standard streams that are closed do no harm: nothing is written into what takes their number, nor taken for read."""

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


@pytest.fixture
def with_a_file(tmp_path):
    """Gives an environment whose repository holds one file, "content"; where it lies."""
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
    return environment


def _run(environment, command):
    line = f"'{sys.executable}' -m respaldo {command}"
    return subprocess.run(["sh", "-c", line], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", ["snapshots", "key list", "export latest -o -", "checksums latest"])
def test_a_full_output_is_named(with_a_file, command):
    """An error of standard output says so: without that it could be one of the repository."""
    done = _run(with_a_file, f"{command} >/dev/full")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: No space left on device: standard output",
        "hint: free space there, and run the command again",
    ]


@pytest.mark.parametrize(
    "command", ["dump latest", "export latest -o -", "ls latest", "checksums latest", "find file", "snapshots --json"]
)
def test_content_for_a_closed_output_fails(with_a_file, command):
    """What was asked for and could not be handed over is no success."""
    path = f":{with_a_file['RESPALDO_REPOSITORY'].replace('repository', 'file')}"
    done = _run(with_a_file, f"{command}{path if command.startswith('dump') else ''} >&-")
    assert done.returncode == 1
    assert "it is closed" in done.stderr


def test_a_report_for_a_closed_output_goes_nowhere(with_a_file):
    """What was done was done, whoever wants to hear of it or not."""
    done = _run(with_a_file, "prune >&-")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("output", [">&-", ">/dev/full"])
def test_a_recovery_key_that_could_not_be_written_opens_nothing(with_a_file, output):
    """There is no slot whose key nobody has."""
    before = len(_run(with_a_file, "key list").stdout.splitlines())
    done = _run(with_a_file, f"key recovery --output - {output}")
    assert done.returncode == 1
    assert "standard output" in done.stderr
    assert len(_run(with_a_file, "key list").stdout.splitlines()) == before


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("snapshot --stdin dump.sql", 1),
        ("snapshot --files-from -", 2),
        ("snapshot --exclude-file - /dev/null", 2),
        ("import -", 1),
    ],
)
def test_a_closed_input_is_none_that_is_empty(with_a_file, command, status):
    """A stream that cannot be read is not backed up as one without content, and no list is taken for an empty one."""
    done = _run(with_a_file, f"{command} <&-")
    assert done.returncode == status
    assert "it is closed" in done.stderr
