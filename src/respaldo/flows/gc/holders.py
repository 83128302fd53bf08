"""Holders: of every stored chunk, which snapshots hold it; hence what each costs, alone and with what it shares.

Every tree is read once, however many snapshots share it: what it refers to goes to a temporary file, and the sets of
snapshots are handed down from each tree to what is below it once everything above it is known. Memory holds four bytes
a chunk, some dozens a tree, and each set that occurs once. Nothing is written to the repository. What is missing is
counted and passed over, so that a damaged repository has figures, too.
"""

from __future__ import annotations

import tempfile
from array import array
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import IO

from respaldo.core.errors import ChunkMissing, Corruption, ObjectMissing, StorageFailed
from respaldo.core.ids import CHUNK_ID_BYTES, ChunkId, Kind, SnapshotId, pack_object
from respaldo.core.seams import Cancel, Progress
from respaldo.flows.gc.choose import settled_duplicates
from respaldo.flows.gc.options import Cost, Costs
from respaldo.flows.gc.roots import Roots, expirable, list_roots
from respaldo.format.content import parse_node_ids
from respaldo.format.pack import Footer, parse_footer
from respaldo.format.tree import parse_references
from respaldo.store.bitmaps import Bitmaps
from respaldo.store.markers import read_markers
from respaldo.store.repo import Repo

_TRIES = 5
_NODES_READ = 1024
_WITHIN = -1
"""Stands for a tree that is being gone through."""
_RUN = 3
"""Numbers a run: pack, row, count."""
_HEAD = 2
_WORD_BYTES = 4
_FOUND_MAX = 1 << 16
_FOUND_BYTES_MAX = 16 * CHUNK_ID_BYTES
"""What is remembered of a run: 65,536 of them take 20 MB where files lie one by one, 50 MB at most."""
_MISSING = (ChunkMissing, Corruption, ObjectMissing)


class Sets:
    """Numbers sets of roots; a set is an integer with a bit for each. Number 0 is the empty one."""

    def __init__(self) -> None:
        self.members: list[int] = [0]
        self._numbers = {0: 0}
        self._unions: dict[tuple[int, int], int] = {}

    def number(self, members: int) -> int:
        """Returns the number of a set."""
        found = self._numbers.get(members)
        if found is None:
            found = self._numbers[members] = len(self.members)
            self.members.append(members)
        return found

    def union(self, one: int, other: int) -> int:
        """Returns the number of what is in either."""
        if one == other or not other:
            return one
        if not one:
            return other
        key = (one, other)
        found = self._unions.get(key)
        if found is None:
            found = self._unions[key] = self.number(self.members[one] | self.members[other])
        return found


@dataclass(slots=True)
class _Open:
    """Is a tree or list that is being gone through: where it lies, what it refers to, and what was found of that."""

    key: int
    id: ChunkId
    below: Iterator[tuple[Kind, int, ChunkId]]
    runs: array[int]
    lenient: bool
    nodes: array[int] = field(default_factory=lambda: array("I"))


