"""Frames: one directory on the way from a scan to a tree, in columns.

A frame holds what the scan gave, what was found out about each row, and in the end makes the leaf. Touches no file.
"""

from __future__ import annotations

import os
import stat
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from respaldo.catalog.runs import Span
from respaldo.core.ids import ChunkId
from respaldo.core.model import Content, Mark
from respaldo.flows.backup.compare import UNPROVEN, UNSETTLED
from respaldo.flows.backup.memo import Totals
from respaldo.format.columns import u32_array
from respaldo.format.leafcheck import TYPE_MASK
from respaldo.format.tree import META, Leaf
from respaldo.fs.meta import Names
from respaldo.kernel import layout
from respaldo.kernel.layout import IDENT

META_BYTES = META.size
IDENT_BYTES = IDENT.size
_NLINK_OFFSET = 16
_META_WORDS = META.size // 4
_SIZE_WORD = 4
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
    nested: frozenset[bytes] = frozenset()
    """Of the topmost: recorded paths that were named as sources and lie inside others."""


class Carried(NamedTuple):
    """Is files that are as they were: their first row, that in the leaf remembered, how many, the ids of content."""

    row: int
    there: int
    length: int
    ids: bytes


class Like(NamedTuple):
    """Is a tree that files were carried over from, and the names of the owners that stand in it, by number."""

    tree: ChunkId
    users: dict[int, str]
    groups: dict[int, str]


@dataclass(slots=True, kw_only=True)
class Same:
    """Is what is remembered of a directory that looks as it did."""

    tree: ChunkId
    children: bytes
    totals: Totals


_EMPTY: dict[str, Callable[[], object]] = {
    "name_list": list,
    "contents": dict,
    "levels": dict,
    "targets": dict,
    "links": dict,
    "xattrs": dict,
    "marks": dict,
    "patches": dict,
    "poisoned": set,
    "unproven": set,
    "idents": dict,
    "new": bytearray,
    "unread": set,
    "dropped": set,
    "subdirs": list,
    "settled": set,
    "carried": list,
    "runs": list,
    "children": list,
}
"""What a frame has none of until it is asked for."""


