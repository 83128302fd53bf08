"""Whole objects between stored and plain form."""

from __future__ import annotations

import hashlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from respaldo.codec.compress import Compressor
from respaldo.codec.keys import SEALED_KINDS, KeyRing
from respaldo.codec.padding import padded
from respaldo.codec.seal import Sealer
from respaldo.core.errors import Corruption
from respaldo.store.vault import Vault
from tests.flows.check.scenes import flipped


def vault(master=b"m" * 32):
    return Vault(Sealer(KeyRing(master, b"h" * 32), b"R" * 16, os.urandom), Compressor(3))


VAULT = vault()
NAME = "pending/" + "0" * 32
raws = st.binary(max_size=200) | st.integers(0, 20_000).map(bytes) | st.binary(min_size=5000)


@given(raws)
def test_record_round_trips_in_a_padded_size(raw):
    """A record comes back, and storage sees a padded size that ends with a hash of the rest."""
    data = VAULT.seal_record("manifest", NAME, raw)
    assert VAULT.open_record("manifest", NAME, data) == raw
    assert len(data) == padded(len(data), 4096)
    assert hashlib.sha256(data[:-32]).digest() == data[-32:]


@given(raws)
def test_segment_round_trips_in_a_padded_size(raw):
    """A segment comes back and is named by its bytes."""
    name, data = VAULT.seal_segment(raw)
    assert (VAULT.open_segment(data, "x"), name) == (raw, hashlib.sha256(data).digest())
    assert len(data) == padded(len(data))


@pytest.mark.parametrize("kind", sorted(SEALED_KINDS - {"manifest"}))
def test_record_is_of_one_kind_under_one_name(kind):
    """Nothing opens as another kind, under another name, or with another key."""
    data = VAULT.seal_record("manifest", NAME, b"content")
    for opener, wanted, name in (
        (VAULT, kind, NAME),
        (VAULT, "manifest", NAME[:-1] + "1"),
        (vault(b"n" * 32), "manifest", NAME),
    ):
        with pytest.raises(Corruption):
            opener.open_record(wanted, name, data)


def test_short_and_changed_objects_are_corrupt():
    """Whatever is cut or changed is refused with the object's name."""
    data = VAULT.seal_record("manifest", NAME, b"content")
    for bad in (b"", data[:31], data[:32], data[:100], data[:-1], data + b"\0", flipped(data, 0), flipped(data, -1)):
        with pytest.raises(Corruption) as caught:
            VAULT.open_record("manifest", NAME, bad)
        assert caught.value.name == NAME
    _, segment = VAULT.seal_segment(b"content")
    for bad in (b"", segment[:71], segment[:-1], flipped(segment, 60), segment + segment):
        with pytest.raises(Corruption):
            VAULT.open_segment(bad, "x")
