"""Names: several of one file, odd ones, long ones, deep ones, and where an entry came from."""

from __future__ import annotations

import os
import stat
import subprocess

import pytest

from tests.fidelity.compare import assert_equal, differences, leftovers, picture, rsync_differences
from tests.fidelity.trees import TIME_NS, data, set_time


def groups(top):
    """Returns which names below a directory are one file."""
    found = {}
    for name, seen in picture(top, root=False).items():
        if seen.mate:
            found.setdefault(seen.mate, set()).add(name)
    return sorted(map(sorted, found.values()))


@pytest.fixture
def linked(room):
    """Has files with several names in several directories."""
    top = room / "source"
    for name in ("a", "b/deep", "c"):
        (top / name).mkdir(parents=True)
    (top / "b" / "deep" / "first").write_bytes(data(5000))
    (top / "c" / "long").write_bytes(data(3 << 20, 2))
    (top / "a" / "empty").touch()
    os.symlink("anywhere", top / "a" / "link")
    os.mkfifo(top / "a" / "fifo")
    for old, new in (
        ("b/deep/first", "a/second"),
        ("b/deep/first", "c/third"),
        ("b/deep/first", "c/fourth"),
        ("c/long", "a/long"),
        ("a/empty", "c/empty"),
        ("a/link", "b/link"),
        ("a/fifo", "b/deep/fifo"),
    ):
        os.link(top / old, top / new, follow_symlinks=False)
    return top


def test_links_of_all_kinds_come_back(product, linked, room):
    """Names of one file are names of one file again, across directories, of symbolic links and FIFOs, too."""
    product.snapshot(linked)
    product.restore(linked, room / "target", "--verify")
    assert_equal(linked, room / "target")
    assert len(groups(room / "target")) == 5


@pytest.mark.root
def test_links_of_devices_come_back(product, room):
    """Two names of a device are one device again."""
    source = room / "source"
    (source / "a").mkdir(parents=True)
    os.mknod(source / "device", stat.S_IFBLK | 0o600, os.makedev(7, 77))
    os.link(source / "device", source / "a" / "device too")
    product.snapshot(source)
    product.restore(source, room / "target")
    assert_equal(source, room / "target")


def test_links_are_made_as_far_as_they_are_selected(product, linked, room):
    """Of several names the selected ones are one file, whichever they are; so are those of one directory."""
    product.snapshot(linked)
    product.restore(linked, room / "two", "--include", "second", "--include", "fourth")
    assert groups(room / "two") == [[b"a/second", b"c/fourth"]]
    assert (room / "two" / "c" / "fourth").read_bytes() == data(5000)

    product.restore(linked, room / "others", "--exclude", "/a", "--exclude", "/b")
    assert groups(room / "others") == [[b"c/fourth", b"c/third"]]
    product.restore(linked / "c", room / "c")
    assert groups(room / "c") == [[b"fourth", b"third"]]
    assert (room / "c" / "long").read_bytes() == data(3 << 20, 2)
    assert os.stat(room / "c" / "empty").st_nlink == 1

    product.restore(linked / "c" / "third", room / "alone")
    assert (room / "alone").read_bytes() == data(5000)
    assert os.stat(room / "alone").st_nlink == 1


def test_links_are_put_right_over_what_is_there(product, linked, room):
    """Names that are there as files of their own, or are one file with others, become what they were."""
    target = room / "target"
    product.snapshot(linked)
    product.restore(linked, target)
    (target / "a" / "second").unlink()
    (target / "a" / "second").write_bytes(data(5000))  # equal, but a file of its own
    (target / "c" / "third").unlink()
    (target / "c" / "third").write_bytes(b"other")
    (target / "c" / "fourth").unlink()
    os.link(target / "c" / "empty", target / "c" / "fourth")  # of another file
    (target / "b" / "link").unlink()
    (target / "b" / "link").mkdir()
    (target / "b" / "link" / "in the way").write_bytes(b"x")
    product.restore(linked, target)
    assert_equal(linked, target)
    assert leftovers(target) == []


