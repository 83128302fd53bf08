"""Salvage: what is sound in a damaged pack is copied into new packs.

Tries every footer that there is of the pack: its own, and what segments and the index repeat; so a pack with a damaged
footer, one that is cut short and one that holds another's bytes give back all that they hold. Everything is copied that
is sound and has no sound copy elsewhere, needed or not, so that nobody has to know what is needed: a copy elsewhere
counts when it was read and checked, and lies in a pack that is not condemned. Implements docs/format.md, "Repair".
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from blake3 import blake3

from respaldo.core.errors import Corruption, ObjectMissing, StorageFailed
from respaldo.core.ids import ChunkId, Kind, PackName, pack_object
from respaldo.core.seams import Cancel
from respaldo.format.pack import Footer
from respaldo.store.chunks import ChunkSink
from respaldo.store.header import still_there
from respaldo.store.packs import block_of, open_block, read_footer
from respaldo.store.repo import Repo

_PIECE_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Part:
    """Is a block that can be read: its footer and number, its sealed and its raw bytes, the rows that are sound."""

    footer: Footer
    number: int
    sealed: bytes
    raw: memoryview
    sound: tuple[int, ...]

    @property
    def kind(self) -> Kind:
        """The kind of its chunks."""
        return Kind(self.footer.blocks[self.number].kind)

    @property
    def whole(self) -> bool:
        """Whether all of its chunks are sound."""
        return len(self.sound) == self.footer.blocks[self.number].chunks

    def chunk(self, row: int) -> memoryview:
        """Returns the bytes of a chunk."""
        _, offset, length = self.footer.place(row)
        return self.raw[offset : offset + length]


class Salvage:
    """Salvages for one repair. A context manager; one thread."""

    def __init__(
        self, repo: Repo, session: bytes, footers: Mapping[PackName, Sequence[Footer]], cancel: Cancel
    ) -> None:
        self._repo = repo
        self._session = session
        self._footers = footers
        self._cancel = cancel
        self._checked: tuple[tuple[int, int], bytes] = ((-1, -1), b"")
        self.doubtful: set[int] = set()
        """Numbers of packs in which a copy turned out damaged: nothing there is relied on."""
        self.sink = ChunkSink.into(repo, session)
        self.rescued = 0

    def is_sound(self, name: PackName, length_bytes: int) -> bool:
        """Whether a pack is whole after all, and one of this repository: what failed once may have been the cable."""
        hasher = hashlib.sha256()
        what = pack_object(name)
        try:
            for at in range(0, length_bytes, _PIECE_BYTES):
                self._cancel.check()
                hasher.update(self._repo.backend.get(what, at, min(_PIECE_BYTES, length_bytes - at)))
        except StorageFailed as error:
            still_there(self._repo.backend, error)
            return False
        if hasher.digest() != name:
            return False
        try:
            read_footer(self._repo.backend, self._repo.vault, name, length_bytes)
        except Corruption:
            return False
        return True

    def parts(self, name: PackName, length_bytes: int) -> Iterator[Part]:
        """Yields the blocks of a pack that can be read, by whichever footer describes them."""
        what = pack_object(name)
        for footer in self.footers(name, length_bytes):
            for number, block in enumerate(footer.blocks):
                self._cancel.check()
                try:
                    sealed = self._repo.backend.get(what, footer.offsets[number], block.sealed_length)
                    raw = memoryview(open_block(self._repo.vault, block, sealed, what))
                except Corruption:
                    continue
                except StorageFailed as error:
                    still_there(self._repo.backend, error)
                    continue
                part = Part(footer, number, sealed, raw, ())
                first = footer.first_rows[number]
                key = self._repo.ring.id_keys[part.kind]
                rows = range(first, first + block.chunks)
                sound = (row for row in rows if blake3(part.chunk(row), key=key).digest() == footer.chunk_id(row))
                yield Part(footer, number, sealed, raw, tuple(sound))

    def footers(self, name: PackName, length_bytes: int) -> list[Footer]:
        """Returns every footer there is of a pack: its own, and what others say of it."""
        found = list(self._footers.get(name, ()))
        try:
            own = read_footer(self._repo.backend, self._repo.vault, name, length_bytes)[0]
        except (Corruption, ObjectMissing, StorageFailed):
            return found
        return found if own in found else [*found, own]

    def rescue(self, name: PackName, length_bytes: int) -> None:
        """Copies what is sound and lies nowhere else. Copies are durable once `finish` has returned."""
        for part in self.parts(name, length_bytes):
            wanted = [row for row in part.sound if not self._has(part.kind, part.footer.chunk_id(row))]
            if not wanted:
                continue
            self.rescued += len(wanted)
            if part.whole and len(wanted) == len(part.sound):
                self._copy(part)
                continue
            for row in wanted:
                self.sink.put(part.kind, part.chunk(row))
            self.sink.separate()

    def _copy(self, part: Part) -> None:
        block = part.footer.blocks[part.number]
        sealer = self._repo.vault.sealer
        head, body = sealer.renew(part.kind.word, "", block.raw_length, part.sealed, "a block that was checked")
        self.sink.copy(block_of(part.footer, part.number, head, body))

    def _has(self, kind: Kind, chunk_id: ChunkId) -> bool:
        """Whether a chunk has a copy that is sound, or is on its way into a pack."""
        index = self._repo.index
        while (found := index.find(chunk_id, usable_only=True)) is not None:
            number, row = found
            if number in self.sink.own_packs or self._reads(kind, chunk_id, number, row):
                return True
            index.usable.discard(number)
            self.doubtful.add(number)
        return self.sink.knows(kind, chunk_id)

    def _reads(self, kind: Kind, chunk_id: ChunkId, number: int, row: int) -> bool:
        entry = self._repo.index.entry(number)
        if entry is None:
            return False
        at = self._repo.source.locate_row(number, row)
        try:
            if self._checked[0] != (number, at.block):
                self._checked = ((number, at.block), self._repo.source.block(number, at.block))
            self._repo.source.check(kind, chunk_id, self._checked[1][at.offset : at.offset + at.length])
        except (Corruption, ObjectMissing):
            return False
        except StorageFailed as error:
            still_there(self._repo.backend, error)
            return False
        return True

    def look_again(self, damaged: Sequence[PackName]) -> None:
        """Lists condemnations and packs, and relies on nothing that is condemned, damaged or doubtful."""
        self._repo.synchronise()
        numbers = (self._repo.index.number_of(name) for name in damaged)
        self._repo.index.usable -= self.doubtful | {number for number in numbers if number is not None}

    def finish(self) -> None:
        """Makes the copies durable and lists them in a segment."""
        self.sink.flush()
        if self.sink.unlisted:
            self._repo.put_segments(self._session, self.sink.unlisted)
            self.sink.unlisted.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sink.close()
