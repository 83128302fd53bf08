"""Holes: they come back where they were, cost nothing on the way, and are made of zeros when asked for."""

from __future__ import annotations

import os
import shutil
import time

import pytest

from tests.fidelity.compare import assert_equal, holes_of, inexact, picture
from tests.fidelity.disks import mounted, reachable
from tests.fidelity.trees import data, holes

GIB = 1 << 30


@pytest.mark.root
def test_holes_come_back_where_they_were(product, any_disk):
    """At the beginning, in the middle, at the end and everywhere; small ones and unaligned ones."""
    source, target = any_disk / "source", any_disk / "target"
    source.mkdir()
    block = data(4096)
    holes(source / "begins", (1 << 20, block), size=(1 << 20) + 4096)
    holes(source / "ends", (0, block), size=1 << 20)
    holes(source / "all", size=(1 << 20) + 1)
    holes(source / "tiny", size=1)
    holes(source / "many", *((at << 13, block) for at in range(200)), size=200 << 13)
    holes(source / "unaligned", (100_001, b"x" * 7), (300_000, data(100_000)), size=1_000_003)
    holes(source / "zeros beside", (0, bytes(65536)), (1 << 20, bytes(65536)), size=2 << 20)
    os.link(source / "many", source / "many too")
    product.snapshot(source)
    product.restore(source, target, "--verify")
    assert_equal(source, target)
    for name in os.listdir(source):
        assert (target / name).stat().st_blocks <= (source / name).stat().st_blocks + 8 * bool(inexact(any_disk)), name
    shutil.rmtree(source)
    shutil.rmtree(target)


@pytest.mark.root
@pytest.mark.parametrize("options", [(), ("--sparse",)])
def test_holes_take_no_space_where_the_file_system_sets_space_aside(product, options):
    """Xfs fills holes behind what is written beyond the end of a file; a sparse one would take many times its space."""
    with reachable() as place, mounted("xfs", place) as disk:
        source, target = disk / "source", disk / "target"
        source.mkdir()
        block = data(4096)
        holes(source / "many", *((at << 17, block) for at in range(100)), size=100 << 17)
        holes(source / "late", (0, data(6 << 20)), *((at << 17, block) for at in range(60, 160)), size=160 << 17)
        (source / "zeros").write_bytes((block + bytes(61440)) * 40)
        product.snapshot(source)
        product.restore(source, target, *options)
        os.sync()
        names = os.listdir(source) if options else ["late", "many"]
        for name in names:
            taken = 160 << 10 if name == "zeros" else (source / name).stat().st_blocks * 512
            assert (target / name).stat().st_blocks * 512 <= taken + 65536, name


def test_a_huge_sparse_file_costs_what_is_in_it(product, room):
    """20 GiB with data here and there are backed up and restored in seconds, and take a few MiB."""
    source, target = room / "source", room / "target"
    source.mkdir()
    pieces = [(at, data(200_000, at // GIB)) for at in (0, 5 * GIB + 4096, 13 * GIB, 20 * GIB - 200_000)]
    holes(source / "huge", *pieces, size=20 * GIB)
    began = time.monotonic()
    made = product.snapshot(source)
    assert made["figures"]["bytes"] == 20 * GIB
    assert made["figures"]["read_bytes"] < 4 << 20
    assert made["figures"]["stored_bytes"] < 4 << 20
    result = product.restore(source, target, "--verify")
    print(f"20 GiB sparse: {time.monotonic() - began:.1f} s")
    assert result["written_bytes"] < 4 << 20
    assert time.monotonic() - began < 30
    for path in (source / "huge", target / "huge"):
        assert path.stat().st_size == 20 * GIB
        assert path.stat().st_blocks * 512 < 4 << 20
    with (source / "huge").open("rb") as one, (target / "huge").open("rb") as other:
        assert holes_of(one.fileno(), 20 * GIB) == holes_of(other.fileno(), 20 * GIB)
        for at, raw in pieces:
            assert os.pread(other.fileno(), len(raw), at) == raw
    # Once more, as it is, and after a piece of it went wrong.
    with (target / "huge").open("r+b") as file:
        file.seek(7 * GIB)
        file.write(b"a piece that is in the way")
    again = product.restore(source, target, "--in-place", "--overwrite", "always")
    assert (again["overwritten"], again["written_bytes"]) == (1, 0)
    assert picture(source) == picture(target)


def test_holes_are_made_of_zeros_when_asked_for(product, room):
    """With --sparse zeros become holes, in small files and in long ones, and the content is the same."""
    source = room / "source"
    source.mkdir()
    for name, length in (("small", 200_000), ("long", 6 << 20)):
        (source / name).write_bytes(b"begin" + bytes(length) + b"end")
    holes(source / "with a hole", (0, b"begin" + bytes(100_000)), size=1 << 20)
    product.snapshot(source)
    product.restore(source, room / "as it was")
    product.restore(source, room / "sparse", "--sparse", "--verify")
    assert_equal(source, room / "as it was")
    assert_equal(source, room / "sparse", leaving_out=("runs",))
    for name in os.listdir(source):
        assert (room / "sparse" / name).stat().st_blocks < 200, name


@pytest.mark.parametrize("sparse", [False, True])
def test_in_place_writes_only_what_differs(product, room, monkeypatch, sparse):
    """Of a long file that differs in two places only these are written; it is the same inode, and its holes are."""
    source, target = room / "source", room / "target"
    source.mkdir()
    content = bytearray(data(24 << 20))
    (source / "long").write_bytes(content)
    holes(source / "with a hole", (0, data(2 << 20)), (16 << 20, data(2 << 20)), size=20 << 20)
    product.snapshot(source)
    product.restore(source, target)
    inode = (target / "long").stat().st_ino
    for at in (1 << 20, 20 << 20):
        with (target / "long").open("r+b") as file:
            file.seek(at)
            file.write(b"damage")
    with (target / "with a hole").open("r+b") as file:
        file.seek(8 << 20)
        file.write(data(1 << 20, 5))
        file.truncate(30 << 20)
    written = 0
    real = os.pwritev

    def counted(fd, buffers, offset, *more):
        nonlocal written
        count = real(fd, buffers, offset, *more)
        written += count
        return count

    monkeypatch.setattr(os, "pwritev", counted)
    options = ["--in-place", *(["--sparse"] if sparse else [])]
    result = product.restore(source, target, *options)
    assert result["written_bytes"] == written < 4 << 20
    assert any("in place" in note for note in result["notes"])
    assert (target / "long").stat().st_ino == inode
    assert_equal(source, target, leaving_out=("runs",) if sparse else ())
