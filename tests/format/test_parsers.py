"""What holds for every parser: round trips, and nothing but a refusal for anything else."""

from __future__ import annotations

import random
import subprocess
import sys
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from respaldo.core.errors import Corruption
from respaldo.format import canonical
from tests.format import samples

EVERY = sorted(samples.PARSERS)
ENCODED = [(name, data) for name in EVERY for data in samples.CORPUS[name]]
HAS_ONE_FORM = [(name, data) for name, data in ENCODED if name not in {"frame", "closing"}]


def outcome(name, data):
    """Returns what a parser makes of bytes, None where it refuses them; anything else that it raises is a bug."""
    try:
        value = samples.PARSERS[name](data)
    except samples.REFUSALS:
        return None
    samples.drained(value)
    return value


@pytest.mark.parametrize(("name", "data"), HAS_ONE_FORM)
def test_what_was_encoded_is_parsed_and_encodes_to_the_same_bytes(name, data):
    """A value has one encoding."""
    assert samples.reencode(name, samples.PARSERS[name](data)) == data


@pytest.mark.parametrize(("name", "data"), ENCODED)
def test_every_truncation_is_refused(name, data):
    """No prefix of an encoding is an encoding, the node aside, whose rows stand alone, and a frame's padding."""
    for length in range(min(len(data), 1200)):
        value = outcome(name, data[:length])
        if name == "node" and length and length % 40 == 0:
            assert value is not None
        elif name == "frame":
            assert value in {None, samples.unbuild(data)}
        else:
            assert value is None, length


@pytest.mark.parametrize(("name", "data"), ENCODED)
@pytest.mark.parametrize("tail", [b"\x01", b"\xc0", b"\x00" * 7, b"\xff" * 40])
def test_trailing_bytes_are_refused(name, data, tail):
    """Nothing may follow an encoding, zero bytes behind a frame aside, which are its padding."""
    if name == "frame" and not tail.strip(b"\0"):
        assert samples.unbuild(data + tail) == samples.unbuild(data)
        return
    if name == "node" and len(tail) == 40:
        tail = bytes(40)
    assert outcome(name, data + tail) is None


@pytest.mark.parametrize(("name", "data"), HAS_ONE_FORM)
def test_every_flipped_bit_gives_another_value_or_a_refusal(name, data):
    """No two encodings mean the same: what still parses encodes to the flipped bytes."""
    for at in range(min(len(data), 300)):
        for bit in (1, 2, 4, 8, 16, 32, 64, 128):
            bent = data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]
            value = outcome(name, bent)
            if value is not None and name != "manifest":
                assert samples.reencode(name, value) == bent


@pytest.mark.parametrize("name", EVERY)
def test_random_bytes_raise_nothing_but_a_refusal(name):
    """Noise, and noise spliced into valid encodings, never leaks another error."""
    chance = random.Random(name)
    for _ in range(400):
        data = bytearray(chance.choice(samples.CORPUS[name]))
        for _ in range(chance.randint(1, 4)):
            at = chance.randint(0, len(data))
            data[at : at + chance.randint(0, 9)] = chance.randbytes(chance.randint(0, 9))
        outcome(name, bytes(data))
        outcome(name, chance.randbytes(chance.randint(0, 60)))


@given(data=st.binary(max_size=200))
def test_any_bytes_raise_nothing_but_a_refusal(data):
    """The same, as Hypothesis likes it; to draw the bytes costs more than to hand them to every parser."""
    for name in EVERY:
        outcome(name, data)


@given(value=samples.values)
def test_any_canonical_value_raises_nothing_but_a_refusal(value):
    """What is well-formed msgpack and something else is refused too."""
    encoded = canonical.pack(value)
    for name in ("footer", "segment", "tree", "manifest", "outcome", "condemnation", "marker", "config"):
        outcome(name, encoded)