def test_restored_file_is_no_name_of_a_file_outside(product, room):
    """A name in the target that is another name of a file elsewhere leaves that one as it is."""
    source, target = room / "source", room / "target"
    source.mkdir()
    (source / "file").write_bytes(data(5000))
    (source / "long").write_bytes(data(2 << 20))
    (source / "same").write_bytes(b"same")
    set_time(source / "same", TIME_NS)
    product.snapshot(source)
    target.mkdir()
    outside = room / "outside"
    outside.mkdir()
    for name in ("file", "long", "same"):
        (outside / name).write_bytes(b"same" if name == "same" else b"outside")
        os.link(outside / name, target / name)
    before = picture(outside)
    product.restore(source, target, "--in-place", "--overwrite", "always")
    assert rsync_differences(source, target) == []
    assert differences(before, picture(outside), leaving_out=("links", "mate")) == []


# --- long ways -------------------------------------------------------------------------------------------------------


def dig(top, names, every):
    """Makes directories one in another, each with a file now and then, by descriptors: their paths are too long."""
    fd = os.open(top, os.O_RDONLY)
    for depth, name in enumerate(names):
        os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_RDONLY, dir_fd=fd)
        if depth % every == 0 or depth == len(names) - 1:
            file = os.open("file", os.O_WRONLY | os.O_CREAT, 0o640, dir_fd=below)
            os.write(file, b"%d" % depth)
            os.close(file)
            os.symlink(f"at {depth}", "link", dir_fd=below)
            os.utime("link", ns=(0, depth), dir_fd=below, follow_symlinks=False)
        os.close(fd)
        fd = below
    os.close(fd)


def clear(*places):
    # No call of Python's removes a tree of any depth.
    subprocess.run(["rm", "-rf", "--", *map(str, places)], check=True)


@pytest.mark.parametrize(
    ("depth", "length_bytes"),
    [pytest.param(300, 50, id="longer-than-a-path"), pytest.param(3000, 2, id="3000-levels", marks=pytest.mark.slow)],
)
def test_deep_trees_come_back(product, memory, depth, length_bytes):
    """Depth has no limit: not that of a path, not that of open files, not that of recursion."""
    room = memory
    source, target = room / "source", room / "target"
    source.mkdir()
    dig(source, [b"%0*d" % (length_bytes, level % 100) for level in range(depth)], every=7)
    try:
        before = picture(source)
        assert product.snapshot(source)["complete"]
        assert product.snapshot(source)["complete"]
        assert product.restore(source, target, "--verify")["complete"]
        assert differences(before, picture(target)) == []
        # Over it, with something at the bottom to put right, and something to take away.
        subprocess.run(["find", ".", "-name", "link", "-delete"], cwd=target, check=True)
        again = product.restore(source, target, "--delete")
        assert again["created"] == sum(name.endswith(b"/link") for name in before)
        assert differences(before, picture(target)) == []
        subprocess.run(["rm", "-rf", f"{target}/{0:0{length_bytes}}"], check=True)
        (room / "empty").mkdir()
        product.snapshot(room / "empty")
        product.restore(room / "empty", source, "--delete")
        assert os.listdir(source) == []
    finally:
        clear(source, target)


# --- sources ---------------------------------------------------------------------------------------------------------


