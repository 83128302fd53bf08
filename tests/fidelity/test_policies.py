"""A restore into what is there: each policy, what is deleted and what is spared, and a dry run that tells it all."""

from __future__ import annotations

import os
import stat
from dataclasses import replace

import pytest

from tests.fidelity.compare import assert_equal, differences, picture, rsync_differences
from tests.fidelity.disks import tmpfs_on
from tests.fidelity.trees import TIME_NS, data, set_time, write_attributes, write_ordinary

POLICIES = ("always", "if-changed", "if-newer", "never")


@pytest.fixture
def source(room):
    """Has a tree with times long past."""
    top = room / "source"
    (top / "folder" / "inner").mkdir(parents=True)
    for name in ("equal", "older", "newer", "same size and time", "mode", "type", "folder/missing", "folder/inner/x"):
        (top / name).write_bytes(data(5000, len(name)))
    (top / "long").write_bytes(data(3 << 20))
    os.symlink("equal", top / "link")
    os.mkfifo(top / "fifo")
    for folder, below, names in os.walk(top, topdown=False):
        for name in [*names, *below]:
            set_time(os.path.join(folder, name), TIME_NS)
    set_time(top, TIME_NS)
    return top


@pytest.fixture
def target(source, room, product):
    """Has that tree restored, and then changed in each way."""
    top = room / "target"
    product.snapshot(source)
    product.restore(source, top)
    for name, later in (("older", -1), ("newer", 1), ("same size and time", 0), ("long", -1)):
        path = top / name
        path.write_bytes(data(path.stat().st_size, 99))
        set_time(path, TIME_NS + later * 10**9)
    (top / "mode").chmod(0o600)
    (top / "type").unlink()
    (top / "type").mkdir()
    (top / "type" / "in it").write_bytes(b"in it")
    (top / "folder" / "missing").unlink()
    (top / "link").unlink()
    os.symlink("elsewhere", top / "link")
    set_time(top / "link", TIME_NS - 1)
    (top / "added").write_bytes(data(700))
    (top / "folder" / "inner" / "added").mkdir()
    (top / "folder" / "inner" / "added" / "deep").write_bytes(data(800))
    return top


def changed(before, after):
    """Returns which names a restore made, and which of those that were there are not what they were."""
    made = after.keys() - before.keys()
    gone = before.keys() - after.keys()
    content = {
        name
        for name in before.keys() & after.keys()
        if (before[name].digest, before[name].target, stat.S_IFMT(before[name].mode))
        != (after[name].digest, after[name].target, stat.S_IFMT(after[name].mode))
    }
    return made, gone, content


def test_always_and_if_changed_put_everything_right(product, source, target):
    """Comparing all content finds what size and time hide; otherwise both make the tree what it was."""
    result = product.restore(source, target, "--overwrite", "if-changed", "--delete")
    lines = rsync_differences(source, target)
    assert [line.split(" ", 1)[1] for line in lines] == ["same size and time"]
    assert result["deleted"] == 3
    result = product.restore(source, target, "--overwrite", "always")
    assert (result["overwritten"], result["created"], result["attributes"]) == (1, 0, 0)
    assert_equal(source, target)


def test_if_newer_leaves_what_is_newer(product, source, target):
    """Only what is older than in the snapshot is replaced, and what is missing is made."""
    before = picture(target)
    product.restore(source, target, "--overwrite", "if-newer")
    after, wanted = picture(target), picture(source)
    made, gone, content = changed(before, after)
    assert (made, gone) == ({b"folder/missing"}, set())
    # What stands where "type" was is a directory made later; the others are older.
    assert content == {b"older", b"long", b"link"}
    for name in (b"older", b"long", b"link", b"folder/missing"):
        assert after[name] == wanted[name]
    for name in (b"newer", b"same size and time", b"type/in it"):
        assert after[name] == before[name]


def test_never_only_adds(product, source, target):
    """What is there stays, to its last attribute; only what is missing is made."""
    before = picture(target)
    result = product.restore(source, target, "--overwrite", "never")
    after = picture(target)
    assert after.pop(b"folder/missing") == picture(source)[b"folder/missing"]
    before[b"folder"] = replace(before[b"folder"], mtime_ns=after[b"folder"].mtime_ns)
    assert differences(before, after) == []
    assert (result["created"], result["overwritten"], result["attributes"]) == (1, 0, 0)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("more", [(), ("--delete",), ("--in-place",), ("--exclude", "l*"), ("--include", "/folder")])
