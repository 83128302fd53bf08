"""Inode flags, owners and times: what is set last, what forbids being set, and what another machine calls otherwise."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import stat

import pytest

from tests.backend.places import in_child
from tests.fidelity.compare import assert_equal, differences, picture
from tests.fidelity.product import Product
from tests.fidelity.trees import (
    APPEND,
    CAPABILITY,
    IMMUTABLE,
    NODUMP,
    TIME_NS,
    data,
    set_flags,
    set_time,
    thaw,
    wide_acl,
)

pytestmark = pytest.mark.root


@pytest.fixture
def top(ext4):
    path = ext4 / "top"
    path.mkdir()
    yield path
    thaw(ext4)
    for name in os.listdir(ext4):
        shutil.rmtree(ext4 / name)


def flags_of(path):
    return picture(path)[b""].flags


@pytest.mark.parametrize("flags", [IMMUTABLE, APPEND, IMMUTABLE | NODUMP])
def test_flags_do_not_keep_a_restore_from_its_work(product, top, ext4, flags):
    """Over files and directories that may not be changed, everything is put right, and may not be changed again."""
    source, target = top / "source", ext4 / "target"
    (source / "folder").mkdir(parents=True)
    for name in ("same", "other content", "other mode", "other xattrs", "linked", "folder/inside", "gone"):
        (source / name).write_bytes(data(3000, len(name)))
    os.link(source / "linked", source / "linked too")
    os.setxattr(source / "other xattrs", "user.a", b"1")
    set_time(source / "folder", TIME_NS)
    frozen = ["folder", "linked", "same", "other content", "other mode", "other xattrs", "folder/inside"]
    for name in frozen:
        assert set_flags(source / name, flags)
    product.snapshot(source)
    product.restore(source, target)
    assert_equal(source, target)

    thaw(target)
    (target / "other content").write_bytes(b"other")
    (target / "other mode").chmod(0o600)
    os.setxattr(target / "other xattrs", "user.a", b"2")
    (target / "linked too").unlink()
    (target / "linked too").write_bytes(b"no link any more")
    (target / "folder" / "inside").unlink()
    (target / "gone").unlink()
    (target / "added").write_bytes(b"added")
    (target / "folder" / "added").write_bytes(b"added")
    for name in [*frozen, "linked too", "added", "folder/added"]:
        if name != "folder/inside":
            assert set_flags(target / name, flags)
    assert set_flags(target, flags)
    assert product.restore(source, target, "--delete")["complete"]
    assert_equal(source, target)


def test_flags_that_the_snapshot_does_not_have_go(product, top, ext4):
    """A file that may not be changed, and in the snapshot may, may be changed again."""
    source, target = top / "source", ext4 / "target"
    source.mkdir()
    (source / "file").write_bytes(data(3000))
    (source / "big").write_bytes(data(2 << 20))
    product.snapshot(source)
    product.restore(source, target)
    set_flags(target / "file", IMMUTABLE)
    with (target / "big").open("r+b") as file:
        file.write(b"other")
    set_flags(target / "big", IMMUTABLE)
    assert product.restore(source, target, "--in-place")["complete"]
    assert_equal(source, target)


def test_flags_stay_where_a_policy_leaves_things_alone(product, top, ext4):
    """A restore that overwrites nothing gives a directory back its flags, its default ACL and its mode."""
    source, target = top / "source", ext4 / "target"
    (source / "folder").mkdir(parents=True)
    (source / "folder" / "file").write_bytes(b"file")
    product.snapshot(source)
    (target / "folder").mkdir(parents=True)
    os.setxattr(target / "folder", "system.posix_acl_default", wide_acl())
    (target / "folder").chmod(0o510)
    set_flags(target / "folder", IMMUTABLE)
    before = picture(target)
    assert product.restore(source, target, "--overwrite", "never")["created"] == 1
    after = picture(target)
    assert after.pop(b"folder/file").xattrs == ()
    assert differences(before, after, leaving_out=("mtime_ns",)) == []


@pytest.mark.parametrize("name", ["target", "new/deeper/target"])
def test_default_acl_above_a_target_is_not_inherited(product, top, name):
    """What a directory above hands down to new ones does not reach what is restored."""
    source, above = top / "source", top / "above"
    (source / "folder").mkdir(parents=True)
    (source / "folder" / "file").write_bytes(b"file")
    (source / "big").write_bytes(data(2 << 20))
    os.symlink("x", source / "link")
    source.chmod(0o750)
    product.snapshot(source)
    above.mkdir()
    os.setxattr(above, "system.posix_acl_default", wide_acl())
    os.chown(above, 0, 4321)
    above.chmod(0o2777)
    product.restore(source, above / name)
    assert_equal(source, above / name)


def test_capabilities_and_set_id_bits_outlive_a_change_of_owner(product, top, ext4):
    """Over files of another owner, too, the owner is changed before what a change of owner takes away."""
    source, target = top / "source", ext4 / "target"
    source.mkdir()
    for name in ("capable", "set-id"):
        (source / name).write_bytes(b"program")
        os.chown(source / name, 1000, 1000)
    (source / "set-id").chmod(0o6755)
    os.setxattr(source / "capable", "security.capability", CAPABILITY)
    product.snapshot(source)
    product.restore(source, target)
    for name in ("capable", "set-id"):
        os.chown(target / name, 1, 1)
    product.restore(source, target)
    assert_equal(source, target)


def test_owners_go_by_name_and_by_number_if_asked_to(product, top, ext4, monkeypatch):
    """A name that this machine knows decides, else the number; with --numeric-ids the number always."""
    source = top / "source"
    source.mkdir()
    for name, uid, gid in (("ana", 61001, 61002), ("nobody knows", 61003, 61004), ("nameless", 61005, 61006)):
        (source / name).write_bytes(b"file")
        os.chown(source / name, uid, gid)
    (source / "ana").chmod(0o4755)
    users = {61001: "ana", 61003: "gone"}
    groups = {61002: "friends", 61004: "gone too"}

    class Named:
        def __init__(self, name, number):
            self.pw_name = self.gr_name = name
            self.pw_uid = self.gr_gid = number

    def by_number(names, real):
        return lambda number: Named(names[number], number) if number in names else real(number)

    def by_name(numbers, real):
        return lambda name: Named(name, numbers[name]) if name in numbers else real(name)

    with monkeypatch.context() as there:
        there.setattr(pwd, "getpwuid", by_number(users, pwd.getpwuid))
        there.setattr(grp, "getgrgid", by_number(groups, grp.getgrgid))
        product.snapshot(source)
    with monkeypatch.context() as here:
        here.setattr(pwd, "getpwnam", by_name({"ana": 62001}, pwd.getpwnam))
        here.setattr(grp, "getgrnam", by_name({"friends": 62002}, grp.getgrnam))
        product.restore(source, ext4 / "by name")
        product.restore(source, ext4 / "by number", "--numeric-ids")
        # Once more over it: what is as it should be is seen to be.
        again = product.restore(source, ext4 / "by name")
    product.restore(source, ext4 / "unowned", "--no-owner")
    assert (again["attributes"], again["overwritten"], again["unchanged"]) == (0, 0, 3)

    def owners(place):
        return {name: (found.st_uid, found.st_gid) for name in os.listdir(place) for found in [os.stat(place / name)]}

    assert owners(ext4 / "by name") == {
        "ana": (62001, 62002),
        "nobody knows": (61003, 61004),
        "nameless": (61005, 61006),
    }
    assert owners(ext4 / "by number") == owners(source)
    assert stat.S_IMODE((ext4 / "by name" / "ana").stat().st_mode) == 0o4755
    assert set(owners(ext4 / "unowned").values()) == {(0, 0)}
    assert stat.S_IMODE((ext4 / "unowned" / "ana").stat().st_mode) == 0o755


def test_times_of_any_age_come_back(product, top, ext4):
    """Times before 1970 and after 2038 come back to the nanosecond; from 2262 on, where 64 bits end, as the last."""
    source = top / "source"
    source.mkdir()
    times = {
        "1902": -2_145_916_799_999_999_999,
        "just before": -1,
        "2038": 2_147_483_648_000_000_001,
        "2262": 9_223_372_036_854_775_807,
        "2300": 10_413_792_000_123_456_789,
    }
    for name, ns in times.items():
        for path, length in ((source / name, 10), (source / f"{name} long", 2 << 20)):
            path.write_bytes(bytes(length))
            set_time(path, ns)
        (source / f"{name} directory").mkdir()
        os.symlink("x", source / f"{name} link")
        for kind in ("directory", "link"):
            set_time(source / f"{name} {kind}", ns)
    for _ in range(2):
        assert product.snapshot(source)["complete"]
    assert product.snapshot(source / "2300 long")["complete"]
    assert product.restore(source, ext4 / "target")["missed"] == []
    before, after = picture(source, root=False), picture(ext4 / "target", root=False)
    for name, seen in before.items():
        assert after[name].mtime_ns == min(seen.mtime_ns, (1 << 63) - 1), name
    again = product.restore(source, ext4 / "target")
    assert (again["attributes"], again["overwritten"]) == (0, 0)


def test_roots_snapshot_restored_by_an_ordinary_user(anybodys):
    """What an ordinary user cannot set is said once in the end; what it cannot make is named, and the rest is right."""
    source = anybodys / "source"
    source.mkdir(mode=0o755)
    for number in range(20):
        path = source / f"file {number}"
        path.write_bytes(data(100, number))
        path.chmod(0o4755)
    os.chown(source / "file 1", 1000, 1000)
    os.chown(source / "file 2", 65534, 65534)
    (source / "file 2").chmod(0o4755)
    (source / "folder").mkdir()
    (source / "folder" / "big").write_bytes(data(2 << 20))
    os.setxattr(source / "folder" / "big", "security.capability", CAPABILITY)
    os.setxattr(source / "file 3", "trusted.mine", b"mine")
    os.symlink("file 3", source / "link")
    product = Product(anybodys / "product")
    product.snapshot(source)

    def give() -> None:
        for folder, _, names in os.walk(anybodys / "product"):
            for name in [".", *names]:
                os.chown(os.path.join(folder, name), 65534, 65534)

    give()

    def ordinary() -> None:
        ran = Product(anybodys / "product").run("restore", f"latest:{source}", anybodys / "target", "--verify")
        warnings = [line for line in ran.err.splitlines() if line.startswith("warning")]
        assert len(warnings) == 2, ran.err
        assert "owner of 23 entries could not be set" in ran.err
        assert "extended attributes of 2 entries could not be set" in ran.err

    in_child(ordinary, nobody=True)
    before, after = picture(source), picture(anybodys / "target")
    assert differences(before, after, leaving_out=("uid", "gid", "xattrs", "mode")) == []
    modes = {name: oct(stat.S_IMODE(seen.mode)) for name, seen in after.items() if name.startswith(b"file")}
    assert modes == {name: "0o4755" if name == b"file 2" else "0o755" for name in modes}
    assert {(seen.uid, seen.gid) for seen in after.values()} == {(65534, 65534)}

    os.mknod(source / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    product.snapshot(source)
    give()

    def with_a_device() -> None:
        result = Product(anybodys / "product").restore(source, anybodys / "again", expected=3)
        assert [os.path.basename(row["path"]) for row in result["failures"]] == ["device"]

    in_child(with_a_device, nobody=True)
    assert os.listdir(anybodys / "again") != []


@pytest.mark.parametrize("flag", [0x8000, 0x200_0000], ids=["no tail merging", "direct access"])
def test_flags_that_are_handed_down_come_back_where_they_were(product, top, ext4, flag):
    """What `chattr` sets is set again, on files and directories, and on nothing beside them."""
    source, target = top / "source", ext4 / "target"
    (source / "folder").mkdir(parents=True)
    (source / "folder" / "without").write_bytes(b"1")
    (source / "with").write_bytes(b"2")
    if not set_flags(source / "folder", flag) or not set_flags(source / "with", flag):
        pytest.skip("this file system does not know the flag")
    product.snapshot(source)
    product.restore(source, target)
    assert_equal(source, target)
    found = picture(target)
    assert found[b"with"].flags & flag
    assert found[b"folder"].flags & flag
    assert not found[b"folder/without"].flags & flag
