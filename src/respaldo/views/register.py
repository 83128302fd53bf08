"""The register: which names stand in which directory, and what stands behind them, in a local cache of one repository.

A tree that is entered is never read again to find a name. Everything has the name of its bytes, so that any number of
processes enter the same; a tree is entered after all that is below it, so that whoever finds one finds all. Trees with
the same names share a base, and hold what differs from it. Disposable, and as private as the files are: it holds their
names. What rotted in it counts as damage of the cache, never of the repository. One thread.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import lmdb
from blake3 import blake3

from respaldo.store.local import Environment
from respaldo.views.row import KEY_BYTES, key_of

LAYOUT = "register 1"
NOWHERE = bytes(KEY_BYTES)
"""Stands for the tree of a directory that has none."""
UNKNOWN = b"\xff" * KEY_BYTES
"""The shape of what could not be read: it may hold anything."""
FOLDER, RUN, OTHER = ord("D"), ord("R"), ord("-")
"""What a name in a list stands for: a directory, a run of a long one (its name is empty), anything else."""
_CHECK_BYTES = 8
_HEAD = struct.Struct(f"<{KEY_BYTES}s{KEY_BYTES}s{KEY_BYTES}sII")
_CHANGE = struct.Struct(f"<I{KEY_BYTES}s")
_LENGTH = struct.Struct("<I")
_PER_TRANSACTION = 2000
_DEAD_MIN = 32
"""So many roots, and half of all, have to be of snapshots that are gone before everything is thrown away."""


class Base(NamedTuple):
    """Is what trees with the same names have in common: the key of each row, and the handle of each tree below.

    Of runs there is no row. Directories and runs are numbered among themselves.
    """

    rows: list[bytes]
    below: list[bytes]


class Recorded(NamedTuple):
    """Is what is entered of a tree: where it differs from its base, by place in that."""

    names: bytes
    shape: bytes
    base: bytes
    rows: Mapping[int, bytes]
    below: Mapping[int, bytes]


class Names(NamedTuple):
    """Is a list of names: joined, each followed by NUL, and of each what it stands for."""

    joined: bytes
    kinds: bytes


class Register:
    """Keeps what was found in trees."""

    def __init__(self, path: Path) -> None:
        databases = dict.fromkeys(("names", "rows", "bases", "shapes", "trees", "latest", "roots"), False)
        self._environment = Environment(path, layout=LAYOUT, databases=databases)
        self._txn: lmdb.Transaction | None = None
        self.loose: dict[bytes, Recorded] = {}
        """Trees above one that could not be read: for now only, because it may be readable another time."""

    def close(self) -> None:
        """Ends reading and makes everything durable."""
        self._end_read()
        self._environment.close()

    def _get(self, database: str, key: bytes) -> bytes | None:
        if self._txn is None:
            self._txn = self._environment.begin_read()
        found = self._txn.get(key, db=self._environment.dbs[database])
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

    def names(self, key: bytes) -> Names:
        """Returns a list of names."""
        found = self._named("names", key)
        (length,) = _LENGTH.unpack_from(found)
        return Names(found[_LENGTH.size : _LENGTH.size + length], found[_LENGTH.size + length :])

    def row(self, key: bytes) -> bytes:
        """Returns a row."""
        return self._named("rows", key)

    def shape(self, key: bytes) -> tuple[bytes, list[bytes]]:
        """Returns the key of a list of names, and the shapes of the directories and runs in it."""
        first, *others = split_keys(self._named("shapes", key))
        return first, others

    def tree(self, handle: bytes) -> Recorded | None:
        """Returns what is entered of a tree, None where it is not."""
        known = self.loose.get(handle)
        if known is not None:
            return known
        found = self._get("trees", handle)
        if found is None:
            return None
        if blake3(found[_CHECK_BYTES:]).update(handle).digest(_CHECK_BYTES) != found[:_CHECK_BYTES]:
            raise lmdb.CorruptedError("a tree of the register is not what was entered")
        names, shape, base, rows, below = _HEAD.unpack_from(found, _CHECK_BYTES)
        at = _CHECK_BYTES + _HEAD.size
        if not rows and not below:
            return Recorded(names, shape, base, {}, {})
        end = at + rows * _CHANGE.size
        changed = dict(_CHANGE.iter_unpack(found[at:end]))
        return Recorded(names, shape, base, changed, dict(_CHANGE.iter_unpack(found[end:])))

    def base(self, key: bytes) -> Base:
        """Returns a base."""
        found = self._named("bases", key)
        end = _LENGTH.size + _LENGTH.unpack_from(found)[0] * KEY_BYTES
        return Base(split_keys(found[_LENGTH.size : end]), split_keys(found[end:]))

    def latest(self, names: bytes) -> bytes | None:
        """Returns the base that was made last for some names."""
        return self._get("latest", names)

    def has(self, handle: bytes) -> bool:
        """Whether a tree is entered, and all that is below it."""
        return self._get("trees", handle) is not None

    def put(self, items: Iterable[tuple[str, bytes, bytes]]) -> None:
        """Enters (database, key, value); what is there stays, but for what is the latest."""
        self._end_read()
        waiting = iter(items)
        while part := list(islice(waiting, _PER_TRANSACTION)):
            self._environment.write(partial(self._put, part))

    def _put(self, part: Sequence[tuple[str, bytes, bytes]], txn: lmdb.Transaction) -> None:
        dbs = self._environment.dbs
        for database, key, value in part:
            txn.put(key, value, db=dbs[database], overwrite=database == "latest")

    def keep(self, living: Collection[bytes]) -> None:
        """Throws everything away where most of it was found in snapshots that have gone. ``living``: handles."""
        if self._txn is None:
            self._txn = self._environment.begin_read()
        roots = [bytes(key) for key in self._txn.cursor(db=self._environment.dbs["roots"]).iternext(values=False)]
        dead = len(roots) - sum(root in living for root in roots)
        if dead >= _DEAD_MIN and dead * 2 > len(roots):
            self._end_read()
            self._environment.discard()


def packed_names(names: Names) -> bytes:
    """Returns a list of names as it is entered."""
    return _LENGTH.pack(len(names.joined)) + names.joined + names.kinds


def packed_base(base: Base) -> bytes:
    """Returns a base as it is entered."""
    return _LENGTH.pack(len(base.rows)) + b"".join(base.rows) + b"".join(base.below)


def packed_tree(handle: bytes, found: Recorded) -> bytes:
    """Returns a tree as it is entered."""
    parts = [_HEAD.pack(found.names, found.shape, found.base, len(found.rows), len(found.below))]
    parts += [_CHANGE.pack(*item) for keys in (found.rows, found.below) for item in keys.items()]
    body = b"".join(parts)
    return blake3(body).update(handle).digest(_CHECK_BYTES) + body


def split_keys(joined: bytes) -> list[bytes]:
    """Returns keys that are joined, one by one."""
    return [joined[at : at + KEY_BYTES] for at in range(0, len(joined), KEY_BYTES)]
