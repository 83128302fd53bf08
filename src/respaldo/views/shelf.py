"""A shelf: all trees below some roots, each read and looked at once, however many snapshots hold it.

A level at a time, but a block is opened once: what it holds is looked at then, because trees that were stored together
are needed together. A few threads open blocks ahead. Remembers
of each tree its subdirectories, and what the caller found in it.
"""

from __future__ import annotations

import stat
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple, Protocol

import msgpack

from respaldo.core.errors import Corruption, RespaldoError
from respaldo.core.ids import CHUNK_ID_BYTES, ChunkId, Kind, pack_object
from respaldo.core.model import Entry
from respaldo.core.seams import Buffer
from respaldo.format.leafcheck import default_count
from respaldo.format.pack import parse_footer
from respaldo.format.tree import META, Branch, Leaf, parse_tree
from respaldo.store.packrow import Indexed
from respaldo.store.source import OPENED_AT_ONCE, Location

_AHEAD = 6
_DIRECTORY, _OTHER = ord("D"), ord("-")
_UNWANTED = Entry(name=b"", mode=0)
_SIZE_AT = 16
"""Where the size stands in a row of metadata."""
_KINDS = bytes({0x40: _DIRECTORY, 0x80: ord("F")}.get(high & 0xF0, _OTHER) for high in range(256))
"""Of the second byte of a mode: "D" for directories, "F" for regular files, "-" for what has no content."""
Below = tuple[list[bytes], bytes]
"""Names of subdirectories, and the ids of their trees, joined. A run of a long directory has an empty name."""


class Look(NamedTuple):
    """Says what is looked for: in the joined names of a tree, in a name, in an entry whose name fits."""

    among: Callable[[bytes], bool]
    name: Callable[[bytes], bool]
    entry: Callable[[Entry], bool]


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
    """Holds what is below some roots."""

    def __init__(self, source: Source, index: Index, look: Look) -> None:
        self._source = source
        self._index = index
        self._taken: set[bytes] = set()
        self._look, self._match, self._keep = look
        self._known: dict[tuple[bytes, bytes, bytes, str], Entry] = {}
        """By name, row of metadata, content and owners' names: what became of an entry."""
        self._names: dict[bytes, list[bytes]] = {}
        self._entries: dict[tuple[object, ...], Entry] = {}
        """One object for equal entries: one that stays is in hundreds of trees."""
        self.below: dict[bytes, Below] = {}
        """By tree, what it leads to; nothing for those that lead nowhere."""
        self.found: dict[bytes, list[Entry]] = {}
        """By tree, the entries that are kept."""
        self.failed: dict[bytes, RespaldoError] = {}
        """Trees that cannot be read, and why."""
        self.trees = 0

    def read(self, roots: Iterable[ChunkId]) -> None:
        """Reads all that can be reached."""
        level = dict.fromkeys(map(bytes, roots))
        seen = set(level)
        with ThreadPoolExecutor(OPENED_AT_ONCE, thread_name_prefix="open") as pool:
            while level:
                self._fetch([tree for tree in level if tree not in self._taken], pool)
                following: dict[bytes, None] = {}
                for tree in level:
                    if tree in self.below:
                        following.update(dict.fromkeys(split_ids(self.below[tree][1])))
                level = {tree: None for tree in following if tree not in seen}
                seen.update(level)
        self.trees = len(seen)

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
                    self._take_once(tree, self._source.get(Kind.TREE, ChunkId(tree)))
                except RespaldoError as error:
                    self.failed[tree] = error

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
            with suppress(Corruption):  # of those that are needed, it is said in the end
                self._take_once(tree, raw)

    def _take_once(self, tree: bytes, raw: bytes) -> None:
        if tree not in self._taken:
            self._take(tree, raw)
            self._taken.add(tree)

    def _take(self, tree: bytes, raw: bytes) -> None:
        what = f"tree {tree.hex()[:16]}"
        match _unpacked(raw):
            case [1, bytes(names), bytes(meta), bytes(content), _, list() as levels, links, xattrs, *rest] if rest:
                marks, *owners = rest
                if not isinstance(marks, list):
                    raise Corruption(what, "not a tree of this format")
            case _:
                self._take_checked(tree, parse_tree(raw, what))
                return
        kinds = meta[1 :: META.size].translate(_KINDS)
        found = names.split(b"\0")
        if len(found) != len(kinds) + 1:
            raise Corruption(what, "its columns have different lengths")
        packed = kinds.translate(None, b"-")
        plain = not levels and not marks and len(packed) * CHUNK_ID_BYTES == len(content)
        if self._look(names) and not (
            plain and not links and not xattrs and self._keep_known(tree, found, meta, kinds, content, str(owners))
        ):
            self._keep_checked(tree, parse_tree(raw, what), str(owners))
        if b"D" not in kinds:
            return
        if plain:
            rows, places = _places(kinds), _places(packed)
        else:
            rows, places = _counted(kinds, meta, _by_row(levels, what), _by_row(marks, what))
            if not places or places.pop() * CHUNK_ID_BYTES != len(content):
                raise Corruption(what, "it has more or less content than its entries")
        ids = b"".join([content[at * CHUNK_ID_BYTES : (at + 1) * CHUNK_ID_BYTES] for at in places])
        if ids:
            self._put(tree, [found[row] for row in rows], ids)

    def _keep_known(
        self, tree: bytes, names: list[bytes], meta: bytes, kinds: bytes, content: bytes, more: str
    ) -> bool:
        """Keeps what a tree has in common with others, and returns whether that is all: an entry mostly stays."""
        kept = []
        for row in self._rows(names):
            part = meta[row * META.size : (row + 1) * META.size]
            ids = b""
            if kinds[row] != _OTHER:
                place = row - kinds.count(b"-", 0, row)
                ids = content[place * CHUNK_ID_BYTES : (place + 1) * CHUNK_ID_BYTES]
            known = self._known.get((names[row], part, ids, more))
            if known is None:
                return False
            if known is not _UNWANTED:
                kept.append(known)
        if kept:
            self.found[tree] = kept
        return True

    def _keep_checked(self, tree: bytes, whole: Leaf | Branch, more: str) -> None:
        if not isinstance(whole, Leaf):
            return
        entries = list(whole.entries())
        kept = []
        for row in self._rows([entry.name for entry in entries]):
            entry, wanted = entries[row], self._keep(entries[row])
            if wanted:
                entry = self._entries.setdefault((entry.name, signature(entry)), entry)
                kept.append(entry)
            if not entry.is_symlink and not entry.xattrs and not entry.link_group and not entry.mark:
                part = whole.meta[row * META.size : (row + 1) * META.size]
                self._known[entries[row].name, part, entries[row].content.ids, more] = entry if wanted else _UNWANTED
        if kept:
            self.found[tree] = kept

    def _rows(self, names: list[bytes]) -> list[int]:
        return [row for row, name in enumerate(names) if name and self._match(name)]

    def _take_checked(self, tree: bytes, whole: Leaf | Branch) -> None:
        """Notes what a tree leads to, entry by entry: few need it."""
        if isinstance(whole, Branch):
            self.below[tree] = [b""] * len(whole.runs), b"".join(run for run, _ in whole.runs)
            return
        inside = [entry for entry in whole.entries() if entry.is_dir and entry.content.ids]
        if inside:
            self._put(tree, [entry.name for entry in inside], b"".join(entry.content.ids for entry in inside))

    def _put(self, tree: bytes, names: list[bytes], ids: bytes) -> None:
        self.below[tree] = self._names.setdefault(b"\0".join(names), names), ids


