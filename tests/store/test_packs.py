"""Packs: what is written block by block is read back from the end, and what is not finished leaves nothing."""

from __future__ import annotations

import hashlib
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from respaldo.backend.faults import Fault, Faults, lasting_failure
from respaldo.backend.memory import MemoryBackend
from respaldo.codec.compress import Compressor
from respaldo.codec.keys import KeyRing
from respaldo.codec.padding import padded
from respaldo.codec.seal import Sealer
from respaldo.core.errors import Corruption, StorageError, StorageFailed
from respaldo.core.ids import Kind, PackName, pack_object
from respaldo.format.pack import TRAILER_BYTES
from respaldo.store.packs import PackWriter, open_block, read_footer, seal_block
from respaldo.store.vault import Vault

SESSION = b"S" * 16


def vault(random=os.urandom):
    return Vault(Sealer(KeyRing(b"m" * 32, b"h" * 32), b"R" * 16, random), Compressor(3))


VAULT = vault()
blocks = st.lists(
    st.tuples(st.sampled_from(list(Kind)), st.lists(st.binary(min_size=1, max_size=400), min_size=1, max_size=5)),
    min_size=1,
    max_size=8,
)


def sealed(kind, chunks):
    ids = b"".join(hashlib.sha256(chunk).digest() for chunk in chunks)
    lengths = b"".join(len(chunk).to_bytes(4, "little") for chunk in chunks)
    return seal_block(VAULT, kind, b"".join(chunks), ids, lengths)


def write(backend, content, **options):
    with PackWriter(backend, VAULT, SESSION, **options) as writer:
        for kind, chunks in content:
            writer.add(sealed(kind, chunks))
        return writer.finish()


@given(blocks, st.sampled_from([0, 500, 1 << 20]))
def test_pack_round_trips(content, held):
    """What goes into a pack comes out of it, block by block, wherever its blocks waited."""
    backend = MemoryBackend()
    made = write(backend, content, stage_after_bytes=held)
    [(name, length)] = backend.list("packs")
    data = backend.get(name)
    assert name == pack_object(made.name) == "packs/" + hashlib.sha256(data).hexdigest()
    assert length == made.length_bytes
    footer, encoded = read_footer(backend, VAULT, made.name, length)
    assert (footer, encoded) == (made.footer, made.encoded)
    assert footer.body_hash == hashlib.sha256(data[: footer.body_length]).digest()
    assert footer.session == SESSION
    row = 0
    for number, (kind, chunks) in enumerate(content):
        block = footer.blocks[number]
        at = footer.offsets[number]
        raw = open_block(VAULT, block, data[at : at + block.sealed_length], "x")
        assert (block.kind, raw) == (kind, b"".join(chunks))
        for chunk in chunks:
            place = footer.place(row)
            assert (place.block, raw[place.offset : place.offset + place.length]) == (number, chunk)
            assert footer.chunk_id(row) == hashlib.sha256(chunk).digest()
            row += 1


@given(st.integers(1, 3_000_000))
@settings(max_examples=15)
def test_pack_has_a_padded_size_whatever_is_in_it(length):
    """Storage sees only sizes that padding gives, and never ones below what the writer estimated it needs."""
    backend = MemoryBackend()
    with PackWriter(backend, VAULT, SESSION) as writer:
        block = sealed(Kind.DATA, [os.urandom(length)])
        before = writer.estimate(block)
        writer.add(block)
        assert writer.estimate() == before
        made = writer.finish()
    assert made.length_bytes == padded(made.length_bytes)
    assert made.length_bytes <= padded(before)


def test_pack_is_never_longer_than_estimated():
    """With many small chunks the footer grows; the estimate keeps ahead of it."""
    backend = MemoryBackend()
    with PackWriter(backend, VAULT, SESSION) as writer:
        for _ in range(40):
            writer.add(sealed(Kind.DATA, [os.urandom(20) for _ in range(100)]))
        estimate = writer.estimate()
        body = writer.body_length
        made = writer.finish()
    assert body < made.length_bytes <= padded(estimate)


