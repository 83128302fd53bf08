"""Frames: one directory on the way from a scan to a tree, in columns.

A frame holds what the scan gave, what was found out about each row, and in the end makes the leaf. Touches no file.
"""

from __future__ import annotations

import stat
from copy import copy
from dataclasses import dataclass, field

from respaldo.core.ids import ChunkId
from respaldo.core.model import Mark
from respaldo.flows.backup.memo import Totals
from respaldo.format.tree import META, Leaf
from respaldo.fs.meta import Names
from respaldo.kernel.layout import IDENT

META_BYTES = META.size
IDENT_BYTES = IDENT.size
_NLINK_OFFSET = 16
_POISON = b"\xff\xff\xff\xff"
Level = tuple[int, int]


@dataclass(slots=True)
class Node:
    """Is a place in the recorded hierarchy that sources hang from.

    ``actual`` is the path that is read, empty where the directory exists in the record only. A node without children is
    a source.
    """

    recorded: bytes
    actual: bytes
    children: dict[bytes, Node] = field(default_factory=dict)
    source: bool = False


@dataclass(slots=True, kw_only=True)
class Same:
    """Is what is remembered of a directory that looks as it did."""

    tree: ChunkId
    children: bytes
    totals: Totals


@dataclass(slots=True, kw_only=True)
class Frame:
    """Is one directory. Row numbers are those of the scan, before rules. ``row`` is its own in its parent."""

    path: bytes
    relative: bytes
    fd: int
    row: int
    device: int
    inode: int = 0
    only: Node | None = None
    key: bytes = b""
    parent_tree: ChunkId | None = None
    network: bool = False
    names: bytes = b""
    meta: bytes = b""
    ident: bytes = b""
    name_list: list[bytes] = field(default_factory=list)
    contents: dict[int, bytes] = field(default_factory=dict)
    levels: dict[int, Level] = field(default_factory=dict)
    targets: dict[int, bytes] = field(default_factory=dict)
    links: dict[int, bytes] = field(default_factory=dict)
    xattrs: dict[int, tuple[tuple[bytes, bytes], ...]] = field(default_factory=dict)
    marks: dict[int, int] = field(default_factory=dict)
    patches: dict[int, bytes] = field(default_factory=dict)
    poisoned: set[int] = field(default_factory=set)
    dropped: set[int] = field(default_factory=set)
    subdirs: list[int] = field(default_factory=list)
    settled: set[int] = field(default_factory=set)
    """Subdirectories whose own attributes are known from last time."""
    next: int = 0
    children: list[bytes] = field(default_factory=list)
    same: Same | None = None
    mark: int = Mark.NONE
    mark_before: int = -1
    """The mark it was remembered with, -1 where nothing is remembered."""

    def child_name(self, row: int) -> bytes:
        """Returns the name in a row."""
        if not self.name_list:
            self.name_list = self.names.split(b"\0")[:-1]
        return self.name_list[row]

    def where(self, name: bytes) -> tuple[bytes, int | None]:
        """Returns what opens an entry: a name below the descriptor, or the path of a source recorded elsewhere."""
        if self.fd < 0 and self.only is not None:
            return self.only.children[name].actual, None
        return name, self.fd

    def child_path(self, name: bytes) -> bytes:
        """Returns the recorded path of an entry."""
        return self.path + name if self.path == b"/" else self.path + b"/" + name

    def set_content(self, row: int, ids: bytes, level: int = 0) -> None:
        """Notes what an entry's content refers to; one id at level 0 is the default and costs nothing."""
        self.contents[row] = ids
        if level or len(ids) != _ID_BYTES:
            self.levels[row] = (level, len(ids) // _ID_BYTES)

    def meta_row(self, row: int) -> bytes:
        """Returns the row of metadata, as patched."""
        return self.patches.get(row) or self.meta[row * META_BYTES : (row + 1) * META_BYTES]

    def patch_attributes(self, row: int, attributes: int) -> None:
        """Puts inode flags into a row."""
        mode, uid, gid, _, size, mtime_ns, btime_ns = META.unpack(self.meta_row(row))
        self.patches[row] = META.pack(mode, uid, gid, attributes, size, mtime_ns, btime_ns)

    def ident_to_remember(self) -> bytes:
        """Returns the identity column in which rows that must be looked at again next time equal nothing."""
        if not self.poisoned:
            return self.ident
        ident = bytearray(self.ident)
        for row in self.poisoned:
            at = row * IDENT_BYTES + _NLINK_OFFSET
            ident[at : at + 4] = _POISON
        return bytes(ident)

    def settled_part(self) -> Frame:
        """Returns a frame of the rows that are files whose content is known so far."""
        part = copy(self)
        part.dropped = {
            row
            for row, item in enumerate(META.iter_unpack(self.meta))
            if not stat.S_ISREG(item[0]) or (item[4] and row not in self.contents)
        } | self.dropped
        return part

    def ident_kept(self) -> bytes:
        """Returns the identity column to remember, without the rows that were dropped."""
        ident = self.ident_to_remember()
        count = len(ident) // IDENT_BYTES
        return b"".join(
            [ident[row * IDENT_BYTES : (row + 1) * IDENT_BYTES] for row in range(count) if row not in self.dropped]
        )

    def leaf(self, owners: Names, *, with_names: bool = True) -> tuple[Leaf, Totals]:
        """Makes the leaf from the columns, without the rows that were dropped, and counts what is in it."""
        names = self.names.split(b"\0")[:-1]
        count = len(names)
        kept = [row for row in range(count) if row not in self.dropped] if self.dropped else range(count)
        whole = not self.dropped
        meta = self.meta if whole and not self.patches else b"".join([self.meta_row(row) for row in kept])
        content: list[bytes] = []
        uids: set[int] = set()
        gids: set[int] = set()
        levels: dict[int, Level] = {}
        files = others = length = 0
        targets: list[bytes] = []
        for new_row, (row, item) in enumerate(zip(kept, META.iter_unpack(meta), strict=True)):
            mode, uid, gid, _, size, _, _ = item
            uids.add(uid)
            gids.add(gid)
            kind = stat.S_IFMT(mode)
            ids = self.contents.get(row)
            if ids:
                content.append(ids)
                if row in self.levels:
                    levels[new_row] = self.levels[row]
            if kind == stat.S_IFREG:
                files += 1
                length += size
            elif kind != stat.S_IFDIR:
                others += 1
                if kind == stat.S_IFLNK:
                    targets.append(self.targets[row] + b"\0")
        renumber = {row: new for new, row in enumerate(kept)} if self.dropped else None
        leaf = Leaf(
            names=self.names if whole else b"".join([names[row] + b"\0" for row in kept]),
            meta=meta,
            content=b"".join(content),
            targets=b"".join(targets),
            levels=levels,
            links=_renumbered(self.links, renumber),
            xattrs=_renumbered(self.xattrs, renumber),
            marks=_renumbered({row: mark for row, mark in self.marks.items() if mark}, renumber),
            users={uid: name for uid in uids if (name := owners.user(uid))} if with_names else {},
            groups={gid: name for gid in gids if (name := owners.group(gid))} if with_names else {},
        )
        return leaf, Totals(files, others, length)


_ID_BYTES = 32


def _renumbered(rows: dict, renumber: dict[int, int] | None) -> dict:  # type: ignore[type-arg]
    if renumber is None:
        return rows
    return {renumber[row]: value for row, value in rows.items() if row in renumber}
