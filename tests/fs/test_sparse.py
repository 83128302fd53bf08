"""Holes: left out, punched, and written as zeros where a file system knows none."""

from __future__ import annotations

import itertools
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from respaldo.fs import sparse
from respaldo.fs.sparse import punch, write_all, write_sparse


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    fd = os.open(tmp_path_factory.mktemp("sparse") / "f", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


runs = st.lists(
    st.tuples(st.sampled_from([b"\0", b"x"]), st.sampled_from([1, 100, 4095, 4096, 8192, 9000])), max_size=5
)


@given(runs=runs, offset=st.sampled_from([0, 1, 4095, 4096, 5000]))
def test_write_sparse_writes_the_same_content(file, runs, offset):
    """Wherever zeros begin and end, the file reads as if all had been written."""
    data = b"".join(letter * length for letter, length in runs)
    os.ftruncate(file, 0)
    write_sparse(file, memoryview(data), offset)
    os.ftruncate(file, offset + len(data))
    assert os.pread(file, 1 << 20, 0) == bytes(offset) + data


def test_write_sparse_allocates_nothing_for_zeros(file):
    """Aligned blocks of zeros are left out, in the middle too."""
    os.ftruncate(file, 0)
    write_sparse(file, memoryview(b"x" * 4096 + bytes(1 << 20) + b"x" * 4096), 0)
    assert os.fstat(file).st_blocks * 512 <= 16384


@pytest.mark.parametrize("cut", [1, 63, 2048, 4095])
def test_write_sparse_leaves_out_a_block_that_two_pieces_share(file, cut):
    """Chunks end anywhere: a block of zeros is none of theirs, and is left out all the same."""
    data = memoryview((b"x" * 4096 + bytes(61440)) * 8)
    os.ftruncate(file, 0)
    os.ftruncate(file, len(data))
    cuts = [0, *range(4096 + cut, len(data), 65536), len(data)]
    for start, end in itertools.pairwise(cuts):
        write_sparse(file, data[start:end], start)
    assert os.pread(file, 1 << 20, 0) == data
    assert os.fstat(file).st_blocks * 512 <= 8 * 4096


def test_write_all_goes_on_after_short_writes(file, monkeypatch):
    """A system that takes three bytes at a time gets all of them."""
    real = os.pwritev
    monkeypatch.setattr(os, "pwritev", lambda fd, buffers, offset: real(fd, [bytes(buffers[0])[:3]], offset))
    os.ftruncate(file, 0)
    pieces = [b"abcdefgh", b"", b"ij", *([b"k"] * 70)]
    write_all(file, [memoryview(piece) for piece in pieces], 5)
    assert os.pread(file, 200, 5) == b"".join(pieces)


@pytest.mark.parametrize("supported", [True, False])
def test_punch_leaves_zeros_and_the_size(file, monkeypatch, supported):
    """Ranges that reach beyond the end, too; the file never grows."""
    if not supported:
        monkeypatch.setattr(sparse, "_libc", object())
    for offset, length in ((0, 4096), (100, 9000), (60_000, 1 << 40), (1 << 40, 5), (0, 0)):
        data = b"x" * 65536
        os.ftruncate(file, 0)
        os.pwrite(file, data, 0)
        punch(file, offset, length)
        end = min(offset + length, len(data))
        expected = data[:offset] + bytes(max(0, end - offset)) + data[max(end, min(offset, len(data))) :]
        assert os.pread(file, 1 << 20, 0) == expected
