"""The access log's files: no line is lost, whoever writes beside it, wherever it is cut off, however long it gets."""

from __future__ import annotations

import errno
import os
from dataclasses import replace

import pytest

from respaldo.codec.box import box_public, open_box, seal_box
from respaldo.core.errors import Corruption
from respaldo.format.accesses import FIRST, PURPOSE, Access, parse_access
from respaldo.store import accesses
from respaldo.store.accesses import DROP, AccessLog
from respaldo.store.recollection import Recollection

SEED = b"s" * 32
PUBLIC = box_public(SEED)
FOR = {"purpose": PURPOSE, "header_hash": b"h" * 32, "name": ""}
TEMPLATE = Access(number=1, previous=FIRST, time_ns=1, verb="restore", paths=(b"/somewhere",))


def seal(message):
    return seal_box(PUBLIC, message=message, random=os.urandom, **FOR)


def add(log, verb="restore"):
    return log.append(seal, lambda number, previous: replace(TEMPLATE, number=number, previous=previous, verb=verb))


def verbs(log):
    """Returns what all lines say, opened."""
    return [parse_access(open_box(SEED, line.box, **FOR), line, "x").verb for line in log.read().lines]


@pytest.fixture
def log(tmp_path):
    return AccessLog(tmp_path / "access")


def test_lines_name_one_another(log):
    """Each by the hash of the one before; the head is the last one's."""
    assert log.head() == (0, b"")
    assert not log.folder.exists(), "looking makes nothing"
    assert [add(log, verb) for verb in ("restore", "dump", "mount")] == [1, 2, 3]
    found = log.read()
    assert [line.previous for line in found.lines] == [FIRST, found.lines[0].hash, found.lines[1].hash]
    assert log.head() == (3, found.lines[2].hash)
    assert (found.findings, found.torn) == ([], [])
    assert verbs(log) == ["restore", "dump", "mount"]


def test_a_box_opens_with_its_own_key_alone_and_only_whole(log):
    """Neither another key nor a changed byte gives anything."""
    add(log)
    [line] = log.read().lines
    with pytest.raises(Corruption, match="not made for this key"):
        open_box(b"t" * 32, line.box, **FOR)
    for at in (0, 40, len(line.box) - 1):
        bent = bytearray(line.box)
        bent[at] ^= 1
        with pytest.raises(Corruption):
            open_box(SEED, bytes(bent), **FOR)


def test_processes_take_turns(log):
    """However many write at once, every line is there once, and the chain is whole."""
    children = []
    for _ in range(4):
        child = os.fork()
        if not child:
            try:
                for _ in range(15):
                    add(log)
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 4
    found = log.read()
    assert [line.number for line in found.lines] == list(range(1, 61))
    assert (found.findings, found.torn) == ([], [])


def test_wherever_a_line_was_cut_off_the_next_one_follows(log):
    """What is left of it is noticed, unless nothing is; a line that only lacks its end counts."""
    add(log, "first")
    whole = log.path.read_bytes()
    add(log, "torn")
    both = log.path.read_bytes()
    for length in [*range(len(whole), len(both), 37), len(both) - 2, len(both) - 1, len(both)]:
        log.path.write_bytes(both[:length])
        is_there = length >= len(both) - 1
        assert add(log, "next") == (3 if is_there else 2)
        assert verbs(log) == (["first", "torn", "next"] if is_there else ["first", "next"])
        found = log.read()
        assert found.findings == []
        assert found.torn == ([] if is_there or length == len(whole) else [1])


def test_a_full_disk_leaves_no_half_line(log, monkeypatch):
    """The error is told, and what went to the disk before it is taken back."""
    add(log)
    before = log.path.read_bytes()
    write = os.write

    def fail(fd, data):
        if len(data) > 100:
            return write(fd, data[:100])
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(accesses.os, "write", fail)
        calls = []
        patch.setattr(accesses, "_write", lambda fd, data: calls.append(write(fd, data[:100])) or fail(fd, b""))
        with pytest.raises(OSError, match="full"):
            add(log)
        assert calls == [100]
    assert log.path.read_bytes() == before
    assert add(log) == 2


