"""What a client keeps of a snapshot that was decided: its verdict, and of a committed one the manifest.

Both are immutable, so they are read once. Times stand in front, so that tens of thousands are put in order without
parsing a manifest. Invariant: what the cache does not hold as it was put counts as not cached.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import NamedTuple

from respaldo.core.ids import NAME_BYTES, SnapshotId
from respaldo.format.snapshot import parse_manifest
from respaldo.store.index import Index
from respaldo.store.ordinals import ROWS_PER_TRANSACTION

_HEAD = struct.Struct("<IBqq32s")
_SUM_BYTES = 4
_COMMITTED = 1
_ROLLED = 2
_FOLDER = "pending/"


class Decided(NamedTuple):
    """Is the end of a snapshot. ``rolled``: a catalogue is known to repeat it. All else is of a committed one only."""

    committed: bool
    rolled: bool = False
    time_ns: int = 0
    started_ns: int = 0
    pending_hash: bytes = bytes(NAME_BYTES)
    manifest: bytes = b""

    def encode(self) -> bytes:
        """Returns the form that is cached."""
        flags = self.committed * _COMMITTED | self.rolled * _ROLLED
        data = _HEAD.pack(0, flags, self.time_ns, self.started_ns, self.pending_hash) + self.manifest
        return struct.pack("<I", zlib.crc32(data[_SUM_BYTES:])) + data[_SUM_BYTES:]


def commit_of(manifest: bytes, pending_hash: bytes, what: str, *, rolled: bool = False) -> Decided:
    """Returns what to keep of a committed snapshot; raises `Corruption` unless the manifest is one."""
    parsed = parse_manifest(manifest, what)
    return Decided(True, rolled, parsed.time_ns, parsed.started_ns, pending_hash, manifest)  # noqa: FBT003 - as above


def decode(record: memoryview) -> Decided | None:
    """Returns what was cached, None where it is not what was put."""
    if len(record) < _HEAD.size:
        return None
    data = bytes(record)
    checksum, flags, time_ns, started_ns, pending_hash = _HEAD.unpack_from(data)
    if checksum != zlib.crc32(data[_SUM_BYTES:]):
        return None
    return Decided._make(
        (flags & _COMMITTED != 0, flags & _ROLLED != 0, time_ns, started_ns, pending_hash, data[_HEAD.size :])
    )


def cached(index: Index) -> Iterator[tuple[SnapshotId, Decided]]:
    """Yields what the cache holds; valid until something is written to the index."""
    for name, record in index.records(_FOLDER):
        decided = decode(record)
        if decided is not None:  # names are none but this module's own
            yield SnapshotId(bytes.fromhex(name[len(_FOLDER) :])), decided


def keep(index: Index, entries: Mapping[SnapshotId, Decided]) -> None:
    """Puts entries into the cache; in bounded transactions, because what they write is held in memory."""
    items = iter(entries.items())
    while part := list(islice(items, ROWS_PER_TRANSACTION)):
        index.put_records({_FOLDER + snapshot.hex(): decided.encode() for snapshot, decided in part})
