"""What a snapshot says was added, changed and removed, where the numbers can be told by hand."""

from __future__ import annotations

import os
import shutil
import stat

import pytest

from respaldo.catalog.runs import put_tree
from respaldo.catalog.snapshots import forget
from respaldo.catalog.trees import TreeReader
from respaldo.core.ids import ChunkId, Kind
from respaldo.core.seams import Cancel, Silent
from respaldo.flows.backup.changes import COUNT_MAX, ChangeCount
from respaldo.flows.backup.frame import Frame
from respaldo.flows.backup.memo import Totals
from respaldo.flows.backup.options import BackupOptions
from respaldo.flows.backup.run import run_stream
from respaldo.format.figures import Changes
from respaldo.format.tree import META, Leaf
from tests.flows.backup.world import HOUR_NS, World, assert_changes


def changes(added=0, changed=0, removed=0):
    return Changes(added=added, changed=changed, removed=removed)


@pytest.fixture
def filled(world: World):
    """Has four files in three directories, a link and a FIFO backed up."""
    for path in ("a", "d/b", "d/e/c", "d/e/g"):
        file = world.source / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(path)
    (world.source / "link").symlink_to("a")
    os.mkfifo(world.source / "fifo")
    assert world.check().manifest.changes == changes(added=6)
    return world


def test_nothing_changed(filled: World):
    """And a directory is nothing that counts, nor its time."""
    assert filled.check().manifest.changes == changes()
    (filled.source / "d" / "empty").mkdir()
    (filled.source / "d").chmod(0o700)
    assert filled.check().manifest.changes == changes()
    (filled.source / "d" / "empty").rmdir()
    assert filled.check().manifest.changes == changes()


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (lambda top: (top / "d" / "new").write_text("x"), changes(added=1)),
        (lambda top: (top / "a").unlink(), changes(removed=1)),
        (lambda top: (top / "a").write_text("other"), changes(changed=1)),
        (lambda top: os.utime(top / "a", ns=(0, 5)), changes(changed=1)),
        (lambda top: (top / "d" / "e" / "c").chmod(0o600), changes(changed=1)),
        (lambda top: os.setxattr(top / "a", "user.x", b"1"), changes(changed=1)),
        (lambda top: os.link(top / "a", top / "d" / "a2"), changes(added=1, changed=1)),
        (lambda top: (top / "d").rename(top / "dd"), changes(added=3, removed=3)),
        (lambda top: shutil.rmtree(top / "d"), changes(removed=3)),
        (lambda top: ((top / "a").unlink(), (top / "a").mkdir(), (top / "a" / "in").touch()), changes(1, 0, 1)),
        (lambda top: (shutil.rmtree(top / "d"), (top / "d").write_text("now a file")), changes(1, 0, 3)),
        (lambda top: ((top / "link").unlink(), (top / "link").symlink_to("d")), changes(changed=1)),
        (lambda top: ((top / "fifo").unlink(), (top / "fifo").touch()), changes(changed=1)),
        (lambda top: shutil.copytree(top / "d", top / "d" / "copy"), changes(added=3)),
    ],
)
def test_one_edit(filled: World, edit, expected):
    """From the memory of the last run, and without it."""
    edit(filled.source)
    assert filled.backup(dry_run=True).manifest.changes == expected
    filled.reopen(forget=True)
    assert filled.backup(dry_run=True).manifest.changes == expected
    assert filled.check().manifest.changes == expected
    assert filled.check().manifest.changes == changes()


def test_file_with_the_same_time_and_content_is_the_same(filled: World):
    """A time of birth is not restored, and does not count."""
    status = (filled.source / "a").stat()
    (filled.source / "copy").write_text("a")
    os.utime(filled.source / "copy", ns=(0, status.st_mtime_ns))
    (filled.source / "copy").rename(filled.source / "a")
    assert filled.check().manifest.changes == changes()


def test_what_is_excluded_is_removed(filled: World):
    """It is no longer in the snapshot."""
    result = filled.backup(exclude=("e",))
    assert result.manifest.changes == changes(removed=2)
    assert_changes(filled.repo, result)
    result = filled.backup()
    assert result.manifest.changes == changes(added=2)
    assert_changes(filled.repo, result)


def test_changes_are_those_against_the_parent(filled: World):
    """Whatever the memory of the last run holds: the parent may be older, or of other sources."""
    (filled.source / "a").write_text("second")
    last = filled.check().snapshot
    forget(filled.repo, last)
    assert filled.check().manifest.changes == changes(changed=1)
    (filled.source / "d" / "b").write_text("changed")
    other = filled.backup(filled.source / "d")
    assert (other.manifest.parent, other.manifest.changes) == (b"", changes(added=3))
    assert filled.backup(host="elsewhere").manifest.changes == changes(added=6)
    assert filled.check().manifest.changes == changes(changed=1)


