"""Ids and names: types of their own, so that one kind of id is never taken for another.

`ChunkId` is 32 raw bytes and names a chunk by its plaintext; `PackName`, `SegmentName` and `CatalogueName` are 32 raw
bytes, the SHA-256 of the object; `SnapshotId` and `SessionId` are 16 random bytes. Hex appears only at the edges
(object names, output). See docs/format.md, "Names".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import IntEnum
from typing import Final, NewType

ChunkId = NewType("ChunkId", bytes)
PackName = NewType("PackName", bytes)
SegmentName = NewType("SegmentName", bytes)
CatalogueName = NewType("CatalogueName", bytes)
SnapshotId = NewType("SnapshotId", bytes)
SessionId = NewType("SessionId", bytes)

AES_256_GCM: Final = "aes-256-gcm"
XCHACHA20_POLY1305: Final = "xchacha20-poly1305"
SUITES: Final = (AES_256_GCM, XCHACHA20_POLY1305)
"""The ciphers that a repository may be sealed with, the default first; it is chosen once, in the header."""

CHUNK_ID_BYTES = 32
NAME_BYTES = 32
RANDOM_ID_BYTES = 16

_HEX32 = re.compile(r"[0-9a-f]{64}")
_HEX16 = re.compile(r"[0-9a-f]{32}")


class Kind(IntEnum):
    """Says what a chunk, and the block it lies in, holds. The numbers are part of the format."""

    DATA = 1
    TREE = 2
    LIST = 3

    @property
    def word(self) -> str:
        """The lower-case word that enters keys and associated data."""
        return self.name.lower()


def pack_object(name: PackName) -> str:
    """Returns the object name of a pack."""
    return "packs/" + name.hex()


def segment_object(name: SegmentName) -> str:
    """Returns the object name of a segment."""
    return "segments/" + name.hex()


def catalogue_object(name: CatalogueName) -> str:
    """Returns the object name of a catalogue."""
    return "catalogue/" + name.hex()


def parse_hash_leaf(leaf: str) -> bytes | None:
    """Returns the 32 bytes that a leaf of a folder named by hashes stands for, None where it is no such name."""
    return bytes.fromhex(leaf) if _HEX32.fullmatch(leaf) else None


def parse_random_leaf(leaf: str) -> bytes | None:
    """Returns the 16 bytes that a leaf of ``pending/`` or ``outcome/`` stands for, None where it is no such name."""
    return bytes.fromhex(leaf) if _HEX16.fullmatch(leaf) else None


def parse_leaves(names: Sequence[str], id_bytes: int) -> Sequence[bytes | None]:
    """Returns the bytes that the leaf of each object name of one folder stands for, None where it is no such name.

    As `parse_hash_leaf` (32 bytes) and `parse_random_leaf` (16 bytes), but in bulk where all names are such.
    """
    if not names:
        return ()
    folder = names[0].partition("/")[0] + "/"
    start, length = len(folder), 2 * id_bytes
    joined = "\n".join(names)
    leaves = joined.replace(folder, "")
    lines, rest = "\n" * (len(names) - 1), len(names) * (length + 1) - 1
    if (
        len(joined) == rest + len(names) * start
        and joined[start - 1 :: start + length + 1] == "/" * len(names)
        and len(leaves) == rest
        and leaves[length :: length + 1] == lines
        and leaves.isascii()
        and leaves.encode().translate(None, b"0123456789abcdef") == lines.encode()
    ):
        ids = bytes.fromhex(leaves)
        return [ids[at : at + id_bytes] for at in range(0, len(ids), id_bytes)]
    parse = {NAME_BYTES: parse_hash_leaf, RANDOM_ID_BYTES: parse_random_leaf}[id_bytes]
    return [parse(name.partition("/")[2]) for name in names]
