"""Forged texts that a cipher opens under two keys: neither AES-256-GCM nor ChaCha20-Poly1305 commits to its key."""

from __future__ import annotations

import random

from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_encrypt

from respaldo.core.ids import AES_256_GCM


def collide(suite, keys, aad):
    """Returns one ciphertext and tag that a suite's bare cipher opens under two keys (nonce zero)."""
    return (collide_gcm if suite == AES_256_GCM else collide_chacha)(keys, aad)


def _multiply(x, y):
    """Multiplies in GF(2^128) as GCM has it."""
    product = 0
    for bit in range(127, -1, -1):
        if (y >> bit) & 1:
            product ^= x
        x = (x >> 1) ^ (0xE1 << 120 if x & 1 else 0)
    return product


def _power(x, exponent):
    result = 1 << 127
    while exponent:
        if exponent & 1:
            result = _multiply(result, x)
        x = _multiply(x, x)
        exponent >>= 1
    return result


def _raw(key, block):
    """Encrypts one block under AES."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305 - the primitive itself
    return int.from_bytes(encryptor.update(block), "big")


def collide_gcm(keys, aad, before=b""):
    """Returns one ciphertext and tag that AES-256-GCM opens under two keys (nonce zero).

    A free block and the tag solve it, whatever whole blocks stand ``before``.
    """
    nonce = bytes(12)
    h = [_raw(key, bytes(16)) for key in keys]
    mask = [_raw(key, nonce + b"\0\0\0\1") for key in keys]
    padded = aad + bytes(-len(aad) % 16)
    padded += before
    blocks = [int.from_bytes(padded[at : at + 16], "big") for at in range(0, len(padded), 16)]
    length = (len(aad) * 8) << 64 | (len(before) + 16) * 8
    # tag = sum A_i H^(n+2-i) + C H^2 + L H + mask, for one block C of ciphertext: equal for both keys for one C.
    constant_part = []
    for key in (0, 1):
        total = mask[key] ^ _multiply(length, h[key])
        for at, block in enumerate(blocks):
            total ^= _multiply(block, _power(h[key], len(blocks) + 2 - at))
        constant_part.append(total)
    difference = _power(h[0], 2) ^ _power(h[1], 2)
    free = _multiply(constant_part[0] ^ constant_part[1], _power(difference, (1 << 128) - 2))
    tag = constant_part[0] ^ _multiply(free, _power(h[0], 2))
    return before + free.to_bytes(16, "big") + tag.to_bytes(16, "big")


P = (1 << 130) - 5
_CLAMP = 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF


def _poly1305_key(key):
    """Returns r and s of Poly1305 under XChaCha20 with a zero nonce, out of what libsodium makes of known texts.

    A message of 64 zero bytes tells the keystream from its second block on, and not the first, which is the key: that
    one comes from the subkey, as RFC 8439 has it.
    """
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

    from respaldo.codec.seal import _CONSTANTS, _SUBKEY, _WORDS

    block = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor().update(bytes(64))
    words = _WORDS.unpack(block)
    first = [(word - constant) % (1 << 32) for word, constant in zip(words, _CONSTANTS, strict=False)]
    subkey = _SUBKEY.pack(*first, *words[12:])
    pair = Cipher(algorithms.ChaCha20(subkey, bytes(16)), mode=None).encryptor().update(bytes(128))
    zeros = crypto_aead_xchacha20poly1305_ietf_encrypt(bytes(64), b"", bytes(24), key)
    if zeros[:64] != pair[64:]:
        raise AssertionError("this is not the keystream")
    return int.from_bytes(pair[:16], "little") & _CLAMP, int.from_bytes(pair[16:32], "little")


def collide_chacha(keys, aad):
    """Returns one ciphertext and tag that XChaCha20-Poly1305 opens under two keys: two blocks solve two equations.

    A solution modulo 2^130 - 5 is a pair of blocks once in sixteen times; another tag gives another one.
    """
    chance = random.Random(1)
    (r0, s0), (r1, s1) = map(_poly1305_key, keys)
    padded = aad + bytes(-len(aad) % 16)
    blocks = [int.from_bytes(padded[at : at + 16], "little") | 1 << 128 for at in range(0, len(padded), 16)]
    length = len(aad) | 32 << 64 | 1 << 128
    constant = []
    for r in (r0, r1):
        total = length * r
        for at, block in enumerate(blocks):
            total += block * pow(r, len(blocks) + 3 - at, P)
        constant.append(total % P)
    a, b, c, d = pow(r0, 3, P), pow(r0, 2, P), pow(r1, 3, P), pow(r1, 2, P)
    inverse = pow(a * d - b * c, -1, P)
    while True:
        tag = chance.getrandbits(128)
        left = ((tag - s0) % (1 << 128) - constant[0]) % P
        right = ((tag - s1) % (1 << 128) - constant[1]) % P
        first, second = (left * d - b * right) * inverse % P, (a * right - left * c) * inverse % P
        if first >> 128 == 1 == second >> 128:
            body = ((value & ((1 << 128) - 1)).to_bytes(16, "little") for value in (first, second))
            return b"".join(body) + tag.to_bytes(16, "little")
