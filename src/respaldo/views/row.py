"""Rows: an entry without its name in one string of bytes, equal where nothing differs that is restored.

Of a directory it is not what is in it; of a hard link, that it is one. Never holds times of birth.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from typing import TypeVar

import msgpack

from respaldo.core.ids import CHUNK_ID_BYTES
from respaldo.core.model import Content, Entry, Mark
from respaldo.format.columns import u32_array
from respaldo.format.leafcheck import default_count
from respaldo.format.tree import META, Leaf
from respaldo.kernel import differing, layout

T = TypeVar("T")
_KEPT = 32
"""So many bytes of a row of metadata come first: all but the time of birth."""
_OF_DIRECTORIES = 16
"""And so many where neither size nor time is looked at."""
_GROUP = bytes(16)


class Packer:
    """Makes rows of the entries of one leaf, and of leaves that are like it but for metadata and ids of some rows."""

    def __init__(self, leaf: Leaf) -> None:
        self._leaf = leaf
        self._spots = _spots(leaf)
        self._targets = _targets(leaf)
        self._plain = not (leaf.levels or leaf.targets or leaf.xattrs or leaf.marks or leaf.links)
        self._owners: dict[bytes, tuple[str, str]] = {}
        self._row_of: list[int] = []

    def pack(self, row: int, meta: bytes, ids: bytes) -> bytes:
        """Returns the row of an entry, out of its metadata and the ids of its content."""
        leaf = self._leaf
        owners = self._owners.get(meta[4:12])
        if owners is None:
            uid, gid = int.from_bytes(meta[4:8], "little"), int.from_bytes(meta[8:12], "little")
            owners = self._owners[meta[4:12]] = leaf.users.get(uid, ""), leaf.groups.get(gid, "")
        if stat.S_ISDIR(meta[0] | meta[1] << 8):
            ids = b""
        if self._plain:
            more: list[object] = [0, ids, b"", (), *owners, 0, 0]
        else:
            more = [
                leaf.levels[row][0] if row in leaf.levels else 0,
                ids,
                self._targets.get(row, b""),
                leaf.xattrs.get(row, ()),
                *owners,
                leaf.marks.get(row, 0),
                int(row in leaf.links),
            ]
        packed: bytes = msgpack.packb(more, unicode_errors="surrogateescape")
        return meta[:_KEPT] + packed

    def own(self, row: int) -> bytes:
        """Returns the row of an entry of the leaf itself."""
        at = row * META.size
        return self.pack(row, self._leaf.meta[at : at + META.size], self.ids(row))

    def ids(self, row: int) -> bytes:
        """Returns the ids of an entry's content, of a directory that of its tree."""
        return self._leaf.content[self._spots[row] : self._spots[row + 1]]

    def cells(self, row: int) -> range:
        """Returns which of the ids of the leaf's content are an entry's."""
        return range(self._spots[row] // CHUNK_ID_BYTES, self._spots[row + 1] // CHUNK_ID_BYTES)

    def row_of(self, cell: int) -> int:
        """Returns whose an id of the leaf's content is."""
        if not self._row_of:
            self._row_of = [row for row in range(len(self._spots) - 1) for _ in self.cells(row)]
        return self._row_of[cell]


def _spots(leaf: Leaf) -> list[int]:
    """Returns where in the content each entry's ids begin, and where the last ones end."""
    spots = [0]
    at = 0
    for row, (mode, _, _, _, size, _, _) in enumerate(META.iter_unpack(leaf.meta)):
        level = leaf.levels.get(row)
        at += CHUNK_ID_BYTES * (level[1] if level else default_count(mode, size, leaf.marks.get(row, 0)))
        spots.append(at)
    return spots


def _targets(leaf: Leaf) -> dict[int, bytes]:
    if not leaf.targets:
        return {}
    links = (row for row, item in enumerate(META.iter_unpack(leaf.meta)) if stat.S_ISLNK(item[0]))
    return dict(zip(links, leaf.targets.split(b"\0"), strict=False))


def parted(one: Leaf, other: Leaf) -> tuple[Leaf, Leaf]:
    """Returns what two validated leaves do not have in common, or both as they are where that is not seen at once.

    Two versions of a directory mostly differ in a few rows, and making an entry of one takes longer than comparing it.
    """
    alike = ("names", "targets", "levels", "links", "xattrs", "marks", "users", "groups")
    if any(getattr(one, name) != getattr(other, name) for name in alike) or len(one.content) != len(other.content):
        return one, other
    packer = Packer(one)
    spots = _spots(one)
    if spots != _spots(other):
        return one, other
    rows = set(u32_array(differing(one.meta, other.meta, META.size)))
    rows.update(map(packer.row_of, u32_array(differing(one.content, other.content, CHUNK_ID_BYTES))))
    kept = sorted(rows)
    if any(stat.S_ISLNK(one.meta[row * META.size] | one.meta[row * META.size + 1] << 8) for row in kept):
        return one, other
    return _part(one, kept, spots), _part(other, kept, spots)


def _part(leaf: Leaf, rows: list[int], spots: list[int]) -> Leaf:
    names = leaf.names.split(b"\0")
    places = {row: place for place, row in enumerate(rows)}

    def of(mapping: Mapping[int, T]) -> dict[int, T]:
        return {places[row]: value for row, value in mapping.items() if row in places}

    return Leaf(
        names=b"".join([names[row] + b"\0" for row in rows]),
        meta=b"".join([leaf.meta[row * META.size : (row + 1) * META.size] for row in rows]),
        content=b"".join([leaf.content[spots[row] : spots[row + 1]] for row in rows]),
        levels=of(leaf.levels),
        links=of(leaf.links),
        xattrs=of(leaf.xattrs),
        marks=of(leaf.marks),
        users=leaf.users,
        groups=leaf.groups,
    )


def pack_entry(entry: Entry) -> bytes:
    """Returns the row of one entry."""
    folder = entry.is_dir
    head = layout.META.pack(
        entry.mode,
        entry.uid,
        entry.gid,
        entry.attributes,
        entry.rdev or entry.size,
        entry.mtime_ns,
        0,
    )
    more: list[object] = [
        0 if folder else entry.content.level,
        b"" if folder else entry.content.ids,
        entry.target,
        entry.xattrs,
        entry.user,
        entry.group,
        int(entry.mark),
        int(bool(entry.link_group)),
    ]
    packed: bytes = msgpack.packb(more, unicode_errors="surrogateescape")
    return head[:_KEPT] + packed


def version_of(packed: bytes) -> bytes:
    """Returns what makes an entry another version: all of its row, but not a directory's time, which follows."""
    if stat.S_ISDIR(packed[0] | packed[1] << 8):
        return packed[:_OF_DIRECTORIES] + packed[_KEPT:]
    return packed


def unpack(packed: bytes, name: bytes) -> Entry:
    """Returns an entry again, without its time of birth; ``link_group`` says only whether it has one.

    Raises ValueError, TypeError or `struct.error` for bytes that are no row.
    """
    mode, uid, gid, attributes, size, mtime_ns, _ = META.unpack(packed[:_KEPT] + bytes(META.size - _KEPT))
    match msgpack.unpackb(packed[_KEPT:], unicode_errors="surrogateescape"):
        case [int(level), bytes(ids), bytes(target), list(xattrs), str(user), str(group), int(mark), int(linked)]:
            pass
        case _:
            msg = "not a row"
            raise ValueError(msg)
    device = stat.S_ISBLK(mode) or stat.S_ISCHR(mode)
    return Entry(
        name=name,
        mode=mode,
        uid=uid,
        gid=gid,
        attributes=attributes,
        size=0 if device else size,
        rdev=size if device else 0,
        mtime_ns=mtime_ns,
        content=Content(level=level, ids=ids),
        target=target,
        link_group=_GROUP if linked else b"",
        xattrs=tuple((key, value) for key, value in xattrs),
        user=user,
        group=group,
        mark=Mark(mark),
    )
