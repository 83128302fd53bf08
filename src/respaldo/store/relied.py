"""What a session relies on: the chunks that it found in packs of others and did not store again.

Kept on disk beyond a few megabytes, because only a collector that condemns one of those packs makes anybody read it.
"""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterator

from respaldo.core.errors import StorageFailed
from respaldo.core.ids import CHUNK_ID_BYTES, ChunkId, Kind

_MEMORY_BYTES = 4 << 20
_HEAD = struct.Struct("<IB")
_ROW_BYTES = _HEAD.size + CHUNK_ID_BYTES
_ROWS_HELD = 1000


class Relied:
    """Remembers which chunks were found in which packs, and the set of pack numbers."""

    def __init__(self) -> None:
        self.packs: set[int] = set()
        self._rows: list[bytes] = []
        self._file = tempfile.SpooledTemporaryFile(max_size=_MEMORY_BYTES)  # noqa: SIM115 - closed by close()

    def add(self, pack: int, kind: Kind, chunk_id: bytes) -> None:
        """Notes that a chunk was found in a pack. Raises `StorageFailed` where the disk for temporary files fails."""
        self.packs.add(pack)
        self._rows.append(_HEAD.pack(pack, kind) + chunk_id)
        if len(self._rows) >= _ROWS_HELD:
            self._write()

    def _write(self) -> None:
        try:
            self._file.write(b"".join(self._rows))
        except OSError as error:  # as it is, it would pass for one of the source file that is being read
            raise StorageFailed("a temporary file", error.strerror or str(error)) from error
        self._rows.clear()

    def chunks_in(self, packs: set[int]) -> Iterator[tuple[Kind, ChunkId]]:
        """Yields the chunks that were found in some packs, repeated where they were found repeatedly.

        Nothing may be added until the iterator is used up.
        """
        self._write()
        self._file.seek(0)
        while row := self._file.read(_ROW_BYTES):
            pack, kind = _HEAD.unpack_from(row)
            if pack in packs:
                yield Kind(kind), ChunkId(row[_HEAD.size :])
        self._file.seek(0, 2)

    def close(self) -> None:
        """Drops everything."""
        self._file.close()
