"""`cut` in Python: where a keyed, content-defined chunker cuts. The algebra is stated at the head of `native.c`."""

from __future__ import annotations

import struct
from typing import Final

from respaldo.core.seams import Buffer
from respaldo.kernel.reference.arguments import integer, read_bytes

WINDOW: Final = 64
CANDIDATE: Final = 1 << 56
_MASK: Final = (1 << 64) - 1
_WORDS: Final = struct.Struct("<8Q")


def _rotate(x: int, by: int) -> int:
    return (x << by | x >> (64 - by)) & _MASK


def siphash_window(key: tuple[int, int], window: bytes) -> int:
    """Returns SipHash-2-4 (Aumasson and Bernstein, 2012) of exactly 64 bytes."""
    v0, v1 = key[0] ^ 0x736F6D6570736575, key[1] ^ 0x646F72616E646F6D
    v2, v3 = key[0] ^ 0x6C7967656E657261, key[1] ^ 0x7465646279746573
    for word in (*_WORDS.unpack(window), WINDOW << 56, None):
        if word is None:
            v2 ^= 0xFF
        else:
            v3 ^= word
        for _ in range(4 if word is None else 2):
            v0 = (v0 + v1) & _MASK
            v1 = _rotate(v1, 13) ^ v0
            v0 = _rotate(v0, 32)
            v2 = (v2 + v3) & _MASK
            v3 = _rotate(v3, 16) ^ v2
            v0 = (v0 + v3) & _MASK
            v3 = _rotate(v3, 21) ^ v0
            v2 = (v2 + v1) & _MASK
            v1 = _rotate(v1, 17) ^ v2
            v2 = _rotate(v2, 32)
        if word is not None:
            v0 ^= word
    return v0 ^ v1 ^ v2 ^ v3


def cut(
    data: Buffer,
    table: Buffer,
    sip_key: Buffer,
    minimum: int,
    average: int,
    maximum: int,
    strict: int,
    loose: int,
    final: bool,  # noqa: FBT001
) -> bytes:
    """Cuts a buffer into content-defined chunks and returns their lengths, u32 each; see `respaldo.kernel`."""
    content, rows, secret = read_bytes(data), read_bytes(table), read_bytes(sip_key)
    strict, loose = integer(strict, 0, 1 << 64), integer(loose, 0, 1 << 64)
    sizes = [integer(size, WINDOW, 1 << 31) for size in (minimum, average, maximum)]
    if len(rows) != 256 * 8 or len(secret) != 16:
        raise ValueError("table must be 2048 bytes and sip_key 16")
    if sorted(sizes) != sizes:
        raise ValueError("64 <= minimum <= average <= maximum < 2**31 does not hold")
    gear: tuple[int, ...] = struct.unpack("<256Q", rows)
    k0, k1 = struct.unpack("<2Q", secret)
    lengths = []
    start = 0
    while start < len(content):
        length = _cut_one(content, start, gear, (k0, k1), sizes, (strict, loose), final=bool(final))
        if length == 0:
            break
        lengths.append(length)
        start += length
    return struct.pack(f"<{len(lengths)}I", *lengths)


def _cut_one(
    content: bytes,
    start: int,
    gear: tuple[int, ...],
    key: tuple[int, int],
    sizes: list[int],
    thresholds: tuple[int, int],
    *,
    final: bool,
) -> int:
    """Returns the length of the chunk at ``start``; 0 where more bytes are needed to tell."""
    minimum, average, maximum = sizes
    strict, loose = thresholds
    left = len(content) - start
    if left <= minimum:
        return left if final else 0
    h = 0
    for byte in content[start + minimum - WINDOW : start + minimum]:
        h = (h << 1) + gear[byte] & _MASK
    for length in range(minimum, min(left, maximum)):
        end = start + length
        if h < CANDIDATE:
            threshold = strict if length < average else loose
            if siphash_window(key, content[end - WINDOW : end]) < threshold:
                return length
        h = (h << 1) + gear[content[end]] & _MASK
    if left >= maximum:
        return maximum
    return left if final else 0
