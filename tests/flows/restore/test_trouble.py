"""What can go wrong: damage, hostile trees, targets that refuse, interruptions. Nothing outside, no half files."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import socket
import stat
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from respaldo import kernel
from respaldo.core.errors import Corruption, Interrupted, StorageFailed, TargetError, UsageError
from respaldo.core.ids import ChunkId
from respaldo.core.model import Content, Entry, Mark
from respaldo.core.seams import Cancel, Silent
from respaldo.flows.restore import run, site, space
from respaldo.flows.restore.jobs import BATCH_TASKS
from respaldo.flows.restore.options import Overwrite, RestoreOptions
from respaldo.format.content import HOLE, Row
from respaldo.format.figures import Figures
from respaldo.fs import unfinished
from respaldo.fs.unfinished import is_unfinished
from respaldo.kernel import scatter
from respaldo.kernel.layout import SCATTER_PRIVATE, SCATTERED, STAGE_WRITE
from respaldo.store import fetch
from tests.flows.restore.world import BLOCK_CHUNKS, TIME, World, ours


@pytest.fixture
def world():
    return World()


@pytest.fixture
def short():
    """A directory whose path is short enough for a socket's name."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def reasons(result):
    return {path.decode("utf-8", "surrogateescape"): reason for path, reason in result.failures}


def symlink(name, target):
    return Entry(name=name, mode=stat.S_IFLNK | 0o777, target=target, mtime_ns=TIME, **ours())


# --- damage ----------------------------------------------------------------------------------------------------------


def test_a_bad_block_fails_its_files_only(world, tmp_path):
    """They are absent, named with the object, and everything else is there; the status says damage."""
    entry = world.directory(b"", *(world.file(b"f%d" % number, b"%d" % number) for number in range(9)))
    world.bad.add((0, 1))
    result = world.restore(entry, tmp_path / "t")
    assert files(tmp_path / "t") == ["f0", "f1", "f2", "f6", "f7", "f8"]
    assert reasons(result).keys() == {"/source/f3", "/source/f4", "/source/f5"}
    assert "packs/0" in reasons(result)["/source/f4"]
    assert (result.failed, result.damaged, result.exit_status) == (3, 3, 4)


def test_a_forged_chunk_is_never_written(world, tmp_path):
    """A block that opens but holds other bytes than the id says fails the files of that chunk only."""
    entry = world.directory(b"", *(world.file(b"f%d" % number, b"%d" % number) for number in range(3)))
    world.flush()
    world.blocks[0, 0] = b"0X2"
    result = world.restore(entry, tmp_path / "t")
    assert files(tmp_path / "t") == ["f0", "f2"]
    assert "chunk" in reasons(result)["/source/f1"]
    assert result.exit_status == 4


@pytest.mark.parametrize("long", [False, True])
def test_a_missing_chunk_leaves_what_was_there(world, tmp_path, long):
    """An existing file is not lost because its replacement cannot be had."""
    data = os.urandom(5 << 20) if long else b"new"
    entry = world.directory(b"", world.file(b"f", data), world.file(b"g", b"fine"))
    del world.places[ChunkId(entry_of(world, entry, b"f").content.ids[-32:])]
    (tmp_path / "t").mkdir()
    (tmp_path / "t/f").write_bytes(b"old and longer")
    result = world.restore(entry, tmp_path / "t")
    assert (tmp_path / "t/f").read_bytes() == b"old and longer"
    assert files(tmp_path / "t") == ["f", "g"]
    assert "in no pack" in reasons(result)["/source/f"]
    assert result.exit_status == 4


def entry_of(world, directory, name):
    (tree_id,) = directory.content
    return next(entry for entry in world.trees[tree_id] if entry.name == name)


def test_a_missing_tree_fails_its_directory_and_spares_what_is_there(world, tmp_path):
    """What the directory held is unknown: nothing in it is deleted."""
    lost = world.directory(b"lost", world.file(b"x", b"1"))
    entry = world.directory(b"", lost, world.file(b"z", b"2"))
    del world.trees[next(iter(lost.content))]
    (tmp_path / "t/lost").mkdir(parents=True)
    (tmp_path / "t/lost/mine").touch()
    (tmp_path / "t/other").touch()
    result = world.restore(entry, tmp_path / "t", RestoreOptions(delete=True))
    assert files(tmp_path / "t") == ["lost", "lost/mine", "z"]
    assert reasons(result).keys() == {"/source/lost"}
    assert (result.exit_status, result.deleted) == (4, 1)


