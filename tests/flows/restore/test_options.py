"""What a restore can be asked for: parts, policies, deletion, plans, holes, in place, owners."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from respaldo.core.model import Entry, Mark
from respaldo.core.seams import Silent
from respaldo.flows.restore import files as files_module
from respaldo.flows.restore.options import Action, Overwrite, RestoreOptions, Verb
from respaldo.fs.match import Rules
from tests.flows.restore.world import TIME, World, ours, picture

GROUP = b"g" * 16
OTHER_GROUP = b"h" * 16


@pytest.fixture
def world():
    return World()


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def symlink(name, target, **values):
    return Entry(name=name, mode=stat.S_IFLNK | 0o777, target=target, mtime_ns=TIME, **ours(), **values)


# --- parts -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def tree(world):
    sub = world.directory(b"sub", world.file(b"a.c", b"1"), world.file(b"b.o", b"2"), mode=stat.S_IFDIR | 0o750)
    deep = world.directory(b"deep", sub, world.directory(b"empty"), world.file(b"c.c", b"3"), mtime_ns=TIME + 7)
    return world.directory(b"", deep, world.directory(b"other", world.file(b"x.o", b"4")), world.file(b"top.c", b"5"))


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        ([], ["*.o"], ["deep", "deep/c.c", "deep/empty", "deep/sub", "deep/sub/a.c", "other", "top.c"]),
        ([], ["/deep"], ["other", "other/x.o", "top.c"]),
        (["a.c"], [], ["deep", "deep/sub", "deep/sub/a.c"]),
        (["sub/"], [], ["deep", "deep/sub", "deep/sub/a.c", "deep/sub/b.o"]),
        (["sub/"], ["*.o"], ["deep", "deep/sub", "deep/sub/a.c"]),
        (["deep/*.c"], [], ["deep", "deep/c.c"]),
        (["empty"], [], ["deep", "deep/empty"]),
        (["*.c", "!a.c"], [], ["deep", "deep/c.c", "top.c"]),
        (["nothing"], [], []),
    ],
)
def test_parts_are_selected(world, tree, tmp_path, include, exclude, expected):
    """Only what matches, what is below it, and the directories above it; less what is excluded."""
    options = RestoreOptions(include=tuple(include), exclude=tuple(exclude), verify=True)
    result = world.restore(tree, tmp_path / "t", options)
    assert result.failures == ()
    assert files(tmp_path / "t") == expected


def test_directories_on_the_way_get_their_own_attributes(world, tree, tmp_path):
    """A partial restore does not leave 0700 and today."""
    world.restore(tree, tmp_path / "t", RestoreOptions(include=("a.c",)))
    assert stat.S_IMODE((tmp_path / "t/deep/sub").stat().st_mode) == 0o750
    assert (tmp_path / "t/deep").stat().st_mtime_ns == TIME + 7


names = st.sampled_from([b"a", b"b", b"c.o", b"d.c"])
trees = st.recursive(st.none(), lambda below: st.dictionaries(names, below, max_size=3), max_leaves=12)
patterns = st.lists(st.sampled_from(["a", "/a", "b/", "*.o", "!a", "a/b", "*", "!*.o", "a/**", "**/b"]), max_size=2)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shape=trees, include=patterns, exclude=patterns)
def test_selection_agrees_with_its_rule(tmp_path_factory, shape, include, exclude):
    """Whatever the tree and the patterns: what is restored is what one sentence says."""
    world = World()
    paths = {}

    def build(name, below, path):
        if path:
            paths[path] = below is not None
        if below is None:
            return world.file(name, b"1")
        entries = [build(item, more, path + b"/" + item if path else item) for item, more in below.items()]
        return world.directory(name, *entries)

    entry = build(b"", shape or {}, b"")
    target = tmp_path_factory.mktemp("t")
    world.restore(entry, target, RestoreOptions(include=tuple(include), exclude=tuple(exclude)))
    included, excluded = Rules(include), Rules(exclude)
    wanted = {
        path
        for path, is_dir in paths.items()
        if not excluded.excluded(path, is_dir) and (not include or included.excluded(path, is_dir))
    }
    for path in list(wanted):
        parts = path.split(b"/")
        wanted.update(b"/".join(parts[:depth]) for depth in range(1, len(parts)))
    assert {os.fsencode(path) for path in files(target)} == wanted


# --- policies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", list(Overwrite))
@pytest.mark.parametrize("age", ["older", "newer"])
def test_policies_decide_about_files(world, tmp_path, policy, age):
    """Content, attributes, other types: each policy does what it says."""
    target = tmp_path / "t"
    target.mkdir()
    when = TIME + (10**9 if age == "newer" else -(10**9))
    for name, content in (("same", b"same"), ("differs", b"otherwise"), ("size", b"longer than it")):
        (target / name).write_bytes(content)
        os.utime(target / name, ns=(when, when))
    (target / "type").symlink_to("nowhere")
    os.utime(target / "type", ns=(when, when), follow_symlinks=False)
    names = ("same", "differs", "size", "type", "new")
    contents = {name: b"same" if name == "same" else b"snapshot " for name in names}
    entry = world.directory(b"", *(world.file(name.encode(), content) for name, content in contents.items()))
    plan = world.plan(entry, target, RestoreOptions(overwrite=policy))
    result = world.restore(entry, target, RestoreOptions(overwrite=policy, verify=True))
    assert result.failures == ()
    kept = policy is Overwrite.NEVER or (policy is Overwrite.IF_NEWER and age == "newer")
    assert (result.kept, result.attributes, result.overwritten, result.created) == (
        (4, 0, 0, 1) if kept else (0, 1, 3, 1)
    )
    assert (plan.kept, plan.attributes, plan.overwritten, plan.created) == ((4, 0, 0, 1) if kept else (0, 1, 3, 1))
    assert (target / "differs").read_bytes() == (b"otherwise" if kept else b"snapshot ")
    assert (target / "type").is_symlink() is kept
    assert (target / "same").stat().st_mtime_ns == (when if kept else TIME)


def test_never_leaves_directories_as_they_are(world, tmp_path):
    """Files that are missing are added; nothing that is there changes, modes neither."""
    target = tmp_path / "t"
    (target / "d").mkdir(parents=True)
    (target / "d").chmod(0o500)
    entry = world.directory(b"", world.directory(b"d", world.file(b"x", b"1")))
    result = world.restore(entry, target, RestoreOptions(overwrite=Overwrite.NEVER))
    assert (result.failed, result.created) == (0, 1)
    assert stat.S_IMODE((target / "d").stat().st_mode) == 0o500


# --- deletion --------------------------------------------------------------------------------------------------------


def test_delete_removes_what_the_snapshot_does_not_have(world, tree, tmp_path):
    """Files, links and whole directories; nothing outside, and the plan says the same numbers."""
    target = tmp_path / "t"
    world.restore(tree, target)
    before = picture(target)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/x").touch()
    (target / "stray").write_bytes(b"12345")
    (target / "deep/link").symlink_to("../../outside")
    (target / "deep/gone/er").mkdir(parents=True)
    (target / "deep/gone/er/x").write_bytes(b"123")
    options = RestoreOptions(delete=True)
    plan = world.plan(tree, target, options)
    result = world.restore(tree, target, options)
    assert (plan.deleted, plan.delete_bytes - len(b"../../outside")) == (5, 8)
    assert result.deleted == 5
    assert picture(target) == before
    assert files(tmp_path / "outside") == ["x"]


def test_delete_spares_what_was_never_backed_up(world, tmp_path):
    """Unread, uncrossed, excluded and partial directories, and names that the snapshot's own rules left out."""
    marked = [
        replace(world.directory(name), mark=mark)
        for name, mark in ((b"cache", Mark.EXCLUDED), (b"mnt", Mark.MOUNT), (b"part", Mark.PARTIAL))
    ]
    entry = world.directory(b"", *marked, world.directory(b"plain"), world.file(b"x", b"1"))
    target = tmp_path / "t"
    for name in ("cache", "mnt", "part", "plain", "build"):
        (target / name).mkdir(parents=True)
        (target / name / "mine").touch()
    (target / "plain/y.o").touch()
    (target / "plain/big").write_bytes(bytes(101))
    (target / "plain/keep.c").touch()
    (target / ".hidden").touch()
    rules = ("exclude=*.o", "exclude=/build", "exclude-larger-than=100", "one-file-system")
    result = world.restore(entry, target, RestoreOptions(delete=True, exclude=("keep.c",)), rules=rules)
    expected = "build build/mine cache cache/mine mnt mnt/mine part part/mine plain plain/big plain/keep.c plain/y.o x"
    assert files(target) == expected.split()
    assert result.deleted == 2


