"""Repositories that cannot be written to: all that only reads works and changes nothing; all else fails at once."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.backend.places import anybodys_directory, in_child
from tests.disks.client import Client
from tests.disks.disk import disk_of, run


def picture(top: Path) -> dict[str, tuple[int, ...] | bytes]:
    """Returns names, modes, sizes, times to the nanosecond, and bytes of everything below."""
    found: dict[str, tuple[int, ...] | bytes] = {}
    for folder, _, files in os.walk(top):
        for path in (folder, *(os.path.join(folder, name) for name in files)):
            status = os.stat(path)
            found[path] = status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns
        for name in files:
            found[os.path.join(folder, name) + " bytes"] = Path(folder, name).read_bytes()
    return found


def make(place: Path, repository: Path) -> Client:
    """Makes a repository with two snapshots, something forgotten, and temporaries of a run that was killed."""
    client = Client(place, repository)
    for seed in range(3):
        client.write(seed)
        client.take()
    client.run("forget", gone := next(iter(client.kept)))
    del client.kept[gone]
    litter = repository / "packs" / ".tmp-litter"
    litter.write_bytes(b"x")
    os.utime(litter, (0, 0))
    return client


def check(client: Client, fresh: Client) -> None:
    """Runs everything, as a client that knows the repository and as one that does not."""
    before = picture(client.repository)
    for who in (client, fresh):
        assert who.listed() == client.kept.keys()
        who.run("snapshots", "--view", "daily")
        who.run("ls", f"latest:{client.source}")
        who.run("stats")
        who.run("key", "list")
        who.run("verify", "--read-data")
        who.run("prune", "--dry-run")
        client.check(who)
    touched = client.place / "touched"
    latest = next(iter(client.kept))
    for words in (
        ["snapshot", client.source],
        ["snapshot", "--command", f"touch {touched}", "--stdin", "name"],
        ["prune"],
        ["forget", latest],
        ["pin", latest],
        ["key", "add", "--new-key-file", client.place / "new"],
    ):
        ran = client.run(*words, expected=1)
        assert "permission denied by the repository's storage" in ran.err, (words, ran.err)
        assert "mounted read-only" in ran.err
        assert "Traceback" not in ran.err
    assert not touched.exists(), "the source was read before it was clear that nothing could be stored"
    assert picture(client.repository) == before


@pytest.mark.root
def test_read_only_mount_serves_all_readers_and_refuses_writers(tmp_path):
    """Even where there is something to sweep, to merge and to mend."""
    with disk_of("ext4") as disk:
        client = make(tmp_path / "client", disk.where / "repository")
        run("mount", "-o", "remount,ro", disk.where)
        check(client, Client(tmp_path / "fresh", client.repository))
        run("mount", "-o", "remount,rw", disk.where)
        client.run("prune")
        client.take()
        client.check()


def test_directories_without_permission_to_write_are_as_good_as_a_read_only_mount():
    """For an ordinary user: nothing is changed through some other way, and the refusal is as clear."""
    with anybodys_directory() as place:

        def as_anybody() -> None:
            os.environ["HOME"] = str(place)
            client = make(place / "client", place / "repository")
            subprocess.run(["chmod", "-R", "a-w", client.repository], check=True)
            check(client, Client(place / "fresh", client.repository))

        in_child(as_anybody, nobody=True)
