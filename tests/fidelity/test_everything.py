"""Everything a file system can hold, from it and back to it."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess

import pytest

from tests.backend.places import NOBODY, in_child
from tests.fidelity.compare import assert_equal, differences, inexact, leftovers, picture, rsync_differences
from tests.fidelity.product import Product
from tests.fidelity.trees import lsattr, thaw, write_attributes, write_flagged, write_ordinary, write_roots

pytestmark = pytest.mark.root


@pytest.fixture
def everything(any_disk):
    """Has a tree with everything on each kind of file system."""
    top = any_disk / "source"
    write_ordinary(top)
    write_attributes(top)
    write_roots(top)
    write_flagged(top)
    yield top
    thaw(any_disk)
    for name in os.listdir(any_disk):
        shutil.rmtree(any_disk / name)


def test_everything_comes_back(product, everything, any_disk):
    """What a file system holds comes back to it equal; once more over it, and nothing is left to be done."""
    before = picture(everything)
    done = product.snapshot(everything)
    assert done["complete"]
    assert differences(before, picture(everything), leaving_out=inexact(any_disk)) == []
    target = any_disk / "target"
    result = product.restore(everything, target, "--verify")
    assert (result["complete"], result["missed"], result["notes"]) == (True, [], [])
    assert_equal(everything, target)
    assert leftovers(any_disk) == []

    for policy in ("if-changed", "always", "if-newer", "never"):
        again = product.restore(everything, target, "--overwrite", policy, "--delete")
        changed = [again[what] for what in ("created", "overwritten", "attributes", "deleted", "failed")]
        assert changed == [0] * 5, (policy, again)
        assert differences(before, picture(target), leaving_out=inexact(any_disk)) == [], policy


def test_everything_comes_back_to_another_file_system(product, everything, any_disk, ext4):
    """What one file system holds comes back to another one; what that does not have is said."""
    product.snapshot(everything)
    target = ext4 / "target"
    result = product.restore(everything, target)
    assert result["complete"]
    assert [item["what"] for item in result["missed"]] == []
    assert_equal(everything, target)
    thaw(target)
    shutil.rmtree(target)


def test_everything_is_told_by_other_tools(product, ext4):
    """Capabilities and flags of a restored file are what getcap and lsattr call by the same names."""
    top = ext4 / "told"
    write_ordinary(top)
    write_attributes(top)
    write_roots(top)
    assert write_flagged(top)
    product.snapshot(top)
    target = ext4 / "told target"
    product.restore(top, target)
    assert lsattr(target / "flagged" / "append only") == lsattr(top / "flagged" / "append only")
    assert "i" in lsattr(target / "flagged")
    getcap = shutil.which("getcap", path=f"{os.environ['PATH']}:/sbin:/usr/sbin")
    if getcap is not None:
        said = subprocess.run([getcap, "-r", str(target)], check=True, capture_output=True, text=True).stdout
        assert said.count("cap_net_raw=ep") == 4
    for path in (top, target):
        thaw(path)
        shutil.rmtree(path)


def test_everything_has_its_birth_recorded(product, everything):
    """The time of birth, which no call can set, is recorded with each entry."""
    made = product.snapshot(everything)
    rows = product.run("ls", f"{made['snapshot'][:12]}:{everything}", "--json").json
    assert rows
    from respaldo.kernel import scan
    from respaldo.kernel.layout import META

    fd = os.open(everything, os.O_RDONLY)
    try:
        names, meta, _ = scan(fd, 0, 0)
    finally:
        os.close(fd)
    births = dict(zip(names.split(b"\0"), (row[6] for row in META.iter_unpack(meta)), strict=False))
    assert all(births.values())
    from respaldo.api import Places, open_repository
    from respaldo.codec.slots import Secret

    places = Places(cache_dir=product.place / "cache", state_dir=product.place / "state" / "respaldo")
    with open_repository(str(product.repository), Secret(key=bytes(range(32))), places=places) as repository:
        found = repository.find(f"latest:{everything}")
        recorded = {os.path.basename(path): entry.btime_ns for path, entry in repository.ls(found)}
    assert recorded == births


@pytest.fixture
def home(any_disk):
    """Has a directory of the ordinary user on each kind of file system."""
    path = any_disk / "home"
    path.mkdir()
    os.chown(path, NOBODY, NOBODY)
    yield path
    shutil.rmtree(path)


def test_everything_but_owners_comes_back_to_an_ordinary_user(home):
    """An ordinary user backs up and gets back all that is its own: modes, links, attributes, ACLs, holes, times."""

    def ordinary() -> None:
        source, target = home / "source", home / "target"
        write_ordinary(source)
        write_attributes(source)
        os.link(source / "directory 0700" / "inside", source / "directory 0700" / "linked")
        product = Product(home / "product")
        assert product.snapshot(source)["complete"]
        result = product.restore(source, target, "--verify")
        assert (result["complete"], result["missed"]) == (True, [])
        assert_equal(source, target)

    in_child(ordinary, nobody=True)


def test_unreadable_files_cost_no_other(home):
    """What an ordinary user cannot read is named, by snapshot and restore, with status 3; the rest is whole."""

    def ordinary() -> None:
        source, target = home / "source", home / "target"
        write_ordinary(source)
        (source / "mode 0405").chmod(0)
        (source / "closed").mkdir()
        (source / "closed" / "secret").write_bytes(b"secret")
        (source / "closed").chmod(0)
        product = Product(home / "product")
        done = product.snapshot(source, expected=3)
        assert sorted(os.path.basename(row["path"]) for row in done["failed"]) == ["closed", "mode 0405"]
        result = product.restore(source, target, expected=3)
        assert sorted(os.path.basename(row["path"]) for row in result["failures"]) == ["closed", "mode 0405"]
        left = [line for line in rsync_differences_of_readable(source, target) if "mode 0405" not in line]
        assert left == []
        assert stat.S_IMODE(os.stat(target / "closed").st_mode) == 0
        for path in (source, target):
            (path / "closed").chmod(0o700)

    def rsync_differences_of_readable(source, target):
        return rsync_differences(source, target, "--exclude=/closed", "--exclude=/mode 0405")

    in_child(ordinary, nobody=True)
