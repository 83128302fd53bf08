"""What a directory was: its entries as they are remembered, or as the snapshot before holds them, one at a time.

Asked for in the order of names, so that a directory of a million entries costs a few columns and no million of objects.
Touches no file.
"""

from __future__ import annotations

import stat
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple, Protocol

from respaldo.catalog.trees import TreeReader
from respaldo.core.errors import RespaldoError
from respaldo.core.ids import CHUNK_ID_BYTES, ChunkId
from respaldo.core.model import Entry
from respaldo.flows.backup.carry import Scanned, find_carried
from respaldo.flows.backup.frame import IDENT_BYTES, META_BYTES, Frame, Like
from respaldo.flows.backup.memo import Remembered
from respaldo.format.columns import u32_array
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

    def carry_into(self, frame: Frame) -> None:
        """Carries over files that are as they were; of them nobody needs to ask any more."""
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

    def carry_into(self, frame: Frame) -> None:
        pass  # files are compared by size and time alone, and their content has to be looked up

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

    def __init__(self, tree: ChunkId, leaf: Leaf, names: bytes, meta: bytes, ident: bytes) -> None:
        self._tree = tree
        self._leaf = leaf
        self._scanned = Scanned(names.split(b"\0")[:-1], meta, ident)
        # A leaf may lack some that were scanned.
        self._held = self._scanned.names if leaf.names == names else leaf.names.split(b"\0")[:-1]
        self._at = self._row = 0
        self._entries = leaf.entries()
        self._made = 0
        """How many entries were made of the leaf so far, one after the other."""
        self._entry: tuple[int, Entry | None] = -1, None
        """The row of the entry that was made last, which may be asked for again."""

    @property
    def is_empty(self) -> bool:
        return self._at == len(self._held)

    def carry_into(self, frame: Frame) -> None:
        leaf = self._leaf
        frame.carried = find_carried(frame, leaf, self._held, self._scanned)
        for row, there, length, _ in frame.carried:
            span = range(there, there + length)
            if leaf.levels:
                frame.levels.update({at - there + row: leaf.levels[at] for at in span if at in leaf.levels})
            if leaf.xattrs:
                frame.xattrs.update({at - there + row: leaf.xattrs[at] for at in span if at in leaf.xattrs})
        if frame.carried:
            frame.like = like(self._tree, leaf)

    def find(self, name: bytes) -> Old | None:
        held = self._held
        if self._at < len(held) and held[self._at] < name:
            self._at = bisect_left(held, name, self._at + 1)
        if self._at == len(held) or held[self._at] != name:
            return None
        names, meta, ident = self._scanned
        row = self._at
        if held is not names:
            row = self._row = bisect_left(names, name, self._row)
            if row == len(names) or names[row] != name:
                return None
        return Old(meta[row * META_BYTES : (row + 1) * META_BYTES], ident[row * IDENT_BYTES : (row + 1) * IDENT_BYTES])

    def entry(self) -> Entry:
        at, entry = self._entry
        if at != self._at:
            if self._at - self._made >= _FAR:
                entry = self._apart(self._at)
            while self._made <= self._at < self._made + _FAR:
                entry = next(self._entries)
                self._made += 1
            self._entry = self._at, entry
        if entry is None:
            raise LookupError
        return entry

    @cached_property
    def _spots(self) -> array[int]:
        return self._leaf.spots()

    @cached_property
    def _targets(self) -> dict[int, bytes]:
        modes = u32_array(self._leaf.meta)[:: META_BYTES // 4]
        links = (row for row, mode in enumerate(modes) if stat.S_ISLNK(mode))
        return dict(zip(links, self._leaf.targets.split(b"\0"), strict=False))

    def _apart(self, row: int) -> Entry:
        """Makes one entry without those before it."""
        leaf, target = self._leaf, self._targets.get(row) if self._leaf.targets else None
        alone = Leaf(
            names=self._held[row] + b"\0",
            meta=leaf.meta[row * META_BYTES : (row + 1) * META_BYTES],
            content=leaf.content[self._spots[row] * CHUNK_ID_BYTES : self._spots[row + 1] * CHUNK_ID_BYTES],
            targets=b"" if target is None else target + b"\0",
            levels={0: leaf.levels[row]} if row in leaf.levels else {},
            links={0: leaf.links[row]} if row in leaf.links else {},
            xattrs={0: leaf.xattrs[row]} if row in leaf.xattrs else {},
            marks={0: leaf.marks[row]} if row in leaf.marks else {},
            users=leaf.users,
            groups=leaf.groups,
        )
        return next(alone.entries())


_FAR = 8
"""An entry is made without those before it where so many of them have not been made."""


def like(tree: ChunkId, leaf: Leaf) -> Like:
    """Returns what is to be known of a tree that files are carried over from."""
    words = u32_array(leaf.meta)
    users, groups = set(words[1 :: META_BYTES // 4]), set(words[2 :: META_BYTES // 4])
    return Like(
        tree,
        {number: leaf.users.get(number, "") for number in users},
        {number: leaf.groups.get(number, "") for number in groups},
    )


def nothing() -> Before:
    """Returns what is known of a directory that was never seen."""
    return _InSnapshot(iter(()))


def as_remembered(remembered: Remembered) -> Before:
    """Returns what the memo holds of a directory; a copy, which outlives writing to the memo."""
    try:
        leaf = leaf_as_encoded(bytes(remembered.leaf))
    except ValueError:
        return nothing()
    return _InMemo(
        ChunkId(remembered.tree), leaf, bytes(remembered.names), bytes(remembered.meta), bytes(remembered.ident)
    )


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