def test_directories_above_sources_have_their_own_attributes(product, room):
    """Restored whole, several sources stand below directories with modes, times and attributes of their own."""
    top = room / "top"
    for name in ("one/source", "two/deeper/other", "not asked for"):
        (top / name).mkdir(parents=True)
    (top / "one" / "source" / "file").write_bytes(b"one")
    (top / "two" / "deeper" / "other" / "file").write_bytes(b"two")
    (top / "two" / "single").write_bytes(b"single")
    (top / "two" / "beside").write_bytes(b"not asked for")
    for name, mode in (("one", 0o711), ("two", 0o1770), ("two/deeper", 0o2750), (".", 0o700)):
        os.setxattr(top / name, "user.name", name.encode())
        (top / name).chmod(mode)
        set_time(top / name, TIME_NS + mode)
    product.snapshot(top / "one" / "source", top / "two" / "deeper" / "other", top / "two" / "single")
    made = product.snapshot(top / "one" / "source", top / "two" / "deeper" / "other", top / "two" / "single")
    target = room / "target"
    product.restore("latest:/", target)
    expected = picture(top)
    for name in list(expected):
        if name.startswith((b"not asked for", b"two/beside")):
            del expected[name]
    back = target / str(top).lstrip("/")
    assert differences(expected, picture(back)) == []
    for above in back.relative_to(target).parents:
        if str(above) != ".":
            was, now = os.stat(f"/{above}"), os.stat(target / above)
            assert was.st_mode == now.st_mode
            assert os.geteuid() != 0 or (was.st_uid, was.st_gid) == (now.st_uid, now.st_gid)

    # By the snapshot's id, and of a directory above the sources.
    product.restore(f"{made['snapshot'][:12]}:{top}", room / "part")
    assert differences(expected, picture(room / "part")) == []
    # Only what is on the way to what was asked for.
    product.restore(f"latest:{top}", room / "some", "--include", "/two/deeper/other/file")
    wanted = {b"", b"two", b"two/deeper", b"two/deeper/other", b"two/deeper/other/file"}
    some = picture(room / "some")
    assert differences({name: expected[name] for name in wanted}, some) == []


def test_one_file_comes_back_to_a_name_or_into_a_directory(product, room):
    """A file becomes its target, or lands in it; over what is there, too; and the directory stays as it was."""
    source = room / "source"
    source.mkdir()
    path = source / "file"
    path.write_bytes(data(70_000))
    os.setxattr(path, "user.a", b"b")
    path.chmod(0o4640)
    set_time(path, TIME_NS)
    product.snapshot(source)
    wanted = picture(source)[b"file"]
    (room / "into").mkdir(mode=0o750)
    (room / "into" / "neighbour").write_bytes(b"stays")
    for target, where in (
        ("new name", "new name"),
        ("into", "into/file"),
        ("into/", "into/file"),
        ("deep/new/name", "deep/new/name"),
        ("deep/into/.", "deep/into/file"),
    ):
        if target == "deep/into/.":
            (room / "deep" / "into").mkdir()
        product.restore(path, os.fsencode(room) + b"/" + target.encode())
        assert picture((room / where).parent)[os.fsencode((room / where).name)] == wanted, target
    (room / "new name").write_bytes(b"other")
    product.restore(path, room / "new name", "--delete")
    assert picture(room)[b"new name"] == wanted
    assert (room / "into" / "neighbour").read_bytes() == b"stays"
    assert stat.S_IMODE((room / "into").stat().st_mode) == 0o750
    # A symbolic link is restored as one, also over a link that leads to a directory.
    os.symlink("file", source / "link")
    product.snapshot(source)
    product.restore(source / "link", room / "link")
    assert os.readlink(room / "link") == "file"


def test_single_sources_of_each_kind_come_back(product, room):
    """A source may be a file, a link or a FIFO: it comes back with all it had."""
    room = room / "single"
    room.mkdir()
    (room / "file").write_bytes(data(3 << 20))
    os.setxattr(room / "file", "user.a", b"b")
    os.symlink("nowhere", room / "link")
    os.mkfifo(room / "fifo", 0o604)
    names = [b"file", b"link", b"fifo"]
    for name in names:
        set_time(os.fsencode(room) + b"/" + name, TIME_NS)
        product.snapshot(room / name.decode())
    before = picture(room)
    target = room / "target"
    target.mkdir()
    for name in names:
        product.restore(room / name.decode(), target)
    after = picture(target)
    assert [after[name] for name in names] == [before[name] for name in names]