def test_a_pack_that_moved_is_found_again(world, tmp_path):
    """A collector copied it elsewhere while the restore ran: the index is brought up to date once."""
    entry = world.directory(b"", *(world.file(b"f%d" % number, b"%d" % number) for number in range(9)))
    world.flush()
    before = dict(world.places)
    world.gone.add(0)

    def refresh():
        world.refreshed += 1
        for key in list(world.blocks):
            world.blocks[7, key[1]] = world.blocks[key]
        for chunk_id, at in before.items():
            world.places[chunk_id] = at._replace(pack=7)

    world.refresh = refresh
    result = world.restore(entry, tmp_path / "t")
    assert (result.failed, result.created, world.refreshed) == (0, 9, 1)


def test_storage_that_is_gone_ends_the_run(world, tmp_path):
    """One block that cannot be read costs its files; a repository that cannot be read is not asked a million times."""
    many = fetch.FAILURES_IN_A_ROW_MAX * 3 + 30
    entry = world.directory(b"", *(world.file(b"f%04d" % number, b"%d" % number) for number in range(many)))
    world.flush()
    world.failing = {(0, 0): StorageFailed("packs/0", "input/output error")}
    result = world.restore(entry, tmp_path / "one")
    assert (result.failed, result.damaged, result.exit_status) == (3, 0, 3)
    world.failing = dict.fromkeys(world.blocks, StorageFailed("packs", "no such device"))
    with pytest.raises(StorageFailed):
        world.restore(entry, tmp_path / "all")
    assert files(tmp_path / "all") == []


def test_storage_that_vanishes_ends_the_run_at_once(world, tmp_path):
    """Where the repository itself cannot be read any more, no file is blamed for it; nor is a directory."""
    entry = world.directory(b"", *(world.file(b"f%04d" % number, b"%d" % number) for number in range(9)))
    world.flush()
    world.vanished = True
    world.failing = dict.fromkeys(world.blocks, StorageFailed("packs", "no such device"))
    with pytest.raises(StorageFailed):
        world.restore(entry, tmp_path / "files")
    world.failing = {}

    def leaves(_tree_id):
        raise StorageFailed("packs", "no such device")

    world.leaves = leaves
    with pytest.raises(StorageFailed):
        world.restore(entry, tmp_path / "trees")


def test_an_entry_of_unknown_type_is_said_to_be(world, tmp_path):
    """What could not even be looked at becomes nothing, certainly no file."""
    entry = world.directory(b"", Entry(name=b"x", mode=0, mark=Mark.UNREADABLE), world.file(b"y", b"1"))
    for _ in range(2):
        result = world.restore(entry, tmp_path / "t")
        assert (result.failed, result.exit_status, files(tmp_path / "t")) == (1, 3, ["y"])


@pytest.mark.parametrize("mark", [Mark.UNREADABLE, Mark.LOST])
def test_content_that_was_never_stored_is_said_to_be(world, tmp_path, mark):
    """No empty file stands for one that could not be read."""
    entry = world.directory(b"", replace(world.file(b"f", b""), size=5, mark=mark))
    (tmp_path / "t").mkdir()
    (tmp_path / "t/f").write_bytes(b"still here")
    for target, left in ((tmp_path / "t", ["f"]), (tmp_path / "new", [])):
        result = world.restore(entry, target)
        assert (result.failed, result.exit_status) == (1, 3)
        assert files(target) == left


def test_what_was_marked_is_restored_as_far_as_it_is_known(world, tmp_path):
    """Mount points come back as directories; a file that kept changing comes back as it was read last."""
    entry = world.directory(
        b"",
        Entry(name=b"mnt", mode=stat.S_IFDIR | 0o711, mtime_ns=TIME, mark=Mark.MOUNT, **ours()),
        replace(world.file(b"log", b"lines"), mark=Mark.CHANGED),
    )
    result = world.restore(entry, tmp_path / "t")
    assert result.failed == 0
    assert stat.S_IMODE((tmp_path / "t/mnt").stat().st_mode) == 0o711
    assert (tmp_path / "t/log").read_bytes() == b"lines"


# --- hostile trees ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [b"..", b".", b"", b"../escaped", b"/escaped", b"a/../../evil", b"x" * 256])
@pytest.mark.parametrize("kind", ["file", "directory", "symlink"])
def test_a_name_that_leaves_its_directory_fails(world, tmp_path, name, kind):
    """Nothing is written anywhere for it; its neighbours are restored."""
    bad = {
        "file": lambda: world.file(name, b"evil"),
        "directory": lambda: world.directory(name, world.file(b"inside", b"evil")),
        "symlink": lambda: symlink(name, b"/etc"),
    }[kind]()
    entry = world.directory(b"", bad, world.file(b"fine", b"1"), sort=False)
    (tmp_path / "in").mkdir()
    result = world.restore(entry, tmp_path / "in/t", RestoreOptions(overwrite=Overwrite.ALWAYS))
    assert files(tmp_path) == ["in", "in/t", "in/t/fine"]
    assert (result.failed, result.exit_status) == (1, 4)