def test_single_files_count(world: World):
    """A source may be a file."""
    for name in ("a", "b"):
        (world.source / name).write_text(name)
    both = (world.source / "a", world.source / "b")
    assert world.backup(*both).manifest.changes == changes(added=2)
    (world.source / "b").write_text("more")
    result = world.backup(*both)
    assert result.manifest.changes == changes(changed=1)
    assert_changes(world.repo, result)


def test_long_directory_counts(world: World):
    """One that is stored in runs, read back run by run."""
    for number in range(6000):
        (world.source / f"{number:05}").touch()
    assert world.check().manifest.changes == changes(added=6000)
    for number in range(0, 6000, 1000):
        (world.source / f"{number:05}").unlink()
    (world.source / "00500").write_text("x")
    (world.source / "00500a").write_text("x")
    assert world.check().manifest.changes == changes(1, 1, 6)
    world.reopen(forget=True)
    assert world.check().manifest.changes == changes()


def test_what_was_is_taken_from_memory(filled: World):
    """Nothing that is stored is read, whether nothing or something has changed."""
    filled.reopen()
    for edit in (lambda: None, lambda: (filled.source / "d" / "b").write_text("changed")):
        edit()
        filled.backend.calls.clear()
        filled.backup()
        assert filled.backend.calls["get"] == 0


def test_parent_that_cannot_be_read_leaves_it_open(filled: World):
    """The snapshot is made, says that nobody knows, and the next one knows again."""
    filled.reopen(forget=True)
    for name, _ in list(filled.backend.list("packs")):
        filled.backend.delete(name)
    (filled.source / "a").write_text("second")
    result = filled.backup()
    assert result.complete and result.manifest.changes is None
    assert filled.check().manifest.changes == changes()


def test_stream_counts_as_its_file(world: World):
    """Added the first time, changed by its time at least from then on."""

    class Once:
        def __init__(self, content: bytes) -> None:
            self.parts = [content]

        def read(self, length_bytes: int) -> bytes:
            return self.parts.pop() if self.parts else b""

    def made(**options):
        options = BackupOptions(**options)
        return run_stream(
            world.repo, b"/db/dump", Once(b"x"), options, finish=lambda: None, progress=Silent(), cancel=Cancel()
        )

    first, second = made(), made()
    assert (first.manifest.changes, second.manifest.changes) == (changes(added=1), changes(changed=1))
    same = made(time_ns=HOUR_NS), made(time_ns=HOUR_NS)
    assert [result.manifest.changes for result in same] == [changes(changed=1)] * 2  # of the latest by time
    for result in (first, second, *same):
        assert_changes(world.repo, result)


class Shelf:
    """Holds trees by id."""

    def __init__(self) -> None:
        self.trees: dict[bytes, bytes] = {}
        self.reads = 0

    def put(self, kind, raw) -> ChunkId:
        chunk_id = ChunkId(len(self.trees).to_bytes(32, "big"))
        self.trees[chunk_id] = bytes(raw)
        return chunk_id

    def get(self, kind: Kind, chunk_id: ChunkId) -> bytes:
        self.reads += 1
        return self.trees[chunk_id]


def test_shared_subtrees_are_counted_once_and_count_each_time():
    """A hundred trees may stand for more entries than there can be; that takes a hundred reads, and no overflow."""
    shelf = Shelf()
    directory = META.pack(stat.S_IFDIR | 0o755, 0, 0, 0, 0, 0, 0)
    fifo = META.pack(stat.S_IFIFO | 0o644, 0, 0, 0, 0, 0, 0)
    tree = put_tree(shelf, Leaf(names=b"x\0", meta=fifo), b"k" * 32)
    tops = {}
    for depth in range(100):
        tree = put_tree(shelf, Leaf(names=b"a\0b\0", meta=directory * 2, content=tree + tree), b"k" * 32)
        tops[depth] = put_tree(shelf, Leaf(names=b"top\0", meta=directory, content=tree), b"k" * 32)
    empty = Leaf(names=b"", meta=b"")
    for depth, expected in ((0, 2), (9, 1024), (99, COUNT_MAX)):
        shelf.reads = 0
        count = ChangeCount(TreeReader(shelf), None)
        frame = Frame(path=b"/", relative=b"", fd=-1, row=-1, device=0, parent_tree=tops[depth])
        count.settle(frame, ChunkId(b"n" * 32), empty, Totals(0, 0, 0))
        assert count.total == Changes(removed=expected)
        assert shelf.reads <= depth + 3
