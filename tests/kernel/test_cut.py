"""`cut` in both kernels: the same cuts, by the rule that the kernel's documentation states."""

from __future__ import annotations

import array
import json
import struct
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from respaldo import kernel
from respaldo.chunk.chunker import Chunker
from respaldo.kernel import reference
from respaldo.kernel.reference.chunks import siphash_window
from tests.chunk import golden

TABLE = golden.noise("table", 2048)
KEY = golden.noise("key", 16)
ANY = 2**64 - 1

needs_native = pytest.mark.skipif(not kernel.NATIVE, reason=f"no native kernel: {kernel.WHY_NOT_NATIVE}")


@st.composite
def sizes(draw):
    minimum = draw(st.integers(64, 400))
    average = minimum + draw(st.integers(0, 600))
    return minimum, average, average + draw(st.integers(0, 1200))


contents = st.lists(
    st.one_of(
        st.integers(0, 1 << 20).map(lambda seed: golden.noise(str(seed), 1500)),
        st.tuples(st.binary(min_size=1, max_size=70), st.integers(1, 60)).map(lambda drawn: drawn[0] * drawn[1]),
    ),
    max_size=6,
).map(b"".join)
thresholds = st.one_of(st.sampled_from([0, 1, ANY, 1 << 62, 1 << 63]), st.integers(0, ANY))
# All rows alike, or zero, make nearly every place a candidate.
tables = st.one_of(
    st.integers(0, 1 << 20).map(lambda seed: golden.noise(f"t{seed}", 2048)),
    st.binary(min_size=8, max_size=8).map(lambda row: row * 256),
    st.just(bytes(2048)),
)


@needs_native
@given(contents, tables, st.binary(min_size=16, max_size=16), sizes(), thresholds, thresholds, st.booleans())
def test_both_kernels_cut_alike(data, table, key, lengths, strict, loose, final):
    """The C kernel cuts any content under any parameters where the reference does."""
    arguments = (data, table, key, *lengths, strict, loose, final)
    assert kernel.cut(*arguments) == reference.cut(*arguments)


@pytest.mark.parametrize("name", ["zeros around noise", "tiny chunks", "tiny chunks of zeros", "period 7"])
def test_cuts_are_the_golden_ones(verbs, name):
    """Both kernels, not only the one that the chunker uses, give the golden cut points."""
    case = golden.cases()[name]
    chunker = Chunker(case.secret, case.params)
    p = case.params
    keys = (chunker._table, chunker._sip_key)
    found = verbs.cut(case.data, *keys, p.minimum, p.average, p.maximum, p.strict, p.loose, case.final)
    assert [length for (length,) in struct.iter_unpack("<I", found)] == json.loads(golden.GOLDEN.read_text())[name]


def test_siphash_is_siphash():
    """The PRF of the reference gives the value that OpenSSL gives for bytes 0 … 63 under the key 00 … 0f."""
    key = struct.unpack("<2Q", bytes(range(16)))
    assert struct.pack("<Q", siphash_window(key, bytes(range(64)))).hex() == "d8ca02850bc4d2ac"


def unkeyed(verbs, data, minimum, average, maximum, final, *, strict=ANY, loose=ANY, table=bytes(2048)):
    """Cuts with a table under which every place is a candidate, and thresholds that every value is below."""
    found = verbs.cut(data, table, KEY, minimum, average, maximum, strict, loose, final)
    return [length for (length,) in struct.iter_unpack("<I", found)]


def test_first_place_is_the_minimum_and_the_last_one_before_the_maximum(verbs):
    """A chunk ends at its minimum at the earliest, and at the maximum without asking."""
    data = golden.noise("data", 1000)
    assert unkeyed(verbs, data, 64, 100, 200, True) == [64] * 15 + [40]
    assert unkeyed(verbs, data, 64, 100, 200, False) == [64] * 15
    assert unkeyed(verbs, data, 64, 100, 200, True, strict=0) == [100] * 10
    assert unkeyed(verbs, data, 64, 100, 200, True, strict=0, loose=0) == [200] * 5
    # No row is small enough for a candidate.
    high = struct.pack("<256Q", *[1 << 56] * 255, 0)
    assert unkeyed(verbs, b"\1" * 1000, 64, 100, 300, False, table=high) == [300] * 3


@pytest.mark.parametrize(
    ("length", "final", "expected"),
    [
        (0, True, []),
        (1, False, []),
        (1, True, [1]),
        (64, False, []),
        (64, True, [64]),
        (65, False, [64]),
        (65, True, [64, 1]),
    ],
)
def test_what_is_left_over_waits_for_more(verbs, length, final, expected):
    """What is no longer than the minimum is no chunk unless nothing follows."""
    assert unkeyed(verbs, bytes(length), 64, 64, 65, final) == expected


