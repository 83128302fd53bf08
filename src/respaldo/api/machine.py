"""What this machine gives: whether the hot loops run in C."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelState:
    """Says whether the hot loops run in C; ``reason`` why they do not."""

    native: bool
    reason: str
