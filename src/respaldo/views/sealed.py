"""Sealed archives: a snapshot as the tar archive that an export of it makes, byte by byte, read at any offset.

Nothing is written for it. Its length comes from trees alone; what is read at an offset is found by walking from the
last place before it that was noted on an earlier walk. Memory is flat: so many places, however long the archive; first
names of hard links go to a file where they are many. Any number of threads; what belongs to one (trees) is under the
lock that the caller shares with it.
"""

from __future__ import annotations

import hashlib
import threading
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import AbstractContextManager
from functools import partial
from typing import NamedTuple

from respaldo.catalog.extents import Extents
from respaldo.catalog.snapshots import Snapshot
from respaldo.catalog.trees import Reader, TreeReader
from respaldo.core.errors import Corruption
from respaldo.core.ids import ChunkId, SnapshotId
from respaldo.core.model import Entry
from respaldo.core.seams import Buffer
from respaldo.format.snapshot import Manifest
from respaldo.views import content
from respaldo.views.archive import about
from respaldo.views.content import Span
from respaldo.views.contents import Contents, OpenFile
from respaldo.views.directories import Directories
from respaldo.views.seal import Seal
from respaldo.views.tar import BLOCK, RECORD_BYTES, Tar
from respaldo.views.tarwalk import FirstNames, Place, Walk

PLACES_MAX = 4096
_SPACING = 64
"""So many members apart places are noted at first, twice as many whenever there are too many places."""
_WALKS_KEPT = 4
_MEMBERS_KEPT = 8
_STEPS_AT_ONCE = 256
"""So many members are passed before others get at the trees."""
_AGAIN_AT_ONCE = 1 << 16
"""Or so many rows of lists that were met before."""
_LENGTHS_KEPT = 20_000
_MEMBERS_MORE = 1 << 20
"""So many more than its manifest says may be in a snapshot: trees that hold each other often would take for ever."""
_AGAIN_MAX = 1 << 18
"""So many rows of lists with holes may be met again in one file. In honest ones, few are."""
_LENGTH_MAX = (1 << 63) - 1
_ARCHIVES_KEPT = 8
_READ_BYTES = 1 << 18


class Member(NamedTuple):
    """Is a member of the archive: where it begins and ends, its file, and what it consists of: bytes, or its data."""

    start: int
    end: int
    file: OpenFile
    parts: tuple[bytes | Span, ...]


class Laid(Tar):
    """Lays members out instead of writing them: says what they consist of, without reading content."""

    def __init__(self, contents: content.Contents, firsts: MutableMapping[bytes, bytes]) -> None:
        super().__init__(self._literal, contents)
        self._firsts = firsts
        self._parts: list[bytes | Span] = []
        self._literals: list[bytes] = []
        """What comes next, in pieces: the map of a file with many holes would take for ever to be appended to."""

    def lay(self, name: bytes, entry: Entry) -> tuple[bytes | Span, ...]:
        """Returns what a member consists of, nothing where it is left out."""
        self._parts, self._literals = [], []
        self.add(name, entry)
        self._join()
        return tuple(self._parts)

    def head(self, comment: bytes) -> bytes:
        """Returns what stands before the first member."""
        self._parts, self._literals = [], []
        self.comment(comment)
        return b"".join(self._literals)

    def _literal(self, data: Buffer) -> None:
        self._literals.append(bytes(data))

    def _join(self) -> None:
        if self._literals:
            self._parts.append(b"".join(self._literals))
            self._literals = []

    def _whole(self, entry: Entry) -> None:
        self._join()
        self._parts.append(Span(0, entry.size))

    def _data(self, entry: Entry) -> None:
        self._join()
        self._parts += self._spans(entry)


def length_of(parts: tuple[bytes | Span, ...]) -> int:
    """Returns the length of a member."""
    return sum(part.length if isinstance(part, Span) else len(part) for part in parts)


