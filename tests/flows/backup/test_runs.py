"""Runs that are cut off, resumed, only tried, or fed from a stream."""

from __future__ import annotations

import gc
import io
import os
from typing import TYPE_CHECKING

import pytest

from respaldo.backend.memory import MemoryBackend
from respaldo.backend.wrap import Wrapper
from respaldo.catalog import session
from respaldo.catalog.snapshots import load
from respaldo.core.errors import Interrupted, StorageFull, UsageError
from respaldo.core.seams import Cancel
from respaldo.flows.backup import files as files_module
from respaldo.flows.backup import reader
from respaldo.flows.backup.options import BackupOptions
from respaldo.flows.backup.run import run_stream
from tests.flows.backup.test_model import CancelAfter
from tests.flows.backup.world import World, entries_below, read_model

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def many(world: World) -> World:
    """A world with a tree of some dozen files of different lengths, never backed up."""
    for place in ("a", "a/b", "c"):
        (world.source / place).mkdir()
        for number in range(10):
            (world.source / place / f"{number}").write_bytes(os.urandom(number * 1000))
        (world.source / place / "large").write_bytes(os.urandom(2 << 20))
    return world


def at_reading(monkeypatch, name: bytes, action: Callable[[], None]) -> None:
    """Does something when a file of a name is about to be read by itself."""
    real = reader.FileReader.read

    def read(self, found, *rest):
        if os.path.basename(found) == name:
            action()
        return real(self, found, *rest)

    monkeypatch.setattr(reader.FileReader, "read", read)


def refuse() -> None:
    raise Interrupted("SIGTERM")


@pytest.mark.parametrize("looks", [1, 2, 5, 9, 14, 20])
def test_interrupted_run_leaves_no_snapshot_and_goes_on_later(many: World, looks, reads):
    """Wherever a run is cut off there is no snapshot of it; the next one reads only what it had not read."""
    gc.collect()  # what earlier tests left open is closed now, not while this one counts
    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(Interrupted):
        many.backup(cancel=CancelAfter(looks))
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert many.snapshots == []
    assert load(many.repo).snapshots == ()
    assert many.backend.list("sessions") == []
    before = set(reads.opened)
    many.reopen()
    many.check()
    after = len(reads.opened) - len(before)
    assert after <= 3
    assert many.check().figures.read_bytes == 0


def test_interrupted_run_remembers_the_directory_it_was_in(many: World, monkeypatch, reads):
    """Files that were read in a directory that was not finished are not read again; those that were not, are."""
    os.setxattr(many.source / "a" / "b" / "0", "user.x", b"1")
    with monkeypatch.context() as patch:
        at_reading(patch, b"large", refuse)
        with pytest.raises(Interrupted):
            many.backup()
    reads.take()
    many.check()
    assert reads.take() == sorted([*(b"%d" % number for number in range(10)), b"large"])
    with monkeypatch.context() as patch:
        (many.source / "c" / "more").write_bytes(os.urandom(4 << 20))
        (many.source / "c" / "1").write_bytes(os.urandom(10))
        at_reading(patch, b"more", refuse)
        with pytest.raises(Interrupted):
            many.backup()
    reads.take()
    many.check()
    assert reads.take() == [b"more"]


def test_empty_file_that_was_not_looked_at_keeps_its_attributes(world: World, monkeypatch):
    """A file without content whose attributes were not read before a run was cut off is not taken for read."""
    for number in range(10):
        (world.source / f"{number}").write_bytes(b"%d" % number)
    (world.source / "empty").touch()
    os.setxattr(world.source / "empty", "user.x", b"1")
    monkeypatch.setattr(files_module, "_BATCH_FILES_MAX", 3)
    cut = 0
    for looks in range(1, 30):
        world.reopen(forget=True)
        try:
            world.backup(cancel=CancelAfter(looks))
        except Interrupted:
            cut += 1
        assert world.model(world.check())[b"empty"].xattrs == ((b"user.x", b"1"),)
    assert 5 < cut < 29


@pytest.mark.parametrize("holes", [False, True])
def test_big_file_is_resumed_where_it_was_saved(world: World, monkeypatch, holes):
    """A big file that was cut off is read on from the last checkpoint; if it has changed, from its start."""
    monkeypatch.setattr(reader, "_RESUMABLE_BYTES", 1 << 20)
    monkeypatch.setattr(session, "CHECKPOINT_NS", 0)
    path = world.source / "big"
    size = 60 << 20
    with path.open("wb") as file:
        for at in range(0, size, 6 << 20):
            file.seek(at + ((2 << 20) if holes else 0))
            file.write(os.urandom(4 << 20 if holes else 6 << 20))
    data = (4 << 20) * 10 if holes else size
    looks = len(world.source.parts) + 5  # one for each directory on the way, then one for each piece
    with pytest.raises(Interrupted):
        world.backup(cancel=CancelAfter(looks))
    assert world.snapshots == []
    result = world.check()
    # Where the last chunk before the checkpoint ended is drawn with the repository's keys.
    assert 0 < result.figures.read_bytes < data - (19 << 20)
    assert world.check().figures.read_bytes == 0
    os.utime(path)
    with pytest.raises(Interrupted):
        world.backup(cancel=CancelAfter(looks))
    with path.open("r+b") as file:
        file.write(b"changed")
    assert world.check().figures.read_bytes >= data


