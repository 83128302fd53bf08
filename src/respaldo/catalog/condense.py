"""Condensing: what the register keeps of a tree, found by comparing its columns with those of its base.

The versions of a directory mostly differ in a file or two: where names and all that is rare are equal byte for byte,
only the rows of metadata and the ids that differ are kept, and nothing else is looked at. Whatever else becomes a base
itself; where its bytes come from a repository, after they were parsed and validated as a whole.
"""

from __future__ import annotations

import stat
from array import array
from collections import OrderedDict
from typing import NamedTuple

from lmdb import CorruptedError

from respaldo.catalog.register import (
    FOLDER,
    NO_CELL,
    NOWHERE,
    OTHER,
    RUN,
    Base,
    Item,
    Names,
    Recorded,
    Register,
    handle_of,
    key_of,
    packed_base,
    packed_names,
)
from respaldo.core.errors import Corruption
from respaldo.core.ids import CHUNK_ID_BYTES
from respaldo.format.columns import differing, u32_array, u32_bytes
from respaldo.format.leafcheck import TYPE_MASK
from respaldo.format.tree import META, Branch, Leaf, leaf_as_encoded, parse_tree

_LEAF_HEAD = b"\x9b\x01"
"""An array of eleven, and the number of a leaf."""
_BIN = {0xC4: 1, 0xC5: 2, 0xC6: 4}
"""The bytes that begin a byte string in msgpack: of how many bytes its length is."""
BASES_BYTES_MAX = 32 << 20
"""So many bytes of bases are kept at hand."""
_META_WORDS = META.size // 4
_NO_FOLDERS = array("I")
_DIFFERS_PARTS = 4
"""A tree that differs from its base in more than a quarter of its bytes becomes one."""


class Condensed(NamedTuple):
    """Is a tree that is about to be entered. ``ids``: of the trees below it, empty for directories that have none.

    ``ids_of_base``: the same of its base, None where it has none or is one.
    """

    names: bytes
    recorded: Recorded
    ids: list[bytes]
    ids_of_base: list[bytes] | None = None

    def with_shape(self, shape: bytes) -> Recorded:
        """Returns it as it is entered."""
        return self.recorded._replace(shape=shape)


class _Spans(NamedTuple):
    """Says where the columns of an encoded leaf lie. What follows ``content_end`` is ``rest``."""

    names: bytes
    meta: int
    meta_end: int
    content: int
    content_end: int


class _Held(NamedTuple):
    """Is a base that trees are compared with. ``words``: its metadata; ``rest``: what follows its content."""

    handle: bytes
    base: Base
    spans: _Spans
    rest: bytes
    words: array[int]
    ids: list[bytes]