def test_a_name_with_a_zero_byte_fails_its_directory(world, tmp_path):
    """Columns that do not fit together say nothing about anything in them."""
    entry = world.directory(b"", world.directory(b"d", world.file(b"a\0b", b"evil")), world.file(b"fine", b"1"))
    result = world.restore(entry, tmp_path / "t")
    assert files(tmp_path / "t") == ["d", "fine"]
    assert (result.failed, result.exit_status) == (1, 4)


def test_a_repeated_name_fails(world, tmp_path):
    """A symlink followed by a directory of its name, and files of one name: the first counts, the second is refused."""
    entry = world.directory(
        b"",
        symlink(b"a", b"../outside"),
        world.directory(b"a", world.file(b"x", b"evil")),
        world.file(b"b", b"1"),
        world.file(b"b", b"2"),
        world.file(b"aa", b"3"),
        sort=False,
    )
    (tmp_path / "outside").mkdir()
    result = world.restore(entry, tmp_path / "t")
    assert files(tmp_path) == ["outside", "t", "t/a", "t/b"]
    assert (tmp_path / "t/b").read_bytes() == b"1"
    assert (result.failed, result.exit_status) == (3, 4)


def test_a_symlink_in_the_target_is_not_followed(world, tmp_path):
    """Where the snapshot has a directory, a link that somebody put there is replaced, or the subtree refused."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "t").mkdir()
    (tmp_path / "t/d").symlink_to("../outside")
    entry = world.directory(b"", world.directory(b"d", world.file(b"x", b"1")))
    result = world.restore(entry, tmp_path / "t", RestoreOptions(overwrite=Overwrite.NEVER))
    assert (result.kept, files(tmp_path / "outside")) == (1, [])
    world.restore(entry, tmp_path / "t")
    assert files(tmp_path) == ["outside", "t", "t/d", "t/d/x"]
    assert not (tmp_path / "t/d").is_symlink()


def test_a_link_put_there_while_the_restore_runs_is_not_followed(world, tmp_path):
    """Between plan and write somebody swaps a directory for a link: the run notices."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "t/d").mkdir(parents=True)
    entry = world.directory(b"", world.directory(b"d", world.file(b"x", b"1")))

    class Swap(Silent):
        def at(self, path):
            if path == b"/source":
                (tmp_path / "t/d").rename(tmp_path / "moved")
                (tmp_path / "t/d").symlink_to("../outside")

    result = world.restore(entry, tmp_path / "t", progress=Swap())
    assert result.failed >= 1
    assert files(tmp_path / "outside") == files(tmp_path / "moved") == []


def test_a_tree_that_contains_itself_fails(world, tmp_path):
    """The walk ends."""
    inner = world.directory(b"d", world.file(b"x", b"1"))
    world.trees[next(iter(inner.content))].append(replace(inner, name=b"y"))
    result = world.restore(world.directory(b"", inner), tmp_path / "t")
    assert files(tmp_path / "t") == ["d", "d/x"]
    assert (result.failed, result.exit_status) == (1, 4)


def test_a_directory_with_a_files_content_fails(world, tmp_path):
    """A tree id must be one id."""
    bad = replace(world.directory(b"d"), content=Content(ids=bytes(64)))
    result = world.restore(world.directory(b"", bad, world.file(b"x", b"1")), tmp_path / "t")
    assert files(tmp_path / "t") == ["x"]
    assert result.exit_status == 4


@pytest.mark.parametrize("size", [0, 4, 6, 1 << 40, (1 << 63) - 1])
@pytest.mark.parametrize("listed", [False, True])
def test_content_that_is_not_as_long_as_the_file_fails(world, tmp_path, size, listed):
    """Longer or shorter: the file is absent."""
    file = world.file(b"f", pieces=[b"12345"]) if listed else world.file(b"f", b"12345")
    entry = world.directory(b"", replace(file, size=size), world.file(b"g", b"1"))
    result = world.restore(entry, tmp_path / "t", RestoreOptions(check_space=False))
    assert files(tmp_path / "t") == ["g"]
    assert (result.failed, result.exit_status) == (1, 4)


def test_a_list_that_lies_about_lengths_fails(world, tmp_path):
    """Each chunk of a list has the length that its row says."""
    file = world.file(b"f", pieces=[b"123", b"456"])
    rows = world.lists[file.content.ids]
    world.lists[file.content.ids] = [Row(rows[0].id, 2), Row(rows[1].id, 4)]
    result = world.restore(world.directory(b"", file), tmp_path / "t")
    assert (files(tmp_path / "t"), result.exit_status) == ([], 4)