@dataclass(slots=True, kw_only=True)
class Frame:
    """Is one directory. Row numbers are those of the scan, before rules. ``row`` is its own in its parent.

    What is filled row by row is made when it is asked for: of a directory that has not changed, nearly nothing is.
    """

    path: bytes
    relative: bytes
    fd: int
    row: int
    device: int
    inode: int = 0
    only: Node | None = None
    actual: bytes = b""
    """The path that is read, of a source; empty below it."""
    ordinal: int = 0
    """The number of its device."""
    recent_ns: int = 0
    key: bytes = b""
    parent_tree: ChunkId | None = None
    """The tree that it had in the snapshot before."""
    trees_before: dict[bytes, ChunkId] | None = None
    """The trees that its subdirectories had there, where somebody had to look them up."""
    network: bool = False
    names: bytes = b""
    meta: bytes = b""
    ident: bytes = b""
    name_list: list[bytes] = field(init=False)
    contents: dict[int, bytes] = field(init=False)
    levels: dict[int, Level] = field(init=False)
    targets: dict[int, bytes] = field(init=False)
    links: dict[int, bytes] = field(init=False)
    xattrs: dict[int, tuple[tuple[bytes, bytes], ...]] = field(init=False)
    marks: dict[int, int] = field(init=False)
    patches: dict[int, bytes] = field(init=False)
    poisoned: set[int] = field(init=False)
    """Rows to be looked at again next time, whatever they say."""
    unproven: set[int] = field(init=False)
    """Rows whose times say too little: what changed just before the scan may change again without showing it."""
    idents: dict[int, bytes] = field(init=False)
    """Identities to remember instead of those that were scanned: a change overlooked on purpose still shows."""
    new: bytearray = field(init=False)
    """By row, whether nothing was known of it."""
    unread: set[int] = field(init=False)
    """Files that wait to be read."""
    dropped: set[int] = field(init=False)
    subdirs: list[int] = field(init=False)
    settled: set[int] = field(init=False)
    """Subdirectories whose own attributes are known from last time."""
    carried: list[Carried] = field(init=False)
    """Files that nothing else here says anything about, but for ``levels`` and ``xattrs``; ascending."""
    like: Like | None = None
    runs: list[tuple[ChunkId, int]] = field(init=False)
    """The runs that it is stored in, none where it is short."""
    next: int = 0
    children: list[bytes] = field(init=False)
    same: Same | None = None
    reread: bool = False
    """Whether a sample of its unchanged files was read again."""
    mark: int = Mark.NONE
    mark_before: int = -1
    """The mark it was remembered with, -1 where nothing is remembered."""

    if not TYPE_CHECKING:  # a name that is misspelt is to be found

        def __getattr__(self, name: str) -> object:
            """Makes what is empty so far; called only for what has no value."""
            make = _EMPTY.get(name)
            if make is None:
                raise AttributeError(name)
            value = make()
            setattr(self, name, value)
            return value

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

    def content(self, row: int) -> Content:
        """Returns what was noted of an entry's content."""
        return Content(level=self.levels.get(row, (0, 0))[0], ids=self.contents.get(row, b""))

    def set_target(self, row: int, target: bytes) -> None:
        """Notes where a symbolic link leads; its length is the target's, whatever the file system says."""
        self.targets[row] = target
        mode, uid, gid, attributes, size, mtime_ns, btime_ns = META.unpack(self.meta_row(row))
        if size != len(target):
            self.patches[row] = META.pack(mode, uid, gid, attributes, len(target), mtime_ns, btime_ns)

    def scanned(self, row: int) -> tuple[bytes, bytes]:
        """Returns the rows of metadata and identity, as scanned."""
        return (
            self.meta[row * META_BYTES : (row + 1) * META_BYTES],
            self.ident[row * IDENT_BYTES : (row + 1) * IDENT_BYTES],
        )

    def is_as_scanned(self, row: int, status: os.stat_result) -> bool:
        """Whether a file is in the state in which it was scanned."""
        meta, ident = self.scanned(row)
        now_meta, now_ident = rows_of(status, 0)
        start = 8 if self.network else 0
        # The time of birth, which a stat does not give, stands last; after inode and status change time come flags.
        return now_meta[:-8] == meta[:-8] and now_ident[start:16] == ident[start:16]

    def meta_row(self, row: int) -> bytes:
        """Returns the row of metadata, as patched."""
        return self.patches.get(row) or self.meta[row * META_BYTES : (row + 1) * META_BYTES]

    def patch_attributes(self, row: int, attributes: int) -> None:
        """Puts inode flags into a row."""
        mode, uid, gid, _, size, mtime_ns, btime_ns = META.unpack(self.meta_row(row))
        self.patches[row] = META.pack(mode, uid, gid, attributes, size, mtime_ns, btime_ns)

    def ident_to_remember(self) -> bytes:
        """Returns the identity column in which rows that must be looked at again next time equal nothing."""
        if not (self.poisoned or self.unproven or self.idents):
            return bytes(self.ident)
        ident = bytearray(self.ident)
        for row, kept in self.idents.items():
            ident[row * IDENT_BYTES : (row + 1) * IDENT_BYTES] = kept
        for rows, links in ((self.unproven, UNPROVEN), (self.poisoned, UNSETTLED)):
            for row in rows:
                at = row * IDENT_BYTES + _NLINK_OFFSET
                ident[at : at + 4] = links.to_bytes(4, "little")
        return bytes(ident)

    def settled_part(self) -> Frame:
        """Returns a frame of the rows that are files and all known so far; its meta column is as scanned."""
        part = copy(self)
        part.dropped = (
            {row for row, item in enumerate(META.iter_unpack(self.meta)) if not stat.S_ISREG(item[0])}
            | self.dropped
            | self.unread
        )
        return part

    def kept(self, column: bytes, row_bytes: int) -> bytes:
        """Returns a column without the rows that were dropped."""
        rows = range(len(column) // row_bytes)
        return b"".join([column[row * row_bytes : (row + 1) * row_bytes] for row in rows if row not in self.dropped])

    def leaf(self, owners: Names, *, with_names: bool = True) -> tuple[Leaf, Totals]:
        """Makes the leaf from the columns, without the rows that were dropped, and counts what is in it."""
        count = len(self.meta) // META_BYTES
        names, meta, renumber = self.names, self.meta, None
        kept: Sequence[int] = range(count)
        if self.dropped:
            kept = [row for row in kept if row not in self.dropped]
            renumber = {row: new for new, row in enumerate(kept)}
            all_names = names.split(b"\0")
            names = b"".join([all_names[row] + b"\0" for row in kept])
        if self.dropped or self.patches:
            meta = b"".join([self.meta_row(row) for row in kept])
        words = u32_array(meta)
        kinds = [mode & TYPE_MASK for mode in words[::_META_WORDS]]
        files, links = kinds.count(stat.S_IFREG), kinds.count(stat.S_IFLNK)
        others = len(kinds) - files - kinds.count(stat.S_IFDIR)
        low, high = words[_SIZE_WORD::_META_WORDS], words[_SIZE_WORD + 1 :: _META_WORDS]
        # Nearly all sizes fit into the lower word; those of a directory are 0.
        length = sum(low) + (sum(high) << 32)
        if files < len(kinds) and (links or others):
            sizes = zip(kinds, low, high, strict=True)
            length = sum([few | many << 32 for kind, few, many in sizes if kind == stat.S_IFREG])
        contents = self.contents
        rows_of_links = [row for row, kind in zip(kept, kinds, strict=True) if kind == stat.S_IFLNK] if links else []
        leaf = Leaf(
            names=names,
            meta=meta,
            content=self._joined() if self.carried else b"".join([contents[row] for row in kept if row in contents]),
            targets=b"".join([self.targets.get(row, b"") + b"\0" for row in rows_of_links]),
            levels=_renumbered(self.levels, renumber),
            links=_renumbered(self.links, renumber),
            xattrs=_renumbered(self.xattrs, renumber),
            marks=_renumbered({row: mark for row, mark in self.marks.items() if mark}, renumber),
            users=_named(words[1::_META_WORDS], owners.user) if with_names else {},
            groups=_named(words[2::_META_WORDS], owners.group) if with_names else {},
        )
        return leaf, Totals(files, others, length)

    def _joined(self) -> bytes:
        """Returns the ids of all content in the order of rows."""
        parts = [(part.row, part.ids) for part in self.carried]
        parts += [(row, ids) for row, ids in self.contents.items() if row not in self.dropped]
        return b"".join([ids for _, ids in sorted(parts)])

    def spans(self) -> list[Span]:
        """Returns where the files that are carried lie in the leaf, and where they lay in the one remembered."""
        dropped = sorted(self.dropped)
        return [Span(row - bisect_left(dropped, row), there, length) for row, there, length, _ in self.carried]


def _named(numbers: Iterable[int], name_of: Callable[[int], str]) -> dict[int, str]:
    return {number: name for number in set(numbers) if (name := name_of(number))}


_ID_BYTES = 32
_TIME_NS_END = 1 << 63


def rows_of(status: os.stat_result, recent_ns: int) -> tuple[bytes, bytes]:
    """Returns the rows that the kernel's ``scan`` gives, from a stat; without a time of birth."""
    mode = status.st_mode
    size = 0
    if stat.S_ISREG(mode) or stat.S_ISLNK(mode):
        size = status.st_size
    elif stat.S_ISBLK(mode) or stat.S_ISCHR(mode):
        size = os.major(status.st_rdev) << 32 | os.minor(status.st_rdev)
    meta = META.pack(mode, status.st_uid, status.st_gid, 0, size, saturated(status.st_mtime_ns), 0)
    links = 0 if stat.S_ISDIR(mode) else status.st_nlink
    recent = layout.ENTRY_RECENT if max(status.st_mtime_ns, status.st_ctime_ns) >= recent_ns else 0
    return meta, IDENT.pack(status.st_ino, saturated(status.st_ctime_ns), links, recent)


def saturated(time_ns: int) -> int:
    """Returns a time as the kernel's ``scan`` gives it: ns in 64 bits end in 1677 and 2262, file systems' go beyond."""
    return max(-_TIME_NS_END, min(time_ns, _TIME_NS_END - 1))


def _renumbered(rows: dict, renumber: dict[int, int] | None) -> dict:  # type: ignore[type-arg]
    if renumber is None:
        return rows
    return {renumber[row]: value for row, value in rows.items() if row in renumber}
