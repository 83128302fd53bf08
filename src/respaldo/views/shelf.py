"""The shelf: enters into the register all trees below some roots that are not there yet, each read once.

A level at a time, for a few snapshots together, but a block is opened once: what it holds is condensed then, because
trees that were stored together are needed together. A few threads open blocks ahead. A tree is entered after all that
is below it; where something below cannot be read, for this time only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from respaldo.catalog.condense import Condensed, Condenser
from respaldo.catalog.feed import enter_piles
from respaldo.catalog.register import NOWHERE, UNKNOWN, Item, Register, handle_of, packed_tree, shape_of
from respaldo.core.errors import Corruption, RespaldoError
from respaldo.core.ids import ChunkId, Kind, pack_object
from respaldo.core.seams import Buffer
from respaldo.core.threads import thread_pool
from respaldo.format.pack import parse_footer
from respaldo.store.packrow import Indexed
from respaldo.store.source import OPENED_AT_ONCE, Location

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

_AHEAD = 6
_ROOTS_TOGETHER = 12
_FRESH_MAX = 4000
_SHAPES_KEPT = 100_000


class Source(Protocol):
    """Finds, opens and checks chunks."""

    def locate_each(self, ids: bytes) -> list[Location | None]: ...

    def block(self, pack: int, block: int) -> bytes: ...

    def check(self, kind: Kind, chunk_id: ChunkId, raw: Buffer) -> None: ...

    def get(self, kind: Kind, chunk_id: ChunkId) -> bytes: ...


class Index(Protocol):
    """Gives footers, to any thread."""

    def entry(self, number: int) -> tuple[Indexed, bytes] | None: ...


class Shelf:
    """Brings a register up to date."""

    def __init__(self, source: Source, index: Index, register: Register) -> None:
        self._source = source
        self._index = index
        self._register = register
        self._condenser = Condenser(register)
        self._taken: dict[bytes, Condensed] = {}
        """Of the snapshots that are read together, by id; those too that nobody asked for."""
        self._shapes: dict[bytes, bytes] = {b"": NOWHERE}
        """Of trees, by id."""
        self.failed: dict[bytes, RespaldoError] = {}
        """Trees that cannot be read, and why, by handle."""
        self.trees = 0
        """How many trees were entered."""

    def unknown(self, roots: Iterable[ChunkId]) -> list[ChunkId]:
        """Returns the roots that are not entered."""
        return [root for root in dict.fromkeys(roots) if not self._register.has(handle_of(root))]

    def read(self, roots: Sequence[ChunkId]) -> None:
        """Enters all that can be reached and is not entered."""
        self._register.loose.clear()
        waiting = self.unknown(roots)
        if waiting:
            enter_piles(self._register)
            waiting = self.unknown(waiting)
        if not waiting:
            return
        with thread_pool(OPENED_AT_ONCE, "open") as pool:
            for at in range(0, len(waiting), _ROOTS_TOGETHER):
                self._read([bytes(root) for root in waiting[at : at + _ROOTS_TOGETHER]], pool)

    def _read(self, roots: list[bytes], pool: ThreadPoolExecutor) -> None:
        level = roots
        seen: set[bytes] = set(roots)
        while level:
            self._fetch([tree for tree in level if tree not in self._taken], pool)
            following: list[bytes] = []
            for tree in level:
                taken = self._taken.get(tree)
                for child in taken.ids if taken else ():
                    if child and child not in seen:
                        seen.add(child)
                        if not self._register.has(handle_of(child)):
                            following.append(child)
            level = following
        self._register.put(list(self._entered(roots)))  # what is read for it, is read before anything is written
        self._taken.clear()

    def _entered(self, roots: list[bytes]) -> Iterator[Item]:
        """Yields what is to be entered, in an order in which nothing refers to what is not entered yet."""
        yield from self._rid()
        shapes = self._shapes
        if len(shapes) > _SHAPES_KEPT:
            shapes.clear()
        loose: set[bytes] = set()
        put: list[Item] = []
        for tree in self._upward(roots):
            found = self._taken[tree]
            below = [shapes.get(child) or self._shape(child) for child in found.ids]
            shape, items = shape_of(found.names, below)
            put += items
            handle, recorded = handle_of(tree), found.with_shape(shape)
            shapes[tree] = shape
            self.trees += 1
            if UNKNOWN in below or not loose.isdisjoint(found.ids):
                loose.add(tree)
                self._register.loose[handle] = recorded
            else:
                put.append(("trees", handle, packed_tree(handle, recorded)))
        yield from put
        yield from (("roots", handle_of(root), b"") for root in roots if root in self._taken and root not in loose)

    def _rid(self) -> Iterator[Item]:
        fresh, self._condenser.fresh = self._condenser.fresh, []
        yield from fresh

    def _upward(self, roots: list[bytes]) -> Iterator[bytes]:
        """Yields the trees that were taken and are below some roots, each after what is below it."""
        done: set[bytes] = set()
        stack = list(roots)
        while stack:
            tree = stack[-1]
            if tree in done or tree not in self._taken:
                stack.pop()
                continue
            waiting = [child for child in self._taken[tree].ids if child not in done and child in self._taken]
            if waiting:
                stack += waiting
                continue
            done.add(tree)
            stack.pop()
            yield tree

    def _shape(self, tree: bytes) -> bytes:
        """Returns the shape of a tree that was not entered just now."""
        entered = self._register.tree(handle_of(tree))
        shape = self._shapes[tree] = UNKNOWN if entered is None else entered.shape
        return shape

    def _fetch(self, trees: list[bytes], pool: ThreadPoolExecutor) -> None:
        blocks: dict[tuple[int, int], None] = {}
        if trees:
            blocks = {at[:2]: None for at in self._source.locate_each(b"".join(trees)) if at is not None}
        under_way: deque[Future[list[tuple[bytes, bytes]]]] = deque()
        for pack, block in blocks:
            under_way.append(pool.submit(self._open, pack, block))
            if len(under_way) >= _AHEAD:
                self._settle(under_way.popleft())
        while under_way:
            self._settle(under_way.popleft())
        for tree in trees:
            if tree not in self._taken:  # gone, damaged, or elsewhere: the slow way knows other copies
                try:
                    self._take(tree, self._source.get(Kind.TREE, ChunkId(tree)))
                except RespaldoError as error:
                    self.failed[handle_of(tree)] = error

    def _open(self, pack: int, block: int) -> list[tuple[bytes, bytes]]:
        """Runs in a worker: takes all trees out of a block, those that nobody asked for too: others will."""
        entry = self._index.entry(pack)
        if entry is None:
            return []
        footer = parse_footer(entry[1], pack_object(entry[0].name))
        row = footer.first_rows[block]
        raw = self._source.block(pack, block)
        taken = []
        for number, (_, offset, length) in enumerate(footer.places(row, footer.blocks[block].chunks), row):
            tree = footer.chunk_id(number)
            piece = raw[offset : offset + length]
            try:
                self._source.check(Kind.TREE, tree, piece)
            except Corruption:
                continue
            taken.append((bytes(tree), piece))
        return taken

    def _settle(self, future: Future[list[tuple[bytes, bytes]]]) -> None:
        try:
            trees = future.result()
        except RespaldoError:
            return
        for tree, raw in trees:
            if tree not in self._taken:
                with suppress(Corruption):  # of those that are needed, it is said in the end
                    self._take(tree, raw)

    def _take(self, tree: bytes, raw: bytes) -> None:
        self._taken[tree] = self._condenser.condense(tree, raw)
        if len(self._condenser.fresh) >= _FRESH_MAX:
            self._register.put(self._rid())
