"""What a session relies on: the chunks that it found in packs of others and did not store again.

Kept on disk beyond a few megabytes, because only a collector that condemns one of those packs makes anybody read it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

from respaldo.core.ids import CHUNK_ID_BYTES, ChunkId

_MEMORY_BYTES = 4 << 20
_ROW_BYTES = 4 + CHUNK_ID_BYTES


class Relied:
    """Remembers (pack number, chunk id) pairs and the set of pack numbers."""

    def __init__(self) -> None:
        self.packs: set[int] = set()
        self._file = tempfile.SpooledTemporaryFile(max_size=_MEMORY_BYTES)  # noqa: SIM115 - closed by close()

    def add(self, pack: int, chunk_id: bytes) -> None:
        """Notes that a chunk was found in a pack."""
        self.packs.add(pack)
        self._file.write(pack.to_bytes(4, "little") + chunk_id)

    def chunks_in(self, packs: set[int]) -> Iterator[ChunkId]:
        """Yields the chunks that were found in some packs, repeated where they were found repeatedly."""
        self._file.seek(0)
        while row := self._file.read(_ROW_BYTES):
            if int.from_bytes(row[:4], "little") in packs:
                yield ChunkId(row[4:])
        self._file.seek(0, 2)

    def close(self) -> None:
        """Drops everything."""
        self._file.close()
