"""Types of entries in words, for people and programs alike."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from respaldo.core.model import Entry

TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character-device",
    stat.S_IFBLK: "block-device",
}


def type_of(entry: Entry) -> str:
    """Returns what an entry is."""
    return type_in(entry.mode)


def type_in(mode: int) -> str:
    """Returns what a mode says that an entry is."""
    return TYPES.get(stat.S_IFMT(mode), "other")