class Condenser:
    """Condenses trees. ``fresh``: what is to be entered before they are; whoever enters it empties the list.

    ``trusted``: whether the bytes come from who made them, not from a repository.
    """

    def __init__(self, register: Register, *, trusted: bool = False, bases_bytes_max: int = BASES_BYTES_MAX) -> None:
        self._register = register
        self._trusted = trusted
        self._bases_bytes_max = bases_bytes_max
        self._held: OrderedDict[bytes, _Held] = OrderedDict()
        self._held_bytes = 0
        self.fresh: list[Item] = []
        self.alone = False
        """Whether the register is known to have no bases yet."""
        self.bases = 0
        """How many trees became bases."""

    def condense(self, tree: bytes, raw: bytes) -> Condensed:
        """Returns what is to be entered of a tree; raises `Corruption`."""
        spans = _spans(raw)
        if spans is not None:
            held = self._held.get(spans.names) or (None if self.alone else self._hold_latest(spans))
            if held is not None and len(raw) == len(held.base.raw) and spans == held.spans:
                found = self._alike(tree, raw, held)
                if found is not None:
                    return found
        return self._whole(tree, raw, spans)

    def _hold_latest(self, spans: _Spans) -> _Held | None:
        known = self._register.latest(key_of(spans.names))
        return None if known is None else self._hold(known, self._register.base(known))

    def _alike(self, tree: bytes, raw: bytes, held: _Held) -> Condensed | None:
        """Condenses a tree that is like its base, None where it is not as like as it seemed."""
        _, meta_at, meta_end, content_at, content_end = held.spans
        if raw[content_end:] != held.rest:  # what stands before each column says no more than where that lies
            return None
        base = held.base
        metas = changed = b""
        ids = held.ids
        meta = raw[meta_at:meta_end]
        rows = differing(meta, base.raw[meta_at:meta_end], META.size)
        if rows:
            numbers = u32_array(rows)
            if not _comparable(numbers, u32_array(meta), held.words):
                return None
            metas = b"".join([meta[row * META.size : (row + 1) * META.size] for row in numbers])
        content = raw[content_at:content_end]
        cells = differing(content, base.raw[content_at:content_end], CHUNK_ID_BYTES)
        if cells:
            numbers = u32_array(cells)
            changed = b"".join([content[cell * CHUNK_ID_BYTES : (cell + 1) * CHUNK_ID_BYTES] for cell in numbers])
            if base.folders:
                ids = _below(base.folders, content)
        if (len(metas) + len(changed)) * _DIFFERS_PARTS > len(raw):
            return self._become(tree, Base(base.names, base.folders, raw), held.spans)
        return Condensed(base.names, Recorded(b"", held.handle, rows, metas, cells, changed), ids, held.ids)

    def _whole(self, tree: bytes, raw: bytes, spans: _Spans | None) -> Condensed:
        what = f"tree {tree.hex()[:16]}"
        if spans is None or not self._trusted:
            parsed = parse_tree(raw, what)
            if isinstance(parsed, Branch):
                return self._branch(parsed)
            if spans is None:
                raise Corruption(what, "not a tree of this format")
        modes = u32_array(raw[spans.meta : spans.meta_end])[::_META_WORDS]
        there = set(modes)
        folder_modes = {mode for mode in there if mode & TYPE_MASK == stat.S_IFDIR}
        if not folder_modes:
            key = key_of(spans.names)
            self.fresh.append(("names", key, spans.names))
            return self._become(tree, Base(key, _NO_FOLDERS, raw), spans, key)
        kind_of = {mode: FOLDER if mode in folder_modes else OTHER for mode in there}
        names = self._enter_names(Names(spans.names, bytes(map(kind_of.__getitem__, modes))))
        return self._become(tree, Base(names, _folders(leaf_as_encoded(raw), modes), raw), spans)

    def _become(self, tree: bytes, base: Base, spans: _Spans, key: bytes = b"") -> Condensed:
        """Makes a base of a tree. ``key``: that of the column of names, where it is known."""
        handle = handle_of(tree)
        self.fresh += [("bases", handle, packed_base(handle, base)), ("latest", key or key_of(spans.names), handle)]
        self.bases += 1
        if self._trusted:  # within one snapshot, few directories have the same names
            ids = _below(base.folders, base.raw[spans.content :]) if base.folders else []
            return Condensed(base.names, Recorded(b"", handle), ids)
        return Condensed(base.names, Recorded(b"", handle), self._hold(handle, base, spans).ids)

    def _branch(self, branch: Branch) -> Condensed:
        count = len(branch.runs)
        names = self._enter_names(Names(b"\0" * count, bytes([RUN]) * count))
        ids = [bytes(run) for run, _ in branch.runs]
        cells = u32_bytes(array("I", range(count)))
        return Condensed(names, Recorded(b"", NOWHERE, cells=cells, ids=b"".join(ids)), ids)

    def _enter_names(self, names: Names) -> bytes:
        packed = packed_names(names)
        key = key_of(packed)
        self.fresh.append(("names", key, packed))
        return key

    def _hold(self, handle: bytes, base: Base, spans: _Spans | None = None) -> _Held:
        """Keeps a base at hand, those that were made last for their names."""
        raw = base.raw
        spans = spans or _spans(raw)
        if spans is None:
            raise CorruptedError("a base of the register is none")
        held = _Held(
            handle=handle,
            base=base,
            spans=spans,
            rest=raw[spans.content_end :],
            words=u32_array(raw[spans.meta : spans.meta_end]),
            ids=_below(base.folders, raw[spans.content : spans.content_end]),
        )
        before = self._held.pop(spans.names, None)
        self._held_bytes += len(raw) - (len(before.base.raw) if before else 0)
        self._held[spans.names] = held
        while self._held_bytes > self._bases_bytes_max and len(self._held) > 1:
            gone = self._held.popitem(last=False)[1]
            self._held_bytes -= len(gone.base.raw)
        return held


def _below(folders: array[int], content: bytes) -> list[bytes]:
    """Returns the ids of the trees of directories."""
    return [
        b"" if cell == NO_CELL else content[cell * CHUNK_ID_BYTES : (cell + 1) * CHUNK_ID_BYTES] for cell in folders
    ]


def _folders(leaf: Leaf, modes: array[int]) -> array[int]:
    """Returns the cells of a leaf's directories."""
    spots = leaf.spots()
    rows = (row for row, mode in enumerate(modes) if mode & TYPE_MASK == stat.S_IFDIR)
    return array("I", (spots[row] if spots[row] < spots[row + 1] else NO_CELL for row in rows))


def _comparable(rows: array[int], words: array[int], held: array[int]) -> bool:
    """Whether rows of two columns of metadata ask for the same of what else stands for them: type, and whether empty.

    Who parses bytes of a repository has looked at the other: what could be wrong with it is the same here, or seen.
    """
    for row in rows:
        at = row * _META_WORDS
        mode = words[at]
        if (mode ^ held[at]) & ~_PERMISSIONS or words[at + 3] != held[at + 3]:
            return False
        low, high = words[at + _SIZE_WORD], words[at + _SIZE_WORD + 1]
        if mode & TYPE_MASK == stat.S_IFREG:
            if bool(low or high) != bool(held[at + _SIZE_WORD] or held[at + _SIZE_WORD + 1]) or high & _SIGN:
                return False
        elif mode & TYPE_MASK != stat.S_IFDIR and (low, high) != (held[at + _SIZE_WORD], held[at + _SIZE_WORD + 1]):
            return False
    return True


_PERMISSIONS = 0o7777
_SIGN = 1 << 31
_SIZE_WORD = 4


def _spans(raw: bytes) -> _Spans | None:
    """Returns where the columns of an encoded leaf lie, None where it is none."""
    if raw[:2] != _LEAF_HEAD:
        return None
    at, length = 2, len(raw)
    spans: list[int] = []
    for _ in range(3):
        size = _BIN.get(raw[at]) if at < length else None
        if size is None:
            return None
        start = at + 1 + size
        at = start + int.from_bytes(raw[at + 1 : start], "big")
        spans += (start, at)
    return None if at >= length else _Spans(raw[spans[0] : spans[1]], *spans[2:])
