"""Restores against somebody: links in a target, and a target and a source that change under the run.

Trees that no honest client wrote are in `tests/hostile`.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from tests.fidelity.compare import differences, picture
from tests.fidelity.trees import data

POLICIES = ("always", "if-changed", "if-newer", "never")


@pytest.fixture
def outside(room):
    """Has what must not be touched, beside and above a target."""
    place = room / "above" / "outside"
    place.mkdir(parents=True)
    (place / "file").write_bytes(b"precious")
    (place / "folder").mkdir()
    (place / "folder" / "file").write_bytes(b"precious, too")
    return place


def untouched(outside):
    before = picture(outside.parent)

    def check():
        after = {name: seen for name, seen in picture(outside.parent).items() if name.split(b"/")[0] != b"target"}
        wanted = {name: seen for name, seen in before.items() if name.split(b"/")[0] != b"target"}
        # A target is made in the directory above.
        assert differences(wanted, after, leaving_out=("mtime_ns",)) == []
        assert after[b"outside"] == wanted[b"outside"]

    return check


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("level", range(4))
@pytest.mark.parametrize("more", [(), ("--delete",), ("--in-place", "--verify")], ids=["plain", "delete", "in-place"])
def test_links_in_a_target_are_not_followed(product, room, outside, level, policy, more):
    """A link that somebody planted at any level of a target, to a directory or a file, leads nowhere."""
    source, target = room / "source", outside.parent / "target"
    (source / "folder" / "folder" / "folder").mkdir(parents=True)
    (source / "folder" / "folder" / "folder" / "file").write_bytes(data(2 << 20))
    (source / "folder" / "folder" / "file").write_bytes(b"restored")
    product.snapshot(source)
    parts = ["folder", "folder", "folder", "file"]
    at = target.joinpath(*parts[: level + 1])
    at.parent.mkdir(parents=True)
    os.symlink(outside / "file" if level == 3 else outside, at)
    os.symlink(outside, at.parent / "added")
    check = untouched(outside)
    ran = product.run("restore", f"latest:{source}", target, "--overwrite", policy, *more, "--json", expected=None)
    assert ran.status in {0, 3}, ran.err
    check()
    if policy in {"always", "if-changed"}:
        assert (target.joinpath(*parts)).read_bytes() == data(2 << 20)
        assert not at.is_symlink()
    if policy == "never":
        assert at.is_symlink()
    assert (at.parent / "added").is_symlink() == (not more or more[0] != "--delete")


def test_target_that_is_swapped_under_the_run_leads_nowhere(product, room, outside):
    """Directories of a target that become links while they are written to take nothing outside of it."""
    source, target = room / "source", outside.parent / "target"
    for folder in ("a", "a/b", "a/b/c"):
        (source / folder).mkdir(parents=True, exist_ok=True)
        for number in range(30):
            (source / folder / f"{number:02d}").write_bytes(data(2000, number))
        (source / folder / "long").write_bytes(data(2 << 20))
        os.link(source / folder / "00", source / folder / "linked")
        os.mkfifo(source / folder / "fifo")
    product.snapshot(source)
    for folder in ("b", "b/c", "c"):
        (outside / folder).mkdir(exist_ok=True)
    check = untouched(outside)
    over = threading.Event()
    swapped = 0

    def swap():
        nonlocal swapped
        while not over.is_set():
            for folder in ("a/b/c", "a/b", "a"):
                path, away = target / folder, target / f"{folder}.away"
                try:
                    path.rename(away)
                    os.symlink(outside, path)
                    swapped += 1
                    over.wait(0.001)
                    path.unlink()
                    away.rename(path)
                except OSError:
                    pass
                over.wait(0.0005)

    thread = threading.Thread(target=swap)
    thread.start()
    statuses = set()
    try:
        for number in range(12):
            more = [(), ("--delete",), ("--in-place", "--overwrite", "always"), ("--verify",)][number % 4]
            ran = product.run("restore", f"latest:{source}", target, *more, "--json", expected=None)
            assert "should not have happened" not in ran.err, ran.err
            statuses.add(ran.status)
    finally:
        over.set()
        thread.join()
    check()
    assert swapped
    assert statuses <= {0, 1, 3}


def test_source_that_changes_all_the_time(product, room):
    """Of a tree that is written to while it is backed up, each file comes back as it was at some moment."""
    source = room / "source"
    source.mkdir()
    over = threading.Event()

    def content(version):
        return b"%08d\n" % version * 3000

    def write():
        version = 0
        while not over.is_set():
            version += 1
            name = source / f"{version % 40:02d}"
            fresh = source / f"new {version % 7}"
            fresh.write_bytes(content(version))
            fresh.rename(name)
            folder = source / f"folder {version % 5}"
            if folder.exists():
                for path in folder.iterdir():
                    path.unlink()
                folder.rmdir()
            else:
                folder.mkdir()
                (folder / "file").write_bytes(content(version))
            over.wait(0.0005)

    (source / "grows").write_bytes(b"")
    thread = threading.Thread(target=write)
    thread.start()
    try:
        statuses = {product.run("snapshot", source, expected=None).status for _ in range(8)}
    finally:
        over.set()
        thread.join()
    assert statuses <= {0, 3}
    for number, row in enumerate(product.run("snapshots", "--json").json["snapshots"]):
        target = room / f"target {number}"
        name = row["id"] if "id" in row else row["snapshot"]
        result = product.restore(f"{name[:16]}:{source}", target, expected=None)
        for failed in result["failures"]:
            assert "could not be read" in failed["reason"], failed
        for path in Path(target).glob("[0-9]*"):
            raw = path.read_bytes()
            assert raw == content(int(raw[:8])), path
