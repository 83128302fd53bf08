"""Outcomes in storage: their names, and one read and checked. What they decide is the catalogue's."""

from __future__ import annotations

from respaldo.backend.base import Backend
from respaldo.core.errors import Corruption
from respaldo.format.snapshot import RECORD_BYTES_MAX, Outcome, Verdict, parse_outcome
from respaldo.store.vault import Vault


def outcome_name(snapshot: bytes) -> str:
    """Returns the object name of an outcome."""
    return "outcome/" + snapshot.hex()


def read_outcome(backend: Backend, vault: Vault, snapshot: bytes) -> Outcome:
    """Reads an outcome; raises `ObjectMissing`, and `Corruption` where it is torn or not authentic.

    A client that writes into an area may commit what it has made, and no more: its abort is not authentic.
    """
    name = outcome_name(snapshot)
    data = backend.get_whole(name, RECORD_BYTES_MAX)
    outcome = parse_outcome(vault.open_record("outcome", name, data), name)
    if outcome.verdict is not Verdict.COMMIT and vault.is_of_client("outcome", name, data):
        raise Corruption(name, "a client says abort, which takes the owner of its area")
    return outcome
