"""Rows: an entry without its name in one string of bytes, equal where nothing differs that is restored.

Of a directory it is not what is in it; of a hard link, that it is one. Never holds times of birth.
"""

from __future__ import annotations

import stat

import msgpack

from respaldo.core.ids import CHUNK_ID_BYTES
from respaldo.core.model import Content, Entry, Mark
from respaldo.format.tree import META, Leaf
from respaldo.kernel import layout

_KEPT = 32
"""So many bytes of a row of metadata come first: all but the time of birth."""
_OF_DIRECTORIES = 16
"""And so many where neither size nor time is looked at."""
_GROUP = bytes(16)


class Packer:
    """Makes rows of the entries of one leaf, and of leaves that are like it but for metadata and ids of some rows."""

    def __init__(self, leaf: Leaf) -> None:
        self._leaf = leaf
        self._spots = leaf.spots()
        self._targets = _targets(leaf)
        self._plain = not (leaf.levels or leaf.targets or leaf.xattrs or leaf.marks or leaf.links)
        self._owners: dict[bytes, tuple[str, str]] = {}

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
        return self._leaf.content[self._spots[row] * CHUNK_ID_BYTES : self._spots[row + 1] * CHUNK_ID_BYTES]

    def cells(self, row: int) -> range:
        """Returns which of the ids of the leaf's content are an entry's."""
        return range(self._spots[row], self._spots[row + 1])


def _targets(leaf: Leaf) -> dict[int, bytes]:
    if not leaf.targets:
        return {}
    links = (row for row, item in enumerate(META.iter_unpack(leaf.meta)) if stat.S_ISLNK(item[0]))
    return dict(zip(links, leaf.targets.split(b"\0"), strict=False))


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