class Archives:
    """Is what the archives of one mount share."""

    def __init__(
        self,
        directories: Directories,
        reader: Reader,
        contents: Contents,
        lock: AbstractContextManager[object],
        sealed: Callable[[SnapshotId, str], None],
    ) -> None:
        """``sealed`` is told the SHA-256 of an archive that was read in sequence."""
        self.directories = directories
        self.contents = contents
        self.lock = lock
        self.trees = TreeReader(reader)
        self.extents = Extents(reader, again_max=_AGAIN_MAX)
        self.spans = content.Contents(reader, self.trees, self.extents)
        self.lengths: OrderedDict[tuple[ChunkId, bytes], int] = OrderedDict()
        """What is below a directory at a path, where no hard link is: most of it is in other snapshots, too."""
        self._sealed = sealed
        self._kept: OrderedDict[SnapshotId, Sealed] = OrderedDict()
        self._known: dict[SnapshotId, int] = {}

    def of(self, snapshot: Snapshot) -> Sealed:
        """Returns the archive of a snapshot; of the last ones it is known what lies where in them."""
        found = self._kept.get(snapshot.id)
        if found is None:
            found = self._kept[snapshot.id] = Sealed(
                self,
                snapshot.manifest,
                self._known.get(snapshot.id, -1),
                measured=partial(self._known.__setitem__, snapshot.id),
                sealed=partial(self._sealed, snapshot.id),
            )
            while len(self._kept) > _ARCHIVES_KEPT:
                self._kept.popitem(last=False)
        return found

    def known_length(self, snapshot: Snapshot) -> int:
        """Returns the length of an archive, -1 where nobody measured it yet."""
        return self._known.get(snapshot.id, -1)

    def remember(self, tree: ChunkId, path: bytes, length: int) -> None:
        """Keeps what is below a directory."""
        self.lengths[tree, path] = length
        while len(self.lengths) > _LENGTHS_KEPT:
            self.lengths.popitem(last=False)


