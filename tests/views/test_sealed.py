from __future__ import annotations

import contextlib
import hashlib
import os
import random
import socket
import stat

import pytest

from respaldo.core.errors import ChunkMissing, Corruption
from respaldo.core.seams import Silent
from respaldo.views import sealed
from respaldo.views.layout import ARCHIVE
from respaldo.views.seal import Seal
from respaldo.views.tarwalk import FirstNames, Place
from tests.views.test_mounted import go, names


def exported(scene, name="latest"):
    """Returns what an export of a snapshot writes."""
    parts = []
    scene.repository.looking.export(scene.repository.find(name), "tar", parts.append, progress=Silent())
    return b"".join(parts)


def fill(source):
    """Writes a tree that has all that a tar archive says in some way of its own."""
    (source / "long").mkdir()
    deep = source / "long" / ("d" * 90)
    deep.mkdir()
    (deep / ("f" * 180)).write_bytes(b"long name")
    (deep / "f").write_bytes(b"short")
    (source / "a-first").write_bytes(os.urandom(1000))
    os.link(source / "a-first", deep / "another name of it")
    os.link(source / "a-first", source / "z-last")
    (source / "big").write_bytes(os.urandom(700_000))
    with (source / "sparse").open("wb") as file:
        file.truncate(9 << 20)
        file.seek(1 << 20)
        file.write(os.urandom(300_000))
    (source / "empty").touch()
    os.utime(source / "empty", ns=(0, 1_700_000_000 * 10**9))
    (source / "old").touch()
    os.utime(source / "old", ns=(0, -5))
    (source / "link").symlink_to("t" * 120)
    os.mkfifo(source / "fifo")
    held = socket.socket(socket.AF_UNIX)
    os.chdir(source)
    held.bind("socket")
    held.close()
    for number in range(300):
        folder = source / f"many{number % 7}"
        folder.mkdir(exist_ok=True)
        (folder / f"file{number}").write_bytes(os.urandom(number * 3))
    with contextlib.suppress(OSError):
        os.setxattr(source / "big", b"user.note", b"x" * 600)


@pytest.fixture
def filled(scene, monkeypatch):
    monkeypatch.chdir(scene.place)
    fill(scene.source)
    scene.snapshot(label="one")
    os.chdir(scene.place)
    return scene


def archive(tree, name="one"):
    """Returns node and attributes of an archive."""
    item = go(tree, f"snapshot/{name}.tar")
    return item.node, item.attributes


def test_sealed_is_what_an_export_writes(filled):
    """Length and bytes are those of an export, whichever part is read first."""
    expected = exported(filled)
    for seed in range(3):
        tree = filled.mounted()
        node, attributes = archive(tree)
        assert attributes.size == len(expected)
        assert stat.S_IMODE(attributes.mode) == 0o444
        file = tree.open(node)
        places = random.Random(seed)
        offsets = sorted(range(0, len(expected), 130_000), key=lambda _: places.random())
        for offset in (*offsets, len(expected) - 5, len(expected), len(expected) + 10):
            length = places.choice([1, 511, 4096, 131_072])
            assert b"".join(tree.read(node, file, offset, length)) == expected[offset : offset + length]
        assert b"".join(tree.read(node, file, 0, len(expected) + 1)) == expected
        tree.close()


def test_sealed_notes_so_many_places_and_no_more(filled, monkeypatch):
    """However long an archive is, as many places are kept as before, further apart, and every byte is found."""
    monkeypatch.setattr(sealed, "PLACES_MAX", 8)
    monkeypatch.setattr(sealed, "_SPACING", 2)
    monkeypatch.setattr(sealed, "_STEPS_AT_ONCE", 5)
    expected = exported(filled)
    tree = filled.mounted()
    node, _ = archive(tree)
    file = tree.open(node)
    for offset in range(len(expected) - 512, 0, -97_000):
        assert b"".join(tree.read(node, file, offset, 700)) == expected[offset : offset + 700]
    assert 1 < len(file._places) <= 8
    assert file._places[0] == Place(len(file._head), (0,))
    tree.close()


def test_sealed_length_needs_no_content(filled, monkeypatch):
    """Listing archives reads nothing at all, and asking for the length of one reads trees and lists."""
    tree = filled.mounted()
    asked = []
    monkeypatch.setattr(tree.contents._blocks, "block", lambda *_: pytest.fail("content was read"))
    monkeypatch.setattr(tree.directories, "run_at", lambda *_: asked.append(1))
    item = {item.name: item for item in tree.listing(go(tree, "snapshot").node, 0, 10)}[b"one" + ARCHIVE]
    assert item.attributes.size == -1
    assert not asked
    monkeypatch.undo()
    monkeypatch.setattr(tree.contents.cache, "_fetch", lambda *_: pytest.fail("content was read"))
    node, attributes = archive(tree)
    assert attributes.size > 700_000
    assert tree.attributes(node)[0].size == attributes.size
    tree.close()


