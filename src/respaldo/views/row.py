"""Rows: an entry without its name as one value, equal where nothing differs that is restored.

Of a directory it is not what is in it; of a hard link, that it is one. Never holds times of birth.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from respaldo.core.ids import CHUNK_ID_BYTES
from respaldo.core.model import Content, Entry, Mark
from respaldo.format.tree import META, Leaf
from respaldo.kernel import layout

_KEPT = 32
"""So many bytes of a row of metadata are kept: all but the time of birth."""
_OF_DIRECTORIES = 16
"""And so many where neither size nor time is looked at."""
_DIRECTORY = stat.S_IFDIR >> 8
"""The type of a directory, in the second byte of a row."""
_BRIEF = struct.Struct("<I12xQq")
"""Mode, size and time out of what is kept of a row of metadata."""
_GROUP = bytes(16)
_NO_BIRTH = bytes(META.size - _KEPT)


class Row(NamedTuple):
    """Is an entry without its name. ``head``: its metadata, as in a tree; ``linked``: whether it is a hard link."""

    head: bytes
    ids: bytes
    level: int = 0
    target: bytes = b""
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    user: str = ""
    group: str = ""
    mark: int = 0
    linked: bool = False

    @property
    def is_dir(self) -> bool:
        """Whether it is a directory."""
        return self.head[1] & 0xF0 == _DIRECTORY

    @property
    def brief(self) -> tuple[int, int, int]:
        """Mode, size (of a device none) and time of change."""
        mode, size, mtime_ns = _BRIEF.unpack(self.head)
        return mode, 0 if stat.S_ISBLK(mode) or stat.S_ISCHR(mode) else size, mtime_ns

    def entry(self, name: bytes) -> Entry:
        """Returns the entry again, without its time of birth; ``link_group`` says only whether it has one.

        Raises ValueError or `struct.error` where its numbers are none.
        """
        mode, uid, gid, attributes, size, mtime_ns, _ = META.unpack(self.head + _NO_BIRTH)
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
            content=Content(level=self.level, ids=self.ids),
            target=self.target,
            link_group=_GROUP if self.linked else b"",
            xattrs=self.xattrs,
            user=self.user,
            group=self.group,
            mark=Mark(self.mark),
        )


_plain_row: Callable[[tuple[object, ...]], Row] = partial(tuple.__new__, Row)
"""Makes a row without a call into Python."""


class Packer:
    """Makes rows of the entries of one leaf, and of leaves that are like it but for metadata and ids of some rows."""

    def __init__(self, leaf: Leaf) -> None:
        self._leaf = leaf
        self._targets = _targets(leaf)
        self._plain = not (leaf.levels or leaf.targets or leaf.xattrs or leaf.marks or leaf.links)
        self._owners: dict[bytes, tuple[str, str]] = {}
        self.spots = leaf.spots()
        """Where the ids of each entry begin, and where the last ones end."""

    def pack(self, row: int, meta: bytes, ids: bytes) -> Row:
        """Returns the row of an entry, out of its metadata and the ids of its content."""
        leaf = self._leaf
        owners = self._owners.get(meta[4:12])
        if owners is None:
            uid, gid = int.from_bytes(meta[4:8], "little"), int.from_bytes(meta[8:12], "little")
            owners = self._owners[meta[4:12]] = leaf.users.get(uid, ""), leaf.groups.get(gid, "")
        if meta[1] & 0xF0 == _DIRECTORY:
            ids = b""
        if self._plain:
            return _plain_row((meta[:_KEPT], ids, 0, b"", (), *owners, 0, False))
        return Row(
            meta[:_KEPT],
            ids,
            leaf.levels[row][0] if row in leaf.levels else 0,
            self._targets.get(row, b""),
            leaf.xattrs.get(row, ()),
            *owners,
            leaf.marks.get(row, 0),
            row in leaf.links,
        )

    def own(self, row: int) -> Row:
        """Returns the row of an entry of the leaf itself."""
        at = row * META.size
        return self.pack(row, self._leaf.meta[at : at + META.size], self.ids(row))

    def ids(self, row: int) -> bytes:
        """Returns the ids of an entry's content, of a directory that of its tree."""
        return self._leaf.content[self.spots[row] * CHUNK_ID_BYTES : self.spots[row + 1] * CHUNK_ID_BYTES]


def _targets(leaf: Leaf) -> dict[int, bytes]:
    if not leaf.targets:
        return {}
    links = (row for row, item in enumerate(META.iter_unpack(leaf.meta)) if stat.S_ISLNK(item[0]))
    return dict(zip(links, leaf.targets.split(b"\0"), strict=False))


def row_of(entry: Entry) -> Row:
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
    return Row(
        head[:_KEPT],
        b"" if folder else entry.content.ids,
        0 if folder else entry.content.level,
        entry.target,
        entry.xattrs,
        entry.user,
        entry.group,
        int(entry.mark),
        bool(entry.link_group),
    )


def version_of(row: Row) -> Row:
    """Returns what makes an entry another version: all of its row, but not the size and time of a directory."""
    return row._replace(head=row.head[:_OF_DIRECTORIES]) if row.is_dir else row
