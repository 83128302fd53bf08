"""The register: which names stand in which directory, and what stands behind them, in a local cache of one repository.

A tree that is entered is never read again to find a name. Everything has the name of its bytes, so that any number of
processes enter the same; a tree is entered after all that is below it, so that whoever finds one finds all. A base is a
tree as it is stored; others with the same names hold where their columns differ from it. Disposable, and as private as
the files are: it holds their names. What rotted in it counts as damage of the cache, never of the repository. One
thread.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import lmdb
from blake3 import blake3

from respaldo.core.ids import CHUNK_ID_BYTES
from respaldo.format.columns import u32_array, u32_bytes
from respaldo.format.tree import META
from respaldo.store.local import Environment

LAYOUT = "register 3"
FOLDER_NAME = "register"
"""What it is called among the caches of a repository."""
KEY_BYTES = 16
NOWHERE = bytes(KEY_BYTES)
"""Stands for the tree of a directory that has none, and for the base of what has none."""
UNKNOWN = b"\xff" * KEY_BYTES
"""The shape of what could not be read: it may hold anything."""
FOLDER, RUN, OTHER = ord("D"), ord("R"), ord("-")
"""What a name in a list stands for: a directory, a run of a long one (its name is empty), anything else."""
_OTHER = bytes([OTHER])
NO_CELL = 0xFFFFFFFF
"""The cell of a directory that has no tree."""
_CHECK_BYTES = 8
_TREE = struct.Struct(f"<{KEY_BYTES}s{KEY_BYTES}sII")
"""Shape, base, how many rows of metadata and how many cells of content differ from those of the base."""
_TREE_AT = _CHECK_BYTES + _TREE.size
"""Where those columns begin, after the check."""
_BASE = struct.Struct(f"<{KEY_BYTES}sI")
"""Key of the names, number of directories."""
_LENGTH = struct.Struct("<I")
_PILE = struct.Struct(f"<{CHUNK_ID_BYTES}sI")
"""Root, number of trees. Follow: their ids, their lengths, their bytes."""
_NUMBER_BYTES = 8
_U32_BYTES = 4
_PER_TRANSACTION = 8000
_BYTES_PER_TRANSACTION = 2 << 20
_DEAD_MIN = 32
"""So many roots, and half of all, have to be of snapshots that are gone before everything is thrown away."""
Item = tuple[str, bytes, bytes]
"""What is to be entered: database, key, value."""


class Base(NamedTuple):
    """Is a tree that others are held against. ``folders``: by directory, the cell of its content in which its tree is.

    A cell is one id of the joined content. ``raw``: the tree as it is stored.
    """

    names: bytes
    folders: array[int]
    raw: bytes


class Recorded(NamedTuple):
    """Is what is entered of a tree: the columns in which it differs from its base, each row or cell with its number.

    Of a branch, whose base is `NOWHERE`, the cells are its runs.
    """

    shape: bytes
    base: bytes
    rows: bytes = b""
    meta: bytes = b""
    cells: bytes = b""
    ids: bytes = b""

    def id_at(self, place: int) -> bytes:
        """Returns the id in a place of ``ids``."""
        return self.ids[place * CHUNK_ID_BYTES : (place + 1) * CHUNK_ID_BYTES]


class Names(NamedTuple):
    """Is a list of names: joined, each followed by NUL, and of each what it stands for.

    Entered without that where none stands for a directory or a run: then what is entered ends with NUL.
    """

    joined: bytes
    kinds: bytes


class Pile(NamedTuple):
    """Is trees that wait to be entered: each with its id, after all that is below it.

    ``root``: that of a snapshot which is committed, empty where there is none yet.
    """

    trees: list[tuple[bytes, bytes]]
    root: bytes = b""


class Register:
    """Keeps what was found in trees."""

    def __init__(self, path: Path) -> None:
        databases = dict.fromkeys(("names", "bases", "shapes", "trees", "latest", "roots", "piles"), False)
        self._environment = Environment(path, layout=LAYOUT, databases=databases)
        self._txn: lmdb.Transaction | None = None
        self.loose: dict[bytes, Recorded] = {}
        """Trees above one that could not be read: for now only, because it may be readable another time."""

    def close(self) -> None:
        """Ends reading and makes everything durable."""
        self._end_read()
        self._environment.close()

    def _reading(self) -> lmdb.Transaction:
        if self._txn is None:
            self._txn = self._environment.begin_read()
        return self._txn

    def _get(self, database: str, key: bytes) -> bytes | None:
        found = self._reading().get(key, db=self._environment.dbs[database])
        return None if found is None else bytes(found)

    def _end_read(self) -> None:
        if self._txn is not None:
            self._txn.abort()
            self._txn = None

    def _named(self, database: str, key: bytes) -> bytes:
        """Returns what has the name of its bytes."""
        found = self._get(database, key)
        if found is None or key_of(found) != key:
            raise lmdb.CorruptedError(f"{database} of the register are not what was entered")
        return found

    def _checked(self, database: str, handle: bytes) -> bytes | None:
        """Returns what was entered of a tree, with its check before it."""
        found = self._get(database, handle)
        return None if found is None else _intact(database, handle, found)

    def names(self, key: bytes) -> Names:
        """Returns a list of names."""
        found = self._named("names", key)
        if not found or found.endswith(b"\0"):
            return Names(found, _OTHER * found.count(b"\0"))
        (length,) = _LENGTH.unpack_from(found)
        return Names(found[_LENGTH.size : _LENGTH.size + length], found[_LENGTH.size + length :])

    def shape(self, key: bytes) -> tuple[bytes, list[bytes]]:
        """Returns the key of a list of names, and the shapes of the directories and runs in it.

        Where there are none, the shape is the list.
        """
        found = self._get("shapes", key)
        if found is None:
            return key, []
        if key_of(found) != key:
            raise lmdb.CorruptedError("shapes of the register are not what was entered")
        first, *others = split_keys(found)
        return first, others

    def tree(self, handle: bytes) -> Recorded | None:
        """Returns what is entered of a tree, None where it is not."""
        known = self.loose.get(handle)
        if known is not None:
            return known
        found = self._checked("trees", handle)
        return None if found is None else _recorded(found)

    def trees(self, held: Mapping[bytes, int]) -> Iterator[tuple[bytes, int, Recorded | None]]:
        """Yields trees by their handles, with the number that stands for each, and what `tree` returns.

        Nothing is to be entered meanwhile.
        """
        if self.loose:
            yield from ((handle, number, self.tree(handle)) for handle, number in held.items())
            return
        get, database = self._reading().get, self._environment.dbs["trees"]
        for handle, number in held.items():
            view = get(handle, None, database)
            yield handle, number, None if view is None else _recorded(_intact("trees", handle, bytes(view)))

    def base(self, handle: bytes) -> Base:
        """Returns a base."""
        found = self._checked("bases", handle)
        if found is None:
            raise lmdb.CorruptedError("a base of the register is not there")
        names, count = _BASE.unpack_from(found, _CHECK_BYTES)
        at = _CHECK_BYTES + _BASE.size
        end = at + count * _U32_BYTES
        return Base(names, u32_array(found[at:end]), found[end:])

    def latest(self, names: bytes) -> bytes | None:
        """Returns the base that was made last for names, by the key of their column."""
        return self._get("latest", names)

    def count(self, database: str) -> int:
        """Returns how many records there are of a kind."""
        return int(self._reading().stat(self._environment.dbs[database])["entries"])

    def has(self, handle: bytes) -> bool:
        """Whether a tree is entered, and all that is below it."""
        return self._get("trees", handle) is not None

    def put(self, items: Iterable[Item]) -> None:
        """Enters items; what is there stays, but for what is the latest."""
        self._end_read()
        waiting = iter(items)
        while part := list(_part(waiting)):
            self._environment.write(partial(self._put, part))

    def _put(self, part: Sequence[Item], txn: lmdb.Transaction) -> None:
        values: dict[str, dict[bytes, bytes]] = {}
        for database, key, value in part:
            values.setdefault(database, {})[key] = value
        for database, found in values.items():
            with txn.cursor(db=self._environment.dbs[database]) as cursor:
                cursor.putmulti(sorted(found.items()), overwrite=database == "latest")

    def put_pile(self, pile: Pile) -> None:
        """Lays trees by, to be entered when somebody needs them, after those that were laid by before."""
        body = _PILE.pack(pile.root or bytes(CHUNK_ID_BYTES), len(pile.trees))
        lengths = array("I", [len(raw) for _, raw in pile.trees])
        ids, raws = (b"".join(column) for column in zip(*pile.trees, strict=True)) if pile.trees else (b"", b"")
        body = b"".join((body, ids, u32_bytes(lengths), raws))

        def put(txn: lmdb.Transaction) -> None:
            with txn.cursor(db=self._environment.dbs["piles"]) as cursor:
                number = int.from_bytes(cursor.key(), "big") + 1 if cursor.last() else 0
                key = number.to_bytes(_NUMBER_BYTES, "big")
                cursor.put(key, _check(key, body) + body)

        self._end_read()
        self._environment.write(put)

    def pile(self) -> tuple[bytes, Pile] | None:
        """Returns what was laid by first, and its key."""
        with self._reading().cursor(db=self._environment.dbs["piles"]) as cursor:
            if not cursor.first():
                return None
            key = bytes(cursor.key())
        found = self._checked("piles", key) or b""
        root, count = _PILE.unpack_from(found, _CHECK_BYTES)
        ids_at = _CHECK_BYTES + _PILE.size
        lengths_at = ids_at + count * CHUNK_ID_BYTES
        at = lengths_at + count * _U32_BYTES
        trees: list[tuple[bytes, bytes]] = []
        for row, length in enumerate(u32_array(found[lengths_at:at])):
            tree = found[ids_at + row * CHUNK_ID_BYTES : ids_at + (row + 1) * CHUNK_ID_BYTES]
            trees.append((tree, found[at : at + length]))
            at += length
        return key, Pile(trees, root if any(root) else b"")

    def drop_pile(self, key: bytes) -> None:
        """Takes away what was laid by, when it is entered."""
        self._end_read()
        self._environment.write(lambda txn: txn.delete(key, db=self._environment.dbs["piles"]))

    def keep(self, living: Collection[bytes]) -> None:
        """Throws everything away where most of it was found in snapshots that have gone. ``living``: handles."""
        roots = [bytes(key) for key in self._reading().cursor(db=self._environment.dbs["roots"]).iternext(values=False)]
        dead = len(roots) - sum(root in living for root in roots)
        if dead >= _DEAD_MIN and dead * 2 > len(roots):
            self._end_read()
            self._environment.discard()


def _part(items: Iterable[Item]) -> Iterable[Item]:
    """Yields as many items as one transaction may hold: its pages are anonymous memory."""
    length = 0
    for item in islice(items, _PER_TRANSACTION):
        yield item
        length += len(item[2])
        if length >= _BYTES_PER_TRANSACTION:
            return


def key_of(packed: bytes) -> bytes:
    """Returns what stands for some bytes here."""
    return blake3(packed).digest(KEY_BYTES)


def handle_of(tree: bytes) -> bytes:
    """Returns what stands for a tree in the register."""
    return bytes(tree[:KEY_BYTES]) or NOWHERE


def _recorded(found: bytes) -> Recorded:
    """Returns what `packed_tree` packed."""
    shape, base, rows, cells = _TREE.unpack_from(found, _CHECK_BYTES)
    if not rows and not cells:
        return _made((shape, base, b"", b"", b"", b""))
    meta_at = _TREE_AT + rows * _U32_BYTES
    cells_at = meta_at + rows * META.size
    ids_at = cells_at + cells * _U32_BYTES
    end = ids_at + cells * CHUNK_ID_BYTES
    columns = found[_TREE_AT:meta_at], found[meta_at:cells_at], found[cells_at:ids_at], found[ids_at:end]
    return _made((shape, base, *columns))


_made: Callable[[tuple[bytes, ...]], Recorded] = partial(tuple.__new__, Recorded)
"""Makes what is recorded without a call into Python: a search does so tens of thousands of times."""


def _intact(database: str, handle: bytes, found: bytes) -> bytes:
    """Returns what was entered of a tree; raises `lmdb.CorruptedError` where it is not that any more."""
    if blake3(handle + found[_CHECK_BYTES:]).digest(_CHECK_BYTES) != found[:_CHECK_BYTES]:
        raise lmdb.CorruptedError(f"{database} of the register are not what was entered")
    return found


def _check(handle: bytes, body: bytes) -> bytes:
    return blake3(handle + body).digest(_CHECK_BYTES)


def shape_of(names: bytes, below: Sequence[bytes]) -> tuple[bytes, list[Item]]:
    """Returns the shape of a tree, and what is to be entered of that: see `Register.shape`."""
    if not below:
        return names, []
    packed = names + b"".join(below)
    key = key_of(packed)
    return key, [("shapes", key, packed)]


def packed_names(names: Names) -> bytes:
    """Returns a list of names as it is entered."""
    if not names.kinds.strip(_OTHER):
        return names.joined
    return _LENGTH.pack(len(names.joined)) + names.joined + names.kinds


def packed_base(handle: bytes, base: Base) -> bytes:
    """Returns a base as it is entered."""
    body = _BASE.pack(base.names, len(base.folders)) + u32_bytes(base.folders) + base.raw
    return _check(handle, body) + body


def packed_tree(handle: bytes, found: Recorded) -> bytes:
    """Returns a tree as it is entered."""
    shape, base, rows, meta, cells, ids = found
    if not rows and not cells:
        body = _TREE.pack(shape, base, 0, 0)
        return _check(handle, body) + body
    body = b"".join(
        (_TREE.pack(shape, base, len(rows) // _U32_BYTES, len(cells) // _U32_BYTES), rows, meta, cells, ids)
    )
    return _check(handle, body) + body


def split_keys(joined: bytes) -> list[bytes]:
    """Returns keys that are joined, one by one."""
    return [joined[at : at + KEY_BYTES] for at in range(0, len(joined), KEY_BYTES)]
