"""Parity: sidecars made of objects, and damaged objects mended with them. No key is needed for either.

Invariant: what comes out of `mend` has the hash that the object's own name or its last bytes demand, and the one that
the sidecar says; nothing else does. A sidecar can be missing, stale or forged, and costs bounded work at most. Only
ciphertext is seen and only ciphertext is made. Implements docs/format.md, "Parity".
"""

from __future__ import annotations

import hashlib
import itertools
import zlib
from dataclasses import dataclass, field

from respaldo.backend.base import HEADER, Backend, flat
from respaldo.codec import parity as code
from respaldo.core.errors import Corruption, ObjectMissing, StorageDenied, StorageError, StorageFailed
from respaldo.core.ids import parse_hash_leaf
from respaldo.core.seams import Buffer
from respaldo.format.header import HASH_BYTES
from respaldo.format.parity import (
    COPIED_BYTES_MAX,
    SECTOR_BYTES,
    SIDECAR_BYTES_MAX,
    Shape,
    Sidecar,
    pack_sidecar,
    pack_table,
    parse_sidecar,
    shape_of,
    unpack_table,
)

FOLDER = "parity"
NAMED_BY_HASH = frozenset({"packs", "segments", "catalogue"})
COVERED = (*sorted(NAMED_BY_HASH), "pending", "outcome", "condemned", "keys", "config", "epochs")
"""What has sidecars, the header aside. Markers, ballast and what was set aside are worth none. Pins and records of the
trash say all that matters by their names, and these come again with other content, which an old sidecar would undo."""

_PIECE_BYTES = 1 << 20
_BAD_IN_A_ROW_MAX = 1 << 13


def sidecar_name(name: str) -> str | None:
    """Returns the name of an object's sidecar, None where objects of its folder have none."""
    if name == HEADER:
        return f"{FOLDER}/{HEADER}"
    folder, _, leaf = name.partition("/")
    return f"{FOLDER}/{folder}.{leaf}" if folder in COVERED and len(folder) + len(leaf) < 128 else None


def object_name(sidecar: str) -> str | None:
    """Returns the name of the object that a sidecar is of, None where the name is none of a sidecar."""
    leaf = sidecar.partition("/")[2]
    if leaf == HEADER:
        return HEADER
    folder, _, rest = leaf.partition(".")
    return f"{folder}/{rest}" if folder in COVERED and rest else None


def is_copied(name: str, length_bytes: int) -> bool:
    """Tells whether an object's sidecar is a copy."""
    return length_bytes <= COPIED_BYTES_MAX and name.partition("/")[0] not in NAMED_BY_HASH


def sidecar_bytes(name: str, length_bytes: int, share: int) -> int:
    """Returns how long the sidecar of an object is."""
    if is_copied(name, length_bytes):
        return length_bytes
    return shape_of(length_bytes, bytes(HASH_BYTES), share).sidecar_bytes


def is_sound(name: str, data: bytes) -> bool:
    """Tells whether bytes have the hash that an object's name, or its end, demands."""
    folder, _, leaf = name.partition("/")
    if folder in NAMED_BY_HASH:
        return hashlib.sha256(data).digest() == parse_hash_leaf(leaf)
    return len(data) >= HASH_BYTES and hashlib.sha256(data[:-HASH_BYTES]).digest() == data[-HASH_BYTES:]


