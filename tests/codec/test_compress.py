"""Compression: one frame of the authenticated size, and nothing that costs more."""

from __future__ import annotations

import resource
import threading

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from respaldo.codec.compress import RAW_BYTES_MAX, Compressor, Decompressor
from respaldo.core.errors import Corruption

RAW = b"compressible " * 100


def frame_of(raw, **options):
    return zstandard.ZstdCompressor(**options).compress(raw)


RAW_LENGTH = len(RAW)


def refused(frame, raw_length=RAW_LENGTH):
    with pytest.raises(Corruption):
        Decompressor().decompress(frame, raw_length, "x")


@given(st.binary(max_size=3000) | st.binary(max_size=30).map(lambda piece: piece * 100))
def test_round_trip_where_it_helps(raw):
    """A frame is shorter than what it holds, or there is none."""
    frame = Compressor().compress(raw)
    if frame is not None:
        assert len(frame) < len(raw)
        assert Decompressor().decompress(frame, len(raw), "x") == raw
        assert Decompressor().decompress(memoryview(frame), len(raw), "x") == raw


@pytest.mark.parametrize("raw_length", [-1, 0, 1, len(RAW) - 1, len(RAW) + 1, RAW_BYTES_MAX + 1, 1 << 63, 1 << 70])
def test_frame_of_another_size_is_refused(raw_length):
    """The frame declares what the seal authenticates."""
    refused(frame_of(RAW), raw_length)


def test_frame_without_a_size_is_refused():
    """Nothing is decompressed to see how long it gets."""
    refused(frame_of(RAW, write_content_size=False))
    stream = zstandard.ZstdCompressor().compressobj()
    refused(stream.compress(RAW) + stream.flush())


@pytest.mark.parametrize(
    "tail", [b"\0", b"x", frame_of(RAW), frame_of(b""), b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"], ids=range(5)
)
def test_anything_behind_the_frame_is_refused(tail):
    """Not a byte, not a second frame, not one that would be skipped."""
    refused(frame_of(RAW) + tail)
    refused(tail + frame_of(RAW))


def test_truncated_frame_is_refused():
    """At every length."""
    frame = frame_of(RAW)
    for length in range(len(frame)):
        refused(frame[:length])


@pytest.mark.parametrize("tail", [b"", b"anything"])
def test_empty_and_skippable_frames_are_refused(tail):
    """The library takes them for empty content without looking at what follows."""
    refused(frame_of(b"") + tail, 0)
    refused(b"\x50\x2a\x4d\x18\x00\x00\x00\x00" + tail, 0)
    refused(b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd" + tail, 4)


def test_frame_with_a_dictionary_is_refused():
    """Content depends on the frame alone."""
    dictionary = zstandard.ZstdCompressionDict(RAW * 5, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    trained = zstandard.train_dictionary(2048, [b"%d sample %d" % (n, n * 7) * 5 for n in range(200)])
    refused(zstandard.ZstdCompressor(dict_data=trained).compress(RAW))
    refused(zstandard.ZstdCompressor(dict_data=dictionary).compress(RAW * 5)[:-1], len(RAW) * 5)


def test_huge_window_is_refused():
    """A frame of 18 bytes may ask for a terabyte of window."""
    for exponent in (18, 21, 31):
        descriptor = bytes([exponent << 3])  # window of 2^(10 + exponent) bytes
        refused(b"\x28\xb5\x2f\xfd" + b"\xc0" + descriptor + len(RAW).to_bytes(8, "little") + b"\x01\0\0")


def test_every_flipped_bit_gives_the_length_or_a_refusal():
    """Frames are authenticated; what opens all the same is of the length that was promised."""
    frame = frame_of(RAW)
    for at in range(len(frame)):
        for bit in range(8):
            bent = bytearray(frame)
            bent[at] ^= 1 << bit
            try:
                assert len(Decompressor().decompress(bytes(bent), len(RAW), "x")) == len(RAW)
            except Corruption:
                continue


def test_bomb_costs_what_was_authenticated_and_no_more():
    """A frame of a gigabyte of zeros in 32 KiB never gets to be one."""
    bomb = frame_of(bytes(200 << 20))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(bomb, 1 << 20)
    refused(bomb[:9] + bomb[12:], 1 << 20)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 << 10


def test_threads_have_contexts_of_their_own():
    """One compressor and one decompressor serve all workers."""
    compressor, decompressor, wrong = Compressor(), Decompressor(), []

    def work(number):
        raw = bytes([number]) * 100_000
        wrong.extend(
            number for _ in range(20) if decompressor.decompress(compressor.compress(raw), len(raw), "x") != raw
        )

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
