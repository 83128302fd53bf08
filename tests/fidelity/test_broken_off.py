"""Restores that are killed, run out of room or meet damage: what is there is right, and the rest is told."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.fidelity.compare import assert_equal, differences, leftovers, picture
from tests.fidelity.disks import mounted, reachable
from tests.fidelity.trees import data, write_attributes, write_ordinary


def many(top, folders=8, files=60):
    """Makes directories of small files, some long ones, and names that are one file."""
    for folder in range(folders):
        (top / f"{folder:02d}").mkdir(parents=True)
        for file in range(files):
            (top / f"{folder:02d}" / f"{file:03d}").write_bytes(data(2000 + file, folder * files + file))
        (top / f"{folder:02d}" / "long").write_bytes(data(2 << 20, folder))
        (top / f"{folder:02d}" / "very long").write_bytes(data(17 << 20 if folder % 5 == 0 else 1, folder))
        os.link(top / f"{folder:02d}" / "000", top / f"{(folder + 1) % folders:02d}-linked")
        (top / f"{folder:02d}").chmod(0o555 if folder % 2 else 0o750)


def assert_nothing_is_half(source, target):
    """Fails where a file in a target has neither its content nor none: temporary names are no files yet."""
    wanted = picture(source)
    for name, seen in picture(target, root=False).items():
        if not any(part.startswith(b".respaldo-") for part in name.split(b"/")) and seen.digest:
            assert (seen.digest, seen.size) == (wanted[name].digest, wanted[name].size), name


def test_killed_restore_is_gone_on_with(product, room):
    """Killed again and again, what has a name is whole; run again, it goes on, leaves nothing behind, and is right."""
    source, target = room / "source", room / "target"
    many(source)
    product.snapshot(source)
    seen = 0
    for number, marker in enumerate(("01/010", "04/long", "05/very long", "07")):
        process = product.spawn("restore", f"latest:{source}", target)
        until = time.monotonic() + 60
        while not (target / marker).exists() and process.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.002)
        time.sleep(0.005 * number)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        seen += process.returncode == -signal.SIGKILL
        assert_nothing_is_half(source, target)
    assert seen >= 2
    result = product.restore(source, target)
    assert result["unchanged"] > 0
    assert_equal(source, target)
    assert leftovers(target) == []


def test_interrupted_restore_says_so_and_is_gone_on_with(product, room):
    """Ctrl-C ends a restore with 130, with no temporary file left; run again, it goes on."""
    source, target = room / "source", room / "target"
    many(source)
    product.snapshot(source)
    process = product.spawn("restore", f"latest:{source}", target)
    until = time.monotonic() + 60
    while not (target / "01").exists() and process.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode in {130, 0}
    assert leftovers(target) == []
    assert_nothing_is_half(source, target)
    product.restore(source, target)
    assert_equal(source, target)


@pytest.mark.root
def test_full_target_is_an_error_and_leaves_no_half_file(product, room):
    """A target that is too small is refused before anything is written; or fails in the middle, with no half file."""
    source = room / "source"
    many(source, folders=4)
    product.snapshot(source)
    with reachable() as place, mounted("ext4", place, length_bytes=24 << 20) as disk:
        target = disk / "target"
        ran = product.run("restore", f"latest:{source}", target, expected=1)
        assert "are free" in ran.err
        assert "nothing was written" in ran.err
        assert os.listdir(disk) == []

        ran = product.run("restore", f"latest:{source}", target, "--no-space-check", expected=1)
        assert "No space left on device" in ran.err
        assert "make room" in ran.err
        assert "Traceback" not in ran.err
        assert leftovers(target) == []
        assert_nothing_is_half(source, target)
        assert len(picture(target)) > 5

        # As much as there is room for, it goes on.
        product.restore(source, target, "--exclude", "long", "--exclude", "very long")
        for folder in range(4):
            assert len(os.listdir(target / f"{folder:02d}")) >= 60
        assert_nothing_is_half(source, target)


@pytest.mark.root
def test_target_without_inodes_is_an_error(product, room):
    """Where it is names that run out, a restore is refused, too, or fails as clearly."""
    source = room / "source"
    many(source, folders=3, files=100)
    product.snapshot(source, "--exclude", "*long")
    with reachable() as place, mounted("ext4", place, length_bytes=32 << 20, inodes=128) as disk:
        ran = product.run("restore", f"latest:{source}", disk / "target", expected=1)
        assert "files and directories are needed" in ran.err
        ran = product.run("restore", f"latest:{source}", disk / "target", "--no-space-check", expected=1)
        assert "No space left on device" in ran.err
        assert_nothing_is_half(source, disk / "target")


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_damaged_pack_costs_what_is_in_it(product, room, damage):
    """Files with content in a damaged pack are named and left out, status 4; all others are right."""
    source, target = room / "source", room / "target"
    (source / "folder").mkdir(parents=True)
    for number in range(40):
        (source / "folder" / f"{number:02d}").write_bytes(data(2 << 20, number))
        (source / f"small {number:02d}").write_bytes(data(3000, number + 100))
    write_ordinary(source / "others")
    write_attributes(source / "others")
    product.snapshot(source)
    packs = sorted(
        (path for path in (product.repository / "packs").rglob("*") if path.is_file()),
        key=lambda path: path.stat().st_size,
    )
    assert len(packs) > 2
    broken = packs[-1]
    broken.parent.chmod(0o700)
    broken.chmod(0o600)
    if damage == "flipped":
        with broken.open("r+b") as file:
            file.seek(broken.stat().st_size // 2)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 1]))
    elif damage == "cut":
        os.truncate(broken, broken.stat().st_size // 2)
    else:
        broken.unlink()
    result = product.restore(source, target, "--verify", expected=4)
    failed = {os.path.relpath(row["path"], source).encode() for row in result["failures"]}
    assert 1 <= len(failed) < 60, result["failures"][:3]
    assert result["failed"] == result["damaged"] == len(failed)
    wanted = picture(source)
    for name in failed:
        del wanted[name]
    assert differences(wanted, picture(target)) == []
    assert leftovers(target) == []
    # What is there in spite of the damage is kept, and the rest is still named.
    again = product.restore(source, target, expected=4)
    assert {os.path.relpath(row["path"], source).encode() for row in again["failures"]} == failed
    # A snapshot of the source stores it again; then everything is there.
    product.run("snapshot", source, expected=None)
    later = product.restore(source, target, expected=None)
    assert later["failed"] <= again["failed"]


def test_repository_inside_its_source(product, room):
    """A source that holds its own repository is backed up without end neither in time nor in size."""
    from tests.fidelity.product import Product

    source = room / "source"
    many(source, folders=2)
    inside = Product(source / "backup")
    left_out = ["--exclude", "/backup"]
    inside.snapshot(source, *left_out)
    inside.restore(source, room / "target")
    assert not (room / "target" / "backup").exists()
    wanted = {name: seen for name, seen in picture(source, root=False).items() if not name.startswith(b"backup")}
    assert differences(wanted, picture(room / "target", root=False)) == []

    for _ in range(2):
        ran = inside.run("snapshot", source, "--json", expected=None)
        assert ran.status in {0, 3}
    assert ran.json["figures"]["bytes"] < 400 << 20
    inside.restore(source, room / "all", expected=None)
    back = picture(room / "all", root=False)
    assert differences(wanted, {name: seen for name, seen in back.items() if not name.startswith(b"backup")}) == []
