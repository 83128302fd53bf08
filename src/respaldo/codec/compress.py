"""Compression of blocks and objects: zstd frames, opened within bounds that are known before.

Invariant: nothing is decompressed whose declared size differs from the authenticated one, so that no frame, however it
was made, costs more memory than its raw length. Implements docs/format.md, "Compression".
"""

from __future__ import annotations

import threading

import zstandard

from respaldo.core.errors import Corruption
from respaldo.core.seams import Buffer

LEVEL = 3
RAW_BYTES_MAX = 256 << 20
"""No block or object is longer than this once it is decompressed."""

_WINDOW_BYTES_MAX = 128 << 20
_MAGIC = b"\x28\xb5\x2f\xfd"


class Compressor:
    """Compresses to one zstd frame with its content size and nothing else. One context per thread."""

    def __init__(self, level: int = LEVEL) -> None:
        self._level = level
        self._local = threading.local()

    def compress(self, raw: Buffer) -> bytes | None:
        """Returns the frame where it is shorter than the raw bytes, None where it is not."""
        context: zstandard.ZstdCompressor | None = getattr(self._local, "context", None)
        if context is None:
            context = zstandard.ZstdCompressor(
                level=self._level, write_content_size=True, write_checksum=False, write_dict_id=False
            )
            self._local.context = context
        frame = context.compress(raw)
        return frame if len(frame) < len(raw) else None


class Decompressor:
    """Opens single zstd frames of a size known before. One context per thread."""

    def __init__(self) -> None:
        self._local = threading.local()

    def decompress(self, frame: Buffer, raw_length: int, what: str) -> bytes:
        """Returns the raw bytes; raises `Corruption` naming ``what`` unless there is one frame of exactly that size."""
        if raw_length > RAW_BYTES_MAX:
            raise Corruption(what, f"declares {raw_length} bytes, more than any object has")
        # The library takes a skippable frame for an empty one, and looks at nothing behind one that says it is empty.
        if raw_length < 1 or bytes(memoryview(frame)[: len(_MAGIC)]) != _MAGIC:
            raise Corruption(what, "not a compressed frame")
        try:
            declared = zstandard.get_frame_parameters(frame)
            if declared.content_size != raw_length or declared.dict_id or declared.window_size > _WINDOW_BYTES_MAX:
                raise Corruption(what, "its compressed frame is not what its seal declares")
            context: zstandard.ZstdDecompressor | None = getattr(self._local, "context", None)
            if context is None:
                context = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES_MAX)
                self._local.context = context
            raw = context.decompress(frame, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise Corruption(what, f"its compressed frame does not open ({error})") from None
        if len(raw) != raw_length:
            raise Corruption(what, "its compressed frame has another length than its seal declares")
        return raw