@dataclass(slots=True)
class Shards:
    """Takes the bytes of an object as they come, in sectors with a checksum each."""

    sectors: list[bytes] = field(default_factory=list)
    sums: list[int] = field(default_factory=list)
    length_bytes: int = 0
    rest: bytearray = field(default_factory=bytearray)

    def add(self, piece: Buffer) -> None:
        """Appends bytes, and keeps a copy of them."""
        view = flat(piece)
        self.length_bytes += view.nbytes
        at = 0
        if self.rest:
            at = min(SECTOR_BYTES - len(self.rest), view.nbytes)
            self.rest += view[:at]
            if len(self.rest) < SECTOR_BYTES:
                return
            self._take(bytes(self.rest))
            self.rest.clear()
        whole = at + (view.nbytes - at) // SECTOR_BYTES * SECTOR_BYTES
        for start in range(at, whole, SECTOR_BYTES):
            self._take(bytes(view[start : start + SECTOR_BYTES]))
        self.rest += view[whole:]

    def _take(self, sector: bytes) -> None:
        self.sectors.append(sector)
        self.sums.append(zlib.crc32(sector))

    def sidecar(self, name: str, digest: bytes, share: int) -> bytes:
        """Returns the sidecar of what was added, whose SHA-256 is ``digest``; ``share`` in thousandths.

        Raises `UsageError` where a code is needed and the library is missing. Nothing can be added any more.
        """
        if is_copied(name, self.length_bytes):
            return b"".join((*self.sectors, self.rest))
        return self.coded(shape_of(self.length_bytes, digest, share))

    def coded(self, shape: Shape) -> bytes:
        """Returns a sidecar of a shape that fits what was added; else as `sidecar`."""
        if self.rest:
            self._take(bytes(self.rest.ljust(SECTOR_BYTES, b"\0")))
            self.rest.clear()
        shards, sums = self.sectors, self.sums
        if shape.shard_bytes > SECTOR_BYTES:
            several = shape.shard_bytes // SECTOR_BYTES
            joined = (b"".join(shards[at : at + several]) for at in range(0, len(shards), several))
            shards = [shard.ljust(shape.shard_bytes, b"\0") for shard in joined]
            sums = [zlib.crc32(shard) for shard in shards]
        recovery = code.encode(shards, shape.recovery)
        payloads = pack_table(shape, [*sums, *map(zlib.crc32, recovery)])
        payloads += code.encode(payloads, shape.spare)
        return pack_sidecar(shape, payloads, recovery)


def make_sidecar(name: str, data: Buffer, share: int) -> bytes:
    """Returns the sidecar of an object; errors as of `Shards.sidecar`."""
    shards = Shards()
    shards.add(data)
    return shards.sidecar(name, hashlib.sha256(data).digest(), share)


# --- back ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Read:
    """Is what storage gives of an object, with zeros for what cannot be read, whose sectors ``bad`` numbers.

    ``length_bytes`` is the object's, of which ``data`` may be the beginning.
    """

    data: bytes
    bad: frozenset[int]
    length_bytes: int


def read_around(backend: Backend, name: str, length_max: int) -> Read:
    """Reads an object around sectors that cannot be read. Raises `ObjectMissing`, and errors of storage as a whole."""
    whole = backend.exists(name)
    if whole is None:
        raise ObjectMissing(name)
    length = min(whole, length_max)
    pieces: list[bytes] = []
    bad: list[int] = []
    for at in range(0, length, _PIECE_BYTES):
        wanted = min(_PIECE_BYTES, length - at)
        try:
            pieces.append(backend.get(name, at, wanted).ljust(wanted, b"\0"))
        except (StorageFailed, StorageDenied):
            pieces.append(_sectors(backend, name, at, wanted, bad))
    return Read(b"".join(pieces), frozenset(bad), whole)