@pytest.mark.root
def test_delete_reaches_nothing_that_is_mounted_below_the_target(world, tmp_path):
    """What the snapshot has is written there; what it lacks stays, at any depth, and a dry run says so."""
    target = tmp_path / "t"
    (target / "d").mkdir(parents=True)
    (target / "stray").touch()
    entry = world.directory(b"", world.directory(b"d", world.directory(b"e"), world.file(b"f", b"1")))
    if subprocess.run(["mount", "-t", "tmpfs", "none", target / "d"], check=False).returncode:
        pytest.skip("needs the right to mount")
    try:
        (target / "d/e").mkdir()
        for name in ("mine", "e/mine"):
            (target / "d" / name).touch()
        options = RestoreOptions(delete=True)
        plan = world.plan(entry, target, options)
        result = world.restore(entry, target, options)
        assert (plan.deleted, result.deleted) == (1, 1)
        assert files(target) == ["d", "d/e", "d/e/mine", "d/f", "d/mine"]
    finally:
        subprocess.run(["umount", target / "d"], check=True)


def test_delete_reads_rules_from_the_source_they_were_made_for(world, tmp_path):
    """An anchored pattern means the source's root, wherever in it the restore begins, and nothing outside of it."""
    (tmp_path / "t").mkdir()
    for name in ("left", "other"):
        (tmp_path / "t" / name).touch()
    options = RestoreOptions(delete=True)
    world.restore(
        world.directory(b""),
        tmp_path / "t",
        options,
        path=b"/home/ana",
        rules=("exclude=/ana/left",),
        sources=(b"/home",),
    )
    assert files(tmp_path / "t") == ["left"]
    world.restore(world.directory(b""), tmp_path / "t", options, path=b"/home", rules=(), sources=(b"/home/ana",))
    assert files(tmp_path / "t") == ["left"], "what lies above a source was never looked at"