def test_dry_run_says_what_the_run_does(product, source, target, policy, more):
    """The plan's names and figures are those of what happens next, and the plan itself changes nothing."""
    options = ["--overwrite", policy, *more]
    before = picture(target)
    plan = product.restore(source, target, *options, "--dry-run")
    assert differences(before, picture(target)) == []
    result = product.restore(source, target, *options)
    after = picture(target)
    for figure in ("directories", "created", "overwritten", "attributes", "unchanged", "kept", "deleted", "failed"):
        assert plan[figure] == result[figure], figure
    if "--in-place" not in more:
        assert plan["write_bytes"] == result["written_bytes"]
    said = {
        verb: {
            os.path.relpath(os.fsencode(action["path"]), os.fsencode(source))
            for action in plan["actions"]
            if action["verb"] == verb
        }
        for verb in ("create", "overwrite", "attributes", "delete")
    }
    made, gone, content = changed(before, after)
    assert said["create"] == {name for name in made if not stat.S_ISDIR(after[name].mode)}
    tops = {name for name in gone if not any(name.startswith(other + b"/") for other in gone)}
    replaced = {name for name in tops if any(name.startswith(other + b"/") for other in said["overwrite"])}
    assert said["delete"] == tops - replaced
    assert content <= said["overwrite"]
    assert sum(before[name].size for name in gone - replaced) == plan["delete_bytes"]


def test_dry_run_into_nothing_makes_nothing(product, source, room):
    """Of a target that does not exist a plan makes nothing."""
    product.snapshot(source)
    plan = product.restore(source, room / "new" / "target", "--dry-run")
    result = product.restore(source, room / "other")
    assert not (room / "new").exists()
    assert (plan["created"], plan["write_bytes"]) == (result["created"], result["written_bytes"])


def test_delete_spares_what_the_snapshot_never_looked_at(product, room):
    """What was excluded, unreadable or too large for the snapshot is not deleted for being absent from it."""
    source = room / "source"
    (source / "cache").mkdir(parents=True)
    (source / "cache" / "CACHEDIR.TAG").write_bytes(b"Signature: 8a477f597d28d172789f06886806bc55\n")
    (source / "cache" / "thing").write_bytes(b"thing")
    (source / "kept").mkdir()
    (source / "kept" / "a.log").write_bytes(b"log")
    (source / "kept" / "file").write_bytes(b"file")
    (source / "large").write_bytes(data(200_000))
    (source / "goes").mkdir()
    (source / "goes" / "a").write_bytes(b"a")
    options = ["--exclude", "*.log", "--exclude-caches", "--exclude-larger-than", "100KiB"]
    everything = picture(source)
    product.snapshot(source, *options)
    (source / "goes" / "b").write_bytes(b"b")
    (source / "new").mkdir()
    (source / "new" / "b.log").write_bytes(b"of a directory that is new")
    (source / "new" / "goes").write_bytes(b"goes")
    (source / "new" / "deep" / "goes").mkdir(parents=True)
    (source / "new" / "deep" / "large").write_bytes(data(200_000))
    (source / "new" / "deep" / "goes" / "file").write_bytes(b"goes, too")
    result = product.restore(source, source, "--delete")
    after = picture(source)
    # A directory that goes, or was only renamed, takes nothing with it that was spared.
    new = {name for name in after if name.split(b"/")[0] == b"new"}
    assert new == {b"new", b"new/b.log", b"new/deep", b"new/deep/large"}
    assert differences(everything, {name: seen for name, seen in after.items() if name not in new}) == []
    assert (result["complete"], result["deleted"]) == (True, 4)
    plan = product.restore(source, source, "--delete", "--dry-run")
    assert (plan["deleted"], plan["delete_bytes"], plan["actions"]) == (0, 0, [])


def test_delete_spares_what_this_restore_leaves_out(product, source, target):
    """What --exclude leaves out of a restore is neither restored nor deleted."""
    product.restore(source, target, "--delete", "--exclude", "added", "--exclude", "/older")
    assert (target / "added").exists()
    assert (target / "folder" / "inner" / "added" / "deep").exists()
    assert (target / "older").read_bytes() == data(5000, 99)
    assert (target / "newer").read_bytes() == data(5000, len("newer"))