def _sectors(backend: Backend, name: str, start: int, length: int, bad: list[int]) -> bytes:
    """Reads a piece sector by sector; adds those that cannot be read to ``bad``."""
    pieces = []
    for at in range(start, start + length, SECTOR_BYTES):
        wanted = min(SECTOR_BYTES, start + length - at)
        try:
            pieces.append(backend.get(name, at, wanted).ljust(wanted, b"\0"))
        except (StorageFailed, StorageDenied):
            if len(bad) >= _BAD_IN_A_ROW_MAX:  # no disk loses so many one by one: it is the storage that has failed
                raise
            bad.append(at // SECTOR_BYTES)
            pieces.append(bytes(wanted))
    return b"".join(pieces)


def mend(backend: Backend, name: str) -> bytes | None:
    """Returns an object's bytes as they were put, mended where they are damaged; None where that cannot be had.

    A header that is missing comes back, other objects do not: they may have been deleted on purpose. Raises
    `UsageError` where a code is needed and the library is missing, and errors of the storage as a whole.
    """
    beside = sidecar_name(name)
    if beside is None:
        return None
    try:
        length = backend.exists(beside)
        if length is None or length > SIDECAR_BYTES_MAX:
            return None
        sidecar = read_around(backend, beside, SIDECAR_BYTES_MAX)
    except (Corruption, StorageError):
        return None
    parsed = parse_sidecar(sidecar.data)
    try:
        found = read_around(backend, name, parsed.shape.length_bytes if parsed else COPIED_BYTES_MAX)
    except ObjectMissing:
        if name != HEADER:
            return None
        found = Read(b"", frozenset(), 0)
    except (Corruption, StorageError):
        return None
    if not found.bad and is_sound(name, found.data):
        return found.data
    if parsed is None:
        return _from_copy(name, found, sidecar)
    return _from_code(name, found, sidecar.data, parsed)


def _from_copy(name: str, found: Read, copy: Read) -> bytes | None:
    """Puts an object together from sectors of it and of its copy: which are right, only the whole can tell."""
    for length in dict.fromkeys((len(copy.data), len(found.data))):
        if not HASH_BYTES <= length <= COPIED_BYTES_MAX:
            continue
        choices = []
        for number in range(-(-length // SECTOR_BYTES)):
            span = slice(number * SECTOR_BYTES, min((number + 1) * SECTOR_BYTES, length))
            sides = [side.data[span] for side in (copy, found) if number not in side.bad]
            choices.append(dict.fromkeys(piece for piece in sides if len(piece) == span.stop - span.start))
        for pieces in itertools.product(*choices):
            data = b"".join(pieces)
            if is_sound(name, data):
                return data
    return None


def _from_code(name: str, found: Read, sidecar: bytes, parsed: Sidecar) -> bytes | None:
    shape = parsed.shape
    sums = _sums(parsed)
    if sums is None:
        return None
    step = shape.shard_bytes
    unread = {number * SECTOR_BYTES // step for number in found.bad}
    shards: dict[int, bytes] = {}
    for number in range(shape.data):
        end = min((number + 1) * step, shape.length_bytes)
        shard = found.data[number * step : end].ljust(step, b"\0")
        if number not in unread and zlib.crc32(shard) == sums[number]:
            shards[number] = shard
    recovery: dict[int, bytes] = {}
    for number in range(shape.recovery if len(shards) < shape.data else 0):
        at = shape.offset_of(number)
        shard = sidecar[at : at + step]
        if len(shard) == step and zlib.crc32(shard) == sums[shape.data + number]:
            recovery[number] = shard
    if len(shards) + len(recovery) < shape.data:
        return None
    shards |= code.decode(shape.data, shape.recovery, shards, recovery)
    data = b"".join(shards[number] for number in range(shape.data))[: shape.length_bytes]
    return data if hashlib.sha256(data).digest() == shape.digest and is_sound(name, data) else None


def _sums(parsed: Sidecar) -> tuple[int, ...] | None:
    """Returns the checksums of all shards, None where too many units of the table are lost."""
    shape = parsed.shape
    first = {number: payload for number, payload in parsed.payloads.items() if number < shape.table}
    coded = {number - shape.table: payload for number, payload in parsed.payloads.items() if number >= shape.table}
    if len(first) + len(coded) < shape.table:
        return None
    first |= code.decode(shape.table, shape.spare, first, coded)
    return unpack_table(shape, [first[number] for number in range(shape.table)])


def damage_of(damaged: Read, sound: bytes) -> list[tuple[int, int]]:
    """Returns the ranges (from, to) of an object, in whole sectors, in which what is stored is not what was put."""
    ranges: list[tuple[int, int]] = []
    for at in range(0, len(sound), SECTOR_BYTES):
        end = min(at + SECTOR_BYTES, len(sound))
        if at // SECTOR_BYTES in damaged.bad or damaged.data[at:end] != sound[at:end]:
            if ranges and ranges[-1][1] == at:
                ranges[-1] = (ranges[-1][0], end)
            else:
                ranges.append((at, end))
    return ranges


def remake(name: str, sound: bytes, damaged: bytes) -> bytes | None:
    """Returns the sidecar of a sound object, made again as it was; None where nothing says any more how it was."""
    if is_copied(name, len(sound)):
        return sound
    parsed = parse_sidecar(damaged)
    digest = hashlib.sha256(sound).digest()
    if parsed is None or parsed.shape.length_bytes != len(sound) or parsed.shape.digest != digest:
        return None
    shards = Shards()
    shards.add(sound)
    return shards.coded(parsed.shape)