# --- plans -----------------------------------------------------------------------------------------------------------


def test_a_plan_changes_nothing_and_is_what_is_done(world, tree, tmp_path):
    """The same steps, counted instead of executed."""
    target = tmp_path / "t"
    plan = world.plan(tree, target)
    assert not target.exists()
    result = world.restore(tree, target)
    done = (result.created, result.written_bytes, result.directories)
    assert (plan.created, plan.write_bytes, plan.directories) == done
    (target / "top.c").write_bytes(b"changed")
    (target / "stray").write_bytes(b"123")
    (target / "deep/c.c").chmod(0o600)
    before = picture(target)
    plan = world.plan(tree, target, RestoreOptions(delete=True))
    assert picture(target) == before
    assert not world.decoded or plan.failed == 0
    assert set(plan.actions) == {
        Action(Verb.OVERWRITE, b"/source/top.c", 1),
        Action(Verb.ATTRIBUTES, b"/source/deep/c.c"),
        Action(Verb.DELETE, b"/source/stray", 3),
    }


def test_a_plan_deletes_what_its_owner_closed(world, ordinary):
    """What a run would make accessible in order to delete it is named, although nobody can look into it before."""
    (ordinary / "t/stray/closed").mkdir(parents=True)
    (ordinary / "t/stray/closed").chmod(0)
    (ordinary / "t/gone").mkdir(mode=0)
    options = RestoreOptions(delete=True)
    plan = world.plan(world.directory(b""), ordinary / "t", options)
    assert [action.path for action in plan.actions] == [b"/source/gone", b"/source/stray"]
    result = world.restore(world.directory(b""), ordinary / "t", options)
    assert (plan.deleted, result.deleted, result.failed) == (3, 3, 0)