class Sealed:
    """Is the archive of a snapshot."""

    def __init__(
        self,
        archives: Archives,
        manifest: Manifest,
        known_length: int,
        *,
        measured: Callable[[int], None],
        sealed: Callable[[str], None],
    ) -> None:
        self._shared = archives
        self._lock = threading.Lock()
        self.known_length = known_length
        """Its length, -1 where it takes reading trees to tell."""
        self._measured = measured
        self._sealed = sealed
        self._firsts = FirstNames()
        self._laid = Laid(archives.spans, self._firsts)
        self._head = self._laid.head(about(manifest, b"/"))
        self._places = [Place(len(self._head), (0,))]
        self._spacing = _SPACING
        self._walks: list[Walk] = []
        self._members: OrderedDict[int, Member] = OrderedDict()
        self._root = manifest.root
        figures = manifest.figures
        self._members_max = 2 * (figures.files + figures.directories + figures.others) + _MEMBERS_MORE
        self._seal = Seal()

    @property
    def length(self) -> int:
        """Its length in bytes; reads trees, the first time. Raises what reading them does."""
        with self._lock:
            if self.known_length < 0:
                walk = self._walk(self._places[0])
                passed = 0
                while self._pass(walk, None):
                    passed += _STEPS_AT_ONCE
                    if passed + walk.again > self._members_max:
                        raise Corruption("archive", "it has more members, or more holes, than its snapshot can have")
                if walk.at > _LENGTH_MAX - RECORD_BYTES:
                    raise Corruption("archive", "it is longer than any file can be")
                self.known_length = -(-(walk.at + 2 * BLOCK) // RECORD_BYTES) * RECORD_BYTES
                self._measured(self.known_length)
            return self.known_length

    def read(self, offset: int, length: int) -> list[memoryview]:
        """Returns the bytes of a range, in parts; raises what reading the content in it does."""
        found = self._read(offset, length)
        if self._seal.note(offset, found, self.known_length):
            self._sealed(self._seal.sha256)
        return found

    def _read(self, offset: int, length: int) -> list[memoryview]:
        end = min(offset + length, self.length)
        found = [memoryview(self._head)[offset:end]] if offset < min(end, len(self._head)) else []
        at = max(offset, min(end, len(self._head)))
        with self._lock:
            members = list(self._between(at, end))
        for member in members:
            part_at = member.start
            for part in member.parts:
                size = part.length if isinstance(part, Span) else len(part)
                low, high = max(at - part_at, 0), min(end - part_at, size)
                if low < high and isinstance(part, Span):
                    raw = self._shared.contents.read(member.file, part.offset + low, high - low)
                    found += raw
                elif low < high and isinstance(part, bytes):
                    found.append(memoryview(part)[low:high])
                part_at += size
            at = min(member.end, end)
        if at < end:
            found.append(memoryview(bytes(end - at)))  # what ends an archive is zeros
        return found

    def sha256(self) -> str:
        """Returns the SHA-256 of the archive, in hex; reads all of it where nobody has. Raises what reading does."""
        if self._seal.sha256:
            return self._seal.sha256
        hasher = hashlib.sha256()
        for at in range(0, self.length, _READ_BYTES):
            for part in self._read(at, _READ_BYTES):
                hasher.update(part)
        self._sealed(hasher.hexdigest())
        return hasher.hexdigest()

    def _between(self, offset: int, end: int) -> Iterator[Member]:
        while offset < end:
            member = next((item for item in self._members.values() if item.start <= offset < item.end), None)
            member = member or self._find(offset)
            if member is None:
                return
            yield member
            offset = member.end

    def _find(self, offset: int) -> Member | None:
        """Returns the member that an offset lies in, None behind all of them."""
        place = self._places[bisect_right(self._places, offset, key=lambda item: item.at) - 1]
        near = max((walk for walk in self._walks if walk.at <= offset), key=lambda walk: walk.at, default=None)
        if near is None or near.at < place.at:
            near = self._walk(place)
            self._walks = [*self._walks[1 - _WALKS_KEPT :], near]
        while near.at <= offset:
            if not self._pass(near, offset):
                break
        return next((item for item in reversed(self._members.values()) if item.start <= offset < item.end), None)

    def _walk(self, place: Place) -> Walk:
        with self._shared.lock:
            return Walk(self._shared.directories, self._shared.trees, self._root, place)

    def _pass(self, walk: Walk, offset: int | None) -> bool:
        """Passes some members, up to the one that an offset lies in, which is laid out and kept; whether there is more.

        Without an offset, what is known to be below a directory is passed as a whole.
        """
        shared = self._shared
        known, remember = (shared.lengths, shared.remember) if offset is None else (None, None)
        with shared.lock:
            before = shared.extents.again
            for _ in range(_STEPS_AT_ONCE):
                if not walk.step(remember):
                    return False
                length = walk.plain_length()
                if length is None or (offset is not None and walk.at + length > offset):
                    name, entry = walk.entry()
                    if entry.link_group:
                        walk.links += 1
                    met = shared.extents.again
                    parts = self._laid.lay(name, entry)
                    walk.again += shared.extents.again - met
                    length = length_of(parts)
                    if offset is not None and walk.at <= offset < walk.at + length:
                        member = Member(walk.at, walk.at + length, OpenFile(entry), parts)
                        self._members[walk.at] = member
                        while len(self._members) > _MEMBERS_KEPT:
                            self._members.popitem(last=False)
                        walk.forward(length, known)
                        return True
                walk.forward(length, known)
                if walk.since >= self._spacing:
                    walk.since = 0
                    self._note(walk.place())
                if shared.extents.again > before + _AGAIN_AT_ONCE:
                    break
        return True

    def _note(self, place: Place) -> None:
        at = bisect_left(self._places, place.at, key=lambda item: item.at)
        if at < len(self._places) and self._places[at].at == place.at:
            return
        self._places.insert(at, place)
        if len(self._places) > PLACES_MAX:
            del self._places[1::2]
            self._spacing *= 2
