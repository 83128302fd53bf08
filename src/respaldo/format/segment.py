"""Segments: pack footers repeated in few objects, so that a new client need not read every pack.

Implements docs/format.md, "Segment". A segment is never the only place a footer stands in: it can be made again from
packs.
"""

from __future__ import annotations

from dataclasses import dataclass

from respaldo.core.errors import Corruption
from respaldo.core.ids import NAME_BYTES, RANDOM_ID_BYTES, PackName, SegmentName
from respaldo.format import canonical
from respaldo.format.pack import PACK_BYTES_MAX

SEGMENT_RAW_BYTES_MAX = 256 << 20
SEGMENT_BYTES_MAX = 320 << 20
"""As stored: sealed and padded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """Is one pack as a segment lists it: name, size in bytes, and the encoded footer."""

    pack: PackName
    length_bytes: int
    footer: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Lists packs, and the segments whose packs it lists too (which may go once it is durable)."""

    session: bytes
    packs: tuple[Listed, ...]
    supersedes: tuple[SegmentName, ...] = ()

    def encode(self) -> bytes:
        """Returns the canonical bytes."""
        packs = [[item.pack, item.length_bytes, item.footer] for item in self.packs]
        return canonical.pack([1, self.session, list(self.supersedes), packs])


def parse_segment(data: bytes, what: str) -> Segment:
    """Parses a segment; footers stay encoded. Raises `Corruption` naming ``what``."""
    match canonical.unpack(data, what):
        case [1, bytes(session), list(supersedes), list(packs)] if len(session) == RANDOM_ID_BYTES:
            pass
        case _:
            raise Corruption(what, "not a segment of this format")
    superseded = []
    for name in supersedes:
        if not isinstance(name, bytes) or len(name) != NAME_BYTES:
            raise Corruption(what, "names a superseded segment wrongly")
        superseded.append(SegmentName(name))
    listed = tuple(parse_listed(item, what) for item in packs)
    return Segment(session=session, packs=listed, supersedes=tuple(superseded))


def parse_listed(value: object, what: str) -> Listed:
    """Parses one pack of a list; its footer stays encoded. Raises `Corruption`."""
    match value:
        case [bytes(name), int(length_bytes), bytes(footer)] if (
            len(name) == NAME_BYTES and 0 < length_bytes <= PACK_BYTES_MAX
        ):
            return Listed(pack=PackName(name), length_bytes=length_bytes, footer=footer)
    raise Corruption(what, "lists a pack wrongly")
