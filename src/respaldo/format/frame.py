"""The inside of a sealed object: a codec, lengths, a body, and padding that nobody without the key can tell from it.

``frame = codec (1) ‖ zero (3) ‖ stored length (u32) ‖ raw length (u64) ‖ body ‖ zeros``. Blocks have no frame: their
lengths stand in the footer. Implements docs/format.md, "Frame".
"""

from __future__ import annotations

import struct
from typing import Protocol

from respaldo.core.errors import Corruption

HEAD = struct.Struct("<B3xIQ")
STORED = 0
ZSTD = 1


class Squeezer(Protocol):
    """Compresses where it helps."""

    def compress(self, raw: bytes) -> bytes | None: ...


class Expander(Protocol):
    """Decompresses within a bound."""

    def decompress(self, frame: memoryview, raw_length: int, what: str) -> bytes: ...


def squeeze(raw: bytes, squeezer: Squeezer) -> tuple[bytes, bytes]:
    """Returns the frame's head and body, without padding; the frame's length is the sum of theirs."""
    body = squeezer.compress(raw)
    if body is None:
        return HEAD.pack(STORED, len(raw), len(raw)), raw
    return HEAD.pack(ZSTD, len(body), len(raw)), body


def build(head: bytes, body: bytes, frame_length: int) -> bytes:
    """Joins head, body and zeros to a frame of a given length; raises ValueError where that is too short."""
    missing = frame_length - len(head) - len(body)
    if missing < 0:
        msg = "the frame is longer than the length it is to be padded to"
        raise ValueError(msg)
    return b"".join((head, body, bytes(missing)))


def unbuild(frame: bytes, expander: Expander, what: str, *, raw_length_max: int) -> bytes:
    """Returns the raw content of a frame; raises `Corruption` naming ``what`` for what `build` does not make."""
    if len(frame) < HEAD.size:
        raise Corruption(what, "shorter than a frame")
    codec, stored_length, raw_length = HEAD.unpack_from(frame)
    end = HEAD.size + stored_length
    if frame[1:4] != b"\0\0\0" or end > len(frame) or raw_length > raw_length_max:
        raise Corruption(what, "the lengths in its frame are impossible")
    if frame.count(0, end) != len(frame) - end:
        raise Corruption(what, "its padding is not zero")
    body = memoryview(frame)[HEAD.size : end]
    if codec == ZSTD and stored_length < raw_length:
        return expander.decompress(body, raw_length, what)
    if codec != STORED or stored_length != raw_length:
        raise Corruption(what, "its frame names an unknown codec, or lengths that it cannot have")
    return bytes(body)
