"""Archives as a stream of bytes: gzip, bzip2, xz, zstd, or none of them, told by how they begin.

Nothing is unpacked to disk, and memory is bounded whatever the archive says. Several streams one after another are one.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from typing import Protocol

import zstandard

_READ_BYTES = 1 << 18
_PEEK_BYTES = 8
_XZ_MEMORY_BYTES = 128 << 20
_ZSTD_WINDOW_BYTES = 128 << 20
DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError, ValueError)
"""What reading a damaged archive raises."""


class Stream(Protocol):
    """Gives bytes until it gives none."""

    def read(self, length_bytes: int, /) -> bytes: ...


class _Raw(io.RawIOBase):
    """Is a stream as Python's decompressors want it, with its beginning put back; counts what was read."""

    def __init__(self, head: bytes, stream: Stream) -> None:
        self._head = head
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        data = self._head or self._stream.read(min(len(buffer), _READ_BYTES))
        data, self._head = data[: len(buffer)], data[len(buffer) :]
        buffer[: len(data)] = data
        return len(data)


class _Xz:
    """Decompresses xz with bounded memory."""

    def __init__(self, source: Stream) -> None:
        self._source = source
        self._now: lzma.LZMADecompressor | None = None

    def read(self, length_bytes: int, /) -> bytes:
        while True:
            if self._now is None or self._now.eof:
                rest = self._now.unused_data.lstrip(b"\0") if self._now is not None else b""
                rest = rest or self._source.read(_READ_BYTES).lstrip(b"\0" if self._now is not None else b"")
                if not rest:
                    return b""
                self._now = lzma.LZMADecompressor(memlimit=_XZ_MEMORY_BYTES)
                data = self._now.decompress(rest, length_bytes)
            else:
                fresh = self._source.read(_READ_BYTES) if self._now.needs_input else b""
                if self._now.needs_input and not fresh:
                    raise EOFError("the compressed data ends too early")
                data = self._now.decompress(fresh, length_bytes)
            if data:
                return data


def unpacked(stream: Stream) -> Stream:
    """Returns what an archive unpacks to; reading it raises one of `DAMAGED` where it is not what it must be."""
    head = b""
    while len(head) < _PEEK_BYTES and (more := stream.read(_PEEK_BYTES - len(head))):
        head += more
    raw = io.BufferedReader(_Raw(head, stream), _READ_BYTES)
    if head.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=raw)
    if head.startswith(b"BZh"):
        return bz2.BZ2File(raw)
    if head.startswith((b"\xfd7zXZ\0", b"\x5d\0\0")):
        return _Xz(raw)
    if head.startswith(b"\x28\xb5\x2f\xfd") or (head[1:4] == b"\x2a\x4d\x18" and head[:1] and head[0] >> 4 == 5):
        return zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES).stream_reader(
            raw, read_size=_READ_BYTES, read_across_frames=True
        )
    return raw