@pytest.mark.parametrize("size", [1 << 62, (1 << 63) - 1])
def test_a_hole_longer_than_any_file_fails(world, tmp_path, size):
    """The system refuses it; the run goes on."""
    file = world.file(b"f", pieces=[b"1", size - 1])
    result = world.restore(world.directory(b"", file, world.file(b"g", b"1")), tmp_path / "t")
    assert files(tmp_path / "t") in (["g"], ["f", "g"])
    if result.failed:
        assert result.exit_status == 3


@pytest.mark.parametrize("again", [False, True])
def test_names_of_a_group_that_differ_become_copies(world, tmp_path, again):
    """Names of one group that are not one file get what each of them holds; the first is linked to by its equals."""
    group = b"g" * 16
    entry = world.directory(
        b"",
        replace(world.file(b"a", b"1"), link_group=group),
        replace(symlink(b"b", b"/etc"), link_group=group),
        replace(world.file(b"c", b"2"), link_group=group),
        replace(world.file(b"d", b"1"), link_group=group),
        world.directory(
            b"e",
            replace(world.file(b"f", b"2"), link_group=group),
            Entry(name=b"g", mode=stat.S_IFIFO | 0o600, mtime_ns=TIME, link_group=group, **ours()),
            replace(world.file(b"h", b"1"), link_group=group),
            replace(world.file(b"i", os.urandom(5 << 20)), link_group=group),
        ),
    )
    target = tmp_path / "t"
    options = RestoreOptions(overwrite=Overwrite.ALWAYS, verify=True)
    if again:
        # As a restore that took them for one file would have left it.
        (target / "e").mkdir(parents=True)
        (target / "a").write_bytes(b"1")
        for name in ("c", "d", "e/f", "e/h"):
            os.link(target / "a", target / name)
    result = world.restore(entry, target, options)
    assert (result.failures, result.failed, result.exit_status) == ((), 0, 0)
    content = {name: (target / name).read_bytes() for name in ("a", "c", "d", "e/f", "e/h")}
    assert content == {"a": b"1", "c": b"2", "d": b"1", "e/f": b"2", "e/h": b"1"}
    assert (target / "e/i").stat().st_size == 5 << 20
    assert os.readlink(target / "b") == "/etc"
    assert (target / "e/g").is_fifo()
    assert (target / "a").samefile(target / "d")
    assert (target / "a").samefile(target / "e/h")
    assert (target / "a").stat().st_nlink == 3
    assert any(note.startswith("5 names of hard-linked files") for note in result.notes)
    again_result = world.restore(entry, target)
    assert (again_result.created, again_result.overwritten, again_result.attributes) == (0, 0, 0)


# --- the target ------------------------------------------------------------------------------------------------------


def occupy(path, kind):
    """Puts something under a name that no file's content may silently take the place of."""
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(os.fspath(path))
    else:
        try:
            os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
        except PermissionError:
            pytest.skip("needs the right to make devices")


@pytest.mark.parametrize("kind", ["FIFO", "socket", "character device"])
def test_a_file_does_not_take_the_place_of_a_device_or_its_like(world, short, kind):
    """Whoever names one as the target of a file wants to write to it, or is mistaken; it is never replaced."""
    entry = world.file(b"f", b"content")
    (short / "folder").mkdir()
    for there, target in ((short / "x", short / "x"), (short / "folder/f", short / "folder")):
        occupy(there, kind)
        for act in (world.restore, world.plan):
            with pytest.raises(TargetError, match=f"there is a {kind}") as caught:
                act(entry, target, path=b"/source/f")
            assert caught.value.exit_status == 1
            assert "another" in caught.value.hint
        assert not there.is_file()
        assert world.restore(entry, target, RestoreOptions(overwrite=Overwrite.NEVER), path=b"/source/f").kept == 1
        assert not there.is_file()


def test_a_fifo_is_restored_over_itself(world, tmp_path):
    """What is there already as the snapshot has it is not refused."""
    os.mkfifo(tmp_path / "x")
    entry = Entry(name=b"f", mode=stat.S_IFIFO | 0o600, mtime_ns=TIME, **ours())
    result = world.restore(entry, tmp_path / "x", path=b"/source/f")
    assert (result.failed, result.attributes) == (0, 1)
    assert (tmp_path / "x").stat().st_mtime_ns == TIME