def test_sealed_length_of_the_next_snapshot_looks_at_what_changed(filled, monkeypatch):
    """What is below an equal directory at the same place is known from the other archive."""
    (filled.source / "many3" / "new").write_bytes(b"new")
    filled.snapshot(label="two")
    expected = exported(filled, "two")
    tree = filled.mounted()
    archive(tree, "one")
    loaded = []
    load = tree.directories._load
    monkeypatch.setattr(tree.directories, "_load", lambda tree_id: loaded.append(tree_id) or load(tree_id))
    node, attributes = archive(tree, "two")
    assert attributes.size == len(expected)
    above = len(filled.source.parts) - 1
    assert len(set(loaded)) == above + 2 + 2  # the way down, the source, many3, and long/ with its directory of links
    file = tree.open(node)
    assert b"".join(tree.read(node, file, 0, len(expected))) == expected
    tree.close()


def test_sealed_archive_read_to_its_end_is_sealed(filled):
    """Who reads an archive in sequence finds its SHA-256 beside it from then on."""
    expected = exported(filled)
    tree = filled.mounted()
    node, _ = archive(tree)
    file = tree.open(node)
    for offset in range(0, len(expected), 100_000):
        assert names(tree, go(tree, "snapshot").node) == [b"one", b"one.tar"]
        tree.read(node, file, offset, 100_000)
    filled.later()
    assert names(tree, go(tree, "snapshot").node) == [b"one", b"one.tar", b"one.tar.sha256"]
    text = tree.open(go(tree, "snapshot/one.tar.sha256").node)
    assert text == hashlib.sha256(expected).hexdigest().encode() + b"  one.tar\n"
    tree.close()


def test_sealed_archive_is_sealed_for_whoever_asks(filled):
    """The SHA-256 can be read before the archive was: not listed, of the length that it says, and then remembered."""
    expected = exported(filled)
    tree = filled.mounted()
    item = go(tree, "snapshot/one.tar.sha256")
    text = tree.open(item.node)
    assert text == hashlib.sha256(expected).hexdigest().encode() + b"  one.tar\n"
    assert item.attributes.size == len(text)
    assert tree.attributes(item.node)[0] == item.attributes
    for missing in (b"two.tar.sha256", b"one.sha256", b"one.tar.sha256.sha256"):
        assert tree.lookup(go(tree, "snapshot").node, missing) is None
    filled.later()
    assert names(tree, go(tree, "snapshot").node) == [b"one", b"one.tar", b"one.tar.sha256"]
    assert tree.open(go(tree, "snapshot/one.tar.sha256").node) == text
    assert tree.open(item.node) == text
    tree.close()


def test_sealed_damage_fails_its_range_alone(filled, monkeypatch):
    """Where a file's content is damaged, the archive cannot be read there, and everywhere else it can."""
    expected = exported(filled)
    tree = filled.mounted()
    node, _ = archive(tree)
    file = tree.open(node)
    bad = go(tree, f"latest{filled.source}/big")
    entry = tree.entry(bad.node)
    ids = {piece.id for piece in tree.contents._pieces(tree.open(bad.node), 0, entry.size)}
    chunk = tree.contents._chunk

    def broken(piece):
        if piece.id in ids:
            raise Corruption("chunk", "damaged")
        return chunk(piece)

    monkeypatch.setattr(tree.contents, "_chunk", broken)
    failed = 0
    for offset in range(0, len(expected), 4096):
        try:
            assert b"".join(tree.read(node, file, offset, 4096)) == expected[offset : offset + 4096]
        except (Corruption, ChunkMissing):
            failed += 4096
    assert 700_000 <= failed <= 700_000 + 2 * 4096
    tree.close()


def test_sealed_snapshot_of_endless_trees_has_no_archive(filled, monkeypatch):
    """Trees that hold one another over and over make an error, and no endless walk."""
    monkeypatch.setattr(sealed, "_STEPS_AT_ONCE", 10)
    monkeypatch.setattr(sealed, "_MEMBERS_MORE", -900)
    tree = filled.mounted()
    with pytest.raises(Corruption, match="more members"):
        archive(tree)
    tree.close()


def test_seal_takes_what_comes_too_early():
    """The order in which parts of a file arrive makes no difference, unless one comes much too early or never."""
    whole = os.urandom(100_000)
    parts = [(at, whole[at : at + 1000]) for at in range(0, len(whole), 1000)]
    seal = Seal()
    for block in range(0, 100, 10):
        for at, part in reversed(parts[block : block + 10]):
            done = seal.note(at, [memoryview(part)], len(whole))
    assert done and seal.sha256 == hashlib.sha256(whole).hexdigest()
    other = Seal()
    for at, part in parts[1:]:
        other.note(at, [memoryview(part)], len(whole))
    assert other.sha256 == ""
    assert len(other._early) < 30


def test_first_names_keep_the_first():
    """Of the names of a hard-linked file the first one stays, and of files with none there is none."""
    firsts = FirstNames()
    firsts[b"a"] = b"one"
    firsts[b"a"] = b"two"
    assert firsts.get(b"a") == b"one" and firsts.get(b"b") is None
    assert list(firsts) == [b"a"] and len(firsts) == 1
    del firsts[b"a"]
    assert not firsts