def _substitutes(value, replacement):
    """Yields copies of a nested value in each of which one part is something else."""
    yield replacement
    if isinstance(value, list):
        for at, item in enumerate(value):
            for other in _substitutes(item, replacement):
                yield [*value[:at], other, *value[at + 1 :]]
            yield value[:at] + value[at + 1 :]
            yield [*value[:at], item, *value[at:]]
    elif isinstance(value, dict):
        for key, item in value.items():
            for other in _substitutes(item, replacement):
                yield {**value, key: other}
            yield {other: item for other, item in value.items() if other != key}


REPLACEMENTS = [
    -1,
    0,
    1,
    7,
    1 << 31,
    1 << 32,
    1 << 63,
    (1 << 64) - 1,
    -(1 << 63),
    "",
    "x",
    b"",
    b"\0",
    b"x" * 32,
    [],
    {},
]


@pytest.mark.parametrize(
    "name", ["footer", "segment", "tree", "manifest", "outcome", "condemnation", "marker", "config"]
)
def test_every_part_replaced_by_something_else_is_refused_or_fine(name):
    """Negative or huge numbers, wrong types, missing and repeated rows: no other error leaks."""
    for data in samples.CORPUS[name]:
        for replacement in REPLACEMENTS:
            for bent in _substitutes(canonical.unpack(data, name), replacement):
                outcome(name, canonical.pack(bent))


@pytest.mark.parametrize(
    "name", ["footer", "segment", "tree", "manifest", "outcome", "condemnation", "marker", "config"]
)
def test_version_true_is_not_version_one(name):
    """Python takes True for 1; the format has no booleans."""
    for data in samples.CORPUS[name]:
        value = canonical.unpack(data, name)
        first = canonical.pack(value["version"] if isinstance(value, dict) else value[0])
        at = data.index(b"\xa7version") + 8 if isinstance(value, dict) else len(data) - len(data[1:])
        at = data.index(first, at)
        assert outcome(name, data[:at] + b"\xc3" + data[at + len(first) :]) is None


@given(samples.leaves())
def test_any_leaf_survives(leaf):
    """What a writer can say of a directory comes back, and its entries come one a row."""
    encoded = leaf.encode()
    parsed = samples.PARSERS["tree"](encoded)
    assert parsed == leaf
    assert parsed.encode() == encoded
    samples.drained(parsed)


@given(samples.footers())
def test_any_footer_survives(footer):
    """What a writer can say of a pack comes back."""
    encoded = footer.encode()
    parsed = samples.PARSERS["footer"](encoded)
    assert parsed == footer
    assert parsed.encode() == encoded
    samples.drained(parsed)


@given(samples.manifests())
def test_any_manifest_survives(manifest):
    """What a writer can say of a snapshot comes back."""
    encoded = manifest.encode()
    parsed = samples.PARSERS["manifest"](encoded)
    assert parsed == manifest
    assert parsed.encode() == encoded


