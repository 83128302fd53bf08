"""The seal: committing AES-256-GCM with a fresh key for every object and block.

``sealed = salt (24) ‖ commitment (32) ‖ ciphertext ‖ tag (16)``, where ``salt`` is hedged (it depends on the message as
well as on the random generator), ``key ‖ commitment`` come from the kind's key, the salt and the associated data, and
the nonce is zero, since no key is used twice. The commitment is compared before anything is decrypted, so that one
sealed text opens under one key only. Implements docs/format.md, "Seal".
"""

from __future__ import annotations

import hmac

import msgpack
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from respaldo.codec.keys import KeyRing
from respaldo.core.errors import Corruption
from respaldo.core.seams import Buffer, Random

SALT_BYTES = 24
COMMITMENT_BYTES = 32
TAG_BYTES = 16
OVERHEAD_BYTES = SALT_BYTES + COMMITMENT_BYTES + TAG_BYTES
HEAD_BYTES = SALT_BYTES + COMMITMENT_BYTES
MESSAGE_BYTES_MAX = 512 << 20
"""Nothing that is sealed as one is longer; what opens it takes at most 2 GiB."""
FORMAT = 1
SUITE = "aes-256-gcm"
_NONCE = bytes(12)


def associated_data(epoch: int, repository: bytes, kind: str, name: str, length_bytes: int) -> bytes:
    """Returns the canonical associated data of a sealed text (msgpack array, shortest forms)."""
    packed: bytes = msgpack.packb([FORMAT, SUITE, epoch, repository, kind, name, length_bytes], use_bin_type=True)
    return packed


def seal_with(kind_key: bytes, hedge: bytes, aad: bytes, message: Buffer, random: Random) -> tuple[bytes, bytes]:
    """Seals a message under a kind's key; returns the head (salt and commitment) and the body (ciphertext and tag)."""
    hasher = blake3(random(32), key=hedge)
    hasher.update(aad)
    hasher.update(message)
    salt = hasher.digest(SALT_BYTES)
    derived = blake3(salt + aad, key=kind_key).digest(64)
    return salt + derived[32:], AESGCM(derived[:32]).encrypt(_NONCE, message, aad)


def open_with(kind_key: bytes, aad: bytes, sealed: Buffer, what: str) -> bytes:
    """Opens a sealed text under a kind's key.

    Raises `Corruption` naming ``what`` where the commitment or the tag does not fit.
    """
    view = memoryview(sealed)
    if len(view) < OVERHEAD_BYTES:
        raise Corruption(what, "shorter than a seal")
    if len(view) > MESSAGE_BYTES_MAX + OVERHEAD_BYTES:
        raise Corruption(what, "longer than anything that is sealed")
    derived = blake3(bytes(view[:SALT_BYTES]) + aad, key=kind_key).digest(64)
    if not hmac.compare_digest(derived[32:], bytes(view[SALT_BYTES:HEAD_BYTES])):
        raise Corruption(what, "its seal was not made for this key, place and length")
    try:
        return AESGCM(derived[:32]).decrypt(_NONCE, view[HEAD_BYTES:], aad)
    except InvalidTag:
        raise Corruption(what, "its authentication tag does not fit its bytes") from None


class Sealer:
    """Seals and opens under one key ring. Thread-safe; releases the GIL on big messages."""

    def __init__(self, ring: KeyRing, repository: bytes, random: Random) -> None:
        self._ring = ring
        self._repository = repository
        self._random = random

    def seal(self, kind: str, name: str, length_bytes: int, message: Buffer) -> tuple[bytes, bytes]:
        """Seals a message as ``kind``, to be found under ``name`` (empty where the name is a hash of the bytes).

        ``length_bytes`` is what the reader knows of the length before it opens: for a block its raw length, for an
        object the length of the message. Returns head (56 bytes) and body (message + 16 bytes).
        """
        aad = associated_data(self._ring.epoch, self._repository, kind, name, length_bytes)
        return seal_with(self._ring.seal_key(kind), self._ring.hedge, aad, message, self._random)

    def open(self, kind: str, name: str, length_bytes: int, sealed: Buffer, what: str) -> bytes:
        """Opens what `seal` made with the same arguments; raises `Corruption` naming ``what`` otherwise."""
        aad = associated_data(self._ring.epoch, self._repository, kind, name, length_bytes)
        return open_with(self._ring.seal_key(kind), aad, sealed, what)
