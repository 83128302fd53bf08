"""The memo: what each directory looked like when it was last backed up, so that equal bytes mean nothing to read.

A local cache, disposable. A row is believed without a look at the index only when the snapshot that it was taken into
was committed and its manifest is still there; any other row is a hint whose every chunk is looked up. Never decides by
itself that content is stored.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from functools import partial
from pathlib import Path
from typing import NamedTuple

import lmdb
from blake3 import blake3

from respaldo.core.ids import NAME_BYTES, RANDOM_ID_BYTES, PackName, SnapshotId
from respaldo.store.local import Environment

LAYOUT = "memo 4"
_CHECK_BYTES = 16
"""A BLAKE3 before each row, and before how far a big file was stored.

Nobody scrubs a cache, and a tree id, or the place to go on from, that rotted would stand in every snapshot to come. A
row has two: the first covers the second and what stands before the names, the second the rest, which is nine tenths
of it: whoever finds that it equals what was scanned needs no check of it.
"""
_AT_ROW = 2 * _CHECK_BYTES
_HEAD = struct.Struct("<16s32sIIIQIIIII")
"""Digest of the rules, tree id, mark, numbers of files and others, bytes in files, lengths of: subdirectory rows,
children's ids, names, meta, ident. The leaf follows them.
"""
_NUMBER = struct.Struct("<Q")
_WHOLE, _PARTIAL = blake3(derive_key_context="whole"), blake3(derive_key_context="partial")
_ROWS_PER_TRANSACTION = 1000
_QUEUED_BYTES_MAX = 4 << 20
_NEXT = b"next"
_SWEEP_RUNS = 64
_RUNS_MAX = 1 << 62
_KEPT_NS = 400 * 24 * 3600 * 10**9
"""What no run saw for so long is dropped: by time and not by runs, because sources are not backed up equally often."""


def _number(data: bytes | memoryview) -> int:
    if len(data) != _NUMBER.size:
        raise lmdb.CorruptedError("a number of the memo is not what was noted")
    return int(_NUMBER.unpack(data)[0])


class Totals(NamedTuple):
    """Counts what is directly in a directory: regular files, entries that are neither files nor directories, bytes."""

    files: int
    others: int
    length_bytes: int


class Remembered(NamedTuple):
    """Is what was seen of a directory: buffers that are valid until the memo is written to.

    ``names``, ``meta``, ``ident``: as scanned, before rules. ``subdirs``: u32 row numbers of the subdirectories that
    were entered, ``children`` their tree ids joined. ``leaf``: the encoded tree, whole even where the directory is
    split into runs.
    """

    rules: bytes
    tree: bytes
    mark: int
    totals: Totals
    subdirs: memoryview
    children: memoryview
    names: memoryview
    meta: memoryview
    ident: memoryview
    leaf: memoryview
    run: int


class Memo:
    """Remembers directories of one repository, by the path they are recorded under. One thread."""

    def __init__(self, path: Path) -> None:
        self._environment = Environment(
            path,
            layout=LAYOUT,
            databases={"rows": False, "stamps": False, "runs": False, "files": False, "packs": False, "spoilt": False},
        )
        self._dbs = self._environment.dbs
        self._txn: lmdb.Transaction | None = None
        self._rows: dict[bytes, bytes] = {}
        self._stamps: dict[bytes, int] = {}
        self._queued_bytes = 0
        self.frozen = False
        """Whether nothing is to be remembered (a dry run)."""
        self._trusting = True
        self._then: set[PackName] | None = None
        self.run = self._environment.write(self._next_run)

    def _next_run(self, txn: lmdb.Transaction) -> int:
        number = _number(txn.get(_NEXT, _NUMBER.pack(1), db=self._dbs["runs"]))
        if number > _RUNS_MAX:
            raise lmdb.CorruptedError("there were never so many runs as the memo says")
        txn.put(_NEXT, _NUMBER.pack(number + 1), db=self._dbs["runs"])
        return number

    @staticmethod
    def key(path: bytes, *, partial_listing: bool = False) -> bytes:
        """Returns the key of a directory's recorded path."""
        return (_PARTIAL if partial_listing else _WHOLE).copy().update(path).digest(20)

    def get(self, key: bytes, *, whole: bool = True) -> Remembered | None:
        """Returns what is remembered of a directory.

        Unless ``whole``, and where it has no subdirectories, nobody has looked whether names, meta, ident and leaf are
        what was remembered: for whoever compares the first three with what is there, and has no use for the leaf.
        """
        txn = self._read()
        value = txn.get(key, db=self._dbs["rows"])
        if value is None or len(value) < _AT_ROW + _HEAD.size:
            return None
        view = memoryview(value)
        rules, tree, mark, files, others, length_bytes, of_subdirs, of_children, of_names, of_meta, of_ident = (
            _HEAD.unpack_from(value, _AT_ROW)
        )
        at_children = _AT_ROW + _HEAD.size + of_subdirs
        at_names = at_children + of_children
        if blake3(view[_CHECK_BYTES:at_names]).digest(_CHECK_BYTES) != bytes(view[:_CHECK_BYTES]):
            return None
        if (whole or of_subdirs) and blake3(view[at_names:]).digest(_CHECK_BYTES) != bytes(view[_CHECK_BYTES:_AT_ROW]):
            return None
        at_meta = at_names + of_names
        at_ident = at_meta + of_meta
        at_leaf = at_ident + of_ident
        stamp = txn.get(key, b"", db=self._dbs["stamps"])
        return Remembered(
            rules,
            tree,
            mark,
            Totals(files, others, length_bytes),
            view[_AT_ROW + _HEAD.size : at_children],
            view[at_children:at_names],
            view[at_names:at_meta],
            view[at_meta:at_ident],
            view[at_ident:at_leaf],
            view[at_leaf:],
            _number(stamp) if stamp else 0,
        )

    def put(  # noqa: PLR0913 - the columns of a row
        self,
        key: bytes,
        *,
        rules: bytes,
        tree: bytes,
        mark: int,
        totals: Totals,
        subdirs: bytes,
        children: bytes,
        names: bytes,
        meta: bytes,
        ident: bytes,
        leaf: bytes,
    ) -> None:
        """Remembers a directory as this run saw it."""
        if self.frozen:
            return
        head = _HEAD.pack(rules, tree, mark, *totals, len(subdirs), len(children), len(names), len(meta), len(ident))
        seen = b"".join((names, meta, ident, leaf))
        row = b"".join((blake3(seen).digest(_CHECK_BYTES), head, subdirs, children))
        row = b"".join((blake3(row).digest(_CHECK_BYTES), row, seen))
        self._rows[key] = row
        self._queued_bytes += len(row)
        self.stamp(key)

    def stamp(self, key: bytes) -> None:
        """Remembers that this run saw a directory as it is remembered."""
        if self.frozen:
            return
        self._stamps[key] = self.run
        if len(self._stamps) >= _ROWS_PER_TRANSACTION or self._queued_bytes >= _QUEUED_BYTES_MAX:
            self.flush()

    def snapshot_of(self, run: int) -> SnapshotId | None:
        """Returns the snapshot that a run committed, None where there is none or packs were lost since."""
        if not self._trusting:
            return None
        found = self._read().get(_NUMBER.pack(run), db=self._dbs["runs"])
        if found and len(found) != RANDOM_ID_BYTES + _NUMBER.size:
            raise lmdb.CorruptedError("a run of the memo is not what was noted")
        return SnapshotId(bytes(found[: -_NUMBER.size])) if found else None

    def put_file(self, key: bytes, state: bytes) -> None:
        """Remembers how far a big file was stored."""
        if not self.frozen:
            self._end_read()
            row = blake3(key).update(state).digest(_CHECK_BYTES) + state
            self._environment.write(lambda txn: txn.put(key, row, db=self._dbs["files"]))

    def get_file(self, key: bytes) -> bytes:
        """Returns how far a big file was stored, empty where nothing is known, or it is not any more what was put."""
        row = bytes(self._read().get(key, b"", db=self._dbs["files"]))
        state = row[_CHECK_BYTES:]
        return state if blake3(key).update(state).digest(_CHECK_BYTES) == row[:_CHECK_BYTES] else b""

    def drop_file(self, key: bytes) -> None:
        """Forgets how far a big file was stored."""
        if not self.frozen:
            self._end_read()
            self._environment.write(lambda txn: txn.delete(key, db=self._dbs["files"]))

    def flush(self) -> None:
        """Writes what is queued."""
        self._end_read()
        if self._rows or self._stamps:
            self._environment.write(partial(self._write, self._rows, self._stamps))
        self._rows, self._stamps, self._queued_bytes = {}, {}, 0

    def _write(self, rows: dict[bytes, bytes], stamps: dict[bytes, int], txn: lmdb.Transaction) -> None:
        for key in sorted(rows):
            txn.put(key, rows[key], db=self._dbs["rows"])
        for key in sorted(stamps):
            txn.put(key, _NUMBER.pack(stamps[key]), db=self._dbs["stamps"])

    def packs_gone(self, there: AbstractSet[PackName]) -> set[PackName]:
        """Returns the packs that were there when a run was last committed, and are not any more."""
        return self._packs_then() - there

    def _packs_then(self) -> set[PackName]:
        if self._then is None:  # one run at a time has this memo, and writes them last
            names = b"".join(self._read().cursor(db=self._dbs["packs"]).iternext(values=False))
            self._then = {PackName(names[at : at + NAME_BYTES]) for at in range(0, len(names), NAME_BYTES)}
        return self._then

    def damage_seen(self) -> dict[PackName, int]:
        """Returns the damaged rows that a run was committed in spite of: it has looked for what lies in them."""
        rows = self._read().cursor(db=self._dbs["spoilt"])
        return {PackName(bytes(name)): int.from_bytes(bits, "little") for name, bits in rows}

    def distrust(self) -> None:
        """Leaves of everything that is remembered a hint only, whose every chunk is to be looked up."""
        self._trusting = False

    def commit(
        self, snapshot: SnapshotId, now_ns: int, packs: AbstractSet[PackName], damage: Mapping[PackName, int]
    ) -> None:
        """Says that everything this run saw is in a committed snapshot, and drops what no recent run saw.

        ``packs``: all that are there and whole. ``damage``: rows that were known to be damaged when the run began.
        """
        self.flush()
        then = self._packs_then()
        gone, fresh = then - packs, packs - then
        self._end_read()

        def note(txn: lmdb.Transaction) -> None:
            if not self._trusting:
                for number in list(txn.cursor(db=self._dbs["runs"]).iternext(values=False)):
                    if number != _NEXT:
                        txn.delete(number, db=self._dbs["runs"])
            txn.put(_NUMBER.pack(self.run), snapshot + _NUMBER.pack(now_ns), db=self._dbs["runs"])
            txn.drop(self._dbs["spoilt"], delete=False)
            for name, bits in damage.items():
                txn.put(name, bits.to_bytes((bits.bit_length() + 7) // 8, "little"), db=self._dbs["spoilt"])
            for name in gone:
                txn.delete(name, db=self._dbs["packs"])
            for name in fresh:
                txn.put(name, b"", db=self._dbs["packs"])

        self._environment.write(note)
        self._then = None
        if self.run % _SWEEP_RUNS == 0:
            self._environment.write(partial(self._sweep, now_ns - _KEPT_NS))

    def _sweep(self, before_ns: int, txn: lmdb.Transaction) -> None:
        """Drops runs that ended before a time, and rows that were not seen since."""
        stale = {
            bytes(number): _number(number)
            for number, value in txn.cursor(db=self._dbs["runs"])
            if number != _NEXT and _number(value[-_NUMBER.size :]) < before_ns
        }
        last = max(stale.values(), default=-1)
        for number in stale:
            txn.delete(number, db=self._dbs["runs"])
        stamps = [bytes(key) for key, run in txn.cursor(db=self._dbs["stamps"]) if _number(run) <= last]
        for key in stamps:
            txn.delete(key, db=self._dbs["rows"])
            txn.delete(key, db=self._dbs["stamps"])

    def _read(self) -> lmdb.Transaction:
        if self._txn is None:
            self._txn = self._environment.begin_read()
        return self._txn

    def _end_read(self) -> None:
        if self._txn is not None:
            self._txn.abort()
            self._txn = None

    def close(self) -> None:
        """Writes what is queued and closes."""
        self.flush()
        self._environment.close()
