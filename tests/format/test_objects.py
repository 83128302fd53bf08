"""Whole objects as storage holds them: every bit counts, every name is bound, every size is padded."""

from __future__ import annotations

import hashlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from respaldo.codec.compress import Compressor
from respaldo.codec.keys import KeyRing
from respaldo.codec.seal import Sealer
from respaldo.core.errors import Corruption, NotARepository
from respaldo.core.ids import Kind
from respaldo.format.header import parse_header
from respaldo.format.pack import BlockRow
from respaldo.store.packs import open_block, open_footer, seal_block
from respaldo.store.vault import Vault
from tests.format import samples

RECORDS = {
    "manifest": ("pending/" + "0a" * 16, samples.MANIFEST.encode()),
    "outcome": ("outcome/" + "0a" * 16, samples.OUTCOME.encode()),
    "condemnation": ("condemned/" + "0a" * 16, samples.CONDEMNATION.encode()),
    "marker": ("sessions/" + "0a" * 16 + ".1", samples.MARKER.encode()),
    "pin": ("pins/" + "0a" * 16, samples.PIN.encode()),
    "trash": ("trash/" + "0a" * 16, samples.TRASHED.encode()),
    "verified": ("verified/" + "0a" * 16, samples.VERIFIED.encode()),
    "sums": ("sums/" + "0a" * 16, samples.SUMS.encode()),
    "config": ("config/" + "0" * 15 + "1", samples.CONFIG.encode()),
}


@pytest.fixture(scope="module")
def vault():
    ring = KeyRing(b"M" * 32, samples.HEADER.hash)
    return Vault(Sealer(ring, samples.HEADER.repository, random.Random(5).randbytes), Compressor())


@pytest.mark.parametrize("kind", sorted(RECORDS))
def test_record_opens_as_what_it_is_and_no_other(vault, kind):
    """Under its name and kind; under any other it is damage, not another record."""
    name, raw = RECORDS[kind]
    data = vault.seal_record(kind, name, raw)
    assert vault.open_record(kind, name, data) == raw
    assert len(data) % 4096 == 0
    for other, (other_name, _) in RECORDS.items():
        if other != kind:
            for wrong_kind, wrong_name in ((other, name), (kind, other_name), (other, other_name)):
                with pytest.raises(Corruption):
                    vault.open_record(wrong_kind, wrong_name, data)


@pytest.mark.parametrize("kind", sorted(RECORDS))
def test_every_flipped_bit_of_a_record_is_refused(vault, kind):
    """The closing hash finds decay; where a forger has set it right, the seal finds the forger. Padding counts."""
    name, raw = RECORDS[kind]
    data = vault.seal_record(kind, name, raw)
    for at in range(len(data)):
        bent = bytearray(data)
        bent[at] ^= 1 << (at % 8)
        with pytest.raises(Corruption):
            vault.open_record(kind, name, bytes(bent))
        if at < len(data) - 32 and at % 7 == 0:
            bent[-32:] = hashlib.sha256(bent[:-32]).digest()
            with pytest.raises(Corruption):
                vault.open_record(kind, name, bytes(bent))


def test_truncated_record_is_refused(vault):
    """At every length, with the closing hash of what is left, too."""
    name, raw = RECORDS["outcome"]
    data = vault.seal_record("outcome", name, raw)
    for length in range(len(data)):
        for part in (data[:length], data[:length] + hashlib.sha256(data[:length]).digest()):
            if part != data:
                with pytest.raises(Corruption):
                    vault.open_record("outcome", name, part)


def test_every_flipped_bit_of_a_header_is_refused():
    """It is damaged, or none."""
    data = samples.HEADER.encode()
    for at in range(len(data)):
        for bit in range(8):
            bent = bytearray(data)
            bent[at] ^= 1 << bit
            with pytest.raises((Corruption, NotARepository)):
                parse_header(bytes(bent), "here")


def test_segment_is_padded_and_every_byte_counts(vault):
    """Its size is a multiple of 64 KiB, and no byte of it can differ."""
    name, data = vault.seal_segment(samples.SEGMENT.encode())
    assert hashlib.sha256(data).digest() == name
    assert len(data) == 64 << 10
    assert vault.open_segment(data, "x") == samples.SEGMENT.encode()
    for at in range(0, len(data), 997):
        bent = bytearray(data)
        bent[at] ^= 0x10
        with pytest.raises(Corruption):
            vault.open_segment(bytes(bent), "x")


@pytest.mark.parametrize("raw", [b"compressible " * 50, bytes(range(200))], ids=["compressed", "stored"])
def test_block_is_the_one_of_its_row(vault, raw):
    """Another kind, length or commitment than the footer's, or another bit, is damage."""
    block = seal_block(vault, Kind.DATA, raw, b"", b"")
    sealed = block.head + block.body
    row = BlockRow(1, len(sealed), len(raw), 1, block.head[24:])
    assert open_block(vault, row, sealed, "x") == raw
    changes = ({"kind": 2}, {"kind": 3}, {"raw_length": len(raw) - 1}, {"raw_length": len(sealed) - 72 + 1})
    for change in (*changes, {"sealed_length": len(sealed) + 1}, {"commitment": bytes(32)}):
        with pytest.raises(Corruption):
            open_block(vault, row._replace(**change), sealed, "x")
    for at in range(len(sealed)):
        bent = bytearray(sealed)
        bent[at] ^= 1 << (at % 8)
        with pytest.raises(Corruption):
            open_block(vault, row, bytes(bent), "x")


@pytest.mark.parametrize("kind", ["tree", "manifest", "segment", "outcome", "trailer", "data"])
def test_footer_is_sealed_as_one(vault, kind):
    """What was sealed as anything else never says where chunks lie."""
    message = samples.frame.build(*samples.frame.squeeze(samples.FOOTER.encode(), vault.compressor), 1000)
    genuine = b"".join(vault.sealer.seal("footer", "", 1000, message))
    assert open_footer(vault, genuine, samples.FOOTER.body_length, "x")[0] == samples.FOOTER
    with pytest.raises(Corruption):
        open_footer(vault, genuine, samples.FOOTER.body_length + 1, "x")
    with pytest.raises(Corruption):
        open_footer(vault, b"".join(vault.sealer.seal(kind, "", 1000, message)), samples.FOOTER.body_length, "x")


@given(data=st.binary(max_size=400))
def test_noise_is_no_object(vault, data):
    """Nothing but damage comes of bytes from nowhere, with and without a closing hash that fits."""
    for noise in (data, data + hashlib.sha256(data).digest()):
        with pytest.raises(Corruption):
            vault.open_record("manifest", "pending/" + "0a" * 16, noise)
        with pytest.raises(Corruption):
            vault.open_segment(noise, "x")
        with pytest.raises(Corruption):
            open_footer(vault, noise, 0, "x")
