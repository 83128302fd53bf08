"""What a session relies on, in memory and spilt to disk."""

from __future__ import annotations

import hashlib

import pytest

from respaldo.core.ids import Kind
from respaldo.store import relied
from respaldo.store.relied import Relied


@pytest.mark.parametrize("memory_bytes", [1, 1000, 4 << 20])
def test_relied_gives_back_what_was_found_in_some_packs(monkeypatch, memory_bytes):
    """Whether it spilt or not: the chunks of the packs asked for, of their kinds, and more can be added afterwards."""
    monkeypatch.setattr(relied, "_MEMORY_BYTES", memory_bytes)
    there = Relied()
    rows = [(number % 7, list(Kind)[number % 3], hashlib.sha256(b"%d" % number).digest()) for number in range(500)]
    for row in rows[:400]:
        there.add(*row)
    assert there.packs == set(range(7))
    assert list(there.chunks_in({3, 5})) == [(kind, chunk) for pack, kind, chunk in rows[:400] if pack in {3, 5}]
    for row in rows[400:]:
        there.add(*row)
    assert list(there.chunks_in({0})) == [(kind, chunk) for pack, kind, chunk in rows if pack == 0]
    assert list(there.chunks_in(set())) == []
    there.close()
