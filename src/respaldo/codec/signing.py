"""Signatures: Ed25519 (RFC 8032) from `cryptography`, of messages that say what they are.

Never signs bytes without a context: what is signed for one purpose, in one repository, is valid for no other.
"""

from __future__ import annotations

import hashlib
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SEED_BYTES: Final = 32
PUBLIC_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
CLIENT_BYTES: Final = 16
_CONTEXT: Final = b"respaldo 2026-11 signature "


class Signer:
    """Signs under one seed of 32 bytes; raises ValueError for one of another length."""

    def __init__(self, seed: bytes) -> None:
        if len(seed) != SEED_BYTES:
            msg = "a seed has 32 bytes"
            raise ValueError(msg)
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = self._key.public_key().public_bytes_raw()

    def sign(self, purpose: bytes, header_hash: bytes, message: bytes) -> bytes:
        """Returns a signature of 64 bytes."""
        return self._key.sign(_signed(purpose, header_hash, message))


def is_signed(public: bytes, signature: bytes, purpose: bytes, header_hash: bytes, message: bytes) -> bool:
    """Tells whether a signature is of this message, for this purpose, under this repository's header."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, _signed(purpose, header_hash, message))
    except (InvalidSignature, ValueError):
        return False
    return True


def client_of(public: bytes) -> bytes:
    """Returns the id of the client that has a public key: the key cannot be exchanged without changing it."""
    return hashlib.sha256(_CONTEXT + b"client\0" + public).digest()[:CLIENT_BYTES]


def _signed(purpose: bytes, header_hash: bytes, message: bytes) -> bytes:
    return _CONTEXT + purpose + b"\0" + header_hash + message