def test_pack_that_is_not_finished_leaves_nothing():
    """Leaving early, or failing, leaves no object, and says nothing."""
    backend = MemoryBackend()
    with PackWriter(backend, VAULT, SESSION) as writer:
        writer.add(sealed(Kind.DATA, [b"x" * 1000]))
    writer.discard()
    assert backend.snapshot() == {}


def test_pack_that_cannot_be_put_leaves_nothing():
    """Where storage fails at the end, there is no pack and the error comes through."""
    inner = MemoryBackend()
    with pytest.raises(StorageFailed):
        write(Faults(inner, [Fault(at=1, error=lasting_failure)]), [(Kind.DATA, [b"x"])])
    assert inner.snapshot() == {}


def test_pack_that_exists_already_is_the_same():
    """With a generator that repeats itself the same blocks make the same pack, and putting it twice is no error."""
    backend = MemoryBackend()
    names = []
    for _ in range(2):
        repeating = vault(lambda length: b"r" * length)
        with PackWriter(backend, repeating, SESSION) as writer:
            raw = b"chunk"
            writer.add(seal_block(repeating, Kind.DATA, raw, b"i" * 32, len(raw).to_bytes(4, "little")))
            names.append(writer.finish().name)
    assert names[0] == names[1]
    assert len(backend.list("packs")) == 1


@pytest.mark.parametrize("length", [0, 1, 88, 160, (256 << 20) + 1])
def test_footer_of_an_impossible_length_is_not_looked_for(length):
    """A pack too short or too long to be one is refused before anything is read."""
    with pytest.raises(Corruption, match="impossible"):
        read_footer(MemoryBackend(), VAULT, PackName(b"p" * 32), length)


@pytest.fixture(scope="module")
def pack():
    backend = MemoryBackend()
    made = write(backend, [(Kind.DATA, [b"one", b"two"]), (Kind.TREE, [b"three"])])
    return made, backend.get(pack_object(made.name))


def damaged(made, data):
    backend = MemoryBackend()
    backend.damage(pack_object(made.name), data)
    with pytest.raises(Corruption) as caught:
        read_footer(backend, VAULT, made.name, len(data))
    assert caught.value.name == pack_object(made.name)


@given(data=st.data())
def test_footer_notices_every_changed_bit_behind_the_blocks(pack, data):
    """Any bit of footer, padding and trailer counts."""
    made, content = pack
    at = data.draw(st.integers(made.footer.body_length, len(content) - 1))
    bit = data.draw(st.integers(0, 7))
    damaged(made, content[:at] + bytes([content[at] ^ (1 << bit)]) + content[at + 1 :])


def test_footer_of_a_torn_or_spliced_pack_is_refused(pack):
    """A pack cut anywhere, longer than it was, or with bytes taken out before its footer, has no footer."""
    made, content = pack
    for length in (TRAILER_BYTES + 73, 1000, len(content) // 2, len(content) - 1):
        damaged(made, content[:length])
    damaged(made, content + b"\0")
    damaged(made, b"\0" + content)
    damaged(made, content[1:])


def test_block_of_another_row_is_refused(pack):
    """A block is opened only as what its row says: kind, length and commitment."""
    made, content = pack
    first, second = made.footer.blocks
    data = content[: first.sealed_length]
    assert open_block(VAULT, first, data, "x") == b"onetwo"
    for row, bad in (
        (second, data),
        (first, data[:-1]),
        (first._replace(raw_length=first.raw_length + 1), data),
        (first._replace(kind=int(Kind.TREE)), data),
        (first, data[:-1] + bytes([data[-1] ^ 1])),
        (first, bytes([data[0] ^ 1]) + data[1:]),
    ):
        with pytest.raises(Corruption):
            open_block(VAULT, row, bad, "x")


def test_missing_pack_is_a_storage_error(pack):
    """A pack that is gone is missing, not damaged."""
    with pytest.raises(StorageError):
        read_footer(MemoryBackend(), VAULT, pack[0].name, 65536)
