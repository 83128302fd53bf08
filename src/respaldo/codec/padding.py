"""Padding: which sizes storage gets to see.

Implements docs/format.md, "Padding" (Padmé: PURBs, Nikitin et al., 2019).
"""

from __future__ import annotations

SMALL_STEP_BYTES = 4 << 10
"""Manifests, outcomes, markers and other records."""

STEP_BYTES = 64 << 10
"""Packs and segments up to 1 MiB."""

_STEPPED_UP_TO_BYTES = 1 << 20


def padme(length_bytes: int) -> int:
    """Returns the least Padmé size that is not below a length: at most 12 % more, 3 % at 32 MiB."""
    if length_bytes < 2:
        return length_bytes
    exponent = length_bytes.bit_length() - 1
    low_bits = exponent - exponent.bit_length()
    mask = (1 << low_bits) - 1 if low_bits > 0 else 0
    return (length_bytes + mask) & ~mask


def padded(length_bytes: int, step_bytes: int = STEP_BYTES) -> int:
    """Returns the size that an object of a length is padded to: a multiple of the step up to 1 MiB, Padmé above."""
    if length_bytes <= _STEPPED_UP_TO_BYTES:
        return -(-length_bytes // step_bytes) * step_bytes
    return padme(length_bytes)
