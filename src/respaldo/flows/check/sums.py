"""SHA-256 of files, computed while packs are read anyway: each content that nobody has computed yet, once.

What is looked for is planned by where it lies. A file of one chunk costs a bit; a longer one says of which rows of
which packs it consists, in its order, and is taken along as far as they come in that order. What does not, the rest of
it is read afterwards. Invariant: a digest is of chunks each of which had its id. Memory is bounded: so many longer
files at a time; those beyond are left for another run.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from respaldo.catalog.sums import SumsKept
from respaldo.catalog.trees import TreeReader
from respaldo.core.errors import ChunkMissing, Corruption, StorageFailed
from respaldo.core.ids import CHUNK_ID_BYTES, ChunkId, Kind, PackName
from respaldo.core.model import Content
from respaldo.core.seams import Buffer, Cancel
from respaldo.format.content import HOLE
from respaldo.format.verification import content_key, key_of
from respaldo.store.bitmaps import Bitmaps
from respaldo.store.header import still_there
from respaldo.store.repo import Repo

LONGER_MAX = 1 << 16
"""So many contents of several chunks are planned for: some 500 bytes each."""
RUNS_MAX = 1 << 17
"""So many runs of rows all of them together consist of: some 250 bytes each."""
HELD_BYTES = 16 << 20
"""So much that comes before its turn is kept: blocks are sealed by several threads, and stored as they are done."""
WAIT_BYTES = 4 << 20
"""Whoever comes to the middle of so long a content waits for the pack before, where that is being read."""
_ZEROS = bytes(1 << 20)


class Longer:
    """Is a content of several chunks on its way: ``done`` of them have gone into ``hasher``, in their order."""

    __slots__ = ("content", "done", "early", "hasher", "next_part", "parts", "size")

    def __init__(self, content: Content, size: int) -> None:
        self.content = content
        self.size = size
        self.parts = 0
        self.next_part = 0
        self.early: dict[int, list[bytes]] = {}
        self.done = 0
        self.hasher = hashlib.sha256()

    def take(self, raw: Buffer) -> None:
        """Takes the next chunk."""
        self.hasher.update(raw)
        self.done += 1


@dataclass(slots=True)
class Run:
    """Is rows of a pack, one behind the other: the part of a content with this number; ``after`` one in that pack."""

    longer: Longer
    part: int
    left: int
    after: int = -1
    held: list[bytes] | None = None
    """Its chunks, where its turn has not come."""


@dataclass(slots=True)
class Shared:
    """Is what the threads that read packs share: which packs were handed out, and how much is held."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    given: dict[int, PackSums] = field(default_factory=dict)
    """By number of the pack, in the order in which they were handed out."""
    held_bytes: int = 0