def test_a_line_is_on_the_disk_before_it_counts(log, monkeypatch):
    """Where the disk does not say so, the line is not there."""

    def fail(fd):
        raise OSError(errno.EIO, "failed")

    add(log)
    with monkeypatch.context() as patch:
        patch.setattr(accesses.os, "fsync", fail)
        with pytest.raises(OSError, match="failed"):
            add(log)
    assert log.head()[0] == 1


def test_it_does_not_grow_for_ever(log, monkeypatch):
    """Full files are set aside and the chain goes on; the oldest go, and a line says so."""
    monkeypatch.setattr(accesses, "FILE_BYTES", 3000)
    monkeypatch.setattr(accesses, "FILES_KEPT", 3)
    for _ in range(60):
        add(log)
    files = sorted(path.name for path in log.folder.iterdir())
    assert len([name for name in files if name.startswith("log.")]) == 3
    found = log.read()
    assert found.findings == []
    first = found.lines[0].number
    assert [line.number for line in found.lines] == list(range(first, log.head()[0] + 1))
    dropped = [
        parse_access(open_box(SEED, line.box, **FOR), line, "x").of
        for line, verb in zip(found.lines, verbs(log), strict=True)
        if verb == DROP
    ]
    assert dropped[-1] == first - 1
    assert verbs(log).count("restore") + len(dropped) == len(found.lines)


def test_damage_in_a_file_hides_no_line(log):
    """Whatever byte is changed, all lines but that one are read, and it is missed: by the next one, or by the head."""
    for _ in range(3):
        add(log)
    whole = log.path.read_bytes()
    lines, head = log.read().lines, log.head()
    ends = [at for at, byte in enumerate(whole) if byte == ord("\n")]
    for at in range(0, len(whole), 41):
        bent = bytearray(whole)
        bent[at] ^= 2
        log.path.write_bytes(bytes(bent))
        found = log.read()
        number = sum(end < at for end in ends) + 1
        others = [line for line in lines if line.number not in {number, number + (at in ends)}]
        assert [line for line in found.lines if line in others] == others, at
        if number == 1:
            assert found.findings or found.lines[0].number == 2, at
        elif number == 2:
            assert found.findings, at
        else:
            assert log.head() != head, at


def test_a_log_that_only_can_be_read_is_read(log):
    """No lock is needed for that."""
    add(log)
    (log.folder / "lock").unlink()
    assert len(log.read().lines) == 1
    assert log.head()[0] == 1


def test_a_link_in_its_place_is_not_followed(log, tmp_path):
    """Nothing is written where it leads."""
    add(log)
    log.path.unlink()
    (tmp_path / "victim").write_text("as it was")
    log.path.symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic links"):
        add(log)
    assert (tmp_path / "victim").read_text() == "as it was"


def test_the_key_is_remembered(tmp_path):
    """Of another length it is none; where it cannot be written, that is no error."""
    place = Recollection(tmp_path / "log", os.urandom)
    assert place.access_key == b""
    asked = []

    def public_of(seed):
        asked.append(seed)
        return PUBLIC

    for _ in range(2):
        place.remember_access_key(b"S" * 32, public_of)
        assert place.access_key == PUBLIC
    assert asked == [b"S" * 32]
    place.remember_access_key(b"T" * 32, public_of)
    assert asked == [b"S" * 32, b"T" * 32]
    (place.access.folder / "key").write_bytes(b"short")
    assert place.access_key == b""
    blocked = Recollection(place.access.folder / "key" / "below", os.urandom)
    blocked.remember_access_key(b"S" * 32, lambda _seed: PUBLIC)
    assert blocked.access_key == b""
