from __future__ import annotations

import os
import stat

import pytest

from respaldo.core.errors import Corruption, NoSuchSnapshot, StorageFailed
from respaldo.core.seams import Cancel
from respaldo.views.made import ROOT


def go(tree, path):
    """Returns the item at a path below the root of a mount."""
    node, item = ROOT, None
    for name in os.fsencode(path).strip(b"/").split(b"/"):
        item = tree.lookup(node, name)
        if item is None:
            return None
        node = item.node
    return item


def names(tree, node):
    return [item.name for item in tree.listing(node, 0, 10_000)]


def test_mounted_listing_and_lookup_agree(scene):
    """An entry has the same number and attributes whether it is looked up, listed from anywhere, or asked for."""
    (scene.source / "dir").mkdir()
    for name in ("a", "b", "dir/c"):
        (scene.source / name).write_text(name)
    os.link(scene.source / "a", scene.source / "dir" / "linked")
    (scene.source / "link").symlink_to("a")
    scene.snapshot()
    tree = scene.mounted()
    top = go(tree, f"latest{scene.source}")
    listed = tree.listing(top.node, 0, 100)
    assert [item.name for item in listed] == [b"a", b"b", b"dir", b"link"]
    for position, item in enumerate(listed):
        assert tree.lookup(top.node, item.name) == item
        assert tree.listing(top.node, position, 1) == [item]
        assert tree.attributes(item.node) == (item.attributes, True)
        assert tree.parent(item.node) == top.node
    assert tree.target(listed[3].node) == b"a"
    first, second = listed[0], go(tree, f"latest{scene.source}/dir/linked")
    assert first.node != second.node
    assert first.attributes.ino == second.attributes.ino and first.attributes.nlink == 2
    tree.close()


def test_mounted_long_directory_is_found_by_row_and_by_name(scene):
    """A directory that is stored in runs is one directory: every name by its place, in parts of any length."""
    expected = [f"{number:05}".encode() for number in range(5000)]
    for name in expected:
        (scene.source / name.decode()).touch()
    scene.snapshot()
    tree = scene.mounted()
    top = go(tree, f"latest{scene.source}").node
    assert names(tree, top) == expected
    parts = []
    while part := tree.listing(top, len(parts), 700):
        parts += part
    assert [item.name for item in parts] == expected
    for number in (0, 1, 1023, 2500, 4999):
        assert tree.lookup(top, expected[number]) == parts[number]
        assert tree.entry(parts[number].node).name == expected[number]
    assert tree.lookup(top, b"00000x") is None
    tree.close()


def test_mounted_looks_for_new_snapshots_only_now_and_then(scene):
    """However much is asked, the repository is listed once in a while, and a new snapshot is seen after it."""
    (scene.source / "file").write_text("one")
    scene.snapshot(label="one")
    tree = scene.mounted()
    looked = scene.looked
    for _ in range(20):
        assert names(tree, go(tree, "snapshots").node) == [b"one"]
    assert scene.looked == looked
    (scene.source / "file").write_text("two!")
    scene.snapshot(label="two")
    assert names(tree, go(tree, "snapshots").node) == [b"one"]
    scene.later()
    assert names(tree, go(tree, "snapshots").node) == [b"one", b"two"]
    assert scene.looked == looked + 1
    assert go(tree, f"latest{scene.source}/file").attributes.size == 4
    tree.close()


def test_mounted_node_of_a_forgotten_snapshot_is_gone_and_no_other(scene):
    """A number never comes to mean another snapshot: what stood there is gone, also under the same name again."""
    (scene.source / "file").write_text("one")
    scene.snapshot(label="same")
    tree = scene.mounted()
    old = go(tree, "snapshots/same")
    scene.repository.forget(["same"], cancel=Cancel())
    (scene.source / "file").write_text("another")
    scene.snapshot(label="same")
    scene.later()
    new = go(tree, "snapshots/same")
    assert new.node != old.node
    with pytest.raises(NoSuchSnapshot):
        tree.attributes(old.node)
    assert go(tree, f"snapshots/same{scene.source}/file").attributes.size == 7
    tree.close()


def test_mounted_keeps_what_it_knows_while_storage_fails(scene, monkeypatch):
    """A disk that is gone for a moment empties no directory."""
    (scene.source / "file").write_text("one")
    scene.snapshot(label="one")

    def fail() -> None:
        raise StorageFailed("pending", "gone")

    tree = scene.mounted()
    monkeypatch.setattr(tree, "_look", fail)
    scene.later()
    assert names(tree, go(tree, "snapshots").node) == [b"one"]
    tree.close()


def test_mounted_reads_files_and_holes(scene):
    """Any range of a file is what it was, holes are zeros, and where data begins is known."""
    content = os.urandom(700_000)
    (scene.source / "file").write_bytes(content)
    with (scene.source / "sparse").open("wb") as file:
        file.truncate(4 << 20)
        file.seek(1 << 20)
        file.write(content)
    scene.snapshot()
    tree = scene.mounted()
    for name, whole in (("file", content), ("sparse", (scene.source / "sparse").read_bytes())):
        node = go(tree, f"latest{scene.source}/{name}").node
        file = tree.open(node)
        for offset, length in (
            (0, len(whole)),
            (1, 70_000),
            (len(whole) - 5, 100),
            (len(whole), 5),
            (1_000_000, 99_999),
        ):
            assert b"".join(tree.read(node, file, offset, length)) == whole[offset : offset + length]
    on_disk = tree.attributes(node)[0].size_on_disk
    assert len(content) <= on_disk < 2 << 20
    start = tree.contents.seek(file, 0, data=True)
    assert 0 < start <= 1 << 20
    assert tree.contents.seek(file, start, data=False) >= start + len(content)
    assert tree.contents.seek(file, 4 << 20, data=True) is None
    tree.close()


