"""What `stat` says of entries of snapshots, by entry or by row of a listing; names of one file have one inode.

Numbers snapshots, so that files of two of them are two. One thread.
"""

from __future__ import annotations

import stat

from respaldo.catalog.snapshots import Snapshot
from respaldo.core.ids import SnapshotId
from respaldo.core.model import Content, Entry
from respaldo.views.attributes import Attributes
from respaldo.views.columns import Row
from respaldo.views.links import LinkCounts

_LINKED = 1 << 63
_TYPE = 0o170000
_FILE = stat.S_IFREG
_PLAIN = frozenset({stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK})
_DEVICES = frozenset({stat.S_IFBLK, stat.S_IFCHR})


class Inodes:
    """Makes attributes of entries."""

    def __init__(self, links: LinkCounts) -> None:
        self._links = links
        self._snapshots: list[Snapshot] = []
        self._numbers: dict[SnapshotId, int] = {}

    def number(self, snapshot: Snapshot) -> int:
        """Returns the number of a snapshot."""
        number = self._numbers.get(snapshot.id)
        if number is None:
            number = self._numbers[snapshot.id] = len(self._snapshots)
            self._snapshots.append(snapshot)
        return number

    def snapshot(self, number: int) -> Snapshot:
        """Returns the snapshot of a number; raises IndexError where there is none."""
        return self._snapshots[number]

    def of_row(self, node: int, row: Row, snapshot: int) -> Attributes:
        """Returns the attributes of a row as `of_entry` returns those of its entry."""
        name, (mode, uid, gid, _, size, mtime_ns, _), level, group = row
        kind = mode & _TYPE
        if kind in _PLAIN and not group:
            return Attributes(node, mode, 1, uid, gid, size, None if level and kind == _FILE else size, mtime_ns, 0)
        entry = Entry(
            name=name,
            mode=mode,
            uid=uid,
            gid=gid,
            size=0 if kind in _DEVICES else size,
            rdev=size if kind in _DEVICES else 0,
            mtime_ns=mtime_ns,
            content=Content(level=level),
            link_group=group,
        )
        return self.of_entry(node, entry, snapshot)

    def of_entry(self, node: int, entry: Entry, snapshot: int) -> Attributes:
        """Returns the attributes of an entry of a snapshot."""
        ino, nlink = node, 1
        if entry.link_group:
            ino = _LINKED | (snapshot & 0x7FFF) << 48 | int.from_bytes(entry.link_group[:6], "little")
            nlink = self._links.names_of(self._snapshots[snapshot], entry.link_group)
        mode = entry.mode if stat.S_IFMT(entry.mode) else stat.S_IFREG | entry.mode  # what it was, is not known
        return Attributes(
            ino,
            mode,
            nlink,
            entry.uid,
            entry.gid,
            entry.size,
            None if entry.content.level and entry.is_regular else entry.size,
            entry.mtime_ns,
            entry.rdev,
        )