class Holders:
    """Looks once. ``rows``: pack number → the number of a set in ``sets`` for each row."""

    def __init__(self, repo: Repo, *, progress: Progress, cancel: Cancel) -> None:
        self._repo = repo
        self._progress = progress
        self._cancel = cancel
        self._clear(Roots(committed={}, undecided={}, unreadable={}))

    def _clear(self, roots: Roots) -> None:
        self._roots = roots
        self.sets = Sets()
        self.rows: dict[int, array[int]] = {}
        self.bits: dict[SnapshotId, int] = {}
        """The bit of each committed snapshot, those in the trash included. Bit 0: what is undecided."""
        self.missing: set[bytes] = set()
        """Chunks that were looked for in vain, and that nobody has marked as lost."""
        self.trees = 0
        self._known: dict[int, int] = {}
        self._found: dict[bytes, tuple[tuple[int, int, int], bytes]] = {}
        """By first id: where data chunks lie one behind the other, and their ids. Most of a directory that changed is
        as it was: of that, nothing is looked up again."""
        self._entered: dict[ChunkId, int] = {}
        """The numbers of trees by id, for the same reason."""
        self._tops: list[tuple[int, int]] = []

    def look(self) -> None:
        """Finds out. Raises `StorageFailed` where packs move again and again, and for storage as a whole."""
        for _ in range(_TRIES):
            alive = read_markers(self._repo).alive
            self._clear(list_roots(self._repo))
            self._repo.synchronise(self._progress, lenient=True)
            leave_out = set(expirable(self._roots, alive | read_markers(self._repo).alive))
            with tempfile.TemporaryFile() as file:
                ends = array("Q")
                for bit, root in self._numbered(leave_out):
                    self._walk(root, bit, file, ends)
                for kept in (self._known, self._found, self._entered):
                    kept.clear()
                self._hand_down(file, ends)
            if all(self._repo.index.pack(number) is not None for number in self.rows):
                self._join()
                return
        raise StorageFailed("packs", "what is there moved again and again while it was looked at", retryable=True)

    def _numbered(self, leave_out: set[SnapshotId]) -> Iterator[tuple[int, ChunkId]]:
        for number, (snapshot, root) in enumerate(self._roots.committed.items(), 1):
            self.bits[snapshot] = number
            yield number, root
        for snapshot, item in self._roots.undecided.items():
            if snapshot not in leave_out:
                yield 0, item.root

    # --- down the trees --------------------------------------------------------------------------------------------

    def _walk(self, root: ChunkId, bit: int, file: IO[bytes], ends: array[int]) -> None:
        """Goes through what is new below a root; what is finished is written, whatever is below it before it."""
        lenient = bit == 0 or any(snapshot in self._roots.lost for snapshot, at in self.bits.items() if at == bit)
        stack: list[_Open] = []
        found = self._enter(Kind.TREE, 0, root, stack, lenient=lenient)
        while stack:
            self._cancel.check()
            top = stack[-1]
            if found is not None:
                top.nodes.append(found)
                found = None
            step = next(top.below, None)
            if step is not None:
                kind, level, chunk_id = step
                found = self._enter(kind, abs(level), chunk_id, stack, lenient=level < 0 or top.lenient)
                continue
            stack.pop()
            found = self._known[top.key] = len(ends)
            if len(self._entered) >= _FOUND_MAX:
                self._entered.clear()
            self._entered[top.id] = found
            file.write(array("I", (len(top.nodes), len(top.runs))).tobytes() + top.nodes.tobytes() + top.runs.tobytes())
            ends.append((ends[-1] if ends else 0) + _WORD_BYTES * (_HEAD + len(top.nodes) + len(top.runs)))
        if found is not None:
            self._tops.append((found, bit))

    def _enter(self, kind: Kind, level: int, chunk_id: ChunkId, stack: list[_Open], *, lenient: bool) -> int | None:
        """Returns the number of a tree or list that is finished; opens one that is new; None also where it is gone."""
        finished = self._entered.get(chunk_id)
        if finished is not None:
            return finished
        position = self._repo.index.find(chunk_id, usable_only=True) or self._repo.index.find(
            chunk_id, usable_only=False
        )
        if position is None:
            self._lack(chunk_id, lenient=lenient)
            return None
        key = position[0] << 32 | position[1]
        known = self._known.get(key)
        if known is not None:
            return None if known == _WITHIN else known
        try:
            raw = self._repo.source.get(kind, chunk_id)
            opened = _opened(kind, level, raw, f"{kind.word} {chunk_id.hex()[:16]}")
        except _MISSING:
            self._lack(chunk_id, lenient=lenient)
            return None
        self.trees += 1
        self._known[key] = _WITHIN
        runs = array("I", (*position, 1))
        self._find(opened[1], runs, lenient=lenient)
        self._find(opened[2], runs, lenient=True)
        stack.append(_Open(key, chunk_id, iter(opened[0]), runs, lenient))
        return None

    def _find(self, ids: bytes, runs: array[int], *, lenient: bool) -> None:
        """Adds where data chunks lie: what was stored together lies together, and what was found is found again."""
        find_run, found = self._repo.index.find_run, self._found
        at = 0
        while at < len(ids):
            chunk_id = ids[at : at + CHUNK_ID_BYTES]
            known = found.get(chunk_id)
            if known is None:
                run = find_run(ids, at) or find_run(ids, at, usable_only=False)
                if run is None:
                    self._lack(ChunkId(chunk_id), lenient=lenient)
                    at += CHUNK_ID_BYTES
                    continue
                end = at + run[2] * CHUNK_ID_BYTES
                if len(found) >= _FOUND_MAX:
                    found.clear()
                found[chunk_id] = (run, ids[at : min(end, at + _FOUND_BYTES_MAX)])
                runs.extend(run)
                at = end
                continue
            (number, row, _), joined = known
            count = _alike(ids, at, joined) // CHUNK_ID_BYTES
            runs.extend((number, row, count))
            at += count * CHUNK_ID_BYTES

    def _lack(self, chunk_id: ChunkId, *, lenient: bool) -> None:
        if not lenient:
            self.missing.add(bytes(chunk_id))

    # --- sets down the trees ---------------------------------------------------------------------------------------

    def _hand_down(self, file: IO[bytes], ends: array[int]) -> None:
        """Gives every tree's set to what it refers to, last first: whatever refers to a tree was finished after it."""
        sets = array("I", bytes(_WORD_BYTES * len(ends)))
        union = self.sets.union
        for number, bit in self._tops:
            sets[number] = union(sets[number], self.sets.number(1 << bit))
        for last in range(len(ends), 0, -_NODES_READ):
            first = max(0, last - _NODES_READ)
            start = ends[first - 1] if first else 0
            file.seek(start)
            words = array("I", file.read(ends[last - 1] - start))
            for number in range(last - 1, first - 1, -1):
                at = ((ends[number - 1] if number else 0) - start) // _WORD_BYTES
                nodes, runs = words[at : at + _HEAD]
                held = sets[number]
                at += _HEAD
                for node in words[at : at + nodes]:
                    sets[node] = union(sets[node], held)
                at += nodes
                for run in range(at, at + runs, _RUN):
                    self._label(words[run], words[run + 1], words[run + 2], held)

    def _label(self, number: int, row: int, count: int, held: int) -> None:
        labels = self.rows.get(number)
        if labels is None:
            labels = self.rows[number] = array("I")
        end = row + count
        if end > len(labels):
            labels.frombytes(bytes((end - len(labels)) * _WORD_BYTES))
        union = self.sets.union
        if count == 1:
            labels[row] = union(labels[row], held)
            return
        part = labels[row:end]
        first = part[0]
        if part == array("I", (first,)) * count:
            both = union(first, held)
            if both != first:
                labels[row:end] = array("I", (both,)) * count
            return
        labels[row:end] = array("I", [union(old, held) for old in part])

    def _join(self) -> None:
        """Gives one copy of a chunk that lies in several packs the sets of all, and takes them from the others."""
        live = Bitmaps()
        for number, labels in self.rows.items():
            live.add_rows(number, [row for row, held in enumerate(labels) if held])
        for copies, keep in settled_duplicates(self._repo, live):
            held = 0
            for number, row in copies:
                held = self.sets.union(held, self.rows[number][row])
                self.rows[number][row] = 0
            self._label(*keep, 1, held)

    # --- figures ---------------------------------------------------------------------------------------------------

    def measure(self) -> Costs:
        """Adds up."""
        weights: defaultdict[int, list[int]] = defaultdict(lambda: [0, 0, 0])
        for number, labels in self.rows.items():
            entry = self._repo.index.entry(number)
            if entry is not None:
                for held, kind, raw, sealed in weigh_rows(parse_footer(entry[1], pack_object(entry[0].name)), labels):
                    weight = weights[held]
                    weight[0 if kind == Kind.DATA else 1] += raw
                    weight[2] += sealed
        weights.pop(0, None)
        all_of, own = {bit: [0, 0, 0] for bit in self.bits.values()}, {bit: [0, 0, 0] for bit in self.bits.values()}
        for held, weight in weights.items():
            members = self.sets.members[held]
            if not members & members - 1:
                own[members.bit_length() - 1] = weight
            while members:
                bit = members.bit_length() - 1
                members ^= 1 << bit
                if bit:
                    total = all_of[bit]
                    total[0] += weight[0]
                    total[1] += weight[1]
                    total[2] += weight[2]
        return Costs(
            snapshots={
                snapshot: Cost(
                    data_bytes=all_of[bit][0],
                    tree_bytes=all_of[bit][1],
                    stored_bytes=all_of[bit][2],
                    own_data_bytes=own[bit][0],
                    own_tree_bytes=own[bit][1],
                    frees_bytes=own[bit][2],
                )
                for snapshot, bit in self.bits.items()
            },
            missing=len(self.missing),
            trees=self.trees,
        )

    def only(self, snapshot: SnapshotId) -> int:
        """Returns the number of the set that holds one snapshot and no other; 0 where it is not there."""
        bit = self.bits.get(snapshot)
        return 0 if bit is None else self.sets.number(1 << bit)