def test_a_plan_does_not_open_what_its_owner_closed(world, ordinary):
    """Looking must not change a mode; the run may, and puts it right."""
    (ordinary / "t/closed").mkdir(parents=True, mode=0o755)
    (ordinary / "t/closed").chmod(0)
    entry = world.directory(b"", world.directory(b"closed", world.file(b"x", b"1"), mode=stat.S_IFDIR | 0o500))
    plan = world.plan(entry, ordinary / "t")
    assert plan.failures == ((b"/source/closed", "Permission denied"),)
    assert stat.S_IMODE((ordinary / "t/closed").stat().st_mode) == 0
    assert world.restore(entry, ordinary / "t").failed == 0
    assert stat.S_IMODE((ordinary / "t/closed").stat().st_mode) == 0o500
    (ordinary / "t/closed").chmod(0)
    assert world.restore(entry, ordinary / "t", RestoreOptions(overwrite=Overwrite.NEVER)).failed == 0
    assert stat.S_IMODE((ordinary / "t/closed").stat().st_mode) == 0


# --- holes and places ------------------------------------------------------------------------------------------------


def allocated(path):
    return path.stat().st_blocks * 512


def test_recorded_holes_come_back(world, tmp_path):
    """In front, between and at the end; exactly."""
    data = os.urandom(1 << 16)
    pieces = [1 << 22, data, 1 << 23, data, 1 << 24]
    entry = world.directory(b"", world.file(b"f", pieces=pieces), world.file(b"all", pieces=[1 << 25]))
    result = world.restore(entry, tmp_path / "t", RestoreOptions(verify=True))
    assert result.failures == ()
    content = (tmp_path / "t/f").read_bytes()
    assert content == b"".join(bytes(piece) if isinstance(piece, int) else piece for piece in pieces)
    assert allocated(tmp_path / "t/f") <= 1 << 18
    assert allocated(tmp_path / "t/all") <= 1 << 14
    assert result.written_bytes == 2 << 16
    assert world.restore(entry, tmp_path / "t", RestoreOptions(overwrite=Overwrite.ALWAYS)).unchanged == 2


