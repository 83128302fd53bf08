"""The census misses nothing: what it does not list, a retirement would make unreadable for ever."""

from __future__ import annotations

from respaldo.codec.keys import SEALED_KINDS
from respaldo.store.census import NAMED, RECORDS

IN_PACKS = {"data", "tree", "list", "footer", "trailer"}
WITH_THE_KEYS = {"about", "epoch"}
"""What describes slots and epochs, which a rotation makes anew itself."""


def test_census_counts_every_kind_that_is_sealed():
    """A new kind of object needs a place in it, and a way to be sealed anew."""
    assert {*RECORDS.values(), *NAMED.values()} | IN_PACKS | WITH_THE_KEYS == SEALED_KINDS
