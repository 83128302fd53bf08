"""Trees and lists over chunks: written from columns, read as entries and rows.

A long directory stands in runs (`respaldo.catalog.runs`). A long file's content is cut into list nodes likewise, where
ids say so. Never holds a whole list in memory. Implements docs/format.md, "Tree" and "List".
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import replace
from typing import Protocol

from respaldo.core.errors import ChunkMissing, Corruption
from respaldo.core.ids import CHUNK_ID_BYTES, ChunkId, Kind
from respaldo.core.model import EMPTY, Content, Entry, Mark
from respaldo.core.seams import Buffer
from respaldo.format.content import DIRECT_CHUNKS_MAX, HOLE, NODE_BYTES_MAX, ROW, Row, ends_node, parse_node
from respaldo.format.leafcheck import LEVEL_MAX
from respaldo.format.tree import Leaf, parse_tree


class Sink(Protocol):
    """Stores chunks."""

    def put(self, kind: Kind, raw: Buffer) -> ChunkId: ...

    def put_each(self, kind: Kind, data: memoryview, spans: Sequence[tuple[int, int]]) -> list[ChunkId]: ...

    def knows(self, kind: Kind, chunk_id: ChunkId) -> bool: ...

    def separate(self) -> None: ...


class TreeSink(Protocol):
    """Stores chunks one by one: all that a tree needs."""

    def put(self, kind: Kind, raw: Buffer) -> ChunkId: ...


class Reader(Protocol):
    """Returns chunks, checked against their ids."""

    def get(self, kind: Kind, chunk_id: ChunkId) -> bytes: ...

    def has(self, chunk_id: ChunkId) -> bool: ...


def read_node(reader: Reader, chunk_id: ChunkId, level: int) -> list[Row]:
    """Returns the rows of a list node at a level; raises `Corruption` for one that no writer makes."""
    what = f"list {chunk_id.hex()[:16]}"
    if not 0 < level <= LEVEL_MAX:
        raise Corruption(what, "lists are nested too deep")
    raw = reader.get(Kind.LIST, chunk_id)
    if len(raw) > NODE_BYTES_MAX:
        raise Corruption(what, "longer than a list node can be")
    rows = parse_node(raw, what)
    if level > 1 and any(row.id == HOLE for row in rows):
        raise Corruption(what, "a hole stands above the lowest level")
    return rows


class ListBuilder:
    """Collects the chunks and holes of one file, stores list nodes as they fill, returns what an entry refers to."""

    __slots__ = ("_direct", "_levels", "_listed", "_sink", "length")

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._direct = bytearray()
        self._listed = False
        self._levels: list[list[tuple[bytes, int]]] = [[]]
        self.length = 0
        """Bytes added so far, holes included."""

    def add(self, chunk_id: bytes, length: int) -> None:
        """Appends a chunk."""
        self.length += length
        # Only now is a hole that fills its node known to end there.
        self._close_full(0)
        self._levels[0].append((chunk_id, length))
        if self._listed:
            self._close_full(0)
            return
        self._direct += chunk_id
        if len(self._direct) > DIRECT_CHUNKS_MAX * CHUNK_ID_BYTES:
            self._to_list()

    def hole(self, length: int) -> None:
        """Appends a hole; from here on the file refers to a list."""
        if length:
            self.length += length
            if not self._listed:
                self._to_list()
            rows = self._levels[0]
            if rows and rows[-1][0] == HOLE:
                length += rows.pop()[1]
            rows.append((HOLE, length))

    def _to_list(self) -> None:
        self._listed = True
        rows, self._levels = self._levels[0], [[]]
        for row in rows:
            self._levels[0].append(row)
            self._close_full(0)

    def _close_full(self, level: int) -> None:
        rows = self._levels[level]
        if rows and ends_node(rows[-1][0], len(rows)):
            self._close(level)

    def _close(self, level: int) -> None:
        rows = self._levels[level]
        node = self._sink.put(Kind.LIST, b"".join(ROW.pack(*row) for row in rows))
        total = sum(length for _, length in rows)
        rows.clear()
        if level + 1 == len(self._levels):
            self._levels.append([])
        self._levels[level + 1].append((node, total))
        self._close_full(level + 1)

    def state(self) -> list[object]:
        """Returns the open nodes, to go on from there in another run."""
        levels = [b"".join(ROW.pack(*row) for row in rows) for rows in self._levels]
        return [bytes(self._direct), self._listed, levels, self.length]

    def resume(self, direct: bytes, levels: list[bytes], length: int, *, listed: bool) -> None:
        """Takes up a state that `state` returned."""
        self._direct = bytearray(direct)
        self._listed = listed
        self._levels = [[(row, size) for row, size in ROW.iter_unpack(rows)] for rows in levels]
        self.length = length

    def finish(self) -> Content:
        """Stores what is open; returns what the entry refers to."""
        if not self._listed:
            return Content(level=0, ids=bytes(self._direct)) if self._direct else EMPTY
        level = 0
        while True:
            rows = self._levels[level]
            top = level + 1 == len(self._levels)
            if top and level > 0 and len(rows) == 1:
                return Content(level=level, ids=rows[0][0])
            if rows:
                self._close(level)
            level += 1


def check_run(run: Leaf | list[ChunkId], last: bytes, what: str) -> bytes:
    """Returns the last name of a run that comes after one whose last name is given; raises `Corruption`.

    Runs are leaves: one that has runs itself could stand for millions.
    """
    if not isinstance(run, Leaf):
        raise Corruption(what, "one of its runs is not a run")
    if run.names.partition(b"\0")[0] <= last:
        raise Corruption(what, "its runs overlap")
    return run.names[:-1].rpartition(b"\0")[2]


class TreeReader:
    """Reads directories as entries and files as rows."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def run_ids(self, tree_id: ChunkId) -> list[ChunkId]:
        """Returns the ids of a directory's runs, none where it is short."""
        tree = parse_tree(self._reader.get(Kind.TREE, tree_id), f"tree {tree_id.hex()[:16]}")
        return [] if isinstance(tree, Leaf) else [run_id for run_id, _ in tree.runs]

    def runs(self, tree_id: ChunkId) -> tuple[tuple[ChunkId, int], ...]:
        """Returns the runs of a directory and the numbers of their entries, none where it is short."""
        tree = parse_tree(self._reader.get(Kind.TREE, tree_id), f"tree {tree_id.hex()[:16]}")
        return () if isinstance(tree, Leaf) else tree.runs

    def opened(self, tree_id: ChunkId) -> Leaf | list[ChunkId]:
        """Returns a directory, of a long one the ids of its runs; raises `Corruption`, `ChunkMissing`."""
        tree = parse_tree(self._reader.get(Kind.TREE, tree_id), f"tree {tree_id.hex()[:16]}")
        return tree if isinstance(tree, Leaf) else [run_id for run_id, _ in tree.runs]

    def leaves(self, tree_id: ChunkId, known: Container[ChunkId] = ()) -> Iterator[Leaf]:
        """Yields the runs of a directory, but those that are known, one where it is short.

        Raises `Corruption`, `ChunkMissing`.

        A run that cannot be had is passed over, and the error raised at the end: the others are no worse for it.
        """
        what = f"tree {tree_id.hex()[:16]}"
        tree = parse_tree(self._reader.get(Kind.TREE, tree_id), what)
        if isinstance(tree, Leaf):
            yield tree
            return
        last = b""
        failed: ChunkMissing | Corruption | None = None
        for run_id, count in tree.runs:
            if run_id in known:
                continue
            try:
                run = self.opened(run_id)
            except (ChunkMissing, Corruption) as error:
                failed = failed or error
                continue
            last = check_run(run, last, what)
            if not isinstance(run, Leaf) or len(run) != count:
                raise Corruption(what, "one of its runs is not as long as it says")
            yield run
        if failed is not None:
            raise failed

    def entries(self, tree_id: ChunkId) -> Iterator[Entry]:
        """Yields the entries of a directory in the order of their names."""
        for leaf in self.leaves(tree_id):
            yield from leaf.entries()

    def find(self, tree_id: ChunkId, name: bytes) -> Entry | None:
        """Returns the entry of a name."""
        for leaf in self.leaves(tree_id):
            if leaf.names.startswith(name + b"\0") or b"\0" + name + b"\0" in leaf.names:
                return next((entry for entry in leaf.entries() if entry.name == name), None)
        return None

    def found(self, entry: Entry) -> Entry:
        """Returns a file without the mark of what is lost, where all of its content is there again."""
        if entry.mark is not Mark.LOST or not entry.is_regular:
            return entry
        try:
            if not all(level or self._reader.has(chunk_id) for level, chunk_id in self.nodes(entry.content)):
                return entry
        except (ChunkMissing, Corruption):
            return entry
        return replace(entry, mark=Mark.NONE)

    def list_rows(self, content: Content) -> Iterator[Row]:
        """Yields the rows at level 1 of a list: data chunks and holes. Raises `Corruption`, `ChunkMissing`.

        Between two holes comes data, so that whoever writes the rows meets the end of his disk before that of his time.
        """
        after_hole = False
        for chunk_id in content:
            for row in self._rows(chunk_id, content.level, None):
                is_hole = row.id == HOLE
                if is_hole and after_hole:
                    raise Corruption(f"list {chunk_id.hex()[:16]}", "two holes are adjacent in it")
                after_hole = is_hole
                yield row

    def data_bytes(self, content: Content) -> int:
        """Returns how many bytes of a list are data, reading each node once; raises `Corruption`, `ChunkMissing`."""
        known: dict[tuple[ChunkId, int], int] = {}
        return sum(self._data_bytes(chunk_id, content.level, known) for chunk_id in content)

    def _data_bytes(self, chunk_id: ChunkId, level: int, known: dict[tuple[ChunkId, int], int]) -> int:
        key = (chunk_id, level)
        if key not in known:
            total = 0
            for row in read_node(self._reader, chunk_id, level):
                if level > 1:
                    total += self._data_bytes(row.id, level - 1, known)
                elif row.id != HOLE:
                    total += row.length
            known[key] = total
        return known[key]

    def _rows(self, chunk_id: ChunkId, level: int, expected: int | None) -> Iterator[Row]:
        rows = read_node(self._reader, chunk_id, level)
        if expected is not None and sum(row.length for row in rows) != expected:
            raise Corruption(f"list {chunk_id.hex()[:16]}", "its rows do not add up to what refers to it")
        for row in rows:
            if level == 1:
                yield row
            else:
                yield from self._rows(row.id, level - 1, row.length)

    def nodes(self, content: Content) -> Iterator[tuple[int, ChunkId]]:
        """Yields (level, id) of all that content refers to, lists first, data chunks as level 0, holes left out.

        A list that is referred to more than once is gone through once.
        """
        stack = [(content.level, chunk_id) for chunk_id in reversed(list(content))]
        seen: set[tuple[int, ChunkId]] = set()
        while stack:
            level, chunk_id = stack.pop()
            if level:
                if (level, chunk_id) in seen:
                    continue
                seen.add((level, chunk_id))
            yield level, chunk_id
            if level:
                rows = parse_node(self._reader.get(Kind.LIST, chunk_id), f"list {chunk_id.hex()[:16]}")
                stack += [(level - 1, row.id) for row in reversed(rows) if row.id != HOLE]
