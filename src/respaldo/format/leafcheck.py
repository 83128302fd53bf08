"""What every reader of a leaf relies on, checked: nothing hostile passes `validate`.

In columns where nothing about the entries is special, because that is so of nearly all; else row by row. Implements
docs/format.md, "Tree".
"""

from __future__ import annotations

import operator
import stat
from itertools import islice
from typing import TYPE_CHECKING

from respaldo.core.errors import Corruption
from respaldo.core.ids import CHUNK_ID_BYTES
from respaldo.core.model import Mark
from respaldo.format.columns import u32_array
from respaldo.kernel.layout import INODE_FLAGS, META

if TYPE_CHECKING:
    from respaldo.format.tree import Leaf

NAME_BYTES_MAX = 255
LEVEL_MAX = 8
LINK_GROUP_BYTES = 16
TYPE_MASK = stat.S_IFMT(0xFFFF)
_WITHOUT_CONTENT = frozenset({Mark.UNREADABLE, Mark.MOUNT})
_TYPES = frozenset({stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFBLK, stat.S_IFCHR})
_DEVICES = frozenset({stat.S_IFBLK, stat.S_IFCHR})
_NO_FLAGS = ~INODE_FLAGS
_NO_DEVICE = ~(((1 << 12) - 1) << 32 | ((1 << 20) - 1))
"""Linux has twelve bits for the major number of a device, and twenty for the minor."""
_MODE_MAX = 0xFFFF
_META_WORDS = META.size // 4
_SIZE_WORD = 4
_PLAIN = frozenset({stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK})
_UNKNOWN = 0
"""The mode of an entry that the file system named and would not describe."""
_FILE = frozenset({stat.S_IFREG})
_DIRECTORY = frozenset({stat.S_IFDIR})
_MARKS = {
    Mark.UNREADABLE: _TYPES | {_UNKNOWN},
    Mark.MOUNT: _FILE | _DIRECTORY,
    Mark.EXCLUDED: _DIRECTORY,
    Mark.PARTIAL: _DIRECTORY,
    Mark.CHANGED: _FILE,
    Mark.LOST: _FILE | _DIRECTORY,
}
"""Which types of entries a mark says something about."""


def default_count(mode: int, size: int, mark: int) -> int:
    """Returns how many content ids an entry has where ``levels`` does not say."""
    if mark in _WITHOUT_CONTENT:
        return 0
    return int(stat.S_ISDIR(mode) or (stat.S_ISREG(mode) and size > 0))


def validate(leaf: Leaf, what: str) -> None:
    """Checks what every reader relies on; raises `Corruption`."""
    count = len(leaf)
    if len(leaf.meta) != count * META.size or leaf.names.count(b"\0") != count:
        raise Corruption(what, "its columns have different lengths")
    names = leaf.names.split(b"\0")
    if names.pop() != b"":
        raise Corruption(what, "its names do not end")
    if not are_names(names, leaf.names):
        raise Corruption(what, "a name in it is impossible, repeated or out of order")
    _validate_maps(leaf, count, what)
    needed, symlinks = _validate_columns(leaf, count) or _validate_rows(leaf, names, what)
    if needed * CHUNK_ID_BYTES != len(leaf.content):
        raise Corruption(what, "it has more or less content than its entries")
    if leaf.targets.count(b"\0") != symlinks or (leaf.targets and not leaf.targets.endswith(b"\0")):
        raise Corruption(what, "it has more or fewer link targets than links")