MIB = 1 << 20
_PREFIX = {"header": b"respaldo repository\n"}
BOMBS = {
    "empty arrays": lambda: b"\xdd" + (MIB - 5).to_bytes(4, "big") + b"\x90" * (MIB - 5),
    "empty maps": lambda: b"\xdd" + (MIB - 5).to_bytes(4, "big") + b"\x80" * (MIB - 5),
    "small maps": lambda: b"\xdd" + (MIB // 3 - 5).to_bytes(4, "big") + b"\x81\xa0\x01" * (MIB // 3 - 5),
    "rows in rows": lambda: (b"\xdd" + MIB.to_bytes(4, "big")) * 900 + b"\0" * (MIB - 4500),
    "maps in maps": lambda: b"\x81\xa0" * (MIB // 2),
    "depth": lambda: b"\x91" * MIB,
    "declared array": lambda: b"\xdd\xff\xff\xff\xff" + b"\0" * MIB,
    "declared map": lambda: b"\xdf\xff\xff\xff\xff" + b"\0" * MIB,
    "declared bytes": lambda: b"\xc6\xff\xff\xff\xff" + b"\0" * MIB,
    "declared text": lambda: b"\xdb\xff\xff\xff\xff" + b"\0" * MIB,
    "numbers": lambda: b"\xdd" + (MIB - 5).to_bytes(4, "big") + b"\x01" * (MIB - 5),
    "texts": lambda: b"\xdd" + (MIB // 2 - 5).to_bytes(4, "big") + b"\xa1\xff" * (MIB // 2 - 5),
    "wide map": lambda: b"\xdf" + (95000).to_bytes(4, "big") + b"".join(b"\xa8%08d\x01" % n for n in range(95000)),
    "zeros": lambda: bytes(MIB),
    "ones": lambda: b"\xff" * MIB,
    "rows of a tree": lambda: canonical.pack([1, b"", b"", b"", b"", [], [[0, b""]] * 90000, [], [], [], []]),
    "names of a tree": lambda: canonical.pack([1, b"a\0" * 20000, bytes(40 * 20000), b"", b"", [], [], [], [], [], []]),
    "types of a tree": lambda: canonical.pack([1, *_many_names(), b"", b"", [], [], [], [], [], []]),
    "pairs of a tree": lambda: canonical.pack(
        [1, b"a\0", bytes(40), b"", b"", [], [], [[0, [[b"", b""]] * 99999]], [], [], []]
    ),
    "chunks of a footer": lambda: canonical.pack(
        [1, bytes(16), bytes(32), _greedy_rows(), bytes(32 * 9000), bytes(4 * 9000)]
    ),
    "packs of a segment": lambda: canonical.pack([1, bytes(16), [], [[b"", 1, b""]] * 150000]),
    "sources of a manifest": lambda: canonical.pack({"version": 1, "sources": [b"/"] * 300000}),
}


def _many_names():
    names = b"".join(b"%06d\0" % number for number in range(20000))
    return names, samples.meta(samples.FILE, size=1) * 20000


def _greedy_rows():
    return (b"\x01\0\0\0" + (73).to_bytes(4, "little") + (1).to_bytes(4, "little") + b"\xff" * 4 + bytes(32)) * 9000


BOMBED = ("canonical", "header", "slot", "frame", "footer", "segment", "tree", "node", "manifest")

MEASURE = textwrap.dedent(
    """
    import os, time
    from tests.format import samples, test_parsers

    def peak():
        return int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]) << 10

    def measure(name):
        data = test_parsers.BOMBS[name]()
        with open("/proc/self/clear_refs", "w") as refs:
            refs.write("5")
        before, worst, taken = peak(), 0.0, []
        for parser in test_parsers.BOMBED:
            begun = time.process_time()
            if test_parsers.outcome(parser, data) is not None and parser != "canonical":
                taken.append(parser)
            worst = max(worst, time.process_time() - begun)
        print(name, worst, peak() - before, ",".join(taken), sep=":", flush=True)

    for parser in samples.PARSERS.values():  # what is imported and cached the first time is not the bomb's
        try:
            parser(b"")
        except samples.REFUSALS:
            pass
    for name in test_parsers.BOMBS:
        child = os.fork()  # so that no bomb profits by the memory that another left behind
        if not child:
            measure(name)
            os._exit(0)
        os.waitpid(child, 0)
    """
)


def test_a_megabyte_of_malice_is_refused_and_costs_little():
    """Every parser refuses a bomb of 1 MiB within a second of processor time and 100 MB of memory.

    None of the bombs means anything, whoever is asked, but for a frame that is nothing but padding.
    """
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True, timeout=120)
    rows = [line.split(":") for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == list(BOMBS)
    assert {name: seconds for name, seconds, *_ in rows if float(seconds) >= 1} == {}
    assert {name: peak for name, _, peak, _ in rows if int(peak) >= 100 << 20} == {}
    assert {name: taken for name, _, _, taken in rows if taken} == {"zeros": "frame"}


def test_corruption_names_the_object():
    """A refusal says which object it was."""
    with pytest.raises(Corruption) as caught:
        samples.PARSERS["footer"](b"")
    assert caught.value.name == "x"