def weigh_rows(footer: Footer, labels: Sequence[int]) -> Iterator[tuple[int, int, int, int]]:
    """Yields (label, kind, raw bytes, sealed bytes) of the rows of a pack, rows of one label together.

    A row's share of its block is where its end would fall in the sealed bytes less where its start would
    (`respaldo.flows.gc.labels`): shares add up to the block.
    """
    end = len(labels)
    for block, first in zip(footer.blocks, footer.first_rows, strict=False):
        if first >= end:
            return
        lengths = footer.lengths[first : first + block.chunks]
        at = start = row = 0
        for label, group in groupby(labels[first : first + block.chunks]):
            count = sum(1 for _ in group)
            raw = sum(lengths[row : row + count])
            row += count
            at += raw
            stop = block.sealed_length * at // block.raw_length
            yield label, block.kind, raw, stop - start
            start = stop


def _opened(kind: Kind, level: int, raw: bytes, what: str) -> tuple[list[tuple[Kind, int, ChunkId]], bytes, bytes]:
    """Returns what a tree or list refers to: others (of a level below 0: marked as lost), data, and lost data."""
    if kind is Kind.LIST:
        ids = parse_node_ids(raw, what)
        return ([], ids, b"") if level <= 1 else ([(Kind.LIST, level - 1, node) for node in _split(ids)], b"", b"")
    found = parse_references(raw, what)
    below = [(Kind.TREE, 0, tree) for tree in _split(found.trees)]
    below += [(Kind.LIST, at, ChunkId(node)) for at, node in found.lists]
    if found.lost is None:
        return below, found.data, b""
    below += [(Kind.TREE, -1, tree) for tree in _split(found.lost.trees)]
    below += [(Kind.LIST, -at, ChunkId(node)) for at, node in found.lost.lists]
    return below, found.data, found.lost.data


def _split(ids: bytes) -> list[ChunkId]:
    return [ChunkId(ids[at : at + CHUNK_ID_BYTES]) for at in range(0, len(ids), CHUNK_ID_BYTES)]


def _alike(ids: bytes, at: int, joined: bytes) -> int:
    """Returns how many bytes of whole ids are the same from a place on as some that are joined: at least one id's."""
    if ids.startswith(joined, at):
        return len(joined)
    end = CHUNK_ID_BYTES
    while ids[at + end : at + end + CHUNK_ID_BYTES] == joined[end : end + CHUNK_ID_BYTES]:
        end += CHUNK_ID_BYTES
    return end
