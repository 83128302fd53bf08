"""Segments of a repository: read into the index, put by sessions, merged so that few are left to read.

Invariant: a merged segment lists every pack that exists of those that the ones it supersedes list, because packs were
listed after those segments were; it is durable before anybody relies on it. Never deletes anything: says what a
collector may delete. Implements docs/format.md, "Segment" and "Merging".
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Protocol

from respaldo.backend.base import Backend
from respaldo.core.errors import Corruption, ObjectExists, RespaldoError, StorageFailed
from respaldo.core.ids import RANDOM_ID_BYTES, PackName, SegmentName, pack_object, segment_object
from respaldo.core.seams import Progress
from respaldo.format.pack import Footer, parse_footer
from respaldo.format.segment import SEGMENT_BYTES_MAX, Listed, Segment, parse_segment
from respaldo.store.index import Index
from respaldo.store.merged import Standing, Unread, list_hashes, name_hashes
from respaldo.store.packrow import Entering, Indexed
from respaldo.store.packs import Finished, read_footer
from respaldo.store.several import read_several
from respaldo.store.tiers import Extent, plan
from respaldo.store.vault import Vault

SEGMENT_FOOTER_BYTES = 8 << 20
"""A segment takes footers up to about this many bytes: whoever reads one holds it in memory up to five times."""
SUPERSEDES_MAX = 1 << 19
"""Of more than so many, a client that reads all must read some."""
_END_BYTES_MIN = 176
"""What footer and trailer take at least."""


class Store(Protocol):
    """Is what segments need of a repository."""

    backend: Backend
    vault: Vault
    index: Index
    damaged: list[RespaldoError]


class Segments:
    """Reads, puts and merges segments. One thread."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._standing = Standing(store.index, "segments")
        self._doubted = False

    # --- reading ---------------------------------------------------------------------------------------------------

    def read(self, name: SegmentName) -> Segment:
        """Reads a segment; raises `Corruption`. For any thread.

        One that the client of an area has put says nothing: it could give others' packs footers that are not theirs.
        """
        what = segment_object(name)
        raw = self._opened(name, what)
        return parse_segment(raw, what) if raw else Segment(session=bytes(RANDOM_ID_BYTES), packs=())

    def _opened(self, name: SegmentName, what: str) -> bytes:
        """Returns a segment's plaintext, empty where nobody may believe it, and holds nothing else of it any more."""
        data = self._store.backend.get_whole(what, SEGMENT_BYTES_MAX)
        if hashlib.sha256(data).digest() != name:
            raise Corruption(what, "its bytes do not have its name")
        raw = self._store.vault.open_segment(data, what)
        return b"" if self._store.vault.is_segment_of_client(data) else raw

    def listed(self) -> dict[SegmentName, int]:
        """Lists segments: their sizes in bytes."""
        return {SegmentName(name): size for name, size in list_hashes(self._store.backend, "segments").items()}

    def _listed(self, known: AbstractSet[SegmentName]) -> Mapping[SegmentName, int]:
        """Lists segments: their sizes in bytes where one is not known, whose size tells when it is to be read."""
        names = {SegmentName(name) for name in name_hashes(self._store.backend, "segments")} if known else set()
        return dict.fromkeys(names, 0) if names and names <= known else self.listed()

    def apply(self, packs: Mapping[PackName, int], progress: Progress | None) -> None:
        """Enters what new segments say of listed packs into the index; passes over what is superseded."""
        index = self._store.index
        known = index.segments()
        unread = Unread(partial(self._listed, known), self.read, known, self._store.damaged)
        fresh: dict[SegmentName, Extent] = {}

        def entering() -> Iterator[Entering]:  # all in one, so that the index is written once, in order
            entered: set[PackName] = set()
            for name, segment in unread:
                entered = entered or set(index.lengths())
                yield from self._entering(segment, packs, entered, segment_object(name))
                fresh[name] = _extent(segment.packs)
                if progress is not None:
                    progress.note(2, f"applied segment {name.hex()[:12]} ({len(segment.packs)} packs)")
                del segment

        index.add_packs(entering())
        passed_over = unread.passed_over()
        gone = known - unread.there.keys()
        if fresh or gone:
            # Extents first: a segment that counts as applied and has none would never be merged.
            self._standing.note(fresh, gone=gone | passed_over)
            index.note_segments(fresh.keys() | passed_over, gone)

    def _entering(
        self, segment: Segment, there: Mapping[PackName, int], entered: set[PackName], what: str
    ) -> Iterator[Entering]:
        """Yields what a segment says of packs that are there and not entered; adds them to those that are."""
        for item in segment.packs:
            if there.get(item.pack) != item.length_bytes or item.pack in entered:
                continue
            try:
                footer = parse_footer(item.footer, what)
                if footer.body_length > item.length_bytes - _END_BYTES_MIN:
                    raise Corruption(what, "gives a pack blocks beyond its end")
            except Corruption as error:
                self._store.damaged.append(error)
                continue
            entered.add(item.pack)
            yield item.pack, item.length_bytes, footer, item.footer

    def doubt(self) -> list[Corruption]:
        """Asks all packs for their own footers, once; what segments say otherwise counts no more.

        A chunk that no segment knows of may be there all the same: nobody may count it as lost before. Returns the
        segments that say of a pack what that does not say itself; packs that cannot be asked stay as they are.
        """
        if self._doubted:
            return []
        self._doubted = True
        index = self._store.index
        wrong: dict[PackName, tuple[Indexed, Footer, bytes]] = {}
        for pack, got in read_several(self._own_footer, list(index.packs())):
            if isinstance(got, tuple) and got[1] != index.footer(pack.number):
                wrong[pack.name] = (pack, *got)
        if not wrong:
            return []
        index.forget_packs([pack for pack, _, _ in wrong.values()])
        index.add_packs((pack.name, pack.length_bytes, footer, encoded) for pack, footer, encoded in wrong.values())
        lying = []
        for name, segment in read_several(self.read, list(self.listed())):
            listed = segment.packs if isinstance(segment, Segment) else ()
            for item in listed:
                if item.pack in wrong and item.footer != wrong[item.pack][2]:
                    reason = f"it does not repeat the footer of {pack_object(item.pack)}"
                    lying.append(Corruption(segment_object(name), reason))
                    break
        self._store.damaged += lying
        return lying

    def _own_footer(self, pack: Indexed) -> tuple[Footer, bytes] | None:
        try:
            return read_footer(self._store.backend, self._store.vault, pack.name, pack.length_bytes)
        except StorageFailed:
            return None

    def packs_listed(self) -> set[PackName]:
        """Returns the packs that a segment lists, read from storage; raises `Corruption`."""
        damaged: list[RespaldoError] = []
        found = {item.pack for _, segment in Unread(self.listed, self.read, (), damaged) for item in segment.packs}
        for error in damaged:
            raise error
        return found

    # --- putting ---------------------------------------------------------------------------------------------------

    def put(self, session: bytes, packs: Iterable[Finished]) -> None:
        """Lists durable packs in segments of bounded size and makes those durable."""
        part: list[Listed] = []
        length = 0
        for item in packs:
            part.append(Listed(pack=item.name, length_bytes=item.length_bytes, footer=item.encoded))
            length += len(item.encoded)
            if length >= SEGMENT_FOOTER_BYTES:
                self._put(Segment(session=session, packs=tuple(part)))
                part, length = [], 0
        if part:
            self._put(Segment(session=session, packs=tuple(part)))

    def _put(self, segment: Segment, *, longer_than: int = 0) -> SegmentName:
        name, data = self._store.vault.seal_segment(segment.encode(), longer_than=longer_than)
        with contextlib.suppress(ObjectExists):
            self._store.backend.put(segment_object(name), [data])
        self._standing.note({name: _extent(segment.packs)}, gone=set(segment.supersedes))
        self._store.index.note_segments([name, *segment.supersedes])
        return name

    # --- merging ---------------------------------------------------------------------------------------------------

    def merge(self, session: bytes) -> SegmentName | None:
        """Puts one segment for many where there are many; returns its name.

        Lists packs last: another process that has the same cache may have put a segment just now.
        """
        if not plan(self._standing.extents()):
            return None
        there = self.listed()
        chosen = plan(self._standing.extents(there))
        items: list[Listed] = []
        supersedes: set[SegmentName] = set()
        for name, segment in read_several(self.read, [SegmentName(name) for name in chosen]):
            if isinstance(segment, RespaldoError):  # another's collector, or damage, for others to report
                self._standing.note({}, gone=[name])
                return None
            supersedes |= {name, *(there.keys() & set(segment.supersedes))}
            items += segment.packs
        if not supersedes:
            return None
        packs = dict(list_hashes(self._store.backend, "packs"))
        listed = {item.pack: item for item in items if packs.get(item.pack) == item.length_bytes}
        merged = tuple(listed[name] for name in sorted(listed))
        names = (*map(SegmentName, chosen), *sorted(supersedes - set(chosen)))[:SUPERSEDES_MAX]
        longest = max(there[name] for name in supersedes)
        return self._put(Segment(session=session, packs=merged, supersedes=names), longer_than=longest)

    def superseded(self) -> frozenset[SegmentName]:
        """Returns the segments that may be deleted: all whose packs another lists that was just read, or that are gone.

        Lists packs last, so that a pack that is not listed has been deleted.
        """
        unread = Unread(self.listed, self.read, (), [])
        listed = {name: [item.pack for item in segment.packs] for name, segment in unread}
        packs = {PackName(name) for name in name_hashes(self._store.backend, "packs")}
        empty = {name for name, names in listed.items() if packs.isdisjoint(names) and name in unread.there}
        return frozenset(unread.passed_over() | empty)


def _extent(packs: tuple[Listed, ...]) -> Extent:
    return Extent(len(packs), sum(len(item.footer) for item in packs))
