"""Trees: one directory in columns, and the branch that joins the runs of a long one.

Invariant: a tree holds what restoring needs and nothing else, so that its id changes only when what is restored
changes. Rows are sorted by name; names are unique, not empty, not ``.`` or ``..``, without ``/`` and NUL. Nothing
hostile passes `parse_leaf`. Implements docs/format.md, "Tree".
"""

from __future__ import annotations

import stat
import struct
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import NamedTuple

import msgpack

from respaldo.core.errors import Corruption
from respaldo.core.ids import CHUNK_ID_BYTES, ChunkId
from respaldo.core.model import EMPTY, Content, Entry, Mark
from respaldo.format import canonical
from respaldo.format.columns import u32_array
from respaldo.format.leafcheck import TYPE_MASK, default_count, validate
from respaldo.kernel import layout

META = layout.META
"""Mode, uid, gid, attributes, size (or rdev), mtime ns, btime ns: 40 bytes, as the kernel's ``scan`` gives them."""
LEAF = 1
BRANCH = 2
TREE_RAW_BYTES_MAX = 16 << 20
_WITH_CONTENT = frozenset({stat.S_IFREG, stat.S_IFDIR})
RUN = struct.Struct("<32sQ")
"""A run of a branch: tree id, number of entries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """Is a directory, or a run of a long one, in columns.

    ``names``: each followed by NUL. ``meta``: 40 bytes an entry. ``content``: ids joined, one for every directory
    without a mark and every regular file that is not empty and readable, unless ``levels`` says otherwise: entry number
    → (level, number of ids). ``targets``: those of the symlinks, each followed by NUL. The maps go from entry number to
    what few entries have.
    """

    names: bytes
    meta: bytes
    content: bytes = b""
    targets: bytes = b""
    levels: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    links: Mapping[int, bytes] = field(default_factory=dict)
    xattrs: Mapping[int, tuple[tuple[bytes, bytes], ...]] = field(default_factory=dict)
    marks: Mapping[int, int] = field(default_factory=dict)
    users: Mapping[int, str] = field(default_factory=dict)
    groups: Mapping[int, str] = field(default_factory=dict)

    def encode(self) -> bytes:
        """Returns the canonical bytes."""
        return canonical.pack_ordered(
            [
                LEAF,
                self.names,
                self.meta,
                self.content,
                self.targets,
                [[row, level, count] for row, (level, count) in sorted(self.levels.items())],
                [[row, group] for row, group in sorted(self.links.items())],
                [[row, [list(pair) for pair in pairs]] for row, pairs in sorted(self.xattrs.items())],
                [[row, mark] for row, mark in sorted(self.marks.items())],
                [[number, name] for number, name in sorted(self.users.items())],
                [[number, name] for number, name in sorted(self.groups.items())],
            ]
        )

    def __len__(self) -> int:
        return len(self.meta) // META.size

    def spots(self) -> array[int]:
        """Returns where in the ids of the content those of each entry begin, and where the last ones end."""
        levels, marks = self.levels, self.marks
        if not levels and not marks and len(self.content) == len(self) * CHUNK_ID_BYTES:  # then each has one
            return array("I", range(len(self) + 1))
        words = u32_array(self.meta)
        step = META.size // 4
        modes, low, high = words[::step], words[4::step], words[5::step]
        kinds = {mode: mode & TYPE_MASK for mode in set(modes)}
        full = {mode for mode, kind in kinds.items() if kind == stat.S_IFDIR}
        files = {mode for mode, kind in kinds.items() if kind == stat.S_IFREG}
        counts: list[int] = [
            mode in full or ((few or many) > 0 and mode in files)
            for mode, few, many in zip(modes, low, high, strict=True)
        ]
        for row, mark in marks.items():
            counts[row] = default_count(modes[row], low[row] or high[row], mark)
        for row, (_, count) in levels.items():
            counts[row] = count
        return array("I", accumulate(counts, initial=0))

    def entries(self) -> Iterator[Entry]:
        """Yields the entries in the order of their names."""
        content_at = target_at = 0
        for row, (name, meta) in enumerate(zip(self.names.split(b"\0"), META.iter_unpack(self.meta), strict=False)):
            mode, uid, gid, attributes, size, mtime_ns, btime_ns = meta
            mark = self.marks.get(row, 0)
            level, count = self.levels.get(row) or (0, default_count(mode, size, mark))
            content = EMPTY
            if count:
                end = content_at + count * CHUNK_ID_BYTES
                content = Content(level=level, ids=self.content[content_at:end])
                content_at = end
            target = b""
            if stat.S_ISLNK(mode):
                end = self.targets.index(b"\0", target_at)
                target = self.targets[target_at:end]
                target_at = end + 1
            device = stat.S_ISBLK(mode) or stat.S_ISCHR(mode)
            yield Entry(
                name=name,
                mode=mode,
                uid=uid,
                gid=gid,
                attributes=attributes,
                size=0 if device else size,
                rdev=size if device else 0,
                mtime_ns=mtime_ns,
                btime_ns=btime_ns,
                content=content,
                target=target,
                link_group=self.links.get(row, b""),
                xattrs=self.xattrs.get(row, ()),
                user=self.users.get(uid, ""),
                group=self.groups.get(gid, ""),
                mark=Mark(mark),
            )


@dataclass(frozen=True, slots=True)
class Branch:
    """Joins the runs of a long directory: (tree id, number of entries) in the order of their names."""

    runs: tuple[tuple[ChunkId, int], ...]

    def encode(self) -> bytes:
        """Returns the canonical bytes."""
        return canonical.pack([BRANCH, b"".join(RUN.pack(*run) for run in self.runs)])


class References(NamedTuple):
    """Is what a tree refers to: ids of trees (runs included) and of data chunks, joined, and (level, id) of lists.

    ``lost``: the same of entries that a repair has marked as lost, which may or may not be there.
    """

    trees: bytes
    data: bytes
    lists: list[tuple[int, bytes]]
    lost: References | None = None


def parse_references(data: bytes, what: str) -> References:
    """Returns what a tree refers to, in the order of its entries; raises `Corruption`.

    By columns: no object is made for an entry, and names, times, owners are not looked at. Of a tree that `parse_tree`
    refuses it may return anything.
    """
    match canonical.unpack(data, what, items_max=TREE_RAW_BYTES_MAX):
        case [2, bytes(runs)] if runs and len(runs) % RUN.size == 0:
            return References(b"".join(name for name, _ in RUN.iter_unpack(runs)), b"", [])
        case [
            1,
            bytes(_),
            bytes(meta),
            bytes(content),
            bytes(_),
            list() as levels,
            list(_),
            list(_),
            list() as marks,
            *_,
        ]:
            if len(meta) % META.size == 0:
                return _references(
                    meta,
                    content,
                    {row: (level, count) for row, level, count in _rows(levels, (int, int, int), what)},
                    dict(_rows(marks, (int, int), what)),
                    what,
                )
    raise Corruption(what, "not a tree of this format")


def _references(
    meta: bytes, content: bytes, levels: Mapping[int, tuple[int, int]], marks: Mapping[int, int], what: str
) -> References:
    kinds = [mode & TYPE_MASK for mode in u32_array(meta)[:: META.size // 4]]
    any_lost = Mark.LOST in marks.values()
    if not levels and stat.S_IFDIR not in kinds and not any_lost:
        return References(b"", content, [])
    if not levels and not marks and len(content) == len(kinds) * CHUNK_ID_BYTES:  # then each has one
        return _one_each(kinds, content)
    words = u32_array(meta)
    sizes = zip(words[4 :: META.size // 4], words[5 :: META.size // 4], strict=True)
    sound: tuple[bytearray, bytearray, list[tuple[int, bytes]]] = (bytearray(), bytearray(), [])
    lost: tuple[bytearray, bytearray, list[tuple[int, bytes]]] = (bytearray(), bytearray(), [])
    at = 0
    for row, (kind, (low, high)) in enumerate(zip(kinds, sizes, strict=True)):
        if kind not in _WITH_CONTENT:
            continue
        mark = marks.get(row, 0)
        level, count = levels.get(row) or (0, default_count(kind, low or high, mark))
        end = at + count * CHUNK_ID_BYTES
        trees, found, lists = lost if mark == Mark.LOST else sound
        if kind == stat.S_IFDIR:
            trees += content[at:end]
        elif level:
            lists.append((level, content[at:end]))
        else:
            found += content[at:end]
        at = end
    if at != len(content):
        raise Corruption(what, "it has more or less content than its entries")
    below = References(bytes(lost[0]), bytes(lost[1]), lost[2]) if any_lost else None
    return References(bytes(sound[0]), bytes(sound[1]), sound[2], below)


def _one_each(kinds: Sequence[int], content: bytes) -> References:
    """Returns what a tree refers to in which every entry has one id."""
    trees: list[bytes] = []
    data: list[bytes] = []
    at = 0
    for row, kind in enumerate(kinds):
        if kind == stat.S_IFDIR:
            start = row * CHUNK_ID_BYTES
            data.append(content[at:start])
            at = start + CHUNK_ID_BYTES
            trees.append(content[start:at])
    return References(b"".join(trees), b"".join((*data, content[at:])), [])


def references(leaf: Leaf) -> Iterator[tuple[int, int, int, int, bytes]]:
    """Yields (row, mode, size, level, ids joined) of the entries of a directory that refer to something."""
    at = 0
    for row, (mode, _, _, _, size, _, _) in enumerate(META.iter_unpack(leaf.meta)):
        level, count = leaf.levels.get(row) or (0, default_count(mode, size, leaf.marks.get(row, 0)))
        if count:
            end = at + count * CHUNK_ID_BYTES
            yield row, mode, size, level, leaf.content[at:end]
            at = end


def parse_tree(data: bytes, what: str, *, length_max: int = TREE_RAW_BYTES_MAX) -> Leaf | Branch:
    """Parses and validates a tree; raises `Corruption` naming ``what``."""
    if len(data) > length_max:
        raise Corruption(what, "longer than a tree can be")
    match canonical.unpack(data, what, items_max=length_max):
        case [2, bytes(runs)] if runs and len(runs) % RUN.size == 0:
            rows = tuple((ChunkId(name), count) for name, count in RUN.iter_unpack(runs))
            if all(count > 0 for _, count in rows):
                return Branch(rows)
        case [1, bytes(names), bytes(meta), bytes(content), bytes(targets), *maps] if len(maps) == _MAPS:
            leaf = Leaf(
                names=names,
                meta=meta,
                content=content,
                targets=targets,
                levels={row: (level, count) for row, level, count in _rows(maps[0], (int, int, int), what)},
                links=dict(_rows(maps[1], (int, bytes), what)),
                xattrs={row: _pairs(pairs, what) for row, pairs in _rows(maps[2], (int, list), what)},
                marks=dict(_rows(maps[3], (int, int), what)),
                users=dict(_rows(maps[4], (int, str), what)),
                groups=dict(_rows(maps[5], (int, str), what)),
            )
            validate(leaf, what)
            return leaf
    raise Corruption(what, "not a tree of this format")


_COLUMNS = 5
"""The number of a leaf, and what stands before the maps."""
_MAPS = 6


def leaf_as_encoded(data: bytes) -> Leaf:
    """Returns the leaf that `Leaf.encode` made these bytes of; raises ValueError where it did not make them.

    Validates nothing: for bytes that never left this machine and that a check covers.
    """
    found = msgpack.unpackb(data, unicode_errors="surrogateescape", strict_map_key=False)
    # No pattern is matched: of a search that would be a third of what a directory takes.
    if isinstance(found, list) and len(found) == _COLUMNS + _MAPS and found[0] == LEAF:
        _, names, meta, content, targets, levels, links, xattrs, marks, users, groups = found
        if type(names) is type(meta) is type(content) is type(targets) is bytes:
            return Leaf(
                names=names,
                meta=meta,
                content=content,
                targets=targets,
                levels={row: (level, count) for row, level, count in levels} if levels else {},
                links=dict(links),
                xattrs={row: tuple((name, value) for name, value in pairs) for row, pairs in xattrs} if xattrs else {},
                marks=dict(marks),
                users=dict(users),
                groups=dict(groups),
            )
    msg = "not a leaf"
    raise ValueError(msg)


def _rows(value: canonical.Value, types: tuple[type, ...], what: str) -> list[tuple]:  # type: ignore[type-arg]
    """Returns the rows of a map, checked for their types and for ascending keys."""
    if not isinstance(value, list):
        raise Corruption(what, "a map of it is not a list of rows")
    rows = []
    last = -1
    for row in value:
        if not isinstance(row, list) or len(row) != len(types):
            raise Corruption(what, "a row of a map has the wrong shape")
        if tuple(map(type, row)) != types:
            raise Corruption(what, "a row of a map has the wrong types")
        key = row[0]
        if not isinstance(key, int) or key <= last:
            raise Corruption(what, "the rows of a map are not in ascending order")
        last = key
        rows.append(tuple(row))
    return rows


def _pairs(value: list[canonical.Value], what: str) -> tuple[tuple[bytes, bytes], ...]:
    pairs: list[tuple[bytes, bytes]] = []
    for pair in value:
        match pair:
            case [bytes(name), bytes(content)] if name and b"\0" not in name:
                pairs.append((name, content))
            case _:
                raise Corruption(what, "an extended attribute is malformed")
    if not pairs or any(left[0] >= right[0] for left, right in pairwise(pairs)):
        raise Corruption(what, "extended attributes are not in ascending order")
    return tuple(pairs)