@pytest.mark.root
def test_delete_spares_other_mounts(product, source, target):
    """Nothing that is mounted below a target is deleted or emptied; a run says that it left it."""
    where = target / "added mount" / "disk"
    where.mkdir(parents=True)
    (where.parent / "beside").write_bytes(b"goes")
    with tmpfs_on(where):
        (where / "precious").write_bytes(b"precious")
        result = product.restore(source, target, "--delete")
        assert (where / "precious").read_bytes() == b"precious"
        assert not (where.parent / "beside").exists()
        assert any("mount" in note for note in result["notes"])
        # Nor where a file is to be.
        (target / "equal").unlink()
        (target / "equal").mkdir()
        with tmpfs_on(target / "equal"):
            (target / "equal" / "precious").write_bytes(b"precious")
            result = product.restore(source, target, expected=3)
            assert (target / "equal" / "precious").read_bytes() == b"precious"
            assert [os.path.basename(row["path"]) for row in result["failures"]] == ["equal"]


@pytest.mark.root
def test_mounts_that_were_not_crossed_are_spared(product, room):
    """With --one-file-system a mount is recorded as a directory; a restore over it leaves what is mounted there."""
    source = room / "source"
    (source / "mount").mkdir(parents=True)
    (source / "file").write_bytes(b"file")
    with tmpfs_on(source / "mount"):
        (source / "mount" / "precious").write_bytes(b"precious")
        product.snapshot(source, "--one-file-system")
        product.restore(source, source, "--delete")
        assert (source / "mount" / "precious").read_bytes() == b"precious"
        product.restore(source, room / "target", "--delete")
        assert os.listdir(room / "target" / "mount") == []


def test_delete_is_refused_where_it_would_be_a_disaster(product, source, room):
    """Nothing is deleted from /, nor for not being among what was included."""
    product.snapshot(source)
    for target, more in (("/", ()), ("//", ()), ("/./", ()), (room / "target", ("--include", "x"))):
        ran = product.run("restore", "latest:/", target, "--delete", *more, "--json", expected=2)
        assert "--delete" in ran.err
    os.symlink("/", room / "to the root")
    for more in ((), ("--dry-run",)):
        product.run("restore", "latest:/", room / "to the root", "--delete", *more, expected=2)


def test_verify_finds_what_the_disk_does_not_have(product, source, room, monkeypatch):
    """What was written otherwise than it is to be is found when it is read back: status 3, and the file is named."""
    from respaldo.flows.restore import run

    target = room / "target"
    product.snapshot(source)
    real = run.sync_filesystem

    def damaged_before_it_is_read(fd):
        real(fd)
        with (target / "long").open("r+b") as file:
            file.seek(2 << 20)
            file.write(b"bad sector")
        set_time(target / "long", TIME_NS)
        (target / "equal").unlink()

    monkeypatch.setattr(run, "sync_filesystem", damaged_before_it_is_read)
    result = product.restore(source, target, "--verify", expected=3)
    assert sorted(os.path.basename(row["path"]) for row in result["failures"]) == ["equal", "long"]


def test_everything_over_everything_else(product, room):
    """Each kind of entry takes the place of each other kind."""
    kinds = {
        "file": lambda path: path.write_bytes(data(500)),
        "long": lambda path: path.write_bytes(data(2 << 20)),
        "empty": lambda path: path.touch(),
        "link": lambda path: os.symlink("x", path),
        "fifo": os.mkfifo,
        "directory": lambda path: path.mkdir(),
        "full": lambda path: (path.mkdir(), (path / "file").write_bytes(b"x"), os.symlink(".", path / "l")),
        "linked": lambda path: (path.write_bytes(b"1"), os.link(path, f"{path} too")),
    }
    source, target = room / "source", room / "target"
    source.mkdir()
    target.mkdir()
    for one, make in kinds.items():
        for other, make_other in kinds.items():
            make(source / f"{one} over {other}")
            make_other(target / f"{one} over {other}")
    product.snapshot(source)
    product.restore(source, target, "--delete")
    assert_equal(source, target)


def test_everything_is_put_right(product, room):
    """Whatever attribute was changed is changed back, of every kind of entry, also without a change of time."""
    source, target = room / "source", room / "target"
    write_ordinary(source)
    write_attributes(source)
    product.snapshot(source)
    product.restore(source, target)
    names = [name for name in picture(target, root=False) if b"directory 0" not in name]
    for number, name in enumerate(names):
        path = os.path.join(os.fsencode(target), name)
        status = os.lstat(path)
        link = stat.S_ISLNK(status.st_mode)
        if number % 3 == 0 or link:
            os.utime(path, ns=(0, 12345), follow_symlinks=False)
        elif number % 3 == 1:
            os.chmod(path, 0o500)
        elif stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
            os.chmod(path, 0o700)
            for attribute in os.listxattr(path):
                os.removexattr(path, attribute)
            os.setxattr(path, "user.added", b"added")
            os.utime(path, ns=(0, status.st_mtime_ns))
    product.restore(source, target)
    assert_equal(source, target)
