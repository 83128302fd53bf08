"""Catalogues: manifests of committed snapshots repeated in few objects, so that a new client need not read each.

Implements docs/format.md, "Catalogue". It proves nothing: a row counts only for a snapshot whose manifest and outcome
are both listed, and can be made again from them.
"""

from __future__ import annotations

from dataclasses import dataclass

from respaldo.core.errors import Corruption
from respaldo.core.ids import NAME_BYTES, RANDOM_ID_BYTES, CatalogueName, SnapshotId
from respaldo.format import canonical

CATALOGUE_RAW_BYTES_MAX = 64 << 20
CATALOGUE_BYTES_MAX = 80 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Is one committed snapshot: the SHA-256 of its manifest's object, and the manifest's raw bytes."""

    snapshot: SnapshotId
    pending_hash: bytes
    manifest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Roll:
    """Holds rows, ascending by snapshot, and names the catalogues that it supersedes."""

    rows: tuple[Row, ...]
    supersedes: tuple[CatalogueName, ...] = ()

    def encode(self) -> bytes:
        """Returns the canonical bytes."""
        rows: list[object] = [[row.snapshot, row.pending_hash, row.manifest] for row in self.rows]
        return canonical.pack_ordered([1, list(self.supersedes), rows])


def parse_roll(data: bytes, what: str) -> Roll:
    """Parses a catalogue; manifests stay encoded. Raises `Corruption` naming ``what``."""
    match canonical.unpack(data, what):
        case [1, list(supersedes), list(items)]:
            pass
        case _:
            raise Corruption(what, "not a catalogue of this format")
    superseded = []
    for name in supersedes:
        if not isinstance(name, bytes) or len(name) != NAME_BYTES:
            raise Corruption(what, "names a superseded catalogue wrongly")
        superseded.append(CatalogueName(name))
    rows: list[Row] = []
    last = b""
    for item in items:
        match item:
            case [bytes(snapshot), bytes(pending_hash), bytes(manifest)] if (
                len(snapshot) == RANDOM_ID_BYTES and len(pending_hash) == NAME_BYTES and snapshot > last
            ):
                rows.append(Row(snapshot=SnapshotId(snapshot), pending_hash=pending_hash, manifest=manifest))
                last = snapshot
            case _:
                raise Corruption(what, "lists a snapshot wrongly")
    return Roll(rows=tuple(rows), supersedes=tuple(superseded))
