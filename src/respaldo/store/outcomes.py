"""Outcomes in storage: their names, and one read and checked. What they decide is the catalogue's."""

from __future__ import annotations

from respaldo.backend.base import Backend
from respaldo.format.snapshot import RECORD_BYTES_MAX, Outcome, parse_outcome
from respaldo.store.vault import Vault


def outcome_name(snapshot: bytes) -> str:
    """Returns the object name of an outcome."""
    return "outcome/" + snapshot.hex()


def read_outcome(backend: Backend, vault: Vault, snapshot: bytes) -> Outcome:
    """Reads an outcome; raises `ObjectMissing`, and `Corruption` where it is torn or not authentic."""
    name = outcome_name(snapshot)
    return parse_outcome(vault.open_record("outcome", name, backend.get_whole(name, RECORD_BYTES_MAX)), name)
