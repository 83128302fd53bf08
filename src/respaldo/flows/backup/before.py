"""What a directory was: its entries as they are remembered, or as the snapshot before holds them, one at a time.

Asked for in the order of names, so that a directory of a million entries costs a few columns and no million of objects.
Touches no file.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from respaldo.catalog.trees import TreeReader
from respaldo.core.errors import Corruption, RespaldoError
from respaldo.core.ids import ChunkId
from respaldo.core.model import Entry
from respaldo.flows.backup.frame import IDENT_BYTES, META_BYTES
from respaldo.flows.backup.keep import LEAF_BYTES_MAX
from respaldo.flows.backup.memo import Remembered
from respaldo.format.tree import Leaf, parse_tree


class Old(NamedTuple):
    """Is what is remembered of an entry. ``ident`` is empty where it comes from a snapshot, not from the memo."""

    meta: bytes
    ident: bytes
    entry: Entry


class Before:
    """Finds entries by name; names are asked for in ascending order, each once."""

    def __init__(self, entries: Iterator[Old]) -> None:
        self._entries = entries
        self._next = next(entries, None)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is known, or nothing that has not been asked for."""
        return self._next is None

    def find(self, name: bytes) -> Old | None:
        """Returns what is known of a name."""
        while self._next is not None and self._next.entry.name < name:
            self._next = next(self._entries, None)
        if self._next is None or self._next.entry.name != name:
            return None
        return self._next


def nothing() -> Before:
    """Returns what is known of a directory that was never seen."""
    return Before(iter(()))


def as_remembered(remembered: Remembered) -> Before:
    """Returns what the memo holds of a directory; a copy, which outlives writing to the memo."""
    try:
        leaf = parse_tree(bytes(remembered.leaf), "local cache", length_max=LEAF_BYTES_MAX)
    except Corruption:
        return nothing()
    if not isinstance(leaf, Leaf):
        return nothing()
    return Before(_join(leaf, bytes(remembered.names), bytes(remembered.meta), bytes(remembered.ident)))


def _join(leaf: Leaf, names: bytes, meta: bytes, ident: bytes) -> Iterator[Old]:
    """Yields the entries of a leaf with the rows that were scanned of them; a leaf may lack some that were scanned."""
    row = 0
    scanned = names.split(b"\0")[:-1]
    for entry in leaf.entries():
        while row < len(scanned) and scanned[row] < entry.name:
            row += 1
        if row == len(scanned):
            return
        if scanned[row] == entry.name:
            yield Old(
                meta[row * META_BYTES : (row + 1) * META_BYTES],
                ident[row * IDENT_BYTES : (row + 1) * IDENT_BYTES],
                entry,
            )


def as_in_snapshot(tree: ChunkId, trees: TreeReader) -> Before:
    """Returns the files of a directory in an earlier snapshot, to be compared by size and time alone."""
    return Before(_files(tree, trees))


def _files(tree: ChunkId, trees: TreeReader) -> Iterator[Old]:
    try:
        for entry in trees.entries(tree):
            if entry.is_regular:
                yield Old(b"", b"", entry)
    except RespaldoError:
        return