def test_mounted_directories_of_sources_stand_at_their_paths(scene):
    """Sources that are backed up apart stand together in latest/, each as its own newest snapshot has it."""
    other = scene.place / "other"
    other.mkdir()
    (other / "file").write_text("other")
    (scene.source / "file").write_text("old")
    scene.snapshot()
    scene.snapshot(other)
    (scene.source / "file").write_text("newer")
    scene.snapshot()
    tree = scene.mounted()
    assert names(tree, go(tree, f"latest{scene.place}").node) == [b"other", b"source"]
    assert go(tree, f"latest{scene.source}/file").attributes.size == len("newer")
    assert stat.S_ISDIR(go(tree, f"latest{other}").attributes.mode)
    assert len(names(tree, go(tree, "snapshots").node)) == 3
    tree.close()


def test_mounted_source_inside_another_stands_in_it_where_it_is_newer(scene):
    """In latest/, each path is as the newest snapshot of a source that covers it has it, with its own attributes."""
    inner = scene.source / "inner"
    inner.mkdir(mode=0o750)
    scene.source.chmod(0o711)
    (inner / "file").write_text("old")
    (scene.source / "beside").write_text("beside")
    scene.snapshot()
    (inner / "file").write_text("newer")
    scene.snapshot(inner)
    tree = scene.mounted()
    assert go(tree, f"latest{inner}/file").attributes.size == len("newer")
    assert go(tree, f"latest{scene.source}/beside").attributes.size == len("beside")
    assert stat.S_IMODE(go(tree, f"latest{scene.source}").attributes.mode) == 0o711
    assert stat.S_IMODE(go(tree, f"latest{inner}").attributes.mode) == 0o750
    assert names(tree, go(tree, f"latest{scene.source}").node) == [b"beside", b"inner"]
    (inner / "file").write_text("the newest")
    scene.snapshot()
    scene.later()
    assert go(tree, f"latest{inner}/file").attributes.size == len("the newest")
    tree.close()


def test_mounted_source_inside_another_fills_what_that_one_lacks(scene):
    """Where the outer source has nothing, the inner one is shown, also an older one."""
    inner = scene.source / "deep" / "inner"
    inner.mkdir(parents=True)
    (inner / "file").write_text("here")
    scene.snapshot(inner)
    (scene.source / "file").write_text("outer")
    scene.snapshot(exclude=("deep",))
    tree = scene.mounted()
    assert names(tree, go(tree, f"latest{scene.source}").node) == [b"deep", b"file"]
    assert go(tree, f"latest{inner}/file").attributes.size == len("here")
    tree.close()


def test_mounted_hosts_have_what_is_newest_of_each(scene):
    """Of a path that two machines have, latest/ shows the newest, and hosts/ what each of them has."""
    (scene.source / "file").write_text("one")
    scene.snapshot(host="one")
    (scene.source / "file").write_text("the other")
    scene.snapshot(host="other")
    tree = scene.mounted()
    assert go(tree, f"latest{scene.source}/file").attributes.size == len("the other")
    assert go(tree, f"hosts/one/latest{scene.source}/file").attributes.size == len("one")
    assert go(tree, f"hosts/other/latest{scene.source}/file").attributes.size == len("the other")
    tree.close()


def test_mounted_directory_is_listed_where_one_of_it_cannot_be_had(scene, monkeypatch):
    """A source that is damaged keeps its name, and those beside it are as they are."""
    other = scene.place / "other"
    other.mkdir()
    (other / "file").write_text("other")
    (scene.source / "file").write_text("here")
    scene.snapshot()
    scene.snapshot(other)
    tree = scene.mounted()
    at = tree.directories.at

    def damaged(snapshot, path):
        if path == os.fsencode(other):
            raise Corruption("tree", "damaged")
        return at(snapshot, path)

    monkeypatch.setattr(tree.directories, "at", damaged)
    assert names(tree, go(tree, f"latest{scene.place}").node) == [b"other", b"source"]
    assert go(tree, f"latest{scene.source}/file").attributes.size == len("here")
    with pytest.raises(Corruption):
        go(tree, f"latest{other}/file")
    tree.close()


def test_mounted_root_is_listed_from_manifests_alone(scene, monkeypatch):
    """Listing the root, the snapshots and the archives reads no tree, however many snapshots there are."""
    for number in range(12):
        (scene.source / "file").write_text(str(number))
        scene.snapshot(label=f"label{number}", time_ns=10**18 + number * 10**9)
    tree = scene.mounted()
    monkeypatch.setattr(tree.directories, "_load", lambda _: pytest.fail("a tree was read"))
    assert b"snapshots" in names(tree, ROOT)
    assert len(names(tree, go(tree, "snapshots").node)) == 12
    assert len([name for name in names(tree, go(tree, "snapshot").node) if name.endswith(b".tar")]) == 12
    tree.close()
