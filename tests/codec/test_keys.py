"""The key tree: every purpose has a key of its own."""

from __future__ import annotations

import pytest
from blake3 import blake3

from respaldo.codec.keys import SEALED_KINDS, KeyRing
from respaldo.core.ids import Kind


def every_key(ring):
    yield from (ring.hedge, ring.chunker_secret, ring.link_group, ring.name_order)
    yield from ring.id_keys.values()
    yield from map(ring.seal_key, sorted(SEALED_KINDS))


def test_no_key_serves_two_purposes(ring):
    """All are different, also from the master key."""
    keys = [*every_key(ring), ring.master]
    assert len(set(keys)) == len(keys)
    assert {len(key) for key in keys} == {32}


@pytest.mark.parametrize("other", [KeyRing(b"N" * 32, b"H" * 32), KeyRing(b"M" * 32, b"I" * 32)])
def test_every_key_depends_on_master_key_and_header(ring, other):
    """A master key does not work under another header."""
    assert not set(every_key(ring)) & set(every_key(other))


def test_derivation_is_what_the_format_says(ring):
    """The contexts are spelled out once more, as docs/format.md has them."""

    def derive(context, material):
        return blake3(material, derive_key_context=f"respaldo 2026-11 {context}").digest()

    root = derive("root", b"M" * 32 + b"H" * 32)
    assert ring.hedge == derive("hedge", root)
    assert ring.chunker_secret == derive("chunker", root)
    assert ring.link_group == derive("link group", root)
    assert ring.name_order == derive("name order", root)
    assert ring.id_keys == {kind: derive(f"id {kind.name.lower()}", root) for kind in Kind}
    for kind in SEALED_KINDS:
        assert ring.seal_key(kind) == derive(f"seal {kind}", root)


@pytest.mark.parametrize(("master", "header"), [(b"M" * 31, b"H" * 32), (b"M" * 32, b""), (b"", b"H" * 32)])
def test_keys_have_32_bytes(master, header):
    """Anything else is a mistake of the program."""
    with pytest.raises(ValueError):
        KeyRing(master, header)


def test_content_keys_open_nothing(ring):
    """A ring that names content as another does names alike, and has no key that opens what the other sealed."""
    other = KeyRing(b"N" * 32, b"I" * 32).naming_as(ring.content_keys)
    assert other.content_keys == ring.content_keys
    assert (other.id_keys, other.chunker_secret) == (ring.id_keys, ring.chunker_secret)
    assert (other.name_order, other.link_group) == (ring.name_order, ring.link_group)
    sealing = {ring.seal_key(kind) for kind in SEALED_KINDS} | {ring.hedge, ring.master}
    assert sealing.isdisjoint({other.seal_key(kind) for kind in SEALED_KINDS} | {other.hedge, other.master})
    assert not any(key in ring.content_keys for key in sealing)


def test_content_keys_are_six_or_none(ring):
    """Anything else is refused; none are a ring's own."""
    assert ring.naming_as(b"") is ring
    with pytest.raises(ValueError, match="192"):
        ring.naming_as(bytes(191))
