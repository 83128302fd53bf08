"""Condensing: what the register keeps of a tree, found by comparing its columns with those of a tree before.

The versions of a directory mostly differ in a file or two: where names and all that is rare are equal byte for byte,
only the rows of metadata and the ids that differ are looked at. Whatever else is parsed and validated as a whole.
"""

from __future__ import annotations

import stat
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from respaldo.core.errors import Corruption
from respaldo.core.ids import CHUNK_ID_BYTES
from respaldo.format.tree import META, Branch, Leaf, parse_tree
from respaldo.views.register import (
    FOLDER,
    NOWHERE,
    OTHER,
    RUN,
    Base,
    Names,
    Recorded,
    Register,
    packed_base,
    packed_names,
)
from respaldo.views.row import KEY_BYTES, Packer, differing, key_of

_LEAF_HEAD = b"\x9b\x01"
"""An array of eleven, and the number of a leaf."""
_BIN = {0xC4: 1, 0xC5: 2, 0xC6: 4}
"""The bytes that begin a byte string in msgpack: of how many bytes its length is."""
_ENTRIES_KEPT = 200_000
_CHANGE_BYTES = KEY_BYTES + 4
Item = tuple[str, bytes, bytes]


@dataclass(slots=True, kw_only=True)
class Condensed:
    """Is a tree that is about to be entered. ``ids``: of the trees below it, empty for directories that have none."""

    names: bytes
    base: bytes
    rows: Mapping[int, bytes]
    below: Mapping[int, bytes]
    ids: list[bytes]

    def recorded(self, shape: bytes) -> Recorded:
        """Returns it as it is entered."""
        return Recorded(self.names, shape, self.base, self.rows, self.below)


@dataclass(slots=True, kw_only=True)
class _Like:
    """Is the tree that was met last with a list of names. ``rows``: the keys of its rows."""

    meta: bytes
    content: bytes
    rest: bytes
    packer: Packer
    names: bytes
    folders: list[int]
    filled: list[int]
    rows: list[bytes]
    ids: list[bytes]
    key: bytes
    base: Base
    changed: dict[int, bytes]


def handle_of(tree: bytes) -> bytes:
    """Returns what stands for a tree in the register."""
    return bytes(tree[:KEY_BYTES]) or NOWHERE


