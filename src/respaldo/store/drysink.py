"""A sink that stores nothing: for finding out what a backup would store."""

from __future__ import annotations

from collections.abc import Sequence

from respaldo.core.ids import ChunkId, Kind
from respaldo.core.seams import Buffer
from respaldo.store.chunks import ChunkSink, Tally


class DrySink:
    """Names chunks and counts those that are not known; remembers the names of those that it saw."""

    def __init__(self, sink: ChunkSink) -> None:
        self._sink = sink
        self._seen: set[bytes] = set()
        self.tally = Tally()

    def knows(self, kind: Kind, chunk_id: ChunkId) -> bool:
        """Whether a chunk is stored."""
        return self._sink.knows(kind, chunk_id)

    def put(self, kind: Kind, raw: Buffer) -> ChunkId:
        """Counts a chunk; returns its id."""
        chunk_id = self._sink.name(kind, raw)
        if chunk_id in self._seen or self._sink.knows(kind, chunk_id):
            self.tally.chunks_known += 1
            self.tally.bytes_known += len(raw)
        else:
            self._seen.add(chunk_id)
            self.tally.chunks_new += 1
            self.tally.bytes_new += len(raw)
        return chunk_id

    def put_each(self, kind: Kind, data: memoryview, spans: Sequence[tuple[int, int]]) -> list[ChunkId]:
        """Counts the chunks that spans of a buffer are; returns their ids."""
        return [self.put(kind, data[start:end]) for start, end in spans]

    def separate(self) -> None:
        """Does nothing: there are no blocks."""