@pytest.mark.parametrize("size", [100, 1 << 20, (6 << 20) + 5])
def test_zeros_become_holes_when_asked_for(world, tmp_path, size):
    """Small files and long ones, and the size stays."""
    data = bytes(size)
    other = bytes(size // 2) + b"x" + bytes(size // 3)
    entry = world.directory(b"", world.file(b"f", data), world.file(b"g", other), world.file(b"h", data + b"x"))
    for sparse in (False, True):
        target = tmp_path / f"t{sparse}"
        result = world.restore(entry, target, RestoreOptions(sparse=sparse, verify=True))
        assert result.failures == ()
        assert (target / "f").read_bytes() == data
        assert (target / "g").read_bytes() == other
        if size > 4096:
            assert (allocated(target / "f") <= 8192) is sparse


def test_in_place_rewrites_what_differs(world, tmp_path):
    """The inode stays, only pieces that differ are fetched, and the result says what that means."""
    data = os.urandom(8 << 20)
    entry = world.directory(b"", world.file(b"f", data, chunk_bytes=1 << 18), world.file(b"small", b"new"))
    target = tmp_path / "t"
    world.restore(entry, target)
    changed = bytearray(data) + b"longer"
    changed[3 << 20 : (3 << 20) + 5] = b"wrong"
    (target / "f").write_bytes(changed)
    (target / "f").chmod(0o400)
    (target / "small").write_bytes(b"o")
    inode = (target / "f").stat().st_ino
    world.decoded.clear()
    result = world.restore(entry, target, RestoreOptions(in_place=True, verify=True))
    assert result.failures == ()
    assert (target / "f").stat().st_ino == inode
    assert (target / "f").read_bytes() == data
    assert result.written_bytes == (1 << 18) + 3
    assert sum(world.decoded.values()) <= 2
    assert any("in place" in note for note in result.notes)


def test_in_place_makes_holes_and_never_touches_other_names(world, tmp_path):
    """A recorded hole is punched; a file with other names is replaced instead."""
    data = os.urandom(1 << 20)
    entry = world.directory(b"", world.file(b"f", pieces=[data, 4 << 20, data]), world.file(b"g", data * 2))
    target = tmp_path / "t"
    target.mkdir()
    (target / "f").write_bytes(os.urandom(6 << 20))
    (target / "g").write_bytes(os.urandom(2 << 20))
    os.link(target / "g", tmp_path / "precious")
    precious = (tmp_path / "precious").read_bytes()
    result = world.restore(entry, target, RestoreOptions(in_place=True, verify=True))
    assert result.failures == ()
    assert (target / "f").read_bytes() == data + bytes(4 << 20) + data
    assert allocated(target / "f") < 3 << 20
    assert (target / "g").read_bytes() == data * 2
    assert (tmp_path / "precious").read_bytes() == precious


def test_in_place_says_when_it_left_a_file_half_done(world, tmp_path):
    """What --in-place waives is named in the failure."""
    data = os.urandom(8 << 20)
    entry = world.directory(b"", world.file(b"f", data))
    (tmp_path / "t").mkdir()
    (tmp_path / "t/f").write_bytes(bytes(8 << 20))
    world.flush()
    world.bad.add(max(world.blocks))
    result = world.restore(entry, tmp_path / "t", RestoreOptions(in_place=True))
    assert "neither old nor new" in result.failures[0][1]
    assert result.exit_status == 4


# --- hard links ------------------------------------------------------------------------------------------------------


@pytest.fixture
def linked(world):
    file = replace(world.file(b"a", b"linked"), link_group=GROUP)
    link = symlink(b"s", b"target", link_group=OTHER_GROUP)
    return world.directory(
        b"",
        file,
        replace(file, name=b"b"),
        link,
        world.directory(b"d", replace(file, name=b"c"), world.directory(b"e", replace(link, name=b"t"))),
    )


def test_part_of_a_group_is_linked(world, linked, tmp_path):
    """The first name that is selected gets the content."""
    result = world.restore(linked, tmp_path / "t", RestoreOptions(exclude=("a", "s"), verify=True))
    assert result.failures == ()
    assert files(tmp_path / "t") == ["b", "d", "d/c", "d/e", "d/e/t"]
    assert (tmp_path / "t/b").samefile(tmp_path / "t/d/c")
    assert (tmp_path / "t/b").stat().st_nlink == 2
    assert (tmp_path / "t/d/e/t").is_symlink()


def test_broken_groups_are_joined_again(world, linked, tmp_path):
    """Names that were torn apart become one file, without content being fetched; unrelated names are let go."""
    target = tmp_path / "t"
    world.restore(linked, target)
    before = picture(target)
    (target / "b").unlink()
    (target / "b").write_bytes(b"linked")
    (target / "d/c").unlink()
    (tmp_path / "unrelated").write_bytes(b"mine")
    os.link(tmp_path / "unrelated", target / "d/c")
    world.decoded.clear()
    result = world.restore(linked, target, RestoreOptions(verify=True))
    assert result.failures == ()
    assert picture(target) == before
    assert not world.decoded
    assert (tmp_path / "unrelated").read_bytes() == b"mine"


def test_attributes_of_a_file_with_unrelated_names_are_not_changed_through_it(world, tmp_path):
    """A file that somebody linked elsewhere is replaced, so that the other name keeps what it has."""
    (tmp_path / "t").mkdir()
    (tmp_path / "other").write_bytes(b"same")
    (tmp_path / "other").chmod(0o600)
    os.utime(tmp_path / "other", ns=(5, 5))
    os.link(tmp_path / "other", tmp_path / "t/f")
    world.restore(world.directory(b"", world.file(b"f", b"same")), tmp_path / "t")
    assert stat.S_IMODE((tmp_path / "other").stat().st_mode) == 0o600
    assert (tmp_path / "other").stat().st_mtime_ns == 5
    assert (tmp_path / "t/f").stat().st_mtime_ns == TIME


@pytest.mark.root
def test_groups_across_file_systems_get_content_of_their_own(world, linked, tmp_path):
    """Where no link can be made, nothing is lost, and the result says so."""
    (tmp_path / "t/d").mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path / "t/d"], check=False).returncode:
        pytest.skip("needs the right to mount")
    try:
        result = world.restore(linked, tmp_path / "t")
        assert result.failures == ()
        assert (tmp_path / "t/d/c").read_bytes() == b"linked"
        assert (tmp_path / "t/d/e/t").is_symlink()
        assert any("hard links" in note for note in result.notes)
    finally:
        subprocess.run(["umount", tmp_path / "t/d"], check=True)


