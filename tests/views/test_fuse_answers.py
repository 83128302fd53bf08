from __future__ import annotations

import errno
import os

import pytest

from respaldo.core.errors import ChunkMissing, Corruption, NoSuchSnapshot, StorageFailed
from respaldo.views import fuse_wire as wire
from respaldo.views.fuse_answers import Answers, Request, errno_of
from respaldo.views.fuse_wire import Op


def entries(answers, node, *, plus, size):
    """Lists a directory as the kernel does, a buffer at a time; returns (name, ino) of what is in it."""
    found, offset = [], 0
    head = wire.ENTRY_PLUS if plus else wire.DIRENT
    while True:
        got = answers.answer(
            Request(Op.READDIRPLUS if plus else Op.READDIR, 0, node, wire.READ_IN.pack(0, offset, size))
        )
        assert len(got) <= size
        if not got:
            return found
        at = 0
        while at < len(got):
            *_, ino, offset, length, _ = head.unpack_from(got, at)
            start = at + head.size
            found.append((got[start : start + length], ino))
            at = start + length + (-length & 7)


@pytest.mark.parametrize("size", [4096, 700, 100_000])
@pytest.mark.parametrize("plus", [True, False])
def test_answers_list_every_entry_once(scene, plus, size):
    """Whatever fits into a buffer, each entry is listed once, with the dots before all others."""
    expected = [f"{number:03}{'x' * (number % 50)}".encode() for number in range(300)]
    for name in expected:
        (scene.source / os.fsdecode(name)).touch()
    scene.snapshot(label="one")
    tree = scene.mounted()
    answers = Answers(tree, lambda: (0, 0))
    node = 1
    for name in (b"snapshots", b"one", *os.fsencode(scene.source).strip(b"/").split(b"/")):
        node = tree.lookup(node, name).node
    for _ in range(2):
        found = entries(answers, node, plus=plus, size=size)
        assert [name for name, _ in found] == [b".", b"..", *expected]
        assert len({ino for _, ino in found}) == len(found)
    tree.close()


def test_answers_tell_the_kernel_what_went_wrong():
    """Each error has its errno: what is gone is stale, what is damaged cannot be read, and nothing stays open."""
    assert errno_of(NoSuchSnapshot("x")) == errno.ESTALE
    for error in (Corruption("x", "y"), ChunkMissing("data", bytes(32)), StorageFailed("x"), KeyError("x")):
        assert errno_of(error) == errno.EIO


def test_answers_refuse_to_change_anything(scene):
    """What would change something is refused as on a read-only file system, what is unknown as not there."""
    answers = Answers(scene.mounted(), lambda: (4097, 3))
    for op in wire.WRITING:
        with pytest.raises(Exception, match=str(errno.EROFS)) as caught:
            answers.answer(Request(op, 0, 1, bytes(64)))
        assert errno_of(caught.value) == errno.EROFS
    with pytest.raises(Exception, match=str(errno.ENOSYS)):
        answers.answer(Request(999, 0, 1, b""))
    blocks, free, *_ = wire.STATFS_OUT.unpack(answers.answer(Request(Op.STATFS, 0, 1, b"")))
    assert (blocks, free) == (2, 0)


def test_device_numbers_are_packed_as_the_kernel_has_them():
    """A major and a minor number beyond eight bits each find their place."""
    for major, minor in ((8, 1), (5, 300), (4095, (1 << 20) - 1), (0, 0)):
        packed = wire.device(major << 32 | minor)
        assert ((packed & 0xFFF00) >> 8, (packed & 0xFF) | (packed >> 12 & 0xFFF00)) == (major, minor)