class Condenser:
    """Condenses trees. ``fresh``: what is to be entered before they are; whoever enters it empties the list."""

    def __init__(self, register: Register) -> None:
        self._register = register
        self._likes: OrderedDict[bytes, _Like] = OrderedDict()
        self._weight = 0
        self._bases: dict[bytes, tuple[bytes, Base]] = {}
        self.fresh: list[Item] = []

    def condense(self, tree: bytes, raw: bytes) -> Condensed:
        """Returns what is to be entered of a tree; raises `Corruption`."""
        what = f"tree {tree.hex()[:16]}"
        columns = _columns(raw)
        if columns is not None:
            names, meta, content, rest = columns
            like = self._likes.get(names)
            if like is not None and like.rest == rest:
                found = self._alike(like, meta, content)
                if found is not None:
                    return found
        whole = parse_tree(raw, what)
        if isinstance(whole, Branch):
            return self._branch(whole)
        if columns is None:
            raise Corruption(what, "not a tree of this format")
        return self._leaf(whole, columns[3])

    def _alike(self, like: _Like, meta: bytes, content: bytes) -> Condensed | None:
        """Condenses a tree that is like another, None where it is not as like as it seemed."""
        packer = like.packer
        if len(meta) != len(like.meta) or len(content) != len(like.content):
            return None
        touched = set(differing(meta, like.meta, META.size))
        for row in touched:
            at = row * META.size
            if not _comparable(meta[at : at + META.size], like.meta[at : at + META.size]):
                return None
        ids = list(like.ids)
        if content != like.content and not packer.differ_only(content, like.content, touched):
            for place in differing(content, like.content, CHUNK_ID_BYTES):
                row = packer.row_at(place * CHUNK_ID_BYTES, like.filled)
                touched.add(row)
        for row in touched:
            if like.folders and stat.S_ISDIR(meta[row * META.size] | meta[row * META.size + 1] << 8):
                ids[bisect_left(like.folders, row)] = packer.below(row, content)
        if touched:
            rows, changed, known = list(like.rows), dict(like.changed), like.base.rows
            for row in touched:
                key = self._row(packer.pack(row, meta, content), rows[row])
                rows[row] = key
                if key == known[row]:
                    changed.pop(row, None)
                else:
                    changed[row] = key
            like.rows, like.changed = rows, changed
        like.meta, like.content, like.ids = meta, content, ids
        return self._settled(like)

    def _settled(self, like: _Like) -> Condensed:
        """Returns what is to be entered of the tree that a like stands for; makes a new base where much differs."""
        below = [tree[:KEY_BYTES] or NOWHERE for tree in like.ids]
        moved: dict[int, bytes] = {}
        if below != like.base.below:
            pairs = enumerate(zip(below, like.base.below, strict=True))
            moved = {place: handle for place, (handle, known) in pairs if handle != known}
        if (len(like.changed) + len(moved)) * _CHANGE_BYTES * 4 > (len(like.rows) + len(below)) * KEY_BYTES:
            like.base = Base(like.rows, below)
            like.changed, moved = {}, {}
            like.key = self._enter_base(like.names, like.base)
        return Condensed(names=like.names, base=like.key, rows=like.changed, below=moved, ids=like.ids)

    def _enter_base(self, names: bytes, base: Base) -> bytes:
        packed = packed_base(base)
        key = key_of(packed)
        self.fresh += [("bases", key, packed), ("latest", names, key)]
        self._bases[names] = (key, base)
        return key

    def _leaf(self, leaf: Leaf, rest: bytes) -> Condensed:
        packer = Packer(leaf)
        modes = [leaf.meta[at] | leaf.meta[at + 1] << 8 for at in range(0, len(leaf.meta), META.size)]
        kinds = bytes(FOLDER if stat.S_ISDIR(mode) else OTHER for mode in modes)
        folders = [row for row, kind in enumerate(kinds) if kind == FOLDER]
        packed = packed_names(Names(leaf.names, kinds))
        names = key_of(packed)
        self.fresh.append(("names", names, packed))
        rows = [self._row(packer.pack(row, leaf.meta, leaf.content)) for row in range(len(leaf))]
        ids = [packer.below(row, leaf.content) for row in folders]
        key, base = self._base(names)
        if not key or len(base.rows) != len(rows) or len(base.below) != len(folders):
            base = Base(rows, [handle_of(tree) for tree in ids])
            key = self._enter_base(names, base)
        pairs = zip(rows, base.rows, strict=True)
        like = _Like(
            meta=leaf.meta,
            content=leaf.content,
            rest=rest,
            packer=packer,
            names=names,
            folders=folders,
            filled=packer.filled(),
            rows=rows,
            ids=ids,
            key=key,
            base=base,
            changed={row: key for row, (key, known) in enumerate(pairs) if key != known},
        )
        self._remember(leaf.names, like)
        return self._settled(like)

    def _base(self, names: bytes) -> tuple[bytes, Base]:
        """Returns what the trees with some names are entered by, nothing where none is entered yet."""
        known = self._bases.get(names)
        if known is not None:
            return known
        key = self._register.latest(names)
        return (b"", Base([], [])) if key is None else (key, self._register.base(key))

    def _branch(self, branch: Branch) -> Condensed:
        packed = packed_names(Names(b"\0" * len(branch.runs), bytes([RUN]) * len(branch.runs)))
        names = key_of(packed)
        self.fresh.append(("names", names, packed))
        ids = [bytes(run) for run, _ in branch.runs]
        key = self._enter_base(names, Base([], [handle_of(tree) for tree in ids]))
        return Condensed(names=names, base=key, rows={}, below={}, ids=ids)

    def _row(self, packed: bytes, known: bytes = b"") -> bytes:
        key = key_of(packed)
        if key != known:
            self.fresh.append(("rows", key, packed))
        return key

    def _remember(self, names: bytes, like: _Like) -> None:
        before = self._likes.pop(names, None)
        self._weight += len(like.rows) - (len(before.rows) if before else 0)
        self._likes[names] = like
        while self._weight > _ENTRIES_KEPT and len(self._likes) > 1:
            gone = self._likes.popitem(last=False)[1]
            self._weight -= len(gone.rows)
            self._bases.pop(gone.names, None)


def _comparable(one: bytes, other: bytes) -> bool:
    """Whether two rows of metadata say the same of what else stands for them: type and owners, and whether empty."""
    kind = stat.S_IFMT(one[0] | one[1] << 8)
    return (
        kind == stat.S_IFMT(other[0] | other[1] << 8)
        and one[2:16] == other[2:16]
        and kind in {stat.S_IFREG, stat.S_IFDIR}
        and any(one[16:24]) == any(other[16:24])
    )


def _columns(raw: bytes) -> tuple[bytes, bytes, bytes, bytes] | None:
    """Returns names, metadata, content and what follows them of an encoded leaf, None where it is none."""
    if raw[:2] != _LEAF_HEAD:
        return None
    at = 2
    columns = []
    for _ in range(3):
        size = _BIN.get(raw[at] if at < len(raw) else 0)
        if size is None:
            return None
        start = at + 1 + size
        at = start + int.from_bytes(raw[at + 1 : start], "big")
        columns.append(raw[start:at])
    if at >= len(raw):
        return None
    names, meta, content = columns
    return names, meta, content, raw[at:]
