"""What a directory was: its entries as they are remembered, or as the snapshot before holds them, one at a time.

Asked for in the order of names, so that a directory of a million entries costs a few columns and no million of objects.
Touches no file.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from respaldo.catalog.trees import TreeReader
from respaldo.core.errors import RespaldoError
from respaldo.core.ids import ChunkId
from respaldo.core.model import Entry
from respaldo.flows.backup.frame import IDENT_BYTES, META_BYTES
from respaldo.flows.backup.memo import Remembered
from respaldo.format.tree import Leaf, leaf_as_encoded


class Old(NamedTuple):
    """Is the rows that were scanned of an entry; both empty where it comes from a snapshot, not from the memo."""

    meta: bytes
    ident: bytes


_IN_SNAPSHOT = Old(b"", b"")


class Before(Protocol):
    """Finds entries by name; names are asked for in ascending order, each once."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing is known, or nothing that has not been asked for."""
        ...

    def find(self, name: bytes) -> Old | None:
        """Returns what was scanned of a name, None where nothing is known of it."""
        ...

    def entry(self) -> Entry:
        """Returns the entry of the name that was found last. Costs much more than finding it."""
        ...


class _InSnapshot:
    """Finds the entries of an earlier snapshot."""

    def __init__(self, entries: Iterator[Entry]) -> None:
        self._entries = entries
        self._next = next(entries, None)

    @property
    def is_empty(self) -> bool:
        return self._next is None

    def find(self, name: bytes) -> Old | None:
        while self._next is not None and self._next.name < name:
            self._next = next(self._entries, None)
        return _IN_SNAPSHOT if self._next is not None and self._next.name == name else None

    def entry(self) -> Entry:
        if self._next is None:
            raise LookupError
        return self._next


class _InMemo:
    """Finds what the memo holds; makes no object of an entry until that is asked for."""

    def __init__(self, leaf: Leaf, names: bytes, meta: bytes, ident: bytes) -> None:
        self._meta = meta
        self._ident = ident
        self._scanned = names.split(b"\0")[:-1]
        # A leaf may lack some that were scanned.
        self._held = self._scanned if leaf.names == names else leaf.names.split(b"\0")[:-1]
        self._at = self._row = 0
        self._entries = leaf.entries()
        self._made = 0
        """How many entries were made of the leaf so far; the last one may be asked for again."""
        self._entry: Entry | None = None

    @property
    def is_empty(self) -> bool:
        return self._at == len(self._held)

    def find(self, name: bytes) -> Old | None:
        held, at, end = self._held, self._at, len(self._held)
        while at < end and held[at] < name:
            at += 1
        self._at = at
        if at == end or held[at] != name:
            return None
        row = at
        if held is not self._scanned:
            row = self._row
            while row < len(self._scanned) and self._scanned[row] < name:
                row += 1
            self._row = row
            if row == len(self._scanned) or self._scanned[row] != name:
                return None
        return Old(
            self._meta[row * META_BYTES : (row + 1) * META_BYTES],
            self._ident[row * IDENT_BYTES : (row + 1) * IDENT_BYTES],
        )

    def entry(self) -> Entry:
        while self._made <= self._at:
            self._entry = next(self._entries)
            self._made += 1
        if self._entry is None:
            raise LookupError
        return self._entry


def nothing() -> Before:
    """Returns what is known of a directory that was never seen."""
    return _InSnapshot(iter(()))


def as_remembered(remembered: Remembered) -> Before:
    """Returns what the memo holds of a directory; a copy, which outlives writing to the memo."""
    try:
        leaf = leaf_as_encoded(bytes(remembered.leaf))
    except ValueError:
        return nothing()
    return _InMemo(leaf, bytes(remembered.names), bytes(remembered.meta), bytes(remembered.ident))


def as_in_snapshot(tree: ChunkId, trees: TreeReader) -> Before:
    """Returns the files of a directory in an earlier snapshot, to be compared by size and time alone."""
    return _InSnapshot(_files(tree, trees))


def _files(tree: ChunkId, trees: TreeReader) -> Iterator[Entry]:
    try:
        for entry in trees.entries(tree):
            if entry.is_regular:
                yield entry
    except RespaldoError:
        return