def test_bytes_written_do_not_count_what_was_left_out(world, tmp_path):
    """Neither recorded holes nor zeros that became holes, of which any number take no time."""
    zeros, data = bytes(1 << 20), os.urandom(1 << 20)
    entry = world.directory(b"", world.file(b"f", pieces=[data, 1 << 33, data]))
    assert world.restore(entry, tmp_path / "t").written_bytes == 2 << 20
    entry = world.directory(b"", world.file(b"f", zeros * 8 + data))
    assert world.restore(entry, tmp_path / "s", RestoreOptions(sparse=True)).written_bytes == 1 << 20


def test_links_that_fail_altogether_are_not_counted_as_copies(world, tmp_path, monkeypatch):
    """What has no content of its own afterwards did not get any."""
    fifo = Entry(name=b"a", mode=stat.S_IFIFO | 0o600, mtime_ns=TIME, link_group=GROUP, **ours())
    entry = world.directory(b"", fifo, replace(fifo, name=b"b"))

    def node(*_, **__):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(files_module.Draft, "node", node)
    result = world.restore(entry, tmp_path / "t")
    assert (result.created, files(tmp_path / "t")) == (0, [])
    assert not any("hard links" in note for note in result.notes)


# --- owners ----------------------------------------------------------------------------------------------------------


def test_an_ordinary_user_is_told_once_what_could_not_be_set(world, ordinary):
    """Everything is there; owners of others and trusted attributes are counted, with an example."""
    others = [world.file(b"f%d" % number, b"x", uid=0, gid=0, mode=stat.S_IFREG | 0o4755) for number in range(5)]
    trusted = world.file(b"t", b"x", xattrs=((b"trusted.x", b"1"),))
    entry = world.directory(b"", *others, trusted)
    result = world.restore(entry, ordinary / "t")
    assert (result.failed, result.exit_status, result.created) == (0, 0, 6)
    missed = {item.what: (item.count, item.example) for item in result.missed}
    if os.geteuid() != 0:
        assert missed == {"owner": (5, b"/source/f0"), "extended attributes": (1, b"/source/t")}
        assert stat.S_IMODE((ordinary / "t/f0").stat().st_mode) == 0o755
    again = world.restore(entry, ordinary / "t")
    assert (again.unchanged, again.attributes) == (5, 1)