def test_a_full_target_is_refused_before_anything_is_written(world, tmp_path, monkeypatch):
    """Bytes and inodes are counted; holes need neither."""
    entry = world.directory(b"", world.file(b"f", os.urandom(100_000)), world.file(b"h", pieces=[b"1", 1 << 40]))
    monkeypatch.setattr(space.Room, "at", staticmethod(lambda _: space.Room(50_000, -1)))
    with pytest.raises(TargetError, match="are free"):
        world.restore(entry, tmp_path / "t")
    assert not (tmp_path / "t").exists()
    monkeypatch.setattr(space.Room, "at", staticmethod(lambda _: space.Room(200_000, 2)))
    with pytest.raises(TargetError, match="more fit"):
        world.restore(entry, tmp_path / "t")
    monkeypatch.setattr(space.Room, "at", staticmethod(lambda _: space.Room(200_000, 3)))
    assert world.restore(entry, tmp_path / "t").failed == 0
    monkeypatch.setattr(space.Room, "at", staticmethod(lambda _: space.Room(0, 0)))
    assert world.restore(entry, tmp_path / "t").failed == 0, "what is there needs no room"
    assert world.restore(entry, tmp_path / "u", RestoreOptions(check_space=False)).failed == 0


def test_the_figures_of_a_snapshot_suffice_where_there_is_room(world, tmp_path, monkeypatch):
    """A whole plan is not made twice."""
    monkeypatch.setattr(run, "survey", None)
    entry = world.directory(b"", world.file(b"f", b"1"))
    figures = Figures(files=1, directories=1, length_bytes=1)
    assert world.restore(entry, tmp_path / "t", figures=figures).created == 1


def test_figures_that_say_too_little_fill_no_disk(world, tmp_path, monkeypatch):
    """What holds more than it says is counted as soon as that shows; with room for it, all of it is restored."""
    entry = world.directory(b"", world.file(b"f", os.urandom(100_000)), world.file(b"g", os.urandom(100_000)))
    for figures, match in ((Figures(files=2, length_bytes=100_000), "195.3 KiB"), (Figures(files=1), "195.3 KiB")):
        monkeypatch.setattr(space.Room, "at", staticmethod(lambda _: space.Room(150_000, -1)))
        with pytest.raises(TargetError, match=f"at least {match} are needed") as caught:
            world.restore(entry, tmp_path / "t", figures=figures)
        assert "holds more than it says" in caught.value.hint
        monkeypatch.setattr(space.Room, "at", staticmethod(lambda _: space.Room(300_000, 9)))
        assert world.restore(entry, tmp_path / f"u{figures.length_bytes}", figures=figures).created == 2


@pytest.mark.root
def test_a_target_that_fills_up_stops_the_run(world, tmp_path):
    """ENOSPC is an error of the target, not of a file; what was written is whole, and no temporary is left."""
    target = tmp_path / "t"
    target.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", target], check=False).returncode:
        pytest.skip("needs the right to mount")
    try:
        for long in (False, True):
            chunks = [os.urandom(300_000) for _ in range(5)]
            entry = (
                world.directory(b"", world.file(b"f", b"".join(chunks) * 4, chunk_bytes=300_000))
                if long
                else world.directory(b"", *(world.file(b"f%d" % number, data) for number, data in enumerate(chunks)))
            )
            with pytest.raises(TargetError, match="No space left") as caught:
                world.restore(entry, target, RestoreOptions(check_space=False))
            assert "go on" in caught.value.hint
            left = files(target)
            assert not [name for name in left if name.startswith(".respaldo")]
            assert all((target / name).stat().st_size == 300_000 for name in left)
    finally:
        subprocess.run(["umount", target], check=True)


@pytest.mark.parametrize("when", range(0, 40, 3))
def test_an_interrupted_run_leaves_no_temporary_and_is_gone_on_with(world, tmp_path, when):
    """Stopped anywhere; files are whole or absent, and the next run finishes."""
    group = b"g" * 16
    entry = world.directory(
        b"",
        world.directory(b"d", *(world.file(b"f%d" % number, b"%d" % number * 999) for number in range(20))),
        world.file(b"long", os.urandom(9 << 20)),
        replace(world.file(b"one", b"1"), link_group=group),
        replace(world.file(b"two", b"1"), link_group=group),
        world.file(b"attributes", b"x", xattrs=((b"user.a", b"1"),)),
        symlink(b"link", b"x"),
    )
    checks = 0

    class Soon(Cancel):
        def check(self):
            nonlocal checks
            checks += 1
            if checks > when:
                raise Interrupted

    target = tmp_path / "t"
    try:
        world.restore(entry, target, cancel=Soon())
    except Interrupted:
        assert checks == when + 1
    expected = {"long": 9 << 20, "one": 1, "two": 1, "attributes": 1}
    for path in target.rglob("*"):
        assert not path.name.startswith(".respaldo")
        if path.name in expected:
            assert path.stat().st_size == expected[path.name]
    result = world.restore(entry, target, RestoreOptions(verify=True))
    assert (result.failed, result.created + result.unchanged) == (0, 25)


