"""What did not change is not read, and what did is: by every sign that a file system gives."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from respaldo.flows.backup import walker
from respaldo.fs.meta import FileSystem
from tests.flows.backup.world import HOUR_NS, World


@pytest.fixture
def tree(world: World) -> World:
    """A world with a small tree that was backed up once."""
    source = world.source
    for place in ("", "a", "a/b", "c"):
        (source / place).mkdir(exist_ok=True)
        for name in ("one", "two"):
            (source / place / f"{place.replace('/', '-')}{name}").write_bytes(os.urandom(2000))
    (source / "c" / "big").write_bytes(os.urandom(2 << 20))
    (source / "a" / "link").symlink_to("b")
    world.check()
    return world


def directories_above(world: World) -> int:
    """Returns how many trees may be new though nothing in the source is: these belong to everybody, and change."""
    return len(world.source.parts) - 1


def test_unchanged_tree_is_taken_over_unread(tree: World, reads):
    """A second run opens no file and stores nothing."""
    result = tree.check()
    assert reads.take() == []
    figures = result.figures
    assert (figures.read_bytes, figures.files_unchanged) == (0, 9)
    assert figures.chunks_new <= directories_above(tree)


def test_unchanged_tree_without_a_memo_is_read_and_stores_nothing(tree: World, reads):
    """Where the local cache is gone everything is read, and nothing is new."""
    tree.reopen(forget=True)
    result = tree.check()
    assert len(reads.take()) == 9
    assert result.figures.chunks_new <= directories_above(tree)
    assert result.figures.files_new == 9


def touch(path: Path, ns: int = 10**18) -> None:
    os.utime(path, ns=(ns, ns))


def change_content_keeping_times(path: Path) -> None:
    status = path.stat()
    with path.open("r+b") as file:
        file.write(b"other")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def replace_keeping_times(path: Path) -> None:
    status = path.stat()
    other = path.parent / "other"
    other.write_bytes(os.urandom(status.st_size))
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.rename(path)


def change_type(path: Path, make) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
    make(path)


CHANGES = {
    "content": (lambda s: (s / "a" / "aone").write_bytes(b"new"), [b"aone"]),
    "appended": (lambda s: os.truncate(s / "c" / "big", 3 << 20), [b"big"]),
    "same times": (lambda s: change_content_keeping_times(s / "a/b" / "a-bone"), [b"a-bone"]),
    "replaced": (lambda s: replace_keeping_times(s / "a/b" / "a-bone"), [b"a-bone"]),
    "touched": (lambda s: touch(s / "one"), [b"one"]),
    "added": (lambda s: (s / "a" / "b" / "new").write_bytes(b"new"), [b"new"]),
    "removed": (lambda s: (s / "a" / "b" / "a-bone").unlink(), []),
    "renamed": (lambda s: (s / "a" / "aone").rename(s / "a" / "renamed"), [b"renamed"]),
    "directory moved": (lambda s: (s / "a" / "b").rename(s / "c" / "moved"), [b"a-bone", b"a-btwo"]),
    "directory removed": (lambda s: shutil.rmtree(s / "a" / "b"), []),
    "directory becomes file": (lambda s: change_type(s / "a/b", lambda p: p.write_bytes(b"x")), [b"b"]),
    "file becomes directory": (lambda s: change_type(s / "one", lambda p: p.mkdir()), []),
    "file becomes fifo": (lambda s: change_type(s / "one", os.mkfifo), []),
    "link becomes file": (lambda s: change_type(s / "a" / "link", lambda p: p.write_bytes(b"x")), [b"link"]),
    "retargeted": (lambda s: change_type(s / "a" / "link", lambda p: p.symlink_to("d")), []),
    "mode": (lambda s: (s / "one").chmod(0o600), [b"one"]),
    "mode of a directory": (lambda s: (s / "a" / "b").chmod(0o700), []),
    "attribute": (lambda s: os.setxattr(s / "a" / "aone", "user.x", b"1"), [b"aone"]),
    "attribute of a directory": (lambda s: os.setxattr(s / "a" / "b", "user.x", b"1"), []),
    "another name": (lambda s: os.link(s / "one", s / "c" / "again"), [b"again", b"one"]),
    "nothing but the time of a directory": (lambda s: touch(s / "a"), []),
}


@pytest.mark.parametrize("change", CHANGES)
def test_change_is_seen_and_nothing_else_is_read(tree: World, reads, change):
    """Whatever changes in a tree is in the next snapshot, and only what may have changed is read."""
    make, expected = CHANGES[change]
    make(tree.source)
    tree.check()
    names = reads.take()
    if change == "another name":  # either name will do
        assert len(names) == 1
    else:
        assert names == expected
    tree.check()
    assert reads.take() == []


@pytest.mark.root
def test_change_of_owner_is_seen(tree: World, reads):
    """A file and a directory that another owns now are recorded so."""
    os.chown(tree.source / "one", 1234, 5678)
    os.chown(tree.source / "a", 1234, 5678)
    tree.check()
    assert reads.take() == [b"one"]


def test_change_just_before_the_scan_is_looked_at_again(tree: World, reads):
    """What changed within two seconds of a scan is not trusted next time, though all signs are equal."""
    (tree.source / "a" / "aone").write_bytes(b"new")
    tree.clock.shift_ns = 0
    tree.check()
    assert b"aone" in reads.take()
    tree.clock.shift_ns = HOUR_NS
    tree.check()
    assert b"aone" in reads.take()
    assert b"within 2 s" in tree.notes.why()[b"aone"].encode()
    tree.check()
    assert reads.take() == []


def test_time_in_the_future_is_no_reason_to_read_for_ever(tree: World, reads):
    """A file that was given a time to come is trusted by its status change time."""
    touch(tree.source / "one", 4 * 10**18)
    tree.check()
    reads.take()
    tree.check()
    assert reads.take() == []


def test_ignore_ctime_overlooks_what_changes_only_that(tree: World, reads):
    """With --ignore-ctime size, mtime and inode decide; a run without it sees what was overlooked."""
    change_content_keeping_times(tree.source / "one")
    change_content_keeping_times(tree.source / "a" / "b" / "a-bone")
    (tree.source / "two").write_bytes(b"new")
    tree.backup(ignore_ctime=True)
    assert reads.take() == [b"two"]
    tree.backup(ignore_ctime=True)
    assert reads.take() == []
    replace_keeping_times(tree.source / "a" / "aone")
    tree.backup(ignore_ctime=True)
    assert reads.take() == [b"aone"]
    tree.check()
    assert reads.take() == [b"a-bone", b"one"]


def test_trust_times_asks_for_size_and_mtime_only(tree: World, reads):
    """With --trust-times a file that was copied elsewhere and back, or whose mode changed, is not read."""
    replace_keeping_times(tree.source / "a" / "aone")
    (tree.source / "one").chmod(0o604)
    os.setxattr(tree.source / "one", "user.x", b"1")
    (tree.source / "two").write_bytes(b"new")
    result = tree.backup(trust_times=True)
    assert reads.take() == [b"two"]
    found = tree.model(result)
    assert found[b"one"].mode & 0o777 == 0o604
    assert found[b"one"].xattrs == ((b"user.x", b"1"),)
    tree.backup(trust_times=True)
    assert reads.take() == []
    tree.check()
    assert set(reads.take()) >= {b"aone", b"one"}


def test_trust_times_works_without_a_memo(tree: World, reads):
    """With --trust-times the snapshot before stands in for a local cache that is gone."""
    (tree.source / "a" / "b" / "a-bone").write_bytes(b"new")
    tree.reopen(forget=True)
    result = tree.check(trust_times=True)
    assert reads.take() == [b"a-bone"]
    assert result.figures.files_unchanged == 8
    tree.reopen(forget=True)
    result = tree.backup(trust_times=True, dry_run=True)
    assert (reads.take(), result.figures.files_unchanged) == ([], 9)


def test_trust_times_does_not_trust_what_could_not_be_read(tree: World, monkeypatch):
    """A file or directory that could not be read last time is tried again though its times are the same."""
    path = tree.source / "a" / "b"
    real = walker.scan

    def scan(fd, *rest):
        if os.path.samestat(os.fstat(fd), path.stat()):
            raise PermissionError(13, "Permission denied")
        return real(fd, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(walker, "scan", scan)
        assert not tree.backup(trust_times=True).complete
        assert not tree.backup(trust_times=True).complete
        (tree.source / "a" / "aone").touch()
        assert not tree.backup(trust_times=True).complete
    tree.check(trust_times=True)


def test_unstable_inodes_of_a_network_are_ignored(tree: World, reads, monkeypatch):
    """On network and FUSE file systems a file that got another inode number is not read for that."""
    real = walker.scan

    def scan(fd, *rest):
        names, meta, ident = real(fd, *rest)
        rows = [ident[at : at + 24] for at in range(0, len(ident), 24)]
        return (
            names,
            meta,
            b"".join((int.from_bytes(r[:8], "little") ^ salt).to_bytes(8, "little") + r[8:] for r in rows),
        )

    monkeypatch.setattr(walker, "filesystem_kind", lambda fd: FileSystem.NETWORK)  # noqa: ARG005
    monkeypatch.setattr(walker, "scan", scan)
    salt = 1 << 40
    tree.check()
    assert reads.take() == []
    (tree.source / "one").write_bytes(b"new")
    (tree.source / "c" / "big").touch()
    salt = 1 << 41
    tree.check()
    assert reads.take() == [b"big", b"one"]
    tree.check()
    assert reads.take() == []
    (tree.source / "two").write_bytes(b"new")
    tree.check()
    assert reads.take() == [b"two"]


def test_memo_of_a_source_outlives_many_runs_of_another(tree: World, reads):
    """A source that is backed up seldom is not read again because another is backed up often."""
    other = tree.path / "other"
    other.mkdir()
    for _ in range(70):
        tree.backup(other)
    reads.take()
    tree.check()
    assert reads.take() == []


def test_single_files_as_sources_do_not_forget_one_another(tree: World, reads):
    """Files of one directory that are backed up one by one are each known next time."""
    for _ in range(2):
        for name in ("one", "two"):
            assert tree.backup(tree.source / name).figures.files == 1
    reads.take()
    assert tree.backup(tree.source / "one").figures.files_unchanged == 1
    assert tree.backup(tree.source / "one", tree.source / "two").figures.files_new == 2
    assert reads.take() == [b"one", b"two"]


def test_memo_drops_what_was_not_seen_for_a_year(tree: World, reads):
    """What no run saw for a long time is dropped from the local cache, and read when it is met again."""
    other = tree.path / "other"
    other.mkdir()
    (other / "file").write_bytes(b"x")
    tree.clock.shift_ns += 500 * 24 * HOUR_NS
    for _ in range(64):
        tree.backup(other)
    reads.take()
    tree.backup(other)
    assert reads.take() == []
    tree.check()
    assert len(reads.take()) == 9


def test_reason_for_reading_is_told(tree: World):
    """Whoever asks is told of each file why it was read."""
    source = tree.source
    (source / "new").write_bytes(b"x")
    (source / "one").write_bytes(b"longer or shorter")
    touch(source / "two")
    (source / "a" / "aone").chmod(0o600)
    change_content_keeping_times(source / "a" / "atwo")
    replace_keeping_times(source / "a" / "b" / "a-bone")
    os.link(source / "c" / "cone", tree.path / "elsewhere")
    tree.check()
    why = tree.notes.why()
    assert why.pop(b"a-bone") == "inode differs (it was replaced)"
    assert why == {
        b"new": "new",
        b"one": "size was 2000, is 17",
        b"two": "modification time differs",
        b"aone": "mode or owner differs",
        b"atwo": "status change time differs",
        b"cone": "status change time differs",
    }


def test_file_with_attributes_is_read_once(world: World, reads):
    """Extended attributes, which every file has on some systems, do not make a small file be read twice."""
    for number in range(5):
        path = world.source / f"{number}"
        path.write_bytes(os.urandom(1000))
        os.setxattr(path, "user.label", b"unconfined_u:object_r:user_home_t:s0")
    assert world.check().figures.read_bytes == 5000
    assert reads.opened == []
