"""Key slots: one secret opens, bounds come before work."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import msgpack
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from respaldo.codec import slots
from respaldo.codec.slots import STANDARD, Kdf, Secret, parse_slot, unwrap, wrap
from respaldo.core.errors import Corruption, WrongSecret
from tests.codec.collisions import collide

MASTER, HEADER = b"M" * 32, b"H" * 32
KEY = Secret(key=b"K" * 32)


def key_slot(chance, **changes):
    given_ = {
        "master": MASTER,
        "secret": KEY,
        "kdf": STANDARD,
        "header_hash": HEADER,
        "name": "keys/a",
        "about": lambda _: b"about",
        "random": chance,
    }
    return wrap(**(given_ | changes))


def test_passphrase_opens_and_another_does_not(chance, suite):
    """The right one, under the right header and name, gives the master key."""
    slot = key_slot(chance, secret=Secret(passphrase="contraseña".encode()), suite=suite)
    again = parse_slot("keys/a", slot.encode())
    assert again == slot
    assert unwrap(again, Secret(passphrase="contraseña".encode()), HEADER, suite) == MASTER
    with pytest.raises(WrongSecret):
        unwrap(again, Secret(passphrase=b"contrasena"), HEADER, suite)
    with pytest.raises(WrongSecret):
        unwrap(again, KEY, HEADER, suite)


def test_key_opens_and_anything_else_does_not(chance):
    """A slot is bound to its header, its name and its secret."""
    slot = parse_slot("keys/a", key_slot(chance).encode())
    assert unwrap(slot, KEY, HEADER) == MASTER
    for bent, secret, header in (
        (slot, Secret(key=b"J" * 32), HEADER),
        (slot, Secret(passphrase=b"K" * 32), HEADER),
        (slot, KEY, b"I" * 32),
        (replace(slot, name="keys/b"), KEY, HEADER),
        (replace(slot, salt=b"x" * 16), KEY, HEADER),
        (replace(slot, wrapped=bytes(104)), KEY, HEADER),
    ):
        with pytest.raises(WrongSecret):
            unwrap(bent, secret, header)


def test_every_flipped_bit_is_refused(chance, suite):
    """Wherever a bit flips, the slot is damaged or does not open; what is said about it is sealed elsewhere."""
    data = key_slot(chance, about=lambda _: b"", suite=suite).encode()
    for at in range(len(data)):
        for bit in range(8):
            bent = bytearray(data)
            bent[at] ^= 1 << bit
            with pytest.raises((Corruption, WrongSecret)):
                unwrap(parse_slot("keys/a", bytes(bent)), KEY, HEADER, suite)


@pytest.mark.parametrize("passes", [-1, 0, 11, 1 << 31, (1 << 64) - 1])
@pytest.mark.parametrize("memory_kib", [65536])
def test_passes_out_of_bounds_are_refused_before_any_work(chance, monkeypatch, passes, memory_kib):
    """Nobody who writes to storage makes a client stretch for an hour."""
    refused_before_work(chance, monkeypatch, [passes, memory_kib])


@pytest.mark.parametrize("memory_kib", [-1, 0, 1, 65535, (1 << 20) + 1, 1 << 32, (1 << 64) - 1])
def test_memory_out_of_bounds_is_refused_before_any_work(chance, monkeypatch, memory_kib):
    """Nor makes it take all memory, nor makes guesses cheap."""
    refused_before_work(chance, monkeypatch, [3, memory_kib])


@pytest.mark.parametrize(
    "cost", [[], [3], [3, 65536, 1], [True, 65536], ["3", 65536], [3.0, 65536], [None, None], {}, b"", 3, [[3], 65536]]
)
def test_cost_of_the_wrong_shape_is_refused(chance, monkeypatch, cost):
    """Two integers, and no booleans, which Python takes for integers."""
    refused_before_work(chance, monkeypatch, cost)


def refused_before_work(chance, monkeypatch, cost):
    def forbidden(*_args, **_kwargs):
        raise AssertionError("worked")

    monkeypatch.setattr(slots, "_wrapping_key", forbidden)
    data = msgpack.packb([1, "argon2id", cost, b"S" * 16, bytes(104), b""], use_bin_type=True)
    with pytest.raises(Corruption):
        parse_slot("keys/a", data)


@pytest.mark.parametrize("bounds", [(0, 65536), (11, 65536), (3, 65535), (3, (1 << 20) + 1)])
def test_writer_keeps_the_bounds_too(bounds):
    """No slot is made that no reader opens."""
    with pytest.raises(Corruption):
        Kdf(passes=bounds[0], memory_kib=bounds[1])


@pytest.mark.parametrize(
    "value",
    [
        [2, "key", [], b"S" * 16, bytes(104), b""],
        [True, "key", [], b"S" * 16, bytes(104), b""],
        [1, "none", [], b"S" * 16, bytes(104), b""],
        [1, "scrypt", [3, 65536], b"S" * 16, bytes(104), b""],
        [1, "key", [3, 65536], b"S" * 16, bytes(104), b""],
        [1, "key", [], b"S" * 15, bytes(104), b""],
        [1, "key", [], b"", bytes(104), b""],
        [1, "key", [], b"S" * 16, bytes(103), b""],
        [1, "key", [], b"S" * 16, bytes(105), b""],
        [1, "key", [], b"S" * 16, b"", b""],
        [1, "key", [], b"S" * 16, bytes(104), ""],
        [1, "key", [], "S" * 16, bytes(104), b""],
        [1, "key", [], b"S" * 16, bytes(104)],
        [1, "key", [], b"S" * 16, bytes(104), b"", b""],
        [1, "key", [], b"S" * 16, bytes(104), bytes(4096)],
        {"method": "key"},
        None,
    ],
)
def test_other_slots_are_refused(value):
    """Unknown methods and versions, wrong lengths and types: damage, said before any secret is used."""
    with pytest.raises(Corruption):
        parse_slot("keys/a", msgpack.packb(value, use_bin_type=True))


@given(st.binary(max_size=300))
def test_any_bytes_are_refused(data):
    """Noise is damage."""
    with pytest.raises(Corruption):
        parse_slot("keys/a", data)


def test_wrapped_text_that_is_no_master_key_is_refused(chance):
    """Whoever knows the secret still cannot make a reader take a key of another length."""
    with pytest.raises(Corruption):
        unwrap(key_slot(chance, master=b"short"), KEY, HEADER)


@pytest.mark.parametrize(
    "secrets",
    [(KEY, Secret(key=b"J" * 32)), (Secret(passphrase=b"one"), Secret(passphrase=b"two"))],
    ids=["keys", "passphrases"],
)
def test_slot_that_opens_under_two_secrets_opens_under_one_at_most(chance, suite, secrets):
    """A forged slot cannot test two passphrases with one question (partitioning oracles)."""
    slot = key_slot(chance, secret=secrets[0], suite=suite)
    salt = b"s" * 24
    aad = slots._slot_aad(HEADER, slot.name, slot.method, slot.kdf, slot.salt)
    derived = [
        blake3(salt + aad, key=slots.derive("slot seal", slots._wrapping_key(secret, slot.kdf, slot.salt))).digest(64)
        for secret in secrets
    ]
    body = collide(suite, [text[:32] for text in derived], aad)
    for commitment in (derived[0][32:], derived[1][32:], bytes(32)):
        forged = replace(slot, wrapped=salt + commitment + body)
        opened = []
        for secret in secrets:
            with contextlib.suppress(WrongSecret):
                with contextlib.suppress(Corruption):  # it opened, to something that is no master key
                    unwrap(forged, secret, HEADER, suite)
                opened.append(secret)
        assert len(opened) == (0 if commitment == bytes(32) else 1)


@pytest.mark.parametrize("arguments", [{}, {"passphrase": b"x", "key": b"K" * 32}, {"key": b"K" * 31}, {"key": b""}])
def test_secret_is_a_passphrase_or_a_key(arguments):
    """Not both, not neither, and a key has 32 bytes."""
    with pytest.raises(ValueError):
        Secret(**arguments)
