"""The seal: opens for its key, kind, name, place and length, and for nothing else."""

from __future__ import annotations

import random

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_encrypt

from respaldo.codec import seal
from respaldo.codec.keys import SEALED_KINDS, KeyRing
from respaldo.codec.seal import OVERHEAD_BYTES, Sealer, associated_data, open_with, seal_with
from respaldo.core.errors import Corruption
from respaldo.core.ids import SUITES
from tests.codec.collisions import collide

RING = KeyRing(b"M" * 32, b"H" * 32)
AAD = b"associated"


def sealed_by(sealer, kind="data", name="", message=b"content"):
    return b"".join(sealer.seal(kind, name, len(message), message))


@given(st.sampled_from(SUITES), st.binary(max_size=2000), st.sampled_from(sorted(SEALED_KINDS)), st.text(max_size=30))
def test_what_was_sealed_opens(suite, message, kind, name):
    """A seal adds 72 bytes and takes nothing away."""
    sealer = Sealer(RING, b"R" * 16, random.Random(0).randbytes, suite)
    sealed = b"".join(sealer.seal(kind, name, len(message), message))
    assert len(sealed) == len(message) + OVERHEAD_BYTES
    assert sealer.open(kind, name, len(message), sealed, "x") == message
    assert sealer.open(kind, name, len(message), memoryview(sealed), "x") == message


def test_every_flipped_bit_is_refused(sealer):
    """Salt, commitment, ciphertext and tag: none may differ in a bit."""
    sealed = sealed_by(sealer)
    for at in range(len(sealed)):
        for bit in range(8):
            bent = bytearray(sealed)
            bent[at] ^= 1 << bit
            with pytest.raises(Corruption) as caught:
                sealer.open("data", "", 7, bytes(bent), "packs/x")
            assert caught.value.name == "packs/x"


def test_every_truncation_and_tail_is_refused(sealer):
    """Nothing may be missing or added, at either end."""
    sealed = sealed_by(sealer)
    for length in range(len(sealed)):
        for part in (sealed[:length], sealed[len(sealed) - length :]):
            with pytest.raises(Corruption):
                sealer.open("data", "", 7, part, "x")
    for tail in (b"\0", b"x" * 16, sealed):
        with pytest.raises(Corruption):
            sealer.open("data", "", 7, sealed + tail, "x")
        with pytest.raises(Corruption):
            sealer.open("data", "", 7, tail + sealed, "x")


@pytest.mark.parametrize("kind", sorted(SEALED_KINDS))
def test_kinds_are_separate(sealer, kind):
    """What was sealed as one kind opens as no other: file content is never taken for a manifest."""
    sealed = sealed_by(sealer, kind)
    for other in SEALED_KINDS - {kind}:
        with pytest.raises(Corruption):
            sealer.open(other, "", 7, sealed, "x")


@pytest.mark.parametrize("name", ["", "pending/" + "1" * 32, "outcome/" + "0" * 32, "pending/" + "0" * 31])
def test_object_under_another_name_is_refused(sealer, name):
    """No server can serve one manifest as another."""
    sealed = sealed_by(sealer, "manifest", "pending/" + "0" * 32)
    with pytest.raises(Corruption):
        sealer.open("manifest", name, 7, sealed, "x")


@pytest.mark.parametrize("length_bytes", [-1, 0, 6, 8, 1 << 40])
def test_another_length_is_refused(sealer, length_bytes):
    """The raw length is authenticated before anything is decompressed to it."""
    with pytest.raises(Corruption):
        sealer.open("data", "", length_bytes, sealed_by(sealer), "x")