@dataclass(slots=True)
class PackSums:
    """Takes the chunks of one pack as they come, and keeps what SHA-256 came of it. One thread."""

    number: int
    turn: int
    """They are begun in the order of their turns: whoever waits for an earlier one waits for one that was begun."""
    shared: Shared
    singles: bytes | bytearray = b""
    """A bit for each row that is a file by itself."""
    runs: dict[int, list[Run]] = field(default_factory=dict)
    """By their first row."""
    digests: list[tuple[bytes, bytes]] = field(default_factory=list)
    """Key of a content and its SHA-256."""
    finished: threading.Event = field(default_factory=threading.Event)
    _under_way: list[Run] = field(default_factory=list)
    _next_row: int = 0

    def take(self, row: int, chunk_id: bytes, raw: Buffer) -> None:
        """Takes a chunk that has its id."""
        at = row >> 3
        if at < len(self.singles) and self.singles[at] >> (row & 7) & 1:
            self.digests.append((key_of(0, chunk_id), hashlib.sha256(raw).digest()))
        if not self.runs and not self._under_way:
            return
        if row != self._next_row:  # a chunk was damaged: what it belongs to goes on another time
            self._drop(self._under_way)
        self._next_row = row + 1
        self._under_way += [run for run in self.runs.pop(row, ()) if self._begin(run)]
        for run in self._under_way:
            run.left -= 1
            if run.held is None:
                run.longer.take(raw)
            else:
                run.held.append(bytes(raw))
                with self.shared.lock:
                    self.shared.held_bytes += len(raw)
            if not run.left:
                self._end(run)
        self._drop([run for run in self._under_way if run.held and self.shared.held_bytes > HELD_BYTES])
        self._under_way = [run for run in self._under_way if run.left]

    def finish(self) -> None:
        """Lets those go on who wait for this pack."""
        self._drop(self._under_way)
        self.finished.set()

    def _begin(self, run: Run) -> bool:
        """Whether a run is of use: now, or held until its turn comes."""
        before = self.shared.given.get(run.after)
        if before and before.turn < self.turn and run.longer.next_part < run.part and run.longer.size >= WAIT_BYTES:
            before.finished.wait()
        with self.shared.lock:
            run.held = None if run.longer.next_part == run.part else []
            return run.longer.next_part <= run.part

    def _end(self, run: Run) -> None:
        longer = run.longer
        with self.shared.lock:
            if run.held is None:
                longer.next_part += 1
            else:
                longer.early[run.part] = run.held
                run.held = None
            while (chunks := longer.early.pop(longer.next_part, None)) is not None:
                for raw in chunks:
                    longer.take(raw)
                self.shared.held_bytes -= sum(map(len, chunks))
                longer.next_part += 1
            if longer.next_part == longer.parts:
                self.digests.append((content_key(longer.content), longer.hasher.digest()))

    def _drop(self, runs: list[Run]) -> None:
        """Gives up runs, and what is held of them."""
        for run in runs:
            if run.held and run.left:
                with self.shared.lock:
                    self.shared.held_bytes -= sum(map(len, run.held))
            run.left = 0
        self._under_way = [run for run in self._under_way if run.left]


