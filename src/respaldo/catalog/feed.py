"""The feed: enters trees into the register as they are written, so that the first search reads none of them again.

Whoever writes a tree has written all that is below it, and has its bytes in hand: entering it takes a comparison with
its base. Where something below is not entered, because it was not written here, nothing above it is, and the search
reads that. In the first snapshot of a source every tree would be a base: they are laid by, and entered by whoever comes
next, a snapshot that has something to hold against them, or a search. A cache that cannot be written, or is damaged, is
none of a backup's business: then nothing more is entered. One thread.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

import lmdb

from respaldo.catalog.condense import Condensed, Condenser
from respaldo.catalog.register import NOWHERE, Item, Pile, Register, handle_of, packed_tree, shape_of
from respaldo.catalog.trees import TreeSink
from respaldo.core.errors import StorageFailed
from respaldo.core.ids import ChunkId, Kind
from respaldo.core.seams import Buffer

_TAKEN_BYTES_MAX = 8 << 20
_PILE_BYTES_MAX = 1 << 20
_FEW_BYTES = 128 << 10
"""So little is laid by where something waits already: entering that would take longer than the snapshot."""
_PILES_MAX = 1000
_WAITING_BYTES_MAX = 1 << 20
_WAITING_MAX = 8000
_BASES_BYTES_MAX = 4 << 20
_FAILED = (StorageFailed, lmdb.Error, OSError)


class Feed:
    """Enters the trees of one snapshot. A context manager; opens the register when there is something to enter."""

    def __init__(self, path: Path, *, frozen: bool = False) -> None:
        """``frozen``: nothing is to be entered (a dry run)."""
        self._path = path
        self._off = frozen
        self.first = False
        """Whether there is nothing to hold these trees against, so that they are laid by."""
        self._register: Register | None = None
        self._taken: list[tuple[bytes, bytes]] = []
        self._taken_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._register is not None:
            self._register.close()

    def put(self, tree: ChunkId, raw: bytes) -> None:
        """Takes a tree, to be entered when many are, or at the end: what is done in between costs twice as much."""
        if not self._off:
            self._taken.append((bytes(tree), raw))
            self._taken_bytes += len(raw)
            if self._taken_bytes > (_PILE_BYTES_MAX if self.first else _TAKEN_BYTES_MAX):
                self._enter_taken()

    def root(self, tree: ChunkId) -> None:
        """Enters what was taken, and that a tree is all of a snapshot, which is committed."""
        if self._taken:
            self._enter_taken(tree)

    def _enter_taken(self, root: bytes = b"") -> None:
        pile = Pile(self._taken, root)
        self._taken, self._taken_bytes = [], 0
        try:
            if self._register is None:
                self._register = Register(self._path)
            few = sum(len(raw) for _, raw in pile.trees) <= _FEW_BYTES
            if self.first or (few and 0 < self._register.count("piles") < _PILES_MAX):
                self._register.put_pile(pile)
            else:
                enter_piles(self._register)
                _Entering(self._register).enter(pile)
        except _FAILED:
            self._off = True


def enter_piles(register: Register) -> None:
    """Enters what was laid by. Whoever does the same meanwhile enters the same."""
    while (found := register.pile()) is not None:
        key, pile = found
        _Entering(register).enter(pile)
        register.drop_pile(key)


class _Entering:
    """Enters trees, those of one pile."""

    def __init__(self, register: Register) -> None:
        self._register = register
        self._condenser = Condenser(register, trusted=True, bases_bytes_max=_BASES_BYTES_MAX)
        self._condenser.alone = not register.count("trees")
        self._shapes: dict[bytes, bytes] = {NOWHERE: NOWHERE}
        """Of trees that wait to be entered, by handle."""
        self._waiting: list[Item] = []
        self._waiting_bytes = 0

    def enter(self, pile: Pile) -> None:
        """Enters trees, and that the root is all of a snapshot."""
        for tree, raw in pile.trees:
            self._enter(tree, raw)
        if pile.root and self._shape(handle_of(pile.root)):
            self._waiting.append(("roots", handle_of(pile.root), b""))
        self._settle()

    def _enter(self, tree: bytes, raw: bytes) -> None:
        handle, condenser = handle_of(tree), self._condenser
        if handle in self._shapes or (not condenser.alone and self._register.has(handle)):
            return
        found = condenser.condense(tree, raw)
        items, condenser.fresh = condenser.fresh, []
        shape = self._shape_like_base(found) if found.ids else found.names
        if shape is None:
            below = [self._shape(handle_of(child)) for child in found.ids]
            if b"" not in below:
                shape, more = shape_of(found.names, below)
                items += more
        if shape is not None:
            items.append(("trees", handle, packed_tree(handle, found.with_shape(shape))))
            self._shapes[handle] = shape
        self._waiting += items
        self._waiting_bytes += len(raw)
        if self._waiting_bytes > _WAITING_BYTES_MAX or len(self._waiting) > _WAITING_MAX:
            self._settle()

    def _shape_like_base(self, found: Condensed) -> bytes | None:
        """Returns the shape of a tree that has that of its base, or None where that is not seen at once."""
        if found.ids_of_base is None:
            return None
        shape = self._shape(found.recorded.base)
        if not shape or found.ids == found.ids_of_base:
            return shape or None
        pairs = zip(found.ids, found.ids_of_base, strict=True)
        moved = [(handle_of(now), handle_of(was)) for now, was in pairs if now != was]
        return shape if all(self._same_shape(now, was) for now, was in moved) else None

    def _same_shape(self, one: bytes, other: bytes) -> bool:
        shape = self._shape(one)
        return bool(shape) and shape == self._shape(other)

    def _shape(self, handle: bytes) -> bytes:
        """Returns the shape of a tree, nothing where it is not entered."""
        shape = self._shapes.get(handle)
        if shape is None:
            found = self._register.tree(handle)
            if found is None:
                return b""
            shape = self._shapes[handle] = found.shape
        return shape

    def _settle(self) -> None:
        self._register.put(self._waiting)
        self._waiting, self._waiting_bytes = [], 0
        self._shapes = {NOWHERE: NOWHERE}


class FedSink:
    """Stores trees, and feeds a register with them."""

    def __init__(self, sink: TreeSink, feed: Feed) -> None:
        self._sink = sink
        self._feed = feed

    def put(self, kind: Kind, raw: Buffer) -> ChunkId:
        """Stores a chunk; of a tree, what it refers to is stored already."""
        stored = self._sink.put(kind, raw)
        if kind is Kind.TREE:
            self._feed.put(stored, bytes(raw))
        return stored
