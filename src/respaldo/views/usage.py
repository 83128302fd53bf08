"""Usage: what takes the space below a directory of a snapshot, entry by entry: as it was, as stored, and held alone.

Content that several entries share counts where it is met first, in the order of names, so that a directory's entries
add up to it. A directory is gone through when it is asked for; memory holds a byte a chunk below it and its entries.
Nothing but trees and lists is read.
"""

from __future__ import annotations

import stat
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

from respaldo.catalog.trees import TreeReader
from respaldo.core.errors import ChunkMissing, Corruption, ObjectMissing
from respaldo.core.ids import CHUNK_ID_BYTES, ChunkId
from respaldo.core.model import Content, Entry
from respaldo.core.seams import Cancel
from respaldo.format.columns import u32_array
from respaldo.format.content import HOLE
from respaldo.format.pack import Footer, parse_footer
from respaldo.format.tree import META, Leaf, references

_SHARES_KEPT = 64
_MISSING = (ChunkMissing, Corruption, ObjectMissing)
_META_WORDS = META.size // 4
_TYPE = stat.S_IFMT(0xFFFF)


class Index(Protocol):
    """Knows where chunks lie."""

    def find(self, chunk_id: ChunkId, *, usable_only: bool) -> tuple[int, int] | None: ...

    def find_run(self, ids: bytes, at: int, *, usable_only: bool = True) -> tuple[int, int, int] | None: ...

    def entry(self, number: int) -> tuple[object, bytes] | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """Is one entry and what it takes, a directory with all that is below it.

    ``size_bytes``: sizes of files; ``stored_bytes``: chunks, compressed and sealed, that no entry before it has;
    ``unique_bytes``: what of it no other snapshot holds. ``missing``: whether something of it could not be found.
    """

    entry: Entry
    size_bytes: int = 0
    stored_bytes: int = 0
    unique_bytes: int = 0
    files: int = 0
    missing: bool = False


class _Sum:
    __slots__ = ("files", "missing", "size", "stored", "unique")

    def __init__(self) -> None:
        self.size = self.stored = self.unique = self.files = 0
        self.missing = False


class Usage:
    """Looks into one snapshot. ``rows``: pack number → a label a row; ``only``: the label of what it holds alone."""

    def __init__(
        self, index: Index, trees: TreeReader, *, rows: Mapping[int, Sequence[int]], only: int, cancel: Cancel
    ) -> None:
        self._index = index
        self._trees = trees
        self._rows = rows
        self._only = only
        self._cancel = cancel
        self._sums: OrderedDict[int, array[int]] = OrderedDict()
        self._seen: dict[int, bytearray] = {}

    def entries(self, tree: ChunkId) -> Iterator[Used]:
        """Yields what is in a directory, by name; raises `ChunkMissing`, `Corruption` where it is gone."""
        self._seen = {}
        for entry in self._trees.entries(tree):
            self._cancel.check()
            total = _Sum()
            if entry.is_dir:
                self._below(list(entry.content), total)
            elif entry.is_regular:
                total.size, total.files = entry.size, 1
                self._content(entry.content.level, entry.content.ids, total)
            yield Used(
                entry=entry,
                size_bytes=total.size,
                stored_bytes=total.stored,
                unique_bytes=total.unique,
                files=total.files,
                missing=total.missing,
            )

    def _below(self, stack: list[ChunkId], total: _Sum) -> None:
        """Adds directories with everything in them."""
        while stack:
            self._cancel.check()
            tree = stack.pop()
            try:
                opened = self._trees.opened(tree)
            except _MISSING:
                total.missing = True
                continue
            self._chunk(tree, total)
            if not isinstance(opened, Leaf):
                stack += reversed(opened)
                continue
            self._leaf(opened, stack, total)

    def _leaf(self, leaf: Leaf, stack: list[ChunkId], total: _Sum) -> None:
        words = u32_array(leaf.meta)
        kinds = [mode & _TYPE for mode in words[::_META_WORDS]]
        files = kinds.count(stat.S_IFREG)
        total.files += files
        if not leaf.levels and stat.S_IFDIR not in kinds:
            sizes = zip(kinds, words[4::_META_WORDS], words[5::_META_WORDS], strict=True)
            total.size += sum(low | high << 32 for kind, low, high in sizes if kind == stat.S_IFREG)
            self._data(leaf.content, total)
            return
        below = []
        for _, mode, size, level, ids in references(leaf):
            if stat.S_ISDIR(mode):
                below.append(ChunkId(ids))
            else:
                total.size += size
                self._content(level, ids, total)
        stack += reversed(below)

    def _content(self, level: int, ids: bytes, total: _Sum) -> None:
        if not level:
            self._data(ids, total)
            return
        data = bytearray()
        try:
            for at, chunk_id in self._trees.nodes(Content(level=level, ids=ids)):
                if at:
                    self._chunk(chunk_id, total)
                elif chunk_id != HOLE:
                    data += chunk_id
        except _MISSING:
            total.missing = True
        self._data(bytes(data), total)

    def _chunk(self, chunk_id: ChunkId, total: _Sum) -> None:
        self._data(bytes(chunk_id), total)

    def _data(self, ids: bytes, total: _Sum) -> None:
        at = 0
        while at < len(ids):
            run = self._index.find_run(ids, at) or self._index.find_run(ids, at, usable_only=False)
            if run is None:
                total.missing = True
                at += CHUNK_ID_BYTES
                continue
            self._meet(*run, total)
            at += run[2] * CHUNK_ID_BYTES

    def _meet(self, number: int, row: int, count: int, total: _Sum) -> None:
        """Adds what was not met before of a run."""
        sums = self._sums_of(number)
        if sums is None:
            total.missing = True
            return
        seen = self._seen.get(number)
        if seen is None:
            seen = self._seen[number] = bytearray(len(sums) - 1)
        end = row + count
        fresh: Sequence[int] = range(row, end)
        if any(seen[row:end]):
            fresh = [at for at in fresh if not seen[at]]
            total.stored += sum(sums[at + 1] - sums[at] for at in fresh)
        else:
            total.stored += sums[end] - sums[row]
        seen[row:end] = b"\1" * count
        labels = self._rows.get(number, ())[row:end]
        if self._only and self._only in labels:
            known = row + len(labels)
            total.unique += sum(
                sums[at + 1] - sums[at] for at in fresh if at < known and labels[at - row] == self._only
            )

    def _sums_of(self, number: int) -> array[int] | None:
        """Returns how many sealed bytes of a pack lie before each row, in shares of their blocks."""
        sums = self._sums.get(number)
        if sums is None:
            entry = self._index.entry(number)
            if entry is None:
                return None
            sums = self._sums[number] = array("Q", _sums(parse_footer(entry[1], f"pack {number}")))
            if len(self._sums) > _SHARES_KEPT:
                self._sums.popitem(last=False)
        else:
            self._sums.move_to_end(number)
        return sums


def _sums(footer: Footer) -> Iterator[int]:
    """Yields 0, and the sealed bytes up to the end of each row; a row's share is as of `respaldo.flows.gc.labels`."""
    start = 0
    yield 0
    for block, first in zip(footer.blocks, footer.first_rows, strict=False):
        for end in accumulate(footer.lengths[first : first + block.chunks]):
            yield start + block.sealed_length * end // block.raw_length
        start += block.sealed_length