def test_devices_that_a_user_may_not_make_are_said_once(world, tmp_path, monkeypatch):
    """A backup of a system has dozens: one line says how many, ``-v`` says which, and the restore is incomplete."""
    device = Entry(name=b"", mode=stat.S_IFCHR | 0o600, rdev=1 << 32 | 3, mtime_ns=TIME, **ours())
    fifo = Entry(name=b"z", mode=stat.S_IFIFO | 0o600, mtime_ns=TIME, **ours())
    said = []

    class Notes(Silent):
        def note(self, level, text, path=b""):
            said.append((level, path))

    def node(*_, **__):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(files_module.Draft, "node", node)
    entry = world.directory(b"", *(replace(device, name=b"d%d" % number) for number in range(3)), fifo)
    result = world.restore(entry, tmp_path / "t", progress=Notes())
    assert (result.failed, result.exit_status) == (4, 3)
    assert said == [*((1, b"/source/d%d" % number) for number in range(3)), (-1, b"/source/z")]
    assert [note for note in result.notes if "devices" in note] == [
        "3 devices could not be made, which only root may (-v names them)"
    ]


def test_without_owners_files_are_the_users_own(world, tmp_path):
    """And no program of another's runs as the user."""
    entry = world.directory(b"", world.file(b"f", b"x", uid=4711, gid=4711, mode=stat.S_IFREG | 0o6755))
    result = world.restore(entry, tmp_path / "t", RestoreOptions(owners=False))
    found = (tmp_path / "t/f").stat()
    assert (found.st_uid, found.st_gid) == (os.geteuid(), os.getegid())
    assert stat.S_IMODE(found.st_mode) == 0o755
    assert result.missed == ()
    assert world.restore(entry, tmp_path / "t", RestoreOptions(owners=False)).unchanged == 1


@pytest.mark.root
def test_owners_go_by_name_unless_asked_for_numbers(world, tmp_path):
    """Root is root, whatever number it had."""
    entry = world.directory(b"", world.file(b"f", b"x", uid=4711, gid=4711, user="root", group="root"))
    world.restore(entry, tmp_path / "named")
    world.restore(entry, tmp_path / "numbered", RestoreOptions(numeric_ids=True))
    assert (tmp_path / "named/f").stat().st_uid == 0
    assert (tmp_path / "numbered/f").stat().st_uid == 4711


def test_inherited_acls_and_groups_do_not_leak_into_a_restore(world, tmp_path):
    """A target that hands down ACLs and its group gives neither to what the snapshot has without."""
    target = tmp_path / "t"
    target.mkdir()
    acl = bytes.fromhex("02000000 01000700ffffffff 02000700e8030000 04000500ffffffff 10000700ffffffff 20000500ffffffff")
    try:
        os.setxattr(target, "system.posix_acl_default", acl)
    except OSError:
        pytest.skip("needs ACLs")
    target.chmod(0o2755)
    entry = world.directory(b"", world.directory(b"d", world.file(b"x", b"1")), world.file(b"f", b"2"))
    world.restore(world.directory(b"", entry_named(entry, b"source")), target, path=b"/")
    assert os.listxattr(target / "source/f") == os.listxattr(target / "source/d") == []
    assert stat.S_IMODE((target / "source/d").stat().st_mode) == 0o755
    assert os.getxattr(target, "system.posix_acl_default") == acl
    assert stat.S_IMODE(target.stat().st_mode) == 0o2755


def entry_named(entry, name):
    return replace(entry, name=name)


def test_progress_adds_up(world, tree, tmp_path):
    """Everything that was announced is done."""

    class Sum(Silent):
        files = length = 0
        announced = (0, 0)

        def total(self, *, files, length_bytes):
            self.announced = (files, length_bytes)

        def advance(self, *, files=0, length_bytes=0):
            self.files += files
            self.length += length_bytes

    first = replace(world.file(b"a", b"linked"), link_group=GROUP)
    others = world.directory(b"", first, entry_named(first, b"b"), symlink(b"c", b"target"))
    for what, expected in ((tree, (5, 5)), (others, (3, 12))):
        for _ in range(2):
            progress = Sum()
            world.restore(what, tmp_path / f"t{expected[0]}", progress=progress)
            assert (progress.files, progress.length) == progress.announced == expected
