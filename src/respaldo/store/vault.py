"""The vault: whole objects between their stored and their plain form, for every kind but packs.

Records (manifest, outcome, condemnation, marker, config) are sealed under their name and end with a SHA-256; segments
and catalogues are named by theirs. Never touches storage. Implements docs/format.md, "Records", "Segment" and
"Catalogue".
"""

from __future__ import annotations

import hashlib

from respaldo.codec.compress import Compressor, Decompressor
from respaldo.codec.keys import KeyRing, Rings, RunRing
from respaldo.codec.padding import SMALL_STEP_BYTES, STEP_BYTES, padded
from respaldo.codec.seal import OVERHEAD_BYTES, Sealer
from respaldo.core.errors import Corruption
from respaldo.core.ids import CatalogueName, SegmentName
from respaldo.core.seams import Random
from respaldo.format import frame
from respaldo.format.catalogue import CATALOGUE_RAW_BYTES_MAX
from respaldo.format.header import HASH_BYTES, Header, close_object, unclose_object
from respaldo.format.segment import SEGMENT_RAW_BYTES_MAX
from respaldo.format.snapshot import RECORD_RAW_BYTES_MAX


def make_vault(rings: KeyRing | Rings, header: Header, level: int, random: Random) -> Vault:
    """Returns what seals and opens the objects of a repository."""
    return Vault(Sealer(rings, header.repository, random, header.suite), Compressor(level))


class Vault:
    """Seals and opens objects. Thread-safe."""

    def __init__(self, sealer: Sealer, compressor: Compressor) -> None:
        self.sealer = sealer
        self.compressor = compressor
        self.decompressor = Decompressor()

    def seal_record(self, kind: str, name: str, raw: bytes) -> bytes:
        """Returns a record's stored bytes, padded to a multiple of 4 KiB up to 1 MiB, closing hash included."""
        head, body = frame.squeeze(raw, self.compressor)
        around = OVERHEAD_BYTES + HASH_BYTES
        length = padded(around + len(head) + len(body), SMALL_STEP_BYTES) - around
        sealed = self.sealer.seal(kind, name, length, frame.build(head, body, length))
        return close_object(b"".join(sealed))

    def open_record(self, kind: str, name: str, data: bytes) -> bytes:
        """Returns a record's plaintext; raises `Corruption` unless it was sealed as this kind under this name."""
        sealed = unclose_object(data, name)
        length = len(sealed) - OVERHEAD_BYTES
        if length < 0:
            raise Corruption(name, "shorter than a seal")
        opened = self.sealer.open(kind, name, length, sealed, name)
        return frame.unbuild(opened, self.decompressor, name, raw_length_max=RECORD_RAW_BYTES_MAX)

    def is_of_client(self, kind: str, name: str, data: bytes) -> bool:
        """Whether a record was sealed under the keys of a client's run, who may not say everything."""
        return self._is_of_client(kind, name, unclose_object(data, name))

    def _is_of_client(self, kind: str, name: str, sealed: bytes) -> bool:
        ring = self.sealer.ring_of(kind, name, len(sealed) - OVERHEAD_BYTES, sealed)
        return isinstance(ring, RunRing) and not ring.by_owner

    def seal_segment(self, raw: bytes, *, longer_than: int = 0) -> tuple[SegmentName, bytes]:
        """Returns a segment's name and stored bytes, padded to more than a number of bytes."""
        name, sealed = self._seal_named("segment", raw, longer_than)
        return SegmentName(name), sealed

    def open_segment(self, data: bytes, what: str) -> bytes:
        """Returns a segment's plaintext; raises `Corruption`."""
        return self._open_named("segment", data, what, SEGMENT_RAW_BYTES_MAX)

    def is_segment_of_client(self, data: bytes) -> bool:
        """Whether a segment was sealed under the keys of a client's run."""
        return self._is_of_client("segment", "", data)

    def seal_catalogue(self, raw: bytes, *, longer_than: int = 0) -> tuple[CatalogueName, bytes]:
        """Returns a catalogue's name and stored bytes, padded to more than a number of bytes."""
        name, sealed = self._seal_named("catalogue", raw, longer_than)
        return CatalogueName(name), sealed

    def open_catalogue(self, data: bytes, what: str) -> bytes:
        """Returns a catalogue's plaintext; raises `Corruption`."""
        return self._open_named("catalogue", data, what, CATALOGUE_RAW_BYTES_MAX)

    def _seal_named(self, kind: str, raw: bytes, longer_than: int) -> tuple[bytes, bytes]:
        """Seals an object that is named by the SHA-256 of its bytes."""
        head, body = frame.squeeze(raw, self.compressor)
        length = max(OVERHEAD_BYTES + len(head) + len(body), longer_than + 1)
        length = padded(length, STEP_BYTES) - OVERHEAD_BYTES
        sealed = b"".join(self.sealer.seal(kind, "", length, frame.build(head, body, length)))
        return hashlib.sha256(sealed).digest(), sealed

    def _open_named(self, kind: str, data: bytes, what: str, raw_length_max: int) -> bytes:
        length = len(data) - OVERHEAD_BYTES
        if length < 0:
            raise Corruption(what, "shorter than a seal")
        opened = self.sealer.open(kind, "", length, data, what)
        return frame.unbuild(opened, self.decompressor, what, raw_length_max=raw_length_max)