@pytest.mark.parametrize("final", [True, False])
def test_content_of_maximum_length_is_a_chunk_final_or_not(verbs, final):
    """As many bytes as the maximum are a chunk whatever follows."""
    assert unkeyed(verbs, bytes(300), 64, 100, 300, final, strict=0, loose=0) == [300]
    assert unkeyed(verbs, bytes(299), 64, 100, 300, final, strict=0, loose=0) == ([299] if final else [])
    assert unkeyed(verbs, bytes(300), 100, 100, 100, True) == [100] * 3
    assert unkeyed(verbs, bytes(300), 100, 100, 100, False) == [100] * 2


@given(contents, sizes(), thresholds, thresholds, st.lists(st.integers(0, 2500), max_size=12))
def test_cuts_do_not_depend_on_how_the_content_arrives(data, lengths, strict, loose, parts):
    """A stream cut in parts, the uncut tail carried over, gets the cuts that it gets at once."""

    def cut(content, final):
        found = kernel.cut(content, TABLE, KEY, *lengths, strict, loose, final)
        return [length for (length,) in struct.iter_unpack("<I", found)]

    found, rest, at = [], b"", 0
    for part in parts:
        rest += data[at : at + part]
        at += part
        cuts = cut(rest, False)
        found += cuts
        rest = rest[sum(cuts) :]
    assert found + cut(rest + data[at:], True) == cut(data, True)


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview, lambda data: memoryview(bytearray(data))])
def test_any_contiguous_buffer_will_do(verbs, wrap):
    """Bytes, their mutable kin and views are all cut, and released afterwards."""
    data = golden.noise("buffer", 3000)
    wrapped = wrap(data)
    assert verbs.cut(wrapped, wrap(TABLE), wrap(KEY), 64, 128, 256, ANY, ANY, True) == verbs.cut(
        data, TABLE, KEY, 64, 128, 256, ANY, ANY, True
    )
    if isinstance(wrapped, bytearray):
        wrapped.append(0)  # a view that is still held would forbid it
    items = array.array("Q", data)
    assert verbs.cut(items, TABLE, KEY, 64, 128, 256, 0, 0, True) == verbs.cut(
        data, TABLE, KEY, 64, 128, 256, 0, 0, True
    )


GOOD = {
    "data": b"x" * 200,
    "table": TABLE,
    "sip_key": KEY,
    "minimum": 64,
    "average": 64,
    "maximum": 64,
    "strict": 0,
    "loose": 0,
    "final": True,
}


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"minimum": 63}, ValueError),
        ({"minimum": -1}, ValueError),
        ({"minimum": 65}, ValueError),
        ({"average": 65}, ValueError),
        ({"maximum": 63}, ValueError),
        ({"maximum": 1 << 31}, ValueError),
        ({"maximum": 1 << 80}, ValueError),
        ({"strict": -1}, ValueError),
        ({"strict": 1 << 64}, ValueError),
        ({"loose": -1}, ValueError),
        ({"loose": 1 << 70}, ValueError),
        ({"table": TABLE[1:]}, ValueError),
        ({"table": TABLE + b"x"}, ValueError),
        ({"sip_key": KEY[1:]}, ValueError),
        ({"sip_key": b""}, ValueError),
        ({"data": "text"}, TypeError),
        ({"data": None}, TypeError),
        ({"data": 7}, TypeError),
        ({"table": [1, 2]}, TypeError),
        ({"sip_key": "k" * 16}, TypeError),
        ({"minimum": 64.0}, TypeError),
        ({"average": "64"}, TypeError),
        ({"maximum": None}, TypeError),
        ({"strict": 1.5}, TypeError),
        ({"data": memoryview(b"x" * 400)[::2]}, BufferError),
        ({"surplus": 1}, TypeError),
    ],
)
def test_wrong_arguments_are_refused(verbs, change, error):
    """Both kernels refuse the same arguments with the same type of error."""
    with pytest.raises(error):
        verbs.cut(**GOOD | change)


def test_good_arguments_are_taken_by_keyword(verbs):
    """The arguments above are wrong for one reason only."""
    assert verbs.cut(**GOOD) == struct.pack("<4I", 64, 64, 64, 8)


def test_missing_arguments_are_refused(verbs):
    """A call without all arguments is a TypeError."""
    with pytest.raises(TypeError):
        verbs.cut(b"", TABLE, KEY)


def test_cut_holds_no_gil(native):
    """Other threads run while the C kernel cuts."""
    data = bytes(32 << 20)
    # Every place is a candidate, and none is cut: some seconds per gigabyte.
    work = (data, bytes(2048), KEY, 64, 1 << 30, (1 << 31) - 1, 0, 0, True)
    for _ in range(5):
        thread = threading.Thread(target=native.cut, args=work)
        longest = 0.0
        start = last = time.perf_counter()
        thread.start()
        while thread.is_alive():
            now = time.perf_counter()
            longest, last = max(longest, now - last), now
        if longest < (last - start) / 2:
            return
    pytest.fail(f"the interpreter stood still for {longest:.3f} of {last - start:.3f} s")
