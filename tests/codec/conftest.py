"""A sealer with fixed keys."""

from __future__ import annotations

import random

import pytest

from respaldo.codec.keys import KeyRing
from respaldo.codec.seal import Sealer
from respaldo.core.ids import SUITES


@pytest.fixture
def chance():
    """Randomness that is the same every time."""
    return random.Random(7).randbytes


@pytest.fixture
def ring():
    return KeyRing(b"M" * 32, b"H" * 32)


@pytest.fixture(params=SUITES)
def suite(request):
    """Each cipher that a repository may be sealed with."""
    return request.param


@pytest.fixture
def sealer(ring, chance, suite):
    return Sealer(ring, b"R" * 16, chance, suite)
