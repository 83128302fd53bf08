"""A spool: what an archive names, in any order, kept on disk until trees can be made of it, names sorted.

Behaves like a file system that members are unpacked into one after another: the last of one name wins, a hard link
shares what its target was at that moment, and nothing is reached through a symbolic link. The file has no name on the
disk any more once it is open; what memory it takes does not depend on the archive.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import msgpack

from respaldo.core.errors import StorageFailed

ROOT = 1
_CACHE_KIB = 16_000
_DIRECTORIES_KEPT = 4096
_INDEXES = """
CREATE INDEX IF NOT EXISTS levels ON nodes (dir, depth);
CREATE INDEX IF NOT EXISTS names ON nodes (inode);
"""
"""Made when all is in: what is read only then costs half as much so."""
_SCHEMA = """
CREATE TABLE nodes (id INTEGER PRIMARY KEY, parent INTEGER, name BLOB, inode INTEGER, depth INTEGER, dir INTEGER,
    tree BLOB);
CREATE UNIQUE INDEX children ON nodes (parent, name);
CREATE TABLE inodes (id INTEGER PRIMARY KEY, row BLOB, names INTEGER, shared BLOB);
INSERT INTO nodes VALUES (1, 0, x'', 0, 0, 1, NULL);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inode:
    """Is what the names of a file share. ``meta`` as in a leaf, without names' own. ``parent`` of a directory: none."""

    meta: bytes
    level: int = 0
    ids: bytes = b""
    target: bytes = b""
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    mark: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """Is an entry of a directory: its inode (None of a directory that no member stands for), what its names are."""

    name: bytes
    node: int
    inode: Inode | None
    number: int
    names: int
    shared: bytes
    is_dir: bool
    tree: bytes


