"""SHA-256 of files' contents: computed once, kept in the repository for all, and in a local cache for look-ups.

A row says of a content, by its ids, what SHA-256 it has: a fact that no snapshot and no time changes, and that content
which many snapshots share needs once. Never trusted over the data: it can be computed again, and whoever wants to be
sure does. Invariant: rows go into the repository create-only, in records of bounded size; one that is missing costs
time and nothing else. A row in the cache has a check of its own, since a bit that rots there would be told as a file's
SHA-256. Implements docs/format.md, "Sums".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from types import TracebackType
from typing import Self

import lmdb
from blake3 import blake3

from respaldo.core.errors import Corruption, KeyRotated, ObjectMissing, Refused, StorageDenied, StorageFull
from respaldo.core.ids import RANDOM_ID_BYTES
from respaldo.core.model import Content
from respaldo.format.snapshot import RECORD_BYTES_MAX
from respaldo.format.verification import ROWS_MAX, Sums, content_key, parse_sums, rows_of, sums_of
from respaldo.store.local import Environment
from respaldo.store.ordinals import ROWS_PER_TRANSACTION
from respaldo.store.repo import Repo

FOLDER = "sums"
LAYOUT = "sums 2"
_CHECK_BYTES = 4


def read_sums(repo: Repo, name: str) -> Sums:
    """Reads a record; raises `ObjectMissing`, `Corruption`."""
    data = repo.backend.get_whole(name, RECORD_BYTES_MAX)
    return parse_sums(repo.vault.open_record(FOLDER, name, data), name)


def put_sums(repo: Repo, rows: dict[bytes, bytes]) -> str:
    """Puts a record of digests by key; returns its name. Raises errors of storage."""
    name = f"{FOLDER}/{repo.random(RANDOM_ID_BYTES).hex()}"
    repo.put_small(FOLDER, name, sums_of(rows).encode())
    return name


def _check(key: bytes, digest: bytes) -> bytes:
    return blake3(key + digest).digest(_CHECK_BYTES)


class SumsKept:
    """Knows the SHA-256 of contents. A context manager; one thread.

    What is added is put into the repository in the end, where that can be written to; else it stays in the cache.
    """

    def __init__(self, repo: Repo) -> None:
        self._repo = repo
        self._environment = Environment(
            repo.cache_dir / FOLDER, layout=LAYOUT, databases={"rows": False, "records": False}
        )
        self._rows = self._environment.dbs["rows"]
        self._records = self._environment.dbs["records"]
        self._fresh: dict[bytes, bytes] = {}
        self._wrong: set[bytes] = set()
        """Keys whose digest in the repository is another than that of the content."""
        self.kept = True
        """Whether the repository took what was added."""
        try:
            self._load()
        except BaseException:
            self._environment.close()
            raise

    def find(self, content: Content) -> bytes | None:
        """Returns the SHA-256 of a content, None where nobody has computed it yet."""
        key = content_key(content)
        found = self._fresh.get(key)
        if found is None:
            with self._environment.read() as txn:
                found = self._cached(txn, key)
        return found

    def _cached(self, txn: lmdb.Transaction, key: bytes) -> bytes | None:
        value = bytes(txn.get(key, default=b"", db=self._rows))
        digest = value[:-_CHECK_BYTES]
        return digest if value and value == digest + _check(key, digest) else None

    def add(self, content: Content, digest: bytes) -> None:
        """Remembers the SHA-256 of a content that was read and checked."""
        before = self.find(content)
        if before != digest:
            key = content_key(content)
            if before is not None:
                self._wrong.add(key)
            self.learn(key, digest)

    def lacking(self, keys: Sequence[bytes]) -> list[int]:
        """Returns the numbers of those keys of contents whose SHA-256 nobody has computed yet."""
        with self._environment.read() as txn:
            return [
                number for number, key in enumerate(keys) if key not in self._fresh and self._cached(txn, key) is None
            ]

    def learn(self, key: bytes, digest: bytes) -> None:
        """Remembers a SHA-256 that was `lacking`."""
        self._fresh[key] = digest
        if len(self._fresh) >= ROWS_MAX:
            self._flush()

    def _load(self) -> None:
        """Takes over the records that are new; all of them anew where one is gone, since its rows may be dead."""
        there = set(self._repo.backend.names(FOLDER))
        with self._environment.read() as txn:
            known = {bytes(name).decode() for name, _ in txn.cursor(db=self._records)}
        if known - there:
            self._environment.discard()
            self._rows, self._records = self._environment.dbs["rows"], self._environment.dbs["records"]
            known = set()
        for name in sorted(there - known):
            try:
                found = read_sums(self._repo, name)
            except (ObjectMissing, Corruption):
                continue
            self._keep(iter(rows_of(found)), name)

    def _keep(self, rows: Iterator[tuple[bytes, bytes]], name: str) -> None:
        """Puts rows into the cache, in bounded transactions, and then the name of their record."""
        while part := list(islice(rows, ROWS_PER_TRANSACTION)):

            def put(txn: lmdb.Transaction, part: list[tuple[bytes, bytes]] = part) -> None:
                for key, digest in part:
                    txn.put(key, digest + _check(key, digest), db=self._rows)

            self._environment.write(put)
        if name:
            self._environment.write(lambda txn: txn.put(name.encode(), b"\1", db=self._records))

    def _flush(self) -> None:
        fresh, self._fresh = self._fresh, {}
        if not fresh:
            return
        name = ""
        try:
            name = put_sums(self._repo, fresh)
            if self._wrong:
                self._take_out_wrong(fresh)
        except (StorageDenied, StorageFull, Refused, KeyRotated):  # or who only reads an area seals nothing
            self.kept = False
        self._keep(iter(sorted(fresh.items())), name)

    def _take_out_wrong(self, right: dict[bytes, bytes]) -> None:
        """Puts the records that say something else than what was read again, without that; deletes what they were."""
        for name in self._repo.backend.names(FOLDER):
            try:
                rows = dict(rows_of(read_sums(self._repo, name)))
            except (ObjectMissing, Corruption):
                continue
            wrong = {key for key in self._wrong if key in rows and key in right and rows[key] != right[key]}
            if wrong:
                put_sums(self._repo, {key: digest for key, digest in rows.items() if key not in wrong})
                self._repo.backend.discard([name])
        self._wrong.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if value is None:
                self._flush()
        finally:
            self._environment.close()