def signature(entry: Entry) -> tuple[object, ...]:
    """Returns what makes an entry another version: all that is restored, but not the content of a directory."""
    content = b"" if entry.is_dir else entry.content.ids
    return (
        content,
        entry.mode,
        entry.size,
        entry.mtime_ns if not entry.is_dir else 0,
        entry.uid,
        entry.gid,
        entry.rdev,
        entry.target,
        entry.attributes,
        entry.xattrs,
        entry.user,
        entry.group,
        entry.mark,
    )


def _unpacked(raw: bytes) -> object:
    """Returns what a tree is made of, not looked at; None where that cannot be told."""
    try:
        return msgpack.unpackb(raw, unicode_errors="surrogateescape", strict_map_key=False)
    except (ValueError, TypeError, msgpack.UnpackException):
        return None


def _places(kinds: bytes) -> list[int]:
    """Returns where directories are."""
    return [place for place, kind in enumerate(kinds) if kind == _DIRECTORY]


def _counted(
    kinds: bytes, meta: bytes, levels: dict[int, tuple[int, ...]], marks: dict[int, tuple[int, ...]]
) -> tuple[list[int], list[int]]:
    """Returns the rows of directories with content and where their ids are; behind those, how many ids there are."""
    filled = 0
    for byte in range(_SIZE_AT, _SIZE_AT + 8):  # the sizes of all rows at once: a byte of the number for each
        filled |= int.from_bytes(meta[byte :: META.size], "big")
    nonzero = filled.to_bytes(len(kinds), "big")
    rows, places, at = [], [], 0
    for row, kind in enumerate(kinds):
        if kind == _DIRECTORY:
            if default_count(stat.S_IFDIR, 0, marks[row][0] if row in marks else 0):
                rows.append(row)
                places.append(at)
                at += 1
        elif kind != _OTHER:
            mark = marks[row][0] if row in marks else 0
            at += levels[row][1] if row in levels else default_count(stat.S_IFREG, nonzero[row], mark)
    return rows, [*places, at]


def _by_row(rows: list[list[int]], what: str) -> dict[int, tuple[int, ...]]:
    """Returns what stands in a map of a tree by entry number."""
    found: dict[int, tuple[int, ...]] = {}
    for item in rows:
        match item:
            case [int(row), *values] if values and all(isinstance(value, int) for value in values):
                found[row] = tuple(values)
            case _:
                raise Corruption(what, "a row of a map has the wrong shape")
    return found


def split_ids(joined: bytes) -> list[bytes]:
    """Returns ids that are joined, one by one."""
    return [joined[at : at + CHUNK_ID_BYTES] for at in range(0, len(joined), CHUNK_ID_BYTES)]