def _validate_columns(leaf: Leaf, count: int) -> tuple[int, int] | None:
    """Returns how many ids and link targets files, directories and links need; None where rows need a look each."""
    words = u32_array(leaf.meta)
    modes, low, high = words[::_META_WORDS], words[_SIZE_WORD::_META_WORDS], words[_SIZE_WORD + 1 :: _META_WORDS]
    kinds = {mode: mode & TYPE_MASK for mode in set(modes)}
    unlike = not _PLAIN.issuperset(kinds.values()) or max(kinds, default=0) > _MODE_MAX or max(high, default=0) >> 31
    if leaf.marks or unlike or any(words[3::_META_WORDS]):
        return None
    symlinks = needed = empty = 0
    for mode, kind in kinds.items():
        if kind == stat.S_IFLNK:
            symlinks += modes.count(mode)
    if 0 in low:
        sizes = zip(modes, low, high, strict=True)
        empty = sum(not few and not many and kinds[mode] == stat.S_IFREG for mode, few, many in sizes)
    needed = count - symlinks - empty
    for row, (_, number) in leaf.levels.items():
        if kinds[modes[row]] != stat.S_IFREG or not (low[row] or high[row]):
            return None
        needed += number - 1
    if any(kinds[modes[row]] == stat.S_IFDIR for row in leaf.links):
        return None
    return needed, symlinks


def are_names(names: list[bytes], joined: bytes) -> bool:
    """Whether they are sorted, unique, and each the name of an entry."""
    if not names:
        return True
    return (
        names[0] != b""
        and b"/" not in joined
        and len(max(names, key=len)) <= NAME_BYTES_MAX
        and b"." not in names
        and b".." not in names
        and all(map(operator.lt, names, islice(names, 1, None)))
    )


def _validate_rows(leaf: Leaf, names: list[bytes], what: str) -> tuple[int, int]:
    """Checks every row by itself; returns how many ids and how many link targets they need."""
    needed = symlinks = 0
    for row, (mode, _, _, attributes, size, _, _) in enumerate(META.iter_unpack(leaf.meta)):
        kind = stat.S_IFMT(mode)
        mark = leaf.marks.get(row, 0)
        known = kind in _TYPES or (mode == _UNKNOWN and mark == Mark.UNREADABLE)
        if not known or mode >> 16 or (kind == stat.S_IFREG and size >> 63):
            raise Corruption(what, f"its entry {_shown(names[row])} has an impossible type or size")
        if attributes & _NO_FLAGS:
            raise Corruption(what, f"its entry {_shown(names[row])} has inode flags that are never kept")
        if kind in _DEVICES and size & _NO_DEVICE:
            raise Corruption(what, f"its entry {_shown(names[row])} has an impossible device number")
        level = leaf.levels.get(row)
        if level is not None and (kind != stat.S_IFREG or mark in _WITHOUT_CONTENT or not size):
            raise Corruption(what, "an entry in it that is no file, or an empty one, has a file's content")
        if mark and kind not in _MARKS[Mark(mark)]:
            raise Corruption(what, "a mark in it says something that its entry cannot be")
        if kind == stat.S_IFDIR and row in leaf.links:
            raise Corruption(what, "a directory in it is a hard link")
        needed += level[1] if level else default_count(mode, size, mark)
        symlinks += kind == stat.S_IFLNK
    return needed, symlinks


def _validate_maps(leaf: Leaf, count: int, what: str) -> None:
    for mapping in (leaf.levels, leaf.links, leaf.xattrs, leaf.marks):
        if mapping and max(mapping) >= count:
            raise Corruption(what, "a map of it names an entry that is not there")
    for level, number in leaf.levels.values():
        if not 0 <= level <= LEVEL_MAX or number < 1 or (level and number != 1) or (level, number) == (0, 1):
            raise Corruption(what, "a content list in it has impossible levels")
    if any(len(group) != LINK_GROUP_BYTES for group in leaf.links.values()):
        raise Corruption(what, "a hard-link group in it has the wrong length")
    if any(mark not in _MARKS for mark in leaf.marks.values()):
        raise Corruption(what, "an entry in it has an unknown mark")
    if any(number >> 32 for ids in (leaf.users, leaf.groups) for number in ids):
        raise Corruption(what, "it names a user or group that cannot be")


def _shown(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
