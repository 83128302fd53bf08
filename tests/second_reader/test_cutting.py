"""Chunks, tree runs and ids as docs/format.md has them, computed from the page alone, are the product's."""

from __future__ import annotations

import random
import struct

from blake3 import blake3

from respaldo.catalog.runs import split_leaf
from respaldo.chunk.chunker import Chunker, ChunkerParams
from respaldo.codec.recovery import show_key
from respaldo.format.tree import Leaf
from tests.format.samples import FILE, meta

SECRET = bytes(range(64, 96))
MASK = (1 << 64) - 1


def derive(context, material, length):
    return blake3(material, derive_key_context="respaldo 2026-11 " + context).digest(length)


def gear_table():
    for counter in range(1000):
        table = struct.unpack("<256Q", derive("chunker gear table", SECRET + struct.pack("<I", counter), 2048))
        if all(-number & MASK >= 1 << 56 for number in table):
            return table
    raise AssertionError("no table")


def siphash(key, data):
    """SipHash-2-4, from its paper."""
    k0, k1 = struct.unpack("<QQ", key)
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def rotate(x, by):
        return (x << by | x >> (64 - by)) & MASK

    def rounds(count):
        for _ in range(count):
            v[0] = v[0] + v[1] & MASK
            v[2] = v[2] + v[3] & MASK
            v[1], v[3] = rotate(v[1], 13) ^ v[0], rotate(v[3], 16) ^ v[2]
            v[0] = rotate(v[0], 32)
            v[2] = v[2] + v[1] & MASK
            v[0] = v[0] + v[3] & MASK
            v[1], v[3] = rotate(v[1], 17) ^ v[2], rotate(v[3], 21) ^ v[0]
            v[2] = rotate(v[2], 32)

    tail = len(data) % 8
    last = int.from_bytes(data[len(data) - tail :], "little") | (len(data) & 255) << 56
    for word in (*(word for (word,) in struct.iter_unpack("<Q", data[: len(data) - tail])), last):
        v[3] ^= word
        rounds(2)
        v[0] ^= word
    v[2] ^= 0xFF
    rounds(4)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def cut(data, params):
    """Cuts as the page's section "Chunking" says, in the most literal way there is."""
    table, key = gear_table(), derive("chunker sip key", SECRET, 16)
    gears, gear = [0], 0  # after 64 steps nothing is left of what came before
    for byte in data:
        gear = (2 * gear + table[byte]) & MASK
        gears.append(gear)
    lengths, start = [], 0
    while start < len(data):
        end = min(len(data) - start, params.maximum)
        for length in range(params.minimum, end):
            at = start + length
            threshold = params.strict if length < params.average else params.loose
            if gears[at] >> 56 == 0 and siphash(key, data[at - 64 : at]) < threshold:
                end = length
                break
        lengths.append(end)
        start += end
    return lengths


def test_siphash_is_the_one_of_its_paper():
    """The vector of the paper's appendix A."""
    assert siphash(bytes(range(16)), bytes(range(15))) == 0xA129CA6149BE45E5


def test_chunks_are_cut_as_the_page_says():
    """On noise, on what repeats, on runs of one byte, and at every length around the limits."""
    chance = random.Random(11)
    params = ChunkerParams(minimum=256, average=1024, maximum=4096, strict=1 << 61, loose=1 << 63)
    chunker = Chunker(SECRET, params)
    noise = chance.randbytes(150_000)
    contents = [noise, bytes(20_000), noise[:300] * 60, b"", b"x", noise[:256], noise[:257], noise[:4096], noise[:4097]]
    assert len(set(cut(noise, params))) > 20
    for content in contents:
        assert list(chunker.lengths(content, final=True)) == cut(content, params)


def test_runs_are_split_as_the_page_says():
    """A long directory's runs end at names whose keyed hash says so, within bounds."""
    names = sorted(b"%d" % number for number in range(30_000))
    leaf = Leaf(names=b"".join(name + b"\0" for name in names), meta=meta(FILE) * len(names))
    expected, run = [], []
    for name in names:
        run.append(name)
        (number,) = struct.unpack("<Q", blake3(name, key=SECRET).digest(8))
        if len(run) == 8192 or (len(run) >= 1024 and number % 2048 == 0):
            expected.append(run)
            run = []
    expected += [run] if run else []
    assert [part.names.split(b"\0")[:-1] for part in split_leaf(leaf, SECRET)] == expected


def test_recovery_key_is_read_as_the_page_says():
    """From paper, with what a person makes of it, to the 32 bytes; and a slip is found."""
    alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    key = random.Random(5).randbytes(32)
    typed = show_key(key).lower().replace("-", " . ").replace("0", "o").replace("1", "l").replace("v", "u")
    letters = "".join(sign for sign in typed.upper() if sign not in " -.,:\n")
    number = 0
    for letter in letters.translate(str.maketrans("OILU", "011V")):
        number = number * 32 + alphabet.index(letter)
    data = number.to_bytes(35, "big")
    assert (len(letters), data[:32]) == (56, key)
    assert data[32:] == blake3(key, derive_key_context="respaldo 2026-11 recovery key check").digest(3)
