"""Rot in the source: found by a sample that comes round, told from changes, and never taken into a snapshot."""

from __future__ import annotations

import errno
import os
import subprocess
from math import ceil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from respaldo.core.errors import Interrupted, UsageError
from respaldo.core.ids import Kind
from respaldo.core.model import Content
from respaldo.core.seams import Cancel
from respaldo.flows.backup import paranoid as paranoid_module
from respaldo.flows.backup.options import BackupOptions
from respaldo.flows.backup.paranoid import Sample
from respaldo.flows.backup.reader import FileReader
from respaldo.store.source import ChunkSource
from tests.fidelity.disks import mounted, reachable, unmount
from tests.flows.backup.world import World, entry_at

ALL = {"paranoid": 1.0, "ignore_ctime": True}


@pytest.fixture
def tree(world: World) -> World:
    """A world whose files were backed up: small, in two directories, large, and with a hole."""
    for place in ("", "a"):
        (world.source / place).mkdir(exist_ok=True)
        for name in ("one", "two"):
            (world.source / place / name).write_bytes(os.urandom(200_000))
    (world.source / "large").write_bytes(os.urandom(3 << 20))
    with (world.source / "sparse").open("wb") as file:
        file.seek(2 << 20)
        file.write(os.urandom(200_000))
    (world.source / "empty").touch()
    world.check()
    return world


def rot(path: Path, at: int = 100_000) -> None:
    """Flips a bit, and puts the times back."""
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_unchanged_files_are_read_again_and_are_well(tree: World):
    """Every file with content is read, nothing is stored, and the snapshot is complete."""
    result = tree.backup(paranoid=1.0)
    assert (result.reread_files, result.rotten, result.complete) == (6, (), True)
    size = sum(path.stat().st_size for path in tree.source.rglob("*") if path.is_file()) - (2 << 20)
    assert result.reread_bytes == size
    assert (result.figures.read_bytes, result.figures.files_unchanged) == (0, 7)


@pytest.mark.parametrize("name", ["one", "a/two", "large", "sparse"])
@pytest.mark.parametrize("beside", [False, True])
def test_rot_is_named_and_the_old_content_stays(tree: World, name, beside):
    """In a directory that looks as it did, and in one in which something else has changed; it is found every time."""
    path = tree.source / name
    before = entry_at(tree.repo, tree.backup(), path)
    rot(path)
    if beside:
        (path.parent / "new").write_bytes(b"new")
    assert tree.backup(ignore_ctime=True).complete
    for _ in range(2):
        result = tree.backup(**ALL)
        assert result.rotten == (os.fsencode(path),)
        assert not result.complete
        [(failed, reason)] = result.manifest.failed
        assert failed == os.fsencode(path)
        assert "its content differs from byte 100,000 on, though its times and size do not" in reason
        assert (-1, reason, failed) in tree.notes.notes
        assert entry_at(tree.repo, result, path) == before
    path.touch()
    result = tree.check(paranoid=1.0)
    assert entry_at(tree.repo, result, path).content != before.content


def test_rot_in_a_hole_is_found(tree: World):
    """What was a hole and holds something now differs, too."""
    rot(tree.source / "sparse")
    assert tree.backup(**ALL).rotten == (os.fsencode(tree.source / "sparse"),)


@pytest.mark.parametrize("chunks", [1, 3, 10])
def test_as_many_runs_as_there_are_samples_read_everything(tree: World, chunks):
    """Wherever the first begins, each file is read once or, where samples overlap, twice; and rot is found in one."""
    rot(tree.source / "large")
    results = [tree.backup(paranoid=1 / chunks, ignore_ctime=True) for _ in range(chunks)]
    assert 6 <= sum(result.reread_files for result in results) <= 7
    assert 1 <= sum(len(result.rotten) for result in results) <= 2


def test_run_that_makes_no_snapshot_uses_up_no_sample(tree: World, monkeypatch):
    """A run that is cut off, and a dry run, leave the sample to the next one."""
    rot(tree.source / "a" / "two")
    starts = []
    made = paranoid_module.Sample
    monkeypatch.setattr("respaldo.flows.backup.run.Sample", lambda *args: starts.append(args[1]) or made(*args))
    tree.backup(paranoid=0.25, ignore_ctime=True)
    tree.backup(paranoid=0.25, ignore_ctime=True, dry_run=True)
    stopped = Cancel()
    stopped.request("SIGINT")
    with pytest.raises(Interrupted):
        tree.backup(paranoid=0.25, cancel=stopped)
    tree.backup(paranoid=0.25, ignore_ctime=True)
    assert starts[1] == starts[2] == starts[3] == made(0.25, starts[0], bytes(32)).next


