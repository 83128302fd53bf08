"""Where the chunker cuts, and what its cuts depend on."""

from __future__ import annotations

import json
import struct

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from respaldo.chunk.chunker import SIP_CONTEXT, TABLE_CONTEXT, Chunker, ChunkerParams
from tests.chunk import golden

CASES = golden.cases()
EXPECTED = json.loads(golden.GOLDEN.read_text("utf-8"))

CHUNKER = Chunker(golden.secret("one"), golden.TINY)
# Noise with runs and repetitions in it, from few drawn bytes.
CONTENTS = st.lists(
    st.one_of(
        st.integers(0, 1 << 20).map(lambda seed: golden.noise(str(seed), 700)),
        st.tuples(st.binary(min_size=1, max_size=9), st.integers(1, 300)).map(lambda drawn: drawn[0] * drawn[1]),
    ),
    max_size=12,
).map(b"".join)


def gear_of_run(table: bytes, byte: int) -> int:
    """Returns the gear hash of 64 equal bytes, by its definition."""
    rows = struct.unpack("<256Q", table)
    h = 0
    for _ in range(64):
        h = (2 * h + rows[byte]) % 2**64
    return h


def test_golden_file_holds_every_case():
    """No case is without its golden cut points, and none of them without its case."""
    assert EXPECTED.keys() == CASES.keys()


@pytest.mark.parametrize("name", CASES)
def test_cut_points_stay_what_they_were(name):
    """The cut points of known content under known secrets are those of the golden file."""
    assert golden.cut(CASES[name]) == EXPECTED[name]


def test_keys_stay_what_they_were():
    """The gear table and the SipHash key of a known secret are derived as ever."""
    chunker = Chunker(golden.secret("one"), ChunkerParams.standard())
    assert blake3(chunker._table).hexdigest() == "f55b3584e1c00b5cd23943de5de42cf23246ed27c34290399a8097247524606d"
    assert chunker._sip_key.hex() == "a6beb1001f056b3eba3b9ff1d3e6c491"


def test_keys_come_from_the_secret_under_contexts_of_their_own():
    """The table is the first by its counter under which no constant run is a candidate; the key has its own context."""
    for seed in range(20):
        secret = golden.secret(f"drawn {seed}")
        chunker = Chunker(secret, ChunkerParams.standard())
        counter = 0
        while True:
            material = secret + struct.pack("<I", counter)
            table = blake3(material, derive_key_context=TABLE_CONTEXT).digest(length=2048)
            if all(gear_of_run(table, byte) >> 56 for byte in range(256)):
                break
            counter += 1
        assert chunker._table == table
        assert chunker._sip_key == blake3(secret, derive_key_context=SIP_CONTEXT).digest(length=16)


@pytest.mark.parametrize("byte", [0, 1, 0x20, 0x7F, 0xFF])
def test_constant_runs_fall_into_chunks_of_maximum_length(byte):
    """A run of one byte holds no candidate, so that it costs no PRF and is cut at the maximum."""
    for seed in range(8):
        chunker = Chunker(golden.secret(f"run {seed}"), golden.TINY)
        assert set(chunker.lengths(bytes([byte]) * 10_240, final=True)) == {1024}


@given(content=CONTENTS, sizes=st.lists(st.integers(0, 3000), max_size=20))
def test_cuts_do_not_depend_on_how_the_content_arrives(content, sizes):
    """Content that comes in parts, what was left over put before the next, is cut as it is at once."""
    at_once = CHUNKER.lengths(content, final=True).tolist()
    found, rest, at = [], b"", 0
    for size in sizes:
        rest += content[at : at + size]
        at += size
        lengths = CHUNKER.lengths(rest, final=False).tolist()
        found += lengths
        rest = rest[sum(lengths) :]
    found += CHUNKER.lengths(rest + content[at:], final=True).tolist()
    assert found == at_once


@given(content=CONTENTS, final=st.booleans())
def test_lengths_add_up_and_keep_their_bounds(content, final):
    """Every chunk but a last one is longer than nothing and within its bounds, and no byte is lost or doubled."""
    lengths = CHUNKER.lengths(content, final=final).tolist()
    params = CHUNKER.params
    whole = lengths[:-1] if final else lengths
    assert all(params.minimum <= length <= params.maximum for length in whole)
    assert all(0 < length <= params.maximum for length in lengths)
    left = len(content) - sum(lengths)
    assert left == 0 if final else 0 <= left < params.maximum
    assert struct.pack(f"<{len(lengths)}I", *lengths) == CHUNKER.cut(content, final)


@given(before=CONTENTS, after=CONTENTS, shared=st.integers(0, 1 << 20))
def test_cuts_in_shared_content_meet_again(before, after, shared):
    """Two contents that end alike are cut alike from the first cut that both have in what they share."""
    tail = golden.noise(f"shared {shared}", 8192)
    ends = []
    for head in (before, after):
        at, found = 0, set()
        for length in CHUNKER.lengths(head + tail, final=True):
            at += length
            found.add(at - len(head))
        ends.append(found)
    both = sorted(end for end in ends[0] & ends[1] if end > 0)
    assert len(tail) in both
    first = both[0]
    assert {end for end in ends[0] if end >= first} == {end for end in ends[1] if end >= first}


def test_average_length_of_noise_is_what_the_parameters_say():
    """Random content gets chunks of about 74 KiB: a minimum of 16, and cuts that become likelier at 64."""
    lengths = Chunker(golden.secret("one"), ChunkerParams.standard()).lengths(
        golden.noise("long", 32 << 20), final=True
    )
    assert 66_000 < sum(lengths) / len(lengths) < 84_000
    assert sum(length == 262_144 for length in lengths) <= len(lengths) * 0.01


@pytest.mark.parametrize(
    "change",
    [
        {"minimum": 63},
        {"minimum": 300},
        {"average": 2000},
        {"maximum": 1 << 31},
        {"maximum": 200},
        {"strict": -1},
        {"loose": 1 << 64},
    ],
)
def test_params_out_of_range_are_refused(change):
    """Lengths out of order and thresholds beyond 64 bits are refused where they are stated."""
    values = {"minimum": 64, "average": 256, "maximum": 1024, "strict": 0, "loose": 0}
    with pytest.raises(ValueError, match=r"does not hold|threshold"):
        ChunkerParams(**values | change)


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_secret_of_another_length_is_refused(length):
    """A secret that is not 32 bytes long is refused."""
    with pytest.raises(ValueError, match="32 bytes"):
        Chunker(bytes(length), ChunkerParams.standard())


def test_chunker_does_not_show_its_secret():
    """What a traceback or a log prints of a chunker holds neither table nor key."""
    shown = repr(CHUNKER)
    assert CHUNKER._sip_key.hex() not in shown
    assert repr(CHUNKER._sip_key) not in shown
