"""Walks over the members of an archive of a snapshot, in the order in which an export writes them, from any on.

Most members are files and directories that a tar header holds without more words: their length is told from columns.
One thread.
"""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import NamedTuple

from respaldo.catalog.trees import TreeReader
from respaldo.core.errors import ChunkMissing, Corruption
from respaldo.core.ids import ChunkId
from respaldo.core.model import Entry, Mark
from respaldo.format.leafcheck import TYPE_MASK
from respaldo.kernel.layout import META
from respaldo.views.columns import Columns
from respaldo.views.directories import Directories
from respaldo.views.tar import BLOCK, NAME_MAX, OCTAL_7, OCTAL_11, OWNER_MAX, split

_NS = 10**9
_FILE, _DIRECTORY = stat.S_IFREG, stat.S_IFDIR
_DEPTH_MAX = 4096
"""So deep are directories at most: no path that a system can name is deeper."""


class Place(NamedTuple):
    """Is where a walk was: the offset in the archive, and in each directory down to there the row that comes next."""

    at: int
    rows: tuple[int, ...]


class _Frame:
    """Is a directory that is being walked."""

    __slots__ = ("began", "links", "prefix", "row", "tree")

    def __init__(self, tree: ChunkId, prefix: bytes, row: int, began: int, links: int) -> None:
        self.tree = tree
        self.prefix = prefix
        self.row = row
        self.began = began
        self.links = links


class Walk:
    """Stands before a member: `step` to see whether there is one, `forward` to get behind it."""

    def __init__(self, directories: Directories, trees: TreeReader, root: ChunkId, place: Place) -> None:
        self._directories = directories
        self._trees = trees
        self.at = place.at
        self.since = 0
        """Members since a place was noted."""
        self.links = 0
        """Names of hard-linked files so far."""
        self.again = 0
        """Rows of lists that laying members out met again."""
        self._frames = [_Frame(root, b"", place.rows[0], -1, 0)]
        self._run: Columns | None = None
        self._row = 0
        for row in place.rows[1:]:
            frame = self._frames[-1]
            start, run, _ = directories.run_at(frame.tree, frame.row - 1)
            tree = run.tree(frame.row - 1 - start)
            if tree is None:
                raise Corruption(f"tree {frame.tree.hex()[:16]}", "it has changed")
            prefix = frame.prefix + run.names[frame.row - 1 - start] + b"/"
            self._frames.append(_Frame(tree, prefix, row, -1, 0))

    def place(self) -> Place:
        """Returns where it stands."""
        return Place(self.at, tuple(frame.row for frame in self._frames))

    def step(self, remember: Callable[[ChunkId, bytes, int], None] | None = None) -> bool:
        """Goes to the next member, if it stands behind the last one of a directory; whether there is any.

        ``remember`` is told what lies below a directory whose end was met, unless it depends on names elsewhere.
        """
        while self._frames:
            frame = self._frames[-1]
            start, run, last = self._directories.run_at(frame.tree, frame.row)
            self._run, self._row = run, frame.row - start
            if self._row < len(run.names):
                return True
            if not last:
                raise Corruption(f"tree {frame.tree.hex()[:16]}", "one of its runs is shorter than it says")
            self._frames.pop()
            if remember is not None and frame.began >= 0 and frame.links == self.links:
                remember(frame.tree, frame.prefix, self.at - frame.began)
        return False

    def plain_length(self) -> int | None:
        """Returns the length of a member, None where it takes laying it out to tell."""
        run, row, frame = self._at()
        mode, uid, gid, _, size, mtime_ns, _ = META.unpack_from(run.meta, row * META.size)
        kind = mode & TYPE_MASK
        if row in run.special or kind not in {_FILE, _DIRECTORY} or uid >= OCTAL_7 or gid >= OCTAL_7:
            return None
        name_bytes = len(frame.prefix) + len(run.names[row]) + (kind == _DIRECTORY)
        if name_bytes > NAME_MAX and not split(self._name() + b"/" * (kind == _DIRECTORY))[1]:
            return None
        if run.longest_owner > OWNER_MAX or (kind == _FILE and size >= OCTAL_11):
            return None
        seconds, rest = divmod(mtime_ns, _NS)
        length = 3 * BLOCK if rest or not 0 <= seconds < OCTAL_11 else BLOCK
        return length + (-(-size // BLOCK) * BLOCK if kind == _FILE else 0)

    def entry(self) -> tuple[bytes, Entry]:
        """Returns the name and the entry of a member."""
        run, row, _ = self._at()
        return self._name(), self._trees.found(run.entries[row])

    def forward(self, length: int, known: Mapping[tuple[ChunkId, bytes], int] | None = None) -> None:
        """Gets behind a member of a length, into it where it is a directory, or behind that where it is ``known``."""
        run, row, frame = self._at()
        frame.row += 1
        self.at += length
        self.since += 1
        tree = run.tree(row)
        if tree is None:
            return
        prefix = frame.prefix + run.names[row] + b"/"
        below = None if known is None else known.get((tree, prefix))
        if below is not None:
            self.at += below
            return
        if row in run.special and run.entries[row].mark is Mark.LOST:
            try:
                self._directories.run_at(tree, 0)
            except ChunkMissing:
                return
        if len(self._frames) >= _DEPTH_MAX:
            raise Corruption(f"tree {tree.hex()[:16]}", "directories are deeper than any path")
        self._frames.append(_Frame(tree, prefix, 0, self.at, self.links))

    def _at(self) -> tuple[Columns, int, _Frame]:
        if self._run is None:
            raise ValueError
        return self._run, self._row, self._frames[-1]

    def _name(self) -> bytes:
        run, row, frame = self._at()
        return frame.prefix + run.names[row]


class FirstNames(MutableMapping[bytes, bytes]):
    """Keeps the first name of each hard-linked file, in a temporary file where they are many."""

    def __init__(self) -> None:
        self._rows: sqlite3.Connection | None = None

    def _open(self) -> sqlite3.Connection:
        if self._rows is None:
            # Under the name "" a database is in memory up to some MiB, then in a file that nobody else sees.
            self._rows = sqlite3.connect("", check_same_thread=False, isolation_level=None)
            self._rows.execute("CREATE TABLE first (link BLOB PRIMARY KEY, name BLOB) WITHOUT ROWID")
            self._rows.execute("BEGIN")
        return self._rows

    def __getitem__(self, link: bytes) -> bytes:
        found = self._open().execute("SELECT name FROM first WHERE link = ?", (link,)).fetchone()
        if found is None:
            raise KeyError(link)
        return bytes(found[0])

    def __setitem__(self, link: bytes, name: bytes) -> None:
        self._open().execute("INSERT OR IGNORE INTO first VALUES (?, ?)", (link, name))

    def __delitem__(self, link: bytes) -> None:
        self._open().execute("DELETE FROM first WHERE link = ?", (link,))

    def __iter__(self) -> Iterator[bytes]:
        return (bytes(row[0]) for row in self._open().execute("SELECT link FROM first"))

    def __len__(self) -> int:
        return int(self._open().execute("SELECT count(*) FROM first").fetchone()[0])