@pytest.mark.parametrize(
    ("other", "repository"),
    [
        (KeyRing(b"N" * 32, b"H" * 32), b"R" * 16),
        (KeyRing(b"M" * 32, b"I" * 32), b"R" * 16),
        (KeyRing(b"M" * 32, b"H" * 32, epoch=1), b"R" * 16),
        (RING, b"S" * 16),
    ],
)
def test_other_keys_headers_epochs_and_repositories_are_refused(sealer, other, repository):
    """A seal is bound to all that its place is made of."""
    with pytest.raises(Corruption):
        Sealer(other, repository, random.randbytes, sealer.suite).open("data", "", 7, sealed_by(sealer), "x")


def test_unknown_kind_is_a_mistake_of_the_program(sealer):
    """No key exists for what the format does not know."""
    with pytest.raises(ValueError):
        sealer.seal("gossip", "", 1, b"x")


@pytest.mark.parametrize("suite", SUITES)
def test_another_suite_is_refused(suite):
    """Bytes of one cipher are never fed to another, though the keys come from one master."""
    one = Sealer(RING, b"R" * 16, random.randbytes, suite)
    [other] = set(SUITES) - {suite}
    with pytest.raises(Corruption):
        Sealer(RING, b"R" * 16, random.randbytes, other).open("data", "", 7, sealed_by(one), "x")


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=300), st.binary(max_size=40))
def test_xchacha_is_that_of_libsodium(key, message, aad):
    """The subkey is taken out of a block of ChaCha20; what comes out is what everybody calls XChaCha20-Poly1305."""
    ours = seal._xchacha20_poly1305(key)
    theirs = crypto_aead_xchacha20poly1305_ietf_encrypt(message, aad, bytes(24), key)
    assert ours.encrypt(bytes(12), message, aad) == theirs
    assert ours.decrypt(bytes(12), theirs, aad) == message


def test_longer_than_anything_that_is_sealed_is_refused(suite, monkeypatch):
    """What the cipher cannot take never reaches it."""
    monkeypatch.setattr(seal, "MESSAGE_BYTES_MAX", 10)
    head, body = seal_with(b"k" * 32, b"h" * 32, AAD, b"x" * 11, random.randbytes, suite)
    with pytest.raises(Corruption):
        open_with(b"k" * 32, AAD, head + body, "x", suite)


# --- no key twice ---


def constant(length_bytes):
    """A random generator that has failed."""
    return bytes(length_bytes)


places = st.builds(
    associated_data, st.integers(0, 3), st.just(b"R" * 16), st.text(max_size=3), st.text(max_size=3), st.just(7)
)


@given(st.sampled_from(SUITES), st.lists(st.tuples(places, st.binary(max_size=40)), unique=True, max_size=20))
def test_failed_generator_reuses_no_key(suite, pairs):
    """Different messages, and different places, get different salts, hence keys; the same get the same bytes."""
    sealed = [b"".join(seal_with(b"k" * 32, b"h" * 32, aad, message, constant, suite)) for aad, message in pairs]
    assert len({text[:24] for text in sealed}) == len(pairs)
    again = [b"".join(seal_with(b"k" * 32, b"h" * 32, aad, message, constant, suite)) for aad, message in pairs]
    assert again == sealed


def test_working_generator_gives_every_seal_another_salt(sealer):
    """Two seals of one message have nothing in common."""
    first, second = sealed_by(sealer), sealed_by(sealer)
    assert first[:24] != second[:24]
    assert first[24:56] != second[24:56]
    assert first[56:] != second[56:]


def test_salt_depends_on_the_generator_and_on_the_hedge_key():
    """Neither alone decides."""
    salts = {
        seal_with(b"k" * 32, hedge, AAD, b"m", generator)[0][:24]
        for hedge in (b"h" * 32, b"i" * 32)
        for generator in (constant, lambda n: b"\1" * n)
    }
    assert len(salts) == 4


# --- committing ---


