"""Boxes: what one party alone can open, made by anybody who knows its public key (X25519, RFC 7748).

``box = ephemeral public key (32) ‖ sealed``, sealed under a key that both public keys enter, committing like every
seal. Whoever made one cannot open it afterwards. Says nothing about who made it: a signature does. Never keeps a
private key. Implements docs/format.md, "Boxes".
"""

from __future__ import annotations

from typing import Final

import msgpack

from respaldo.codec.keys import derive
from respaldo.codec.seal import OVERHEAD_BYTES, open_with, seal_with
from respaldo.core.errors import Corruption
from respaldo.core.ids import AES_256_GCM
from respaldo.core.seams import Buffer, Random

BOX_KEY_BYTES: Final = 32
BOX_OVERHEAD_BYTES: Final = BOX_KEY_BYTES + OVERHEAD_BYTES


def box_public(seed: bytes) -> bytes:
    """Returns the public key of a private one of 32 bytes."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey  # noqa: PLC0415 - start-up time

    return X25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def lock(public: bytes, aad: bytes, message: Buffer, random: Random, suite: str = AES_256_GCM) -> bytes:
    """Returns a box for a public key; raises ValueError for one that agrees with every other on the same secret."""
    seed = random(BOX_KEY_BYTES)
    ephemeral = box_public(seed)
    key = _agreed(seed, public, ephemeral + public)
    head, body = seal_with(derive("box seal", key), derive("box hedge", key), aad, message, random, suite)
    return ephemeral + head + body


def unlock(seed: bytes, aad: bytes, box: bytes, what: str, suite: str = AES_256_GCM) -> bytes:
    """Opens a box with the private half; raises `Corruption` naming ``what`` where it was not made for it."""
    if len(box) < BOX_OVERHEAD_BYTES:
        raise Corruption(what, "shorter than a box")
    ephemeral = box[:BOX_KEY_BYTES]
    try:
        key = _agreed(seed, ephemeral, ephemeral + box_public(seed))
    except ValueError:  # one of the few points that give zero with every key
        raise Corruption(what, "a public key in it is none") from None
    return open_with(derive("box seal", key), aad, memoryview(box)[BOX_KEY_BYTES:], what, suite)


def seal_box(
    public: bytes,
    *,
    purpose: str,
    header_hash: bytes,
    name: str,
    message: bytes | bytearray,
    random: Random,
    suite: str = AES_256_GCM,
) -> bytes:
    """Seals a message to a public key, for one purpose, in the object of one name; raises `Corruption` naming it."""
    try:
        return lock(public, _box_aad(purpose, header_hash, name), message, random, suite)
    except ValueError:
        raise Corruption(name, "a public key in it is none") from None


def open_box(
    seed: bytes, box: bytes, *, purpose: str, header_hash: bytes, name: str, suite: str = AES_256_GCM
) -> bytes:
    """Opens a box with the private key that it was sealed to; raises `Corruption` naming the object otherwise."""
    return unlock(seed, _box_aad(purpose, header_hash, name), box, name, suite)


def _agreed(seed: bytes, other: bytes, both: bytes) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.x25519 import (  # noqa: PLC0415 - start-up time
        X25519PrivateKey,
        X25519PublicKey,
    )

    shared = X25519PrivateKey.from_private_bytes(seed).exchange(X25519PublicKey.from_public_bytes(other))
    return derive("box", shared + both)


def _box_aad(purpose: str, header_hash: bytes, name: str) -> bytes:
    packed: bytes = msgpack.packb([1, "box", purpose, header_hash, name], use_bin_type=True)
    return packed
