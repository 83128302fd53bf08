"""Boxes open for one key, one purpose and one name, and for nobody else."""

from __future__ import annotations

import os

import pytest

from respaldo.codec.box import box_public, open_box, seal_box
from respaldo.core.errors import Corruption
from respaldo.core.ids import SUITES

SEED, OTHER = bytes(range(32)), bytes(range(1, 33))
PLACE = {"purpose": "root", "header_hash": b"h" * 32, "name": "runs/x"}


def box(**other):
    return seal_box(box_public(SEED), message=b"secret", random=os.urandom, **(PLACE | other))


@pytest.mark.parametrize("suite", SUITES)
def test_box_opens_for_its_key(suite):
    """In both suites, and no two boxes of one message are alike."""
    sealed = box(suite=suite)
    assert open_box(SEED, sealed, suite=suite, **PLACE) == b"secret"
    assert sealed != box(suite=suite)
    assert b"secret" not in sealed


@pytest.mark.parametrize("other", [{"purpose": "list"}, {"header_hash": b"i" * 32}, {"name": "runs/y"}])
def test_box_opens_in_its_place_alone(other):
    """Another purpose, another area, another object: refused."""
    with pytest.raises(Corruption):
        open_box(SEED, box(), **(PLACE | other))


def test_box_opens_for_no_other_key():
    """Nor for a box whose bytes were changed anywhere."""
    sealed = box()
    with pytest.raises(Corruption):
        open_box(OTHER, sealed, **PLACE)
    for at in range(len(sealed)):
        bent = sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :]
        with pytest.raises(Corruption):
            open_box(SEED, bent, **PLACE)


@pytest.mark.parametrize("length", [0, 31, 32, 103])
def test_short_box_is_refused(length):
    """As damage, whatever its length."""
    with pytest.raises(Corruption):
        open_box(SEED, box()[:length], **PLACE)


def test_public_key_that_is_none_is_refused():
    """The points of small order would give everybody the same secret."""
    with pytest.raises(Corruption):
        open_box(SEED, bytes(32) + box()[32:], **PLACE)