def test_leftovers_of_a_killed_run_are_removed_and_used(world, tmp_path):
    """Temporaries go; a long file is not fetched again where half of it is there."""
    data = os.urandom(20 << 20)
    entry = world.directory(b"", world.file(b"long", data, chunk_bytes=1 << 20), world.file(b"f", b"1"))
    target = tmp_path / "t"
    target.mkdir()
    (target / ".respaldo-0123456789abcdef-7").write_bytes(b"junk")
    (target / ".respaldo-not-ours").write_bytes(b"mine")
    leave_half(world, entry, target, data)
    world.decoded.clear()
    result = world.restore(entry, target, RestoreOptions(verify=True))
    assert result.failures == ()
    assert files(target) == [".respaldo-not-ours", "f", "long"]
    assert (target / "long").read_bytes() == data
    assert sum(world.decoded.values()) <= 5


def leave_half(world, entry, target, data):
    """Leaves what a run that was killed half-way would."""
    from respaldo.flows.restore.decide import resume_key
    from respaldo.fs.draft import Draft
    from respaldo.fs.place import Target

    with Target(os.fsencode(target)) as place:
        draft = Draft.file(place.root, key=resume_key(entry_of(world, entry, b"long")))
        os.write(draft.fd, data[: 12 << 20])
        os.pwrite(draft.fd, b"torn", 5 << 20)
        os.close(draft.fd)


@pytest.mark.root
@pytest.mark.parametrize("blocked", ["file", "directory"])
def test_a_mount_in_the_way_is_not_removed(world, tmp_path, blocked):
    """A file does not take the place of a directory in which something is mounted."""
    target = tmp_path / "t"
    (target / "x/mount").mkdir(parents=True)
    (target / "x/keep").touch()
    if subprocess.run(["mount", "-t", "tmpfs", "none", target / "x/mount"], check=False).returncode:
        pytest.skip("needs the right to mount")
    try:
        entry = world.directory(b"", world.file(b"x", b"1"), world.file(b"y", b"2"))
        result = world.restore(entry, target)
        assert "mounted" in reasons(result)["/source/x"]
        assert files(target) == ["x", "x/keep", "x/mount", "y"]
        kept = world.restore(world.directory(b"", world.directory(b"z")), target, RestoreOptions(delete=True))
        assert files(target) == ["x", "x/mount", "z"]
        assert any("mount" in note for note in kept.notes)
        assert kept.failed == 0
    finally:
        subprocess.run(["umount", target / "x/mount"], check=True)


def test_a_directory_that_cannot_be_made_costs_what_is_below_it(world, tmp_path, monkeypatch):
    """It is named once; what is below is counted."""
    real = os.mkdir

    def mkdir(name, *args, **kwargs):
        if is_unfinished(os.fsencode(name)):
            raise OSError(errno.EACCES, "Permission denied")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(os, "mkdir", mkdir)
    result = world.restore(nested(world), tmp_path / "t")
    assert files(tmp_path / "t") == ["z"]
    assert reasons(result) == {"/source/d": "Permission denied"}
    assert (result.failed, result.created, result.exit_status) == (3, 1, 3)


def nested(world):
    below = world.directory(b"d", world.file(b"a", b"1"), world.directory(b"e", world.file(b"b", b"2")))
    return world.directory(b"", below, world.file(b"z", b"3"))


def test_a_directory_whose_name_was_taken_meanwhile_is_as_if_it_could_not_be_made(world, tmp_path, monkeypatch):
    """Nothing of it stays, all of it is counted as failed, and the next run puts it into what is there."""
    target = tmp_path / "t"

    def meanwhile(*args):
        (target / "d").mkdir(exist_ok=True)
        return scatter(*args)

    monkeypatch.setattr(kernel, "scatter", meanwhile)
    result = world.restore(nested(world), target)
    assert files(target) == ["d", "z"]
    assert reasons(result) == {"/source/d": "File exists"}
    assert (result.failed, result.created, result.written_bytes, result.directories) == (3, 1, 1, 1)
    result = world.restore(nested(world), target, RestoreOptions(verify=True))
    assert files(target) == ["d", "d/a", "d/e", "d/e/b", "z"]
    assert (result.failed, result.created) == (0, 2)


def test_a_target_that_refuses_is_named_as_what_it_stands_for(world, tmp_path, monkeypatch):
    """The root's path is the snapshot's, not that of something below it with its name."""

    def fchmod(*_args):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(os, "fchmod", fchmod)
    result = world.restore(nested(world), tmp_path / "t")
    assert reasons(result) == {"/source": "Function not implemented"}