def test_text_that_opens_under_two_keys_is_refused_under_one_at_least(suite):
    """The ciphers do not commit; the seal does, so that one forged text cannot test many keys at once."""
    kinds, salt = (b"1" * 32, b"2" * 32), b"s" * 24
    derived = [blake3(salt + AAD, key=kind).digest(64) for kind in kinds]
    body = collide(suite, [text[:32] for text in derived], AAD)
    for text in derived:  # the attack works on the bare cipher
        assert len(seal._CIPHERS[suite](text[:32]).decrypt(bytes(12), body, AAD)) == len(body) - 16
    for text, mine, other in zip(derived, kinds, reversed(kinds), strict=True):
        forged = salt + text[32:] + body
        assert len(open_with(mine, AAD, forged, "x", suite)) == len(body) - 16
        with pytest.raises(Corruption):
            open_with(other, AAD, forged, "x", suite)
    for wrong in (bytes(32), derived[0][:32], derived[0][32:48] + derived[1][48:64]):
        for kind in kinds:
            with pytest.raises(Corruption):
                open_with(kind, AAD, salt + wrong + body, "x", suite)


def test_commitment_is_compared_before_anything_is_decrypted(suite, monkeypatch):
    """A wrong key costs a hash, and shows nothing of the cipher."""
    head, body = seal_with(b"k" * 32, b"h" * 32, AAD, b"message", random.randbytes, suite)

    def forbidden(*_):
        raise AssertionError("decrypted before the commitment was compared")

    monkeypatch.setitem(seal._CIPHERS, suite, forbidden)
    with pytest.raises(Corruption):
        open_with(b"j" * 32, AAD, head + body, "x", suite)


def test_associated_data_differ_in_every_part():
    """No two places have the same associated data."""
    base = (0, b"R" * 16, "data", "", 7)
    others = [
        (1, *base[1:]),
        (0, b"S" * 16, *base[2:]),
        (*base[:2], "tree", "", 7),
        (*base[:3], "x", 7),
        (*base[:4], 8),
        (*base, "another suite"),
    ]
    assert len({associated_data(*parts) for parts in (base, *others)}) == 7


class Epochs:
    """Rings of which the first seals, and that are tried in the order in which they stand."""

    def __init__(self, *rings):
        self.rings = rings
        self.asked = []

    @property
    def sealing(self):
        return self.rings[0]

    def opening(self, kind, name):
        self.asked.append((kind, name))
        return self.rings


def test_one_sealer_opens_what_several_rings_sealed(suite):
    """The first ring seals; what another one sealed opens as well, and says whose it is."""
    rings = [KeyRing(bytes([byte]) * 32, b"H" * 32, epoch=epoch) for byte, epoch in ((3, 2), (2, 1), (1, 0))]
    known = Epochs(*rings)
    one = Sealer(known, b"R" * 16, random.Random(0).randbytes, suite)
    for ring in rings:
        sealed = sealed_by(Sealer(ring, b"R" * 16, random.Random(0).randbytes, suite), name="n")
        assert one.open("data", "n", 7, sealed, "x") == b"content"
        assert one.ring_of("data", "n", 7, sealed[:56]) is ring
        assert one.ring_of("tree", "n", 7, sealed[:56]) is None
    assert set(known.asked) == {("data", "n"), ("tree", "n")}
    newest = Sealer(rings[0], b"R" * 16, random.Random(0).randbytes, suite)
    assert newest.open("data", "", 7, sealed_by(one), "x") == b"content"


def test_ring_that_is_not_known_opens_nothing(suite):
    """Neither the key of another ring nor the right key in another epoch is taken."""
    one = Sealer(Epochs(RING, KeyRing(b"N" * 32, b"H" * 32)), b"R" * 16, random.Random(0).randbytes, suite)
    for other in (KeyRing(b"O" * 32, b"H" * 32), KeyRing(b"N" * 32, b"H" * 32, epoch=1)):
        sealed = sealed_by(Sealer(other, b"R" * 16, random.Random(0).randbytes, suite))
        with pytest.raises(Corruption):
            one.open("data", "", 7, sealed, "x")
        assert one.ring_of("data", "", 7, sealed[:56]) is None