class Spool:
    """Collects entries. A context manager; one thread. Paths are lists of names."""

    def __init__(self, folder: Path) -> None:
        fd, path = tempfile.mkstemp(prefix="import-", dir=folder)
        os.close(fd)
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
            for line in (
                "PRAGMA journal_mode=OFF",
                "PRAGMA synchronous=OFF",
                "PRAGMA locking_mode=EXCLUSIVE",
                f"PRAGMA cache_size=-{_CACHE_KIB}",
                "PRAGMA temp_store=MEMORY",
            ):
                self._db.execute(line)
            self._db.executescript(_SCHEMA)
            self._db.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error as error:
            raise StorageFailed("local files", str(error)) from error
        finally:
            os.unlink(path)
        self._known: dict[tuple[bytes, ...], int] = {}
        self.replaced: list[bytes] = []
        """Symbolic links and files that had to become directories since this was last looked at."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()
        if isinstance(value, sqlite3.Error):
            raise StorageFailed("local files", str(value)) from value

    def _one(self, sql: str, *values: object) -> tuple | None:  # type: ignore[type-arg]
        found: tuple | None = self._db.execute(sql, values).fetchone()  # type: ignore[type-arg]
        return found

    def _insert(self, sql: str, *values: object) -> int:
        return int(self._db.execute(sql, values).lastrowid or 0)

    # --- taking in -------------------------------------------------------------------------------------------------

    def directory(self, path: Sequence[bytes]) -> int:
        """Returns the node of a directory, made where it is missing, in the place of whatever is no directory."""
        key = tuple(path)
        known = self._known.get(key)
        if known is not None:
            return known
        node, depth = ROOT, 0
        start = next((at for at in range(len(key) - 1, 0, -1) if key[:at] in self._known), 0)
        if start:
            node, depth = self._known[key[:start]], start
        for name in key[start:]:
            depth += 1
            found = self._one("SELECT id, dir FROM nodes WHERE parent=? AND name=?", node, name)
            if found is not None and not found[1]:
                self._drop(found[0])
                self.replaced.append(b"/".join(key[:depth]))
                found = None
            if found is None:
                node = self._insert(
                    "INSERT INTO nodes (parent, name, inode, depth, dir) VALUES (?, ?, 0, ?, 1)",
                    node,
                    name,
                    depth,
                )
            else:
                node = found[0]
        if len(self._known) >= _DIRECTORIES_KEPT:
            self._known.clear()
        self._known[key] = node
        return node

    def put_directory(self, path: Sequence[bytes], inode: Inode) -> None:
        """Takes in a directory, or what it says anew."""
        node = self.directory(path)
        (number,) = self._one("SELECT inode FROM nodes WHERE id=?", node) or (0,)
        if number:
            self._db.execute("UPDATE inodes SET row=? WHERE id=?", (_pack(inode), number))
        else:
            number = self._insert("INSERT INTO inodes (row, names) VALUES (?, 1)", _pack(inode))
            self._db.execute("UPDATE nodes SET inode=? WHERE id=?", (number, node))

    def put(self, path: Sequence[bytes], inode: Inode) -> None:
        """Takes in anything else under a name; whatever had the name goes, with all that is in it."""
        self._name(path, self._insert("INSERT INTO inodes (row, names) VALUES (?, 1)", _pack(inode)))

    def link(self, path: Sequence[bytes], target: Sequence[bytes]) -> str:
        """Gives a file another name; returns "", or why that cannot be."""
        node: int | None = ROOT
        found: tuple | None = None  # type: ignore[type-arg]
        for name in target:
            found = self._one("SELECT id, dir, inode FROM nodes WHERE parent=? AND name=?", node, name)
            if found is None:
                break
            node = found[0]
        if found is None:
            return "it is a hard link to what the archive does not hold"
        if found[1]:
            return "it is a hard link to a directory"
        if list(path) != list(target):
            # Counted before the name that it may take the place of is taken away.
            self._db.execute("UPDATE inodes SET names=names+1 WHERE id=?", (found[2],))
            self._name(path, found[2])
        return ""

    def _name(self, path: Sequence[bytes], number: int) -> None:
        above = self.directory(path[:-1])
        found = self._one("SELECT id FROM nodes WHERE parent=? AND name=?", above, path[-1])
        if found is not None:
            self._drop(found[0])
        self._insert(
            "INSERT INTO nodes (parent, name, inode, depth, dir) VALUES (?, ?, ?, ?, 0)",
            above,
            path[-1],
            number,
            len(path),
        )

    def _drop(self, node: int) -> None:
        """Takes a node away with all that is below it."""
        below = [node]
        while below:
            one = below.pop()
            below += [row[0] for row in self._db.execute("SELECT id FROM nodes WHERE parent=?", (one,))]
            (number,) = self._one("SELECT inode FROM nodes WHERE id=?", one) or (0,)
            self._db.execute("UPDATE inodes SET names=names-1 WHERE id=?", (number,))
            self._db.execute("DELETE FROM nodes WHERE id=?", (one,))
        self._known.clear()

    # --- giving out ------------------------------------------------------------------------------------------------

    def tops(self, limit: int) -> list[bytes] | None:
        """Returns the paths of the topmost nodes that members stand for, None where there are more than ``limit``."""
        found: list[bytes] = []
        stack: list[tuple[int, bytes]] = [(ROOT, b"")]
        while stack:
            node, path = stack.pop()
            rows = self._db.execute("SELECT id, name, inode FROM nodes WHERE parent=? ORDER BY name", (node,))
            for below, name, number in rows.fetchmany(limit * limit):
                if number:
                    found.append(path + b"/" + name)
                else:
                    stack.append((below, path + b"/" + name))
            if len(found) > limit or len(stack) > limit:
                return None
        return sorted(found)

    def above(self, path: Sequence[bytes]) -> list[int]:
        """Returns the directories on the way to a path, without the root and without what it leads to."""
        found: list[int] = []
        node = ROOT
        for name in path[:-1]:
            row = self._one("SELECT id, dir FROM nodes WHERE parent=? AND name=?", node, name)
            if row is None or not row[1]:
                break
            node = row[0]
            found.append(node)
        return found

    def levels(self) -> Iterator[list[int]]:
        """Yields the directories of each depth, the deepest first, the root last; nothing is taken in after that."""
        for line in filter(str.strip, _INDEXES.split(";")):
            self._db.execute(line)
        (depth,) = self._one("SELECT max(depth) FROM nodes WHERE dir=1") or (0,)
        for level in range(depth, -1, -1):
            yield [row[0] for row in self._db.execute("SELECT id FROM nodes WHERE dir=1 AND depth=?", (level,))]

    def children(self, node: int) -> Iterator[Child]:
        """Yields what is in a directory, in the order of names."""
        rows = self._db.execute(
            "SELECT name, nodes.id, row, nodes.inode, names, shared, dir, tree FROM nodes LEFT JOIN inodes "
            "ON inodes.id=nodes.inode WHERE parent=? ORDER BY name",
            (node,),
        )
        for name, below, row, number, names, shared, is_dir, tree in rows:
            yield Child(
                name=bytes(name),
                node=below,
                inode=_unpack(row) if row is not None else None,
                number=number,
                names=names or 0,
                shared=shared or b"",
                is_dir=bool(is_dir),
                tree=tree or b"",
            )

    def set_tree(self, node: int, tree: bytes) -> None:
        """Remembers what a directory became."""
        self._db.execute("UPDATE nodes SET tree=? WHERE id=?", (tree, node))

    def set_shared(self, number: int, shared: bytes) -> None:
        """Remembers what the names of a file have in common."""
        self._db.execute("UPDATE inodes SET shared=? WHERE id=?", (shared, number))

    def first_name(self, number: int) -> bytes:
        """Returns the first path of a file that has several, by bytes."""
        paths = []
        for row in self._db.execute("SELECT id FROM nodes WHERE inode=? AND dir=0", (number,)).fetchall():
            node, parts = row[0], []
            while node != ROOT:
                node, name = self._one("SELECT parent, name FROM nodes WHERE id=?", node) or (ROOT, b"")
                parts.append(name)
            paths.append(b"/".join(reversed(parts)))
        return min(paths)


def _pack(inode: Inode) -> bytes:
    packed: bytes = msgpack.packb(
        (inode.meta, inode.level, inode.ids, inode.target, inode.xattrs, inode.mark), use_bin_type=True
    )
    return packed


def _unpack(row: bytes) -> Inode:
    meta, level, ids, target, xattrs, mark = msgpack.unpackb(row)
    return Inode(
        meta=meta,
        level=level,
        ids=ids,
        target=target,
        xattrs=tuple((name, value) for name, value in xattrs),
        mark=mark,
    )
