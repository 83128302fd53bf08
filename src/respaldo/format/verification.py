"""What reading everything showed: which snapshots were whole, and the SHA-256 of files' contents.

Both can be computed again from what they are about, prove nothing, and may be missing at any time. Implements
docs/format.md, "Verified" and "Sums".
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum

from respaldo.core.errors import Corruption
from respaldo.core.ids import CHUNK_ID_BYTES, RANDOM_ID_BYTES, ChunkId, SnapshotId
from respaldo.core.model import Content
from respaldo.format import canonical

DIGEST_BYTES = 32
KEY_BYTES = CHUNK_ID_BYTES + 16
_ALONE = bytes(KEY_BYTES - CHUNK_ID_BYTES)
ROWS_MAX = 1 << 17
"""So many rows at most a record has as it is written."""


class How(StrEnum):
    """Says what read a snapshot whole."""

    VERIFY = "verify"
    EXPORT = "export"
    CHECKSUMS = "checksums"


@dataclass(frozen=True, slots=True, kw_only=True)
class WasWhole:
    """Says that all of a snapshot, whose root is this one, was read and found whole."""

    snapshot: SnapshotId
    root: ChunkId
    time_ns: int
    how: How


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """Is a record of snapshots that were found whole, ascending by snapshot."""

    rows: tuple[WasWhole, ...]

    def encode(self) -> bytes:
        """Returns the canonical bytes."""
        rows: list[canonical.Value] = [[row.snapshot, row.root, row.time_ns, row.how.value] for row in self.rows]
        return canonical.pack([1, rows])


def parse_verified(data: bytes, what: str) -> Verified:
    """Parses a record of snapshots that were found whole; raises `Corruption`."""
    match canonical.unpack(data, what):
        case [1, list(items)]:
            pass
        case _:
            raise Corruption(what, "not a record of verified snapshots of this format")
    rows: list[WasWhole] = []
    last = b""
    for item in items:
        match item:
            case [bytes(snapshot), bytes(root), int(time_ns), ("verify" | "export" | "checksums") as how] if (
                len(snapshot) == RANDOM_ID_BYTES
                and len(root) == CHUNK_ID_BYTES
                and canonical.is_time(time_ns)
                and snapshot > last
            ):
                last = snapshot
                rows.append(WasWhole(snapshot=SnapshotId(snapshot), root=ChunkId(root), time_ns=time_ns, how=How(how)))
            case _:
                raise Corruption(what, "lists a verified snapshot wrongly")
    return Verified(rows=tuple(rows))


def content_key(content: Content) -> bytes:
    """Returns what a file's content is found by: its first id, and zeros where that is all, else a hash of all."""
    return key_of(content.level, content.ids)


def key_of(level: int, ids: bytes) -> bytes:
    """Returns what `content_key` does."""
    if not level and len(ids) == CHUNK_ID_BYTES:
        return ids + _ALONE
    return ids[:CHUNK_ID_BYTES] + hashlib.sha256(bytes([level]) + ids).digest()[: KEY_BYTES - CHUNK_ID_BYTES]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """Is a record of contents' SHA-256: keys of 48 bytes ascending, digests of 32 bytes in their order, each joined."""

    keys: bytes
    digests: bytes

    def __len__(self) -> int:
        return len(self.keys) // KEY_BYTES

    def encode(self) -> bytes:
        """Returns the canonical bytes."""
        return canonical.pack([1, self.keys, self.digests])


def sums_of(rows: dict[bytes, bytes]) -> Sums:
    """Returns a record of digests by key."""
    keys = sorted(rows)
    return Sums(keys=b"".join(keys), digests=b"".join([rows[key] for key in keys]))


def parse_sums(data: bytes, what: str) -> Sums:
    """Parses a record of contents' SHA-256; raises `Corruption`."""
    match canonical.unpack(data, what):
        case [1, bytes(keys), bytes(digests)] if (
            len(keys) % KEY_BYTES == 0 and len(digests) == len(keys) // KEY_BYTES * DIGEST_BYTES
        ):
            found = Sums(keys=keys, digests=digests)
        case _:
            raise Corruption(what, "not a record of checksums of this format")
    last = b""
    for key, _ in rows_of(found):
        if key <= last:
            raise Corruption(what, "its keys are not in order")
        last = key
    return found


def rows_of(sums: Sums) -> list[tuple[bytes, bytes]]:
    """Returns the rows of a record: key and digest."""
    return [
        (
            sums.keys[row * KEY_BYTES : (row + 1) * KEY_BYTES],
            sums.digests[row * DIGEST_BYTES : (row + 1) * DIGEST_BYTES],
        )
        for row in range(len(sums))
    ]
