"""Excerpts: a part of a snapshot that is no longer than asked for, as a tree that a restore can walk; and single files.

Invariant: what an excerpt holds is at most so many bytes in so many entries, whatever the trees say. Long files are cut
off at a chunk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from blake3 import blake3

from respaldo.catalog.trees import TreeReader
from respaldo.core.errors import ChunkMissing, Corruption
from respaldo.core.ids import ChunkId, Kind
from respaldo.core.model import Content, Entry, Mark
from respaldo.flows.restore.columns import leaf_of
from respaldo.format.content import HOLE, Row
from respaldo.format.tree import Leaf
from respaldo.store.source import ChunkSource
from respaldo.views.walk import tree_of

T = TypeVar("T")

_BYTES_AN_ENTRY = 4096
"""No more entries are taken than this makes of the bytes: a million empty files would take long, too."""
_DEPTH_MAX = 64
_TRIES = 8
_LOST = (Mark.LOST, Mark.UNREADABLE)


def _entries_max(length_max: int) -> int:
    return max(length_max // _BYTES_AN_ENTRY, 64)


def fits(length: int, files: int, length_max: int) -> bool:
    """Whether so many bytes in so many files are no more than an excerpt may hold."""
    return length <= length_max and files <= _entries_max(length_max)


class Excerpt:
    """Is trees of which some are cut off: what a restore reads instead of the whole ones. One thread."""

    def __init__(self, trees: TreeReader, source: ChunkSource, entry: Entry, length_max: int) -> None:
        self._trees = trees
        self._source = source
        self._cut: dict[ChunkId, Leaf] = {}
        self._whole: dict[ChunkId, tuple[int, int]] = {}
        self._bytes_left = length_max
        self._entries_left = _entries_max(length_max)
        self.entry = self._directory(entry, 0) if entry.is_dir else self._file(entry, length_max)

    def leaves(self, tree_id: ChunkId, /) -> Iterator[Leaf]:
        """Yields a directory."""
        cut = self._cut.get(tree_id)
        return self._trees.leaves(tree_id) if cut is None else iter((cut,))

    def list_rows(self, content: Content, /) -> Iterator[Row]:
        """Yields the chunks and holes of a long file."""
        return self._trees.list_rows(content)

    def data_bytes(self, content: Content, /) -> int:
        """Returns how many bytes of a long file are no holes."""
        return self._trees.data_bytes(content)

    def _directory(self, entry: Entry, depth: int) -> Entry | None:
        """Takes a directory as far as there is room; None where there is none for anything of it."""
        tree = tree_of(entry)
        if tree is None:
            return entry
        known = self._whole.get(tree)
        if known is not None and known[0] <= self._bytes_left and known[1] <= self._entries_left:
            self._bytes_left -= known[0]
            self._entries_left -= known[1]
            return entry
        if known is not None or tree in self._cut or depth > _DEPTH_MAX:
            return None
        bytes_before, entries_before = self._bytes_left, self._entries_left
        taken, is_whole = self._take(tree, depth)
        if is_whole:
            self._whole[tree] = bytes_before - self._bytes_left, entries_before - self._entries_left
        else:
            self._cut[tree] = leaf_of(taken)
        return entry

    def _take(self, tree: ChunkId, depth: int) -> tuple[list[Entry], bool]:
        taken: list[Entry] = []
        is_whole = True
        self._cut[tree] = leaf_of([])  # one that contains itself ends there
        try:
            for leaf in self._trees.leaves(tree):
                for entry in leaf.entries():
                    if self._entries_left <= 0:
                        return taken, False
                    self._entries_left -= 1
                    found = self._directory(entry, depth + 1) if entry.is_dir else self._fitted(entry)
                    is_whole = is_whole and found is entry and tree_of(entry) not in self._cut
                    if found is not None:
                        taken.append(found)
        except (Corruption, ChunkMissing):
            return taken, False
        if is_whole:
            del self._cut[tree]
        return taken, is_whole

    def _fitted(self, entry: Entry) -> Entry | None:
        """Returns a file if there is room for it, its beginning where it would take more than half of that."""
        if not entry.is_regular or entry.mark in _LOST:
            return entry if entry.mark not in _LOST else None
        found = self._file(entry, self._bytes_left // 2)
        if found is not None:
            self._bytes_left -= found.size
        return found

    def _file(self, entry: Entry, length_max: int) -> Entry | None:
        return beginning(self._trees, self._source, entry, length_max)


def beginning(trees: TreeReader, source: ChunkSource, entry: Entry, length_max: int) -> Entry | None:
    """Returns a file, or the beginning of a longer one, in whole chunks; None where not even one fits."""
    if entry.size <= length_max:
        return entry
    ids: list[bytes] = []
    length = 0
    try:
        for chunk_id, size in _rows(trees, source, entry):
            if chunk_id == HOLE or length + size > length_max:
                break
            ids.append(chunk_id)
            length += size
    except (Corruption, ChunkMissing):
        return None
    return replace(entry, size=length, content=Content(ids=b"".join(ids)), link_group=b"") if ids else None


def _rows(trees: TreeReader, source: ChunkSource, entry: Entry) -> Iterator[Row]:
    if entry.content.level:
        yield from trees.list_rows(entry.content)
        return
    for chunk_id in entry.content:
        yield Row(chunk_id, source.locate(Kind.DATA, chunk_id).length)


def pick(trees: TreeReader, top: Entry, path: bytes, count: int, seed: bytes) -> list[tuple[bytes, Entry]]:
    """Returns (path, entry) of so many files that are not empty, drawn anew from the top for each: the same every time.

    Fewer where there are no more. Costs as many directories a file as it lies deep, however many there are.
    """
    if not top.is_dir:
        return [(path, top)] if top.is_regular and top.size else []
    draw = _Draw(seed)
    found: dict[bytes, Entry] = {}
    for _ in range(count * _TRIES):
        if len(found) == count:
            break
        drawn = _descend(trees, top, path.rstrip(b"/"), draw)
        if drawn is not None:
            found[drawn[0]] = drawn[1]
    return list(found.items())


class _Draw:
    """Draws lots from a seed: another measurement is to find the same files."""

    def __init__(self, seed: bytes) -> None:
        self._seed = seed
        self._number = 0

    def choice(self, among: Sequence[T]) -> T:
        self._number += 1
        drawn = blake3(self._seed + self._number.to_bytes(8, "little")).digest(8)
        return among[int.from_bytes(drawn, "little") % len(among)]


def _descend(trees: TreeReader, entry: Entry, path: bytes, draw: _Draw) -> tuple[bytes, Entry] | None:
    for _ in range(_DEPTH_MAX):
        tree = tree_of(entry)
        try:
            runs = [] if tree is None else [tree, *trees.run_ids(tree)]
            leaf = next(trees.leaves(draw.choice(runs[1:] or runs)), None) if runs else None
        except (Corruption, ChunkMissing):
            return None
        rows = [] if leaf is None else [row for row in leaf.entries() if row.is_dir or (row.is_regular and row.size)]
        rows = [row for row in rows if row.mark not in _LOST]
        if not rows:
            return None
        entry = draw.choice(rows)
        path += b"/" + entry.name
        if not entry.is_dir:
            return path, entry
    return None
