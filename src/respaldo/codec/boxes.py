"""Sealed boxes: X25519, XSalsa20 and Poly1305 (libsodium's `crypto_box_seal`) from PyNaCl.

Whoever has the public key can seal, and cannot open what he has sealed: what writes down a wrong passphrase has no
other key. A box says nothing about who sealed it.
"""

from __future__ import annotations

from typing import Final

from respaldo.core.errors import Corruption

SEED_BYTES: Final = 32
PUBLIC_BYTES: Final = 32
OVERHEAD_BYTES: Final = 48


def public_of(seed: bytes) -> bytes:
    """Returns the public key of a private one of 32 bytes."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey  # noqa: PLC0415 - start-up time

    return X25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def seal(public: bytes, message: bytes) -> bytes:
    """Returns a box that the private key opens."""
    from nacl.public import PublicKey, SealedBox  # noqa: PLC0415 - 30 ms of start-up that only few need

    return bytes(SealedBox(PublicKey(public)).encrypt(message))


def unseal(seed: bytes, box: bytes, what: str) -> bytes:
    """Returns what is in a box; raises `Corruption` naming ``what`` where it was changed or is for another key."""
    from nacl.exceptions import CryptoError  # noqa: PLC0415
    from nacl.public import PrivateKey, SealedBox  # noqa: PLC0415

    try:
        return bytes(SealedBox(PrivateKey(seed)).decrypt(box))
    except (CryptoError, ValueError):
        raise Corruption(what, "it was changed, or was sealed to another key") from None