def test_big_file_is_not_resumed_on_content_that_is_gone(world: World, monkeypatch):
    """Where what an interrupted run stored has been collected, the file is read from its start."""
    monkeypatch.setattr(reader, "_RESUMABLE_BYTES", 1 << 20)
    monkeypatch.setattr(session, "CHECKPOINT_NS", 0)
    (world.source / "big").write_bytes(os.urandom(60 << 20))
    with pytest.raises(Interrupted):
        world.backup(cancel=CancelAfter(len(world.source.parts) + 5))
    name, _ = world.backend.list("packs")[0]
    world.backend.delete(name)
    assert world.check().figures.read_bytes == 60 << 20


def test_dry_run_writes_and_remembers_nothing(many: World, reads):
    """A dry run reads and counts; the repository is not written to, and the next run finds what it would have found."""
    before = many.backend.inner.snapshot()
    tried = many.backup(dry_run=True)
    assert tried.snapshot is None
    assert many.backend.inner.snapshot() == before
    assert many.backend.calls["delete"] == 0
    reads.take()
    again = many.backup(dry_run=True)
    assert len(reads.take()) == 11
    done = many.check()
    for name in ("files", "directories", "length_bytes", "read_bytes", "files_new", "chunk_bytes_new"):
        assert getattr(tried.figures, name) == getattr(again.figures, name) == getattr(done.figures, name), name
    (many.source / "c" / "1").write_bytes(b"new")
    before = many.backend.inner.snapshot()
    tried = many.backup(dry_run=True)
    assert many.backend.inner.snapshot() == before
    assert (tried.figures.files_changed, tried.figures.read_bytes, tried.figures.chunk_bytes_new > 0) == (1, 3, True)
    assert many.check().figures.files_changed == 1


class Full(Wrapper):
    """Has no space left after so many puts."""

    left = 1 << 30

    def put(self, name, pieces) -> None:
        self.left -= 1
        if self.left < 0:
            raise StorageFull(name)
        super().put(name, pieces)

    def delete(self, name) -> None:
        if self.left < 0:
            raise StorageFull(name)
        super().delete(name)


@pytest.mark.parametrize("left", range(6))
def test_full_repository_fails_the_run_and_leaves_no_snapshot(tmp_path, left):
    """At whichever write the space ends, the run fails, no file is blamed, and the next run does all there is to do."""
    backend = Full(MemoryBackend())
    world = World(tmp_path, backend=backend)
    (world.source / "file").write_bytes(os.urandom(3 << 20))
    world.check()
    (world.source / "file").write_bytes(os.urandom(3 << 20))
    before = world.snapshots
    backend.left = left
    try:
        world.backup()
    except StorageFull:
        assert world.snapshots == before
    backend.left = 1 << 30
    world.check()
    world.repo.close()


# --- streams -------------------------------------------------------------------------------------------------------


def stream(world: World, data, path: bytes = b"/dumps/shop.sql", finish=lambda: None, cancel=None, **options):
    return run_stream(
        world.repo,
        path,
        data if hasattr(data, "read") else io.BytesIO(data),
        BackupOptions(**options),
        finish=finish,
        progress=world.notes,
        cancel=cancel or Cancel(),
    )


@pytest.mark.parametrize("length", [0, 1, 100_000, 3 << 20, 30 << 20])
def test_stream_is_recorded_as_a_file(world: World, length):
    """What a stream yields, however much, is a file at the path that was given."""
    data = os.urandom(length)
    result = stream(world, data, uid=7, time_ns=12_345)
    found = read_model(world.repo, result, b"/")
    assert found[b"dumps/shop.sql"].data == (((0, data),) if data else ())
    assert found[b"dumps/shop.sql"].size == length
    assert (found[b"dumps/shop.sql"].uid, found[b"dumps/shop.sql"].mtime_ns) == (7, 12_345)
    figures = result.figures
    assert (figures.files, figures.directories, figures.length_bytes, figures.read_bytes) == (1, 2, length, length)
    assert result.manifest.sources == (b"/dumps/shop.sql",)
    again = stream(world, data)
    assert again.manifest.parent == result.snapshot
    assert again.figures.chunk_bytes_new < 10_000


def test_stream_that_comes_in_drops(world: World):
    """Short reads are no end."""

    class Drops(io.BytesIO):
        def read(self, length=-1):
            return super().read(min(length, 777))

    data = os.urandom(200_000)
    result = stream(world, Drops(data), b"/x")
    assert [(path, entry.size) for path, entry in entries_below(world.repo, result)] == [(b"/x", 200_000)]


def test_stream_that_fails_leaves_no_snapshot(world: World):
    """Where the command behind a stream failed, a read fails, or the run is stopped, there is no snapshot."""

    def fail() -> None:
        raise UsageError("exit status 1")

    class Broken(io.BytesIO):
        def read(self, length=-1):
            raise OSError(5, "Input/output error")

    with pytest.raises(UsageError):
        stream(world, b"half a dump", finish=fail)
    with pytest.raises(OSError, match="Input/output"):
        stream(world, Broken())
    with pytest.raises(Interrupted):
        stream(world, bytes(10 << 20), cancel=CancelAfter(3))
    assert world.snapshots == []
    assert world.backend.list("sessions") == []


@pytest.mark.parametrize("path", [b"/", b"x", b"/x/", b"/../x", b"//x", b"/" + b"n" * 256, b""])
def test_stream_needs_a_path_that_can_be(world: World, path):
    """A path that no tree can hold is refused before anything is stored."""
    with pytest.raises(UsageError):
        stream(world, b"x", path)
    with pytest.raises(UsageError):
        stream(world, b"x", dry_run=True)
    assert world.backend.list("packs") == []
