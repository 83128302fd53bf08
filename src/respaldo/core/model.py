"""The model: entries of a tree, their content, and marks. Values, frozen, validated where they are parsed."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum

from respaldo.core.ids import CHUNK_ID_BYTES, ChunkId

NO_CONTENT = b""


class Mark(IntEnum):
    """Says why an entry is not all there. The numbers are part of the format."""

    NONE = 0
    UNREADABLE = 1
    """Its content, or the directory's, could not be read."""
    MOUNT = 2
    """A mount point that was not crossed."""
    EXCLUDED = 3
    """A directory whose content was left out (a cache)."""
    PARTIAL = 4
    """A directory above a source, recorded with the entries on the way to the source only."""
    CHANGED = 5
    """A file that went on changing while it was read; its content is as read last."""
    LOST = 6
    """A file or directory of whose content something was lost to damage. It still says what it is: that may return."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """Refers to content: chunk ids joined (32 bytes each) at ``level`` 0, one id of a list at level 1 and above."""

    level: int = 0
    ids: bytes = NO_CONTENT

    def __len__(self) -> int:
        return len(self.ids) // CHUNK_ID_BYTES

    def __iter__(self) -> Iterator[ChunkId]:
        for at in range(0, len(self.ids), CHUNK_ID_BYTES):
            yield ChunkId(self.ids[at : at + CHUNK_ID_BYTES])


EMPTY = Content()


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Is one entry of a directory, with all that restoring it needs.

    ``mode`` is the full ``st_mode``; ``rdev`` is (major << 32 | minor) for devices; times are ns since the epoch, UTC;
    a directory's ``content`` is its tree's id, a regular file's its chunks; ``link_group`` (16 bytes, or empty) is
    shared by the names of one hard-linked file; ``user`` and ``group`` are empty where the id has no name.
    """

    name: bytes
    mode: int
    uid: int = 0
    gid: int = 0
    attributes: int = 0
    size: int = 0
    mtime_ns: int = 0
    btime_ns: int = 0
    rdev: int = 0
    content: Content = EMPTY
    target: bytes = b""
    link_group: bytes = b""
    xattrs: tuple[tuple[bytes, bytes], ...] = field(default=())
    user: str = ""
    group: str = ""
    mark: Mark = Mark.NONE

    @property
    def is_dir(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_regular(self) -> bool:
        """Whether it is a regular file."""
        return stat.S_ISREG(self.mode)

    @property
    def is_symlink(self) -> bool:
        """Whether it is a symbolic link."""
        return stat.S_ISLNK(self.mode)