def test_samples_of_sources_come_round_each_for_itself(tree: World, tmp_path):
    """Where two sources are backed up in turns, none of them is always given the same sample."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").write_bytes(b"x" * 1000)
    tree.backup(other)
    seen = 0
    for _ in range(2):
        tree.backup(paranoid=0.5)
        seen += tree.backup(other, paranoid=0.5).reread_files
    assert seen == 1


def test_dry_run_reports_rot(tree: World):
    """Without a snapshot, the same is said."""
    rot(tree.source / "one")
    result = tree.backup(dry_run=True, **ALL)
    assert result.rotten == (os.fsencode(tree.source / "one"),)


def test_file_that_is_changed_while_it_is_read_is_no_rot(tree: World, monkeypatch):
    """Whoever writes to it gives it new times: the next run reads it."""
    read = FileReader.read

    def changing(self, name, dir_fd, look, resume=None):
        found = read(self, name, dir_fd, look, resume)
        if name == b"large":
            (tree.source / "large").write_bytes(os.urandom(1000))
            found = read(self, name, dir_fd, look, resume)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(FileReader, "read", changing)
        result = tree.backup(**ALL)
    assert (result.rotten, result.complete) == ((), True)
    tree.check(paranoid=1.0)


def test_file_that_vanishes_is_no_rot(tree: World, monkeypatch):
    """It was there when the directory was listed, and that is what is recorded."""
    drop = paranoid_module.Paranoid._drop_cached

    def vanishing(frame, row):
        if frame.child_name(row) == b"large":
            (tree.source / "large").unlink()
        drop(frame, row)

    monkeypatch.setattr(paranoid_module.Paranoid, "_drop_cached", staticmethod(vanishing))
    result = tree.backup(**ALL)
    assert (result.rotten, result.complete, result.reread_files) == ((), True, 5)


def test_file_that_the_disk_does_not_give_any_more_is_named(tree: World, monkeypatch):
    """An unreadable sector under an unchanged file is reported, and what is stored of it stays."""
    before = entry_at(tree.repo, tree.backup(), tree.source / "large")
    read = FileReader.read

    def failing(self, name, dir_fd, look, resume=None):
        if name == b"large":
            raise OSError(errno.EIO, "Input/output error")
        return read(self, name, dir_fd, look, resume)

    monkeypatch.setattr(FileReader, "read", failing)
    result = tree.backup(**ALL)
    assert not result.complete
    assert result.manifest.failed[0][1] == "it could not be read again, what is stored of it stays: Input/output error"
    assert entry_at(tree.repo, result, tree.source / "large") == before


def test_holes_that_moved_are_no_rot(tree: World, monkeypatch):
    """The same bytes, cut into other chunks, are the same bytes."""
    read = FileReader.read
    compared = []

    def otherwise(self, name, dir_fd, look, resume=None):
        found = read(self, name, dir_fd, look, resume)
        object.__setattr__(found, "content", Content(level=0, ids=bytes(32)))
        compared.append(name)
        return found

    monkeypatch.setattr(FileReader, "read", otherwise)
    result = tree.backup(**ALL)
    assert len(compared) == 6
    assert (result.rotten, result.complete) == ((), True)


def test_difference_that_cannot_be_compared_is_named(tree: World, monkeypatch):
    """Where what is stored is damaged, too, nobody can say where they differ; the run goes on."""
    from respaldo.core.errors import Corruption

    rot(tree.source / "one")
    get = ChunkSource.get

    def damaged(self, kind, chunk_id):
        if kind is Kind.DATA:
            raise Corruption("packs/x", "its bytes are not what was stored")
        return get(self, kind, chunk_id)

    monkeypatch.setattr(ChunkSource, "get", damaged)
    result = tree.backup(**ALL)
    assert result.rotten == (os.fsencode(tree.source / "one"),)
    assert "what is stored cannot be read" in result.manifest.failed[0][1]


@pytest.mark.root
def test_rot_on_a_disk_is_found(world: World):
    """A bit that flips below the file system: no time of any kind changes, the status change time included."""
    with reachable() as parent, mounted("ext4", parent, length_bytes=64 << 20) as where:
        content = os.urandom(300_000)
        (where / "file").write_bytes(content)
        (where / "other").write_bytes(os.urandom(300_000))
        world.backup(where)
        unmount(where)
        image = parent / "ext4.image"
        data = bytearray(image.read_bytes())
        at = data.index(content[200_000:204_000])
        data[at] ^= 0x10
        with image.open("r+b") as file:
            file.seek(at)
            file.write(data[at : at + 1])
        subprocess.run(["mount", "-o", "loop", str(image), str(where)], check=True)
        unsuspecting = world.backup(where)
        assert (unsuspecting.complete, unsuspecting.figures.read_bytes) == (True, 0)
        result = world.backup(where, paranoid=1.0)
        assert result.rotten == (os.fsencode(where / "file"),)
        assert "from byte 200,000 on" in result.manifest.failed[0][1]
        assert result.reread_files == 2


# --- samples -------------------------------------------------------------------------------------------------------


@given(
    share=st.floats(0.001, 1),
    start=st.binary(min_size=8, max_size=8),
    paths=st.lists(st.binary(max_size=20), min_size=1, max_size=20),
)
def test_samples_cover_every_path_once_before_any_comes_again(share, start, paths):
    """One after the other they go round: after as many as there are in the whole, each path was in one at least."""
    times = dict.fromkeys(paths, 0)
    for _ in range(ceil(1 / share)):
        sample = Sample(share, start, bytes(32))
        for path in times:
            times[path] += path in sample
        start = sample.next
    assert set(times.values()) <= {1, 2}


def test_sample_is_of_about_the_share():
    """Of many paths, about as many as the share says, and others under another key."""
    paths = [b"/home/%d" % number for number in range(5000)]
    one, other = (Sample(0.1, bytes(8), bytes([key]) * 32) for key in (1, 2))
    found = {path for path in paths if path in one}
    assert 400 < len(found) < 600
    assert found != {path for path in paths if path in other}
    assert not any(path in Sample(0.0, bytes(8), bytes(32)) for path in paths)


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_share_lies_between_nothing_and_all(share):
    """Anything else is wrong usage."""
    with pytest.raises(UsageError):
        BackupOptions(paranoid=share)
