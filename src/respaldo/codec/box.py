"""Boxes: a message sealed to whoever holds the private half of an X25519 key pair (RFC 7748), by anybody.

Invariant: every box has an ephemeral key pair of its own, and its seal commits to the key that both halves agree on.
Says nothing of who made it. Never keeps a private key. Implements docs/format.md, "Boxes".
"""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from respaldo.codec.keys import derive
from respaldo.codec.seal import OVERHEAD_BYTES, open_with, seal_with
from respaldo.core.errors import Corruption
from respaldo.core.ids import AES_256_GCM
from respaldo.core.seams import Buffer, Random

SEED_BYTES: Final = 32
PUBLIC_BYTES: Final = 32
BOX_OVERHEAD_BYTES: Final = PUBLIC_BYTES + OVERHEAD_BYTES


def public_of(seed: bytes) -> bytes:
    """Returns the public half of the key pair whose private half is a seed of 32 bytes."""
    return X25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def lock(public: bytes, aad: bytes, message: Buffer, random: Random, suite: str = AES_256_GCM) -> bytes:
    """Returns a box for a public key; raises ValueError for one that agrees with every other on the same secret."""
    seed = random(SEED_BYTES)
    ephemeral = public_of(seed)
    key = _agreed(seed, public, ephemeral, public)
    head, body = seal_with(derive("box seal", key), derive("box hedge", key), aad, message, random, suite)
    return ephemeral + head + body


def unlock(seed: bytes, aad: bytes, box: bytes, what: str, suite: str = AES_256_GCM) -> bytes:
    """Opens a box with the private half; raises `Corruption` naming ``what`` where it was not made for it."""
    if len(box) < BOX_OVERHEAD_BYTES:
        raise Corruption(what, "shorter than a box")
    ephemeral = box[:PUBLIC_BYTES]
    try:
        key = _agreed(seed, ephemeral, ephemeral, public_of(seed))
    except ValueError:
        raise Corruption(what, "its public key is none") from None
    return open_with(derive("box seal", key), aad, box[PUBLIC_BYTES:], what, suite)


def _agreed(seed: bytes, other: bytes, ephemeral: bytes, public: bytes) -> bytes:
    shared = X25519PrivateKey.from_private_bytes(seed).exchange(X25519PublicKey.from_public_bytes(other))
    return derive("box", shared + ephemeral + public)
