"""Parity: how much of it an object has, and how its sidecar is laid out: table, recovery shards, table.

The table holds a checksum for every shard, and is coded itself: any `Shape.table` of the units at both ends give it
back. Each unit repeats what the sidecar is of, and ends with a hash, so that it stands alone. Pure: knows no code, and
no storage. Every number that comes out of stored bytes is bounded here, before anybody works with it. Implements
docs/format.md, "Parity".
"""

from __future__ import annotations

import hashlib
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

SECTOR_BYTES: Final = 4096
OBJECT_BYTES_MAX: Final = 320 << 20
"""As long as any object may be (a segment)."""
COPIED_BYTES_MAX: Final = 4 * SECTOR_BYTES
"""Up to this length the sidecar of an object that ends with its hash is a copy of it: a code would take as much."""
DATA_SHARDS_MAX: Final = 1 << 15
SHARE_MAX: Final = 500
"""In thousandths: above a half, a second copy of the repository is the better idea."""
SIDECAR_BYTES_MAX: Final = OBJECT_BYTES_MAX // 2 + (2 << 20)

PAYLOAD_BYTES: Final = 3968
_MAGIC: Final = b"parity\n\x01"
_HEAD: Final = struct.Struct("<8sQ32sII8x")
_HASH_BYTES: Final = 32
_SUM_BYTES: Final = 4
_UNIT_BODY_BYTES: Final = _HEAD.size + PAYLOAD_BYTES
_SPARE_UNITS_MAX: Final = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Says what a sidecar is of and how it is coded: all else follows from the length and the number of shards."""

    length_bytes: int
    """Of the object."""
    digest: bytes
    """The SHA-256 of the object."""
    recovery: int
    """Recovery shards."""

    def __post_init__(self) -> None:
        if not 0 < self.length_bytes <= OBJECT_BYTES_MAX or len(self.digest) != _HASH_BYTES:
            msg = "no object is so long"
            raise ValueError(msg)
        if not 1 < self.recovery <= self.data // 2 + 2:
            msg = f"{self.recovery} recovery shards for {self.data}"
            raise ValueError(msg)

    @property
    def shard_bytes(self) -> int:
        """The length of a shard: a sector, or of objects above 128 MiB two or four."""
        shard = SECTOR_BYTES
        while -(-self.length_bytes // shard) > DATA_SHARDS_MAX:
            shard *= 2
        return shard

    @property
    def data(self) -> int:
        """Data shards: the object, the last one filled up with zeros."""
        return -(-self.length_bytes // self.shard_bytes)

    @property
    def table(self) -> int:
        """Units that the table needs."""
        return -(-(self.data + self.recovery) * _SUM_BYTES // PAYLOAD_BYTES)

    @property
    def spare(self) -> int:
        """Units beyond those: so many may be lost. One more than half, so that either end of the sidecar suffices."""
        return self.table + min(self.recovery - 1, _SPARE_UNITS_MAX)

    @property
    def units_before(self) -> int:
        """Units before the recovery shards; the others stand behind them."""
        return (self.table + self.spare + 1) // 2

    @property
    def sidecar_bytes(self) -> int:
        """The length of the sidecar."""
        return (self.table + self.spare) * SECTOR_BYTES + self.recovery * self.shard_bytes

    def offset_of(self, shard: int) -> int:
        """Returns where in the sidecar a recovery shard lies."""
        return self.units_before * SECTOR_BYTES + shard * self.shard_bytes


def shape_of(length_bytes: int, digest: bytes, share: int) -> Shape:
    """Returns the shape for a share in thousandths: of data shards, rounded up, and one more.

    The one more is for a range that straddles two sectors, and for damage to the sidecar of an object so small that its
    share is one.
    """
    if not 0 < share <= SHARE_MAX:
        msg = f"not a share in thousandths: {share}"
        raise ValueError(msg)
    data = Shape(length_bytes=length_bytes, digest=digest, recovery=2).data
    return Shape(length_bytes=length_bytes, digest=digest, recovery=-(-data * share // 1000) + 1)


def pack_table(shape: Shape, sums: Sequence[int]) -> list[bytes]:
    """Returns the payloads of the table: checksums (u32) of data and recovery shards, filled up with zeros."""
    table = struct.pack(f"<{len(sums)}I", *sums).ljust(shape.table * PAYLOAD_BYTES, b"\0")
    return [table[at : at + PAYLOAD_BYTES] for at in range(0, len(table), PAYLOAD_BYTES)]


def unpack_table(shape: Shape, payloads: Sequence[bytes]) -> tuple[int, ...]:
    """Returns the checksums of all shards."""
    count = shape.data + shape.recovery
    return struct.unpack_from(f"<{count}I", b"".join(payloads))


def pack_sidecar(shape: Shape, payloads: Sequence[bytes], recovery: Sequence[bytes]) -> bytes:
    """Returns a sidecar: ``payloads`` are the table's, coded ones included; it ends with a SHA-256 of all before."""
    units = []
    for number, payload in enumerate(payloads):
        body = _HEAD.pack(_MAGIC, shape.length_bytes, shape.digest, shape.recovery, number) + payload
        units.append(body + hashlib.sha256(body).digest())
    room = bytes(_HASH_BYTES)
    before = b"".join(unit + room for unit in units[: shape.units_before])
    after = room.join(units[shape.units_before :])
    body = b"".join((before, *recovery, after))
    return body + hashlib.sha256(body).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sidecar:
    """Is what can be read of a sidecar: its shape, and the payloads of units that are sound, by number."""

    shape: Shape
    payloads: dict[int, bytes]


def parse_sidecar(data: bytes) -> Sidecar | None:
    """Returns what is sound of a sidecar, None where nothing is; of units of several objects, the most frequent."""
    found: dict[bytes, dict[int, bytes]] = {}
    seen: Counter[bytes] = Counter()
    for at in range(0, len(data) - _UNIT_BODY_BYTES - _HASH_BYTES + 1, SECTOR_BYTES):
        if not data.startswith(_MAGIC, at):
            continue
        body = data[at : at + _UNIT_BODY_BYTES]
        if hashlib.sha256(body).digest() != data[at + _UNIT_BODY_BYTES : at + _UNIT_BODY_BYTES + _HASH_BYTES]:
            continue
        _, length_bytes, digest, recovery, number = _HEAD.unpack_from(body)
        key = struct.pack("<Q32sI", length_bytes, digest, recovery)
        seen[key] += 1
        found.setdefault(key, {})[number] = body[_HEAD.size :]
    for key, _ in seen.most_common():
        length_bytes, digest, recovery = struct.unpack("<Q32sI", key)
        try:
            shape = Shape(length_bytes=length_bytes, digest=digest, recovery=recovery)
        except ValueError:
            continue
        units = shape.table + shape.spare
        return Sidecar(shape=shape, payloads={n: payload for n, payload in found[key].items() if n < units})
    return None