class Sums:
    """Plans what is to be computed, hands it out by pack, and reads what is left. One thread."""

    def __init__(self, repo: Repo, known: SumsKept) -> None:
        self._repo = repo
        self._known = known
        self._trees = TreeReader(repo.source)
        self._singles = Bitmaps()
        self._longer: dict[bytes, Longer] = {}
        self._runs: dict[int, dict[int, list[Run]]] = {}
        self._runs_left = RUNS_MAX
        self._shared = Shared()
        self.computed = 0
        self.left = 0
        """How many places in distinct trees have a content that was not looked for, or whose rest was not read."""

    # --- planning ----------------------------------------------------------------------------------------------------

    def want(self, contents: Sequence[tuple[int, int, bytes]]) -> None:
        """Plans for what is not known of some files: size, level of their lists, ids joined."""
        keys = [key_of(level, ids) for _, level, ids in contents]
        for number in self._known.lacking(keys):
            size, level, ids = contents[number]
            if not level and len(ids) == CHUNK_ID_BYTES:
                position = self._repo.index.find(ChunkId(ids), usable_only=False)
                if position is not None:
                    self._singles.add(position)
            elif keys[number] not in self._longer:
                if len(self._longer) >= LONGER_MAX or self._runs_left <= 0:
                    self.left += 1
                else:
                    self._longer[keys[number]] = self._plan(Longer(Content(level=level, ids=ids), size))

    def _plan(self, longer: Longer) -> Longer:
        runs = list(islice(self._places(longer.content), self._runs_left + 1))
        if len(runs) <= self._runs_left and all(count > 0 for _, _, count in runs):
            self._runs_left -= len(runs)
            longer.parts = len(runs)
            after = -1
            for part, (pack, row, count) in enumerate(runs):
                self._runs.setdefault(pack, {}).setdefault(row, []).append(Run(longer, part, count, after))
                after = pack
        return longer

    def _places(self, content: Content) -> Iterator[tuple[int, int, int]]:
        """Yields (pack, row, number of rows), one behind the other in a pack; a number of 0: no place."""
        last = (-1, -1, 0)
        for ids in self._ids(content):
            at = 0
            while at < len(ids):
                found = self._repo.index.find_run(ids, at, usable_only=False)
                if found is None or ids[at : at + CHUNK_ID_BYTES] == HOLE:
                    yield -1, 0, 0
                    return
                pack, row, count = found
                at += count * CHUNK_ID_BYTES
                if last[0] == pack and last[1] + last[2] == row:
                    last = (pack, last[1], last[2] + count)
                else:
                    if last[2]:
                        yield last
                    last = found
        if last[2]:
            yield last

    def _ids(self, content: Content) -> Iterator[bytes]:
        if not content.level:
            yield content.ids
            return
        rows = self._trees.list_rows(content)
        try:
            while ids := b"".join(row.id for row in islice(rows, 1024)):
                yield ids
        except (ChunkMissing, Corruption):
            yield HOLE

    # --- reading -----------------------------------------------------------------------------------------------------

    def order(self, packs: Sequence[PackName], lanes: int) -> list[PackName]:
        """Returns packs in the order of their reading by so many threads.

        Each goes through a part of them as they were written: so the chunks of a file come one after the other.
        """
        index = self._repo.index
        ordered = sorted(packs, key=lambda name: index.number_of(name) or 0)
        length = -(-len(ordered) // lanes)
        return [name for first in range(length) for name in ordered[first::length]]

    def of_pack(self, number: int) -> PackSums | None:
        """Returns what is to be computed of a pack, None where it is nothing."""
        singles, runs = self._singles.rows.get(number, b""), self._runs.pop(number, {})
        if not singles and not runs:
            return None
        given = self._shared.given
        given[number] = found = PackSums(number, len(given), self._shared, singles, runs)
        return found

    def note(self, found: PackSums) -> None:
        """Remembers what came of a pack."""
        for key, digest in found.digests:
            self._known.learn(key, digest)
            self._longer.pop(key, None)
        self.computed += len(found.digests)
        found.digests.clear()
        found.runs.clear()
        found.singles = b""

    def read_rest(self, limit_bytes: int | None, cancel: Cancel) -> None:
        """Reads the rest of what did not come in order: of so many bytes, with a block for each beginning, or all."""
        used = 0
        share = {key: self._cost(longer) for key, longer in self._longer.items()}
        for key in sorted(share, key=share.__getitem__):
            longer = self._longer[key]
            used += share[key]
            if limit_bytes is not None and used > limit_bytes:
                self.left += 1
                continue
            cancel.check()
            try:
                self._read(longer, cancel)
            except (ChunkMissing, Corruption):
                continue
            except StorageFailed as error:
                still_there(self._repo.backend, error)
                continue
            self._known.learn(key, longer.hasher.digest())
            self.computed += 1
        self._longer.clear()

    @staticmethod
    def _cost(longer: Longer) -> int:
        chunks = max(len(longer.content), 1) if not longer.content.level else longer.size >> 16
        rest = longer.size * (chunks - longer.done) // max(chunks, 1)
        return max(rest, 0) + (1 << 20)

    def _read(self, longer: Longer, cancel: Cancel) -> None:
        source, hasher = self._repo.source, longer.hasher
        if not longer.content.level:
            for chunk_id in islice(longer.content, longer.done, None):
                hasher.update(source.get(Kind.DATA, chunk_id))
            return
        for row in islice(self._trees.list_rows(longer.content), longer.done, None):
            cancel.check()
            if row.id == HOLE:
                for at in range(0, row.length, len(_ZEROS)):
                    hasher.update(_ZEROS[: row.length - at])
            else:
                hasher.update(source.get(Kind.DATA, row.id))
