"""Columns: a run of a directory as listing it needs it, from its bytes, without an object for an entry.

Of a tree of files, directories and links only what a listing shows is unpacked, and that is checked here; all others,
and whoever wants entries, get what `parse_tree` accepts. Hostile bytes raise `Corruption`, or list what is harmless:
names never lead elsewhere, every type is known.
"""

from __future__ import annotations

import stat

from respaldo.core.errors import Corruption
from respaldo.core.ids import CHUNK_ID_BYTES, ChunkId
from respaldo.core.model import Entry
from respaldo.format import canonical
from respaldo.format.columns import u32_array
from respaldo.format.leafcheck import LINK_GROUP_BYTES, TYPE_MASK, are_names, default_count
from respaldo.format.tree import LEAF, META, TREE_RAW_BYTES_MAX, Branch, Leaf, parse_tree

Row = tuple[bytes, tuple[int, ...], int, bytes]
"""What a listing says of an entry: name, `META` columns, level of its content, hard-link group."""
_DIRECT = (0, 0)
_HEAD = bytes((0x9B, LEAF))
"""An array of eleven that begins as a leaf does."""
_EMPTY = b"\x90\x90\x90\x90"
"""No content lists, no hard links, no extended attributes, no marks."""
_SIX = b"\x96"
_LENGTHS = {0xC4: 1, 0xC5: 2, 0xC6: 4}
"""How many bytes the length of a byte string has, by its first byte."""
_META_WORDS = META.size // 4
_SIZE_LOW, _SIZE_HIGH = 4, 5
_TYPE_BYTE = TYPE_MASK >> 8
_FILE, _DIRECTORY = stat.S_IFREG, stat.S_IFDIR
_PLAIN = frozenset({_FILE, _DIRECTORY, stat.S_IFLNK})
_PLAIN_BYTES = frozenset(kind >> 8 for kind in _PLAIN)