def test_a_run_that_is_broken_off_leaves_no_directory_without_a_name(world, tmp_path, monkeypatch):
    """Where the name was taken meanwhile, what is in it is removed, whatever asks the run to stop."""
    target, cancel = tmp_path / "t", Cancel()

    def meanwhile(*args):
        (target / "d").mkdir()
        cancel.request("SIGINT")
        return scatter(*args)

    monkeypatch.setattr(kernel, "scatter", meanwhile)
    with pytest.raises(Interrupted):
        world.restore(nested(world), target, cancel=cancel)
    assert files(target) == ["d", "z"] or files(target) == ["d"]


def test_a_signal_does_not_end_a_removal_in_the_middle(world, tmp_path, monkeypatch):
    """A directory whose name was taken is removed as a whole, also by a run that is asked to stop just then."""
    target, cancel = tmp_path / "t", Cancel()
    real = unfinished.rename_new

    def meanwhile(*args):
        (target / "d").mkdir()
        cancel.request("SIGINT")
        return real(*args)

    monkeypatch.setattr(unfinished, "rename_new", meanwhile)
    with pytest.raises(Interrupted):
        world.restore(nested(world), target, cancel=cancel)
    assert files(target) == ["d", "z"] or files(target) == ["d"]


@pytest.mark.parametrize("stubborn", [False, True])
def test_a_half_file_never_gets_a_final_name_with_its_directory(world, tmp_path, monkeypatch, stubborn):
    """What failed is taken away, or its directory gets no name: the file system may have let nobody remove it."""
    target = tmp_path / "t"
    half = SCATTERED.pack(errno.EIO, STAGE_WRITE, 0)

    def broken(fd, names, *args):
        if names != b"a\0":
            return scatter(fd, names, *args)
        os.close(os.open(b"a", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        return half

    real = os.unlink

    def unlink(name, **where):
        if stubborn and name == b"a":
            raise OSError(errno.EIO, "Input/output error")
        real(name, **where)

    monkeypatch.setattr(kernel, "scatter", broken)
    monkeypatch.setattr(os, "unlink", unlink)
    result = world.restore(nested(world), target)
    assert not (target / "d/a").exists()
    assert (target / "z").exists()
    assert (target / "d/e/b").exists() is not stubborn
    assert result.failed == (3 if stubborn else 1)


def test_a_directory_that_cannot_be_removed_costs_no_other(world, tmp_path, monkeypatch):
    """The next one gets its own private name."""
    target = tmp_path / "t"
    below = [world.directory(b"%d" % number, world.file(b"f", b"%d" % number)) for number in range(3)]

    def meanwhile(*args):
        (target / "0").mkdir(exist_ok=True)
        return scatter(*args)

    def rmdir(name, **where):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(kernel, "scatter", meanwhile)
    monkeypatch.setattr(os, "rmdir", rmdir)
    result = world.restore(world.directory(b"", *below), target)
    assert reasons(result) == {"/source/0": "File exists"}
    assert (target / "1/f").exists()
    assert (target / "2/f").exists()


def test_what_a_killed_run_left_is_removed_before_its_space_is_needed(world, tmp_path, monkeypatch):
    """On a disk that is just large enough, the next run would never come to its end."""
    target = tmp_path / "t"
    left = target / ".respaldo-0123456789abcdef-directory"
    left.mkdir(parents=True)
    left.chmod(0o700)
    (left / "f").write_bytes(bytes(1 << 20))
    seen = []

    def look(*args):
        seen.append(left.exists())
        return scatter(*args)

    monkeypatch.setattr(kernel, "scatter", look)
    entry = world.directory(b"", world.directory(b"d", world.file(b"f", b"x" * 60_000)), world.file(b"z", b"3"))
    monkeypatch.setattr(space.Room, "at", classmethod(lambda cls, _fd: cls(10_000, -1)))
    world.restore(entry, target, figures=Figures(files=2, directories=2, length_bytes=60_001))
    assert seen == [False, False]
    assert files(target) == ["d", "d/f", "z"]


def test_a_new_directory_is_seen_when_its_files_are_whole(world, tmp_path, monkeypatch):
    """It has its name once its files are whole, or so many are that a killed run should not lose more."""
    monkeypatch.setattr(site, "UNFINISHED_FILES_MAX", BATCH_TASKS * BLOCK_CHUNKS + 1)
    target = tmp_path / "t"
    seen = []

    def look(*args):
        seen.append((len(os.listdir(target)), (target / "d").exists(), args[-1] & SCATTER_PRIVATE))
        return scatter(*args)

    monkeypatch.setattr(kernel, "scatter", look)
    many = [world.file(b"%03d" % number, b"%d" % number) for number in range(2 * BATCH_TASKS * BLOCK_CHUNKS + 1)]
    result = world.restore(world.directory(b"", world.directory(b"d", *many)), target)
    assert seen == [(1, False, SCATTER_PRIVATE), (1, False, SCATTER_PRIVATE), (1, True, 0)]
    assert (result.failed, result.created) == (0, len(many))
    assert files(target) == ["d", *(f"d/{number:03d}" for number in range(len(many)))]


@pytest.mark.parametrize("at_it", [False, True])
def test_an_unfinished_directory_of_a_killed_run_is_removed(world, tmp_path, at_it):
    """With the files in it; not while a run is at it, nor what only looks like one."""
    target = tmp_path / "t"
    names = [f".respaldo-{number:016x}-directory" for number in range(4)]
    for number, name in enumerate(names):
        (target / name).mkdir(parents=True)
        (target / name / "half").write_bytes(b"ha")
        (target / name).chmod(0o755 if number == 1 else 0o700)
    (target / names[2] / "below").mkdir()
    (target / names[3] / "link").symlink_to("half")
    fd = os.open(target / names[0], os.O_RDONLY)
    try:
        if at_it:
            fcntl.flock(fd, fcntl.LOCK_EX)
        world.restore(world.directory(b"", world.file(b"f", b"1")), target)
    finally:
        os.close(fd)
    assert sorted(os.listdir(target)) == sorted([*names[not at_it :], "f"])
    assert all(os.path.exists(target / name / "half") for name in names[1:])


def test_delete_is_refused_where_it_makes_no_sense(world, tmp_path):
    """Not on the root of the file system, by whatever name, and not with a part."""
    (tmp_path / "root").symlink_to("/")
    for target in ("/", "//", tmp_path / "root"):
        with pytest.raises(UsageError):
            world.plan(world.directory(b""), target, RestoreOptions(delete=True))
        with pytest.raises(UsageError):
            world.restore(world.directory(b""), target, RestoreOptions(delete=True))
    with pytest.raises(UsageError):
        RestoreOptions(delete=True, include=("x",))


def test_failures_are_bounded(world, tmp_path):
    """A million failures are counted, a thousand kept."""
    bad = [replace(world.file(b"f%05d" % number, b"x"), size=2) for number in range(1500)]
    result = world.restore(world.directory(b"", *bad), tmp_path / "t")
    assert (result.failed, len(result.failures)) == (1500, 1000)


def test_verify_reads_what_its_owner_may_not(world, ordinary):
    """A file without permission to read is compared all the same, and has the mode that it had."""
    modes = (0o000, 0o200, 0o044, 0o400)
    entry = world.directory(b"", *(world.file(b"%03o" % mode, b"x", mode=stat.S_IFREG | mode) for mode in modes))
    target = ordinary / "t"
    result = world.restore(entry, target, RestoreOptions(owners=False, verify=True))
    assert result.failures == ()
    assert [stat.S_IMODE((target / f"{mode:03o}").stat().st_mode) for mode in modes] == list(modes)
    for mode in modes:
        path = target / f"{mode:03o}"
        path.chmod(0o600)
        path.write_bytes(b"y")
        os.utime(path, ns=(TIME, TIME))
        path.chmod(mode)
    assert world.restore(entry, target, RestoreOptions(owners=False, verify=True)).failed == len(modes)


def test_verify_finds_what_differs_after_writing(world, tmp_path, monkeypatch):
    """What reads back otherwise than it was written is a failure; what is known to have failed is not said twice."""
    entry = world.directory(
        b"", world.file(b"a", b"12345"), world.file(b"b", b"1"), replace(world.file(b"c", b"1"), size=9)
    )

    def spoil(fd):
        (tmp_path / "t/a").write_bytes(b"1234X")
        (tmp_path / "t/b").unlink()

    monkeypatch.setattr(run, "sync_filesystem", spoil)
    result = world.restore(entry, tmp_path / "t", RestoreOptions(verify=True))
    assert reasons(result).keys() == {"/source/a", "/source/b", "/source/c"}
    assert "differs" in reasons(result)["/source/a"]


def test_block_errors_of_other_kinds_are_not_hidden(world, tmp_path):
    """A fault of the program is no damage of the repository."""
    entry = world.directory(b"", world.file(b"a", b"1"))
    world.flush()
    world.failing = {(0, 0): ZeroDivisionError()}
    with pytest.raises(ZeroDivisionError):
        world.restore(entry, tmp_path / "t")


def test_chunk_ids_of_zero_are_no_holes_in_a_short_list(world, tmp_path):
    """Only lists have holes: an id of zeros among direct chunks is a chunk that is missing."""
    file = replace(world.file(b"f", b""), size=5, content=Content(ids=bytes(HOLE)))
    assert hashlib.sha256(bytes(5)).digest() != HOLE
    result = world.restore(world.directory(b"", file), tmp_path / "t")
    assert (files(tmp_path / "t"), result.exit_status) == ([], 4)
    assert not isinstance(result.failures[0][1], Corruption)
