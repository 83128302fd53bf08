"""What this client knows of earlier copies between two repositories that cut content differently: what became of what.

Derived and disposable, in the target's cache. Nothing is believed unseen: whoever takes over content looks every chunk
up in the target, and a tree is taken over only with the snapshot of the target that it is a part of.
"""

from __future__ import annotations

from pathlib import Path

import lmdb
from blake3 import blake3

from respaldo.core.ids import CHUNK_ID_BYTES, ChunkId, SnapshotId
from respaldo.core.model import Content
from respaldo.store.local import Environment

_LAYOUT = "copies 1"
_KEY_BYTES = 20
_QUEUED_MAX = 2000
_MAYBE_MASK = (1 << 20) - 1
_Rows = dict[bytes, bytes]


class Known:
    """Remembers files and trees of one source. One thread. ``run`` names what is being copied now."""

    def __init__(self, path: Path, source: bytes) -> None:
        self._environment = Environment(path, layout=_LAYOUT, databases={"files": False, "trees": False, "runs": False})
        self._source = source
        self._txn: lmdb.Transaction | None = None
        self._queued: dict[str, _Rows] = {"files": {}, "trees": {}}
        empty = not self._environment.write(lambda txn: txn.stat(self._environment.dbs["files"])["entries"])
        self._maybe = bytearray(_MAYBE_MASK + 1) if empty else None
        """Where nothing was known at first, by some bits of their keys, which files may be by now: the first copy of
        all is full of files that nothing is known of, and a look-up waits for threads that compress."""
        self.frozen = False
        """Whether nothing is to be remembered (a dry run)."""

    def _key(self, *parts: bytes) -> bytes:
        return blake3(self._source + b"".join(parts), derive_key_context="copies").digest(_KEY_BYTES)

    def content(self, content: Content) -> Content | None:
        """Returns what a file's content became."""
        key = self._key(bytes([content.level]), content.ids)
        if self._maybe is not None and not self._maybe[_bits(key)]:
            return None
        found = self._get("files", key)
        return Content(level=found[0], ids=found[1:]) if found else None

    def tree(self, tree: ChunkId) -> tuple[ChunkId, SnapshotId] | None:
        """Returns what a tree became, and the snapshot of the target that holds it, as far as one was committed."""
        found = self._get("trees", self._key(tree))
        if not found:
            return None
        snapshot = self._get("runs", found[CHUNK_ID_BYTES:])
        return (ChunkId(found[:CHUNK_ID_BYTES]), SnapshotId(snapshot)) if snapshot else None

    def put_content(self, content: Content, became: Content) -> None:
        """Remembers what a file's content became."""
        key = self._key(bytes([content.level]), content.ids)
        if self._maybe is not None:
            self._maybe[_bits(key)] = 1
        self._put("files", key, bytes([became.level]) + became.ids)

    def put_tree(self, tree: ChunkId, became: ChunkId, run: bytes) -> None:
        """Remembers what a tree became; it counts once `commit` says which snapshot the run is."""
        self._put("trees", self._key(tree), became + run)

    def commit(self, run: bytes, snapshot: SnapshotId) -> None:
        """Says which snapshot of the target a run came to."""
        self.flush()
        if not self.frozen:
            self._environment.write(lambda txn: txn.put(run, snapshot, db=self._environment.dbs["runs"]))

    def has_run(self, run: bytes) -> bool:
        """Whether a run is known to have come to a snapshot."""
        return bool(self._get("runs", run))

    def _put(self, database: str, key: bytes, value: bytes) -> None:
        if not self.frozen:
            self._queued[database][key] = value
            if len(self._queued[database]) >= _QUEUED_MAX:
                self.flush()

    def _get(self, database: str, key: bytes) -> bytes:
        queued = self._queued.get(database, {}).get(key)
        if queued is not None:
            return queued
        if self._txn is None:
            self._txn = self._environment.begin_read()
        return bytes(self._txn.get(key, b"", db=self._environment.dbs[database]))

    def flush(self) -> None:
        """Writes what is queued."""
        if self._txn is not None:
            self._txn.abort()
            self._txn = None
        if not any(self._queued.values()):
            return
        queued, self._queued = self._queued, {"files": {}, "trees": {}}

        def write(txn: lmdb.Transaction) -> None:
            for database, rows in queued.items():
                for key in sorted(rows):
                    txn.put(key, rows[key], db=self._environment.dbs[database])

        self._environment.write(write)

    def close(self) -> None:
        """Writes what is queued and closes."""
        self.flush()
        self._environment.close()


def _bits(key: bytes) -> int:
    return int.from_bytes(key[:3], "little") & _MAYBE_MASK
