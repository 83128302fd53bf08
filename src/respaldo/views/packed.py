"""Packing of streams: gzip and zstd, so that the same bytes in make the same bytes out."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Protocol

import zstandard

from respaldo.core.seams import Buffer

ZSTD_LEVEL = 3
GZIP_LEVEL = 6


class _Compressor(Protocol):
    def compress(self, data: Buffer, /) -> bytes: ...

    def flush(self) -> bytes: ...


class Packed:
    """Passes on what it is given, compressed."""

    def __init__(self, write: Callable[[Buffer], object], compressor: _Compressor) -> None:
        self._out = write
        self._compressor = compressor

    def __call__(self, data: Buffer) -> None:
        packed = self._compressor.compress(data)
        if packed:
            self._out(packed)

    def finish(self) -> None:
        """Passes on what is left."""
        self._out(self._compressor.flush())


def gzip(write: Callable[[Buffer], object]) -> Packed:
    """Returns a gzip stream: no name, no time."""
    return Packed(write, zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS))


def zstd(write: Callable[[Buffer], object]) -> Packed:
    """Returns a zstd stream of one frame with a checksum; a thread of its own compresses."""
    packer = zstandard.ZstdCompressor(level=ZSTD_LEVEL, threads=1, write_checksum=True)
    return Packed(write, packer.compressobj())
