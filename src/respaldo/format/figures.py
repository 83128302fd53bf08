"""What a manifest counts: what a snapshot holds and cost, and what changed since the one before it.

For people: nothing depends on it. Implements docs/format.md, "Manifest".
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Counts what a snapshot holds and what it cost. Lengths in bytes; stored lengths include seals, not padding."""

    files: int = 0
    directories: int = 0
    others: int = 0
    length_bytes: int = 0
    files_new: int = 0
    files_changed: int = 0
    files_unchanged: int = 0
    read_bytes: int = 0
    chunks_new: int = 0
    chunk_bytes_new: int = 0
    chunks_known: int = 0
    chunk_bytes_known: int = 0
    stored_bytes: int = 0
    errors: int = 0
    duration_ns: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Counts the entries that are not directories and were added, changed or removed since the parent."""

    added: int = 0
    changed: int = 0
    removed: int = 0


FIGURE_NAMES = tuple(sorted(Figures.__dataclass_fields__))
