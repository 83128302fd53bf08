"""The backend in memory."""

from __future__ import annotations

import pytest

from respaldo.backend.memory import MemoryBackend
from tests.backend.contract import BackendContract


class TestMemory(BackendContract):
    @pytest.fixture
    def backend(self):
        return MemoryBackend()


def test_what_was_put_is_the_backends_own():
    """A buffer that is overwritten after the put changes nothing."""
    backend = MemoryBackend()
    buffer = bytearray(b"before")
    backend.put("log/a", [buffer])
    buffer[:] = b"after!"
    assert backend.get("log/a") == b"before"


def test_damage_goes_behind_the_contract():
    """Tests can plant what no put would store."""
    backend = MemoryBackend()
    backend.put("log/a", [b"good"])
    before = backend.snapshot()
    backend.damage("log/a", b"bad")
    assert backend.get("log/a") == b"bad"
    assert before == {"log/a": b"good"}