class Columns:
    """Is a run of a directory: its names, sorted; `META` rows; which rows those do not say enough of (``odd``)."""

    __slots__ = (
        "_content",
        "_entries",
        "_levels",
        "_links",
        "_longest_owner",
        "_marks",
        "_raw",
        "_tail",
        "_trees",
        "_what",
        "attributed",
        "has_directories",
        "meta",
        "names",
        "odd",
        "special",
    )

    def __init__(self, raw: bytes, what: str, names: list[bytes], meta: bytes, content: bytes, tail: bytes) -> None:
        """``tail``: the maps that follow the columns, as they are encoded."""
        self.names = names
        self.meta = meta
        self._raw = raw
        self._what = what
        self._content = content
        self._entries: list[Entry] | None = None
        self._trees: dict[int, int] | None = None
        self._levels: dict[int, tuple[int, int]] = {}
        self._links: dict[int, bytes] = {}
        self._marks: dict[int, int] = {}
        self._tail = tail
        self._longest_owner: int | None = None
        self.attributed: frozenset[int] = frozenset()
        """Rows with extended attributes."""
        self.special: frozenset[int] = frozenset()
        """Rows with a list of content, attributes, a mark or more than one name."""
        if not tail.startswith(_EMPTY):
            self._unpack(tail)
        self.has_directories = False
        self.odd = self._find_odd()

    def _unpack(self, tail: bytes) -> None:
        match canonical.unpack(_SIX + tail, self._what, items_max=TREE_RAW_BYTES_MAX):
            case [list() as levels, list() as links, list() as xattrs, list() as marks, _, _]:
                pass
            case _:
                raise Corruption(self._what, "not a tree of this format")
        for row in (*levels, *links, *marks):
            match row:
                case [int(number), int(level), int(count)] if count >= 0:
                    self._levels[number] = (level, count)
                case [int(number), bytes(group)] if len(group) == LINK_GROUP_BYTES:
                    self._links[number] = group
                case [int(number), int(mark)]:
                    self._marks[number] = mark
                case _:
                    raise Corruption(self._what, "a row of a map has the wrong shape")
        self.attributed = frozenset(
            row[0] for row in xattrs if isinstance(row, list) and row and isinstance(row[0], int)
        )
        self.special = frozenset((*self._listed(), *self._links, *self._marks, *self.attributed))

    def _find_odd(self) -> list[int]:
        """Returns the rows that are no plain files, directories and links, or have several names or a list."""
        found = {*self._listed(), *self._links}
        # By bytes, in which a mode's second has its type and a size's last its sign: no number is made of any.
        width, meta = META.size, self.meta
        kinds = {byte & _TYPE_BYTE for byte in set(meta[1::width])}
        self.has_directories = _DIRECTORY >> 8 in kinds
        if not kinds <= _PLAIN_BYTES or any(meta[2::width] + meta[3::width]) or max(meta[23::width], default=0) >> 7:
            parse_tree(self._raw, self._what)  # few have such entries, and there is much that could be wrong with them
            modes = u32_array(meta)[::_META_WORDS]
            found.update(row for row, mode in enumerate(modes) if mode & TYPE_MASK not in _PLAIN)
        if found or self._levels or self._marks:
            if max(found.union(self._levels, self._marks)) >= len(self.names):
                raise Corruption(self._what, "a map of it names an entry that is not there")
        return sorted(found)

    def _listed(self) -> list[int]:
        """Returns the rows whose content stands in a list of its own: nobody knows without it where holes are."""
        return [row for row, (level, _) in self._levels.items() if level]

    @property
    def entries(self) -> list[Entry]:
        """The entries in the order of their names; raises `Corruption`."""
        if self._entries is None:
            leaf = parse_tree(self._raw, self._what)
            self._entries = list(leaf.entries()) if isinstance(leaf, Leaf) else []
        return self._entries

    @property
    def longest_owner(self) -> int:
        """How many bytes the longest name of an owner or group in here has; raises `Corruption`."""
        if self._longest_owner is None:
            match canonical.unpack(_SIX + self._tail, self._what, items_max=TREE_RAW_BYTES_MAX):
                case [_, _, _, _, list() as users, list() as groups]:
                    rows = [*users, *groups]
                case _:
                    raise Corruption(self._what, "not a tree of this format")
            names = [name for row in rows if isinstance(row, list) for name in row[1:] if isinstance(name, str)]
            if len(names) != len(rows):
                raise Corruption(self._what, "a row of a map has the wrong shape")
            self._longest_owner = max((len(name.encode("utf-8", "surrogateescape")) for name in names), default=0)
        return self._longest_owner

    def row(self, row: int) -> Row:
        """Returns what a listing says of one entry."""
        level, _ = self._levels.get(row, _DIRECT)
        return self.names[row], META.unpack_from(self.meta, row * META.size), level, self._links.get(row, b"")

    def rows(self, first: int, count: int) -> list[Row]:
        """Returns what a listing says of some entries."""
        return [self.row(row) for row in range(first, min(first + count, len(self.names)))]

    @property
    def groups(self) -> list[bytes]:
        """The hard-link groups of its entries, each as often as it has names here."""
        return list(self._links.values())

    def tree(self, row: int) -> ChunkId | None:
        """Returns the tree of a subdirectory, None where it has none; raises `Corruption`."""
        if self._trees is None:
            self._trees = self._find_trees()
        start = self._trees.get(row)
        return None if start is None else ChunkId(self._content[start : start + CHUNK_ID_BYTES])

    def trees(self) -> bytes:
        """Returns the ids of the trees of all subdirectories, joined; raises `Corruption`."""
        if self._trees is None:
            self._trees = self._find_trees()
        return b"".join([self._content[start : start + CHUNK_ID_BYTES] for start in self._trees.values()])

    def _find_trees(self) -> dict[int, int]:
        """Returns where in the content the trees of subdirectories stand, by row."""
        words = u32_array(self.meta)
        modes = words[::_META_WORDS]
        low, high = words[_SIZE_LOW::_META_WORDS], words[_SIZE_HIGH::_META_WORDS]
        found: dict[int, int] = {}
        at = 0
        if self._levels or self._marks:
            for row, (mode, few, many) in enumerate(zip(modes, low, high, strict=True)):
                level = self._levels.get(row)
                ids = level[1] if level else default_count(mode, few or many, self._marks.get(row, 0))
                if ids and mode & TYPE_MASK == _DIRECTORY:
                    found[row] = at
                at += ids * CHUNK_ID_BYTES
        else:
            for row, (mode, few, many) in enumerate(zip(modes, low, high, strict=True)):
                kind = mode & TYPE_MASK
                if kind == _DIRECTORY:
                    found[row] = at
                    at += CHUNK_ID_BYTES
                elif kind == _FILE and (few or many):
                    at += CHUNK_ID_BYTES
        if at != len(self._content):
            raise Corruption(self._what, "it has more or less content than its entries")
        return found


def parse_columns(raw: bytes, what: str) -> Columns | Branch:
    """Returns a run of a directory, or what joins several; raises `Corruption`."""
    if not raw.startswith(_HEAD) or len(raw) > TREE_RAW_BYTES_MAX:
        parsed = parse_tree(raw, what)
        if isinstance(parsed, Branch):
            return parsed
        raise Corruption(what, "not a tree of this format")
    strings: list[bytes] = []
    at = len(_HEAD)
    for _ in range(_STRINGS):
        width = _LENGTHS.get(raw[at], 0) if at < len(raw) else 0
        start = at + 1 + width
        end = start + int.from_bytes(raw[at + 1 : start], "big")
        if not width or end > len(raw):
            raise Corruption(what, "not a tree of this format")
        strings.append(raw[start:end])
        at = end
    joined, meta, content, _ = strings
    names = joined.split(b"\0")
    if names.pop() or len(names) * META.size != len(meta) or not are_names(names, joined):
        raise Corruption(what, "its names are impossible, or not one for each entry")
    return Columns(raw, what, names, meta, content, raw[at:])


_STRINGS = 4
