"""Copies: what is live in a pack that is to go is written into another pack.

A block that is wanted whole is copied as it is sealed, once its seal was checked, or, where it was sealed under another
epoch, sealed anew with the message that it has; of any other, the chunks that are
wanted are taken out, checked against their ids and sealed anew, apart from those of every other block, because blocks
never mix sources. In the area of a client that is not trusted, all that is copied is checked against its ids and sealed
under the area's own keys, and no copy elsewhere counts that was not read: what the client says of its packs may be a
lie, and what this collector says of its own must not be. Copies are durable and listed in a segment when `finish`
returns. Implements docs/format.md, "Prune" (G2, G5).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from respaldo.codec.seal import HEAD_BYTES
from respaldo.core.errors import Corruption, ObjectMissing
from respaldo.core.ids import Kind, PackName, pack_object
from respaldo.core.seams import Cancel
from respaldo.format.pack import BlockRow, Footer, parse_footer
from respaldo.store.ballast import with_ballast
from respaldo.store.bitmaps import Bitmaps, Position, set_bits
from respaldo.store.chunks import ChunkSink
from respaldo.store.packs import Finished, block_of, open_block
from respaldo.store.repo import Repo


class Copier:
    """Copies for one collector. A context manager; one thread."""

    def __init__(self, repo: Repo, collector: bytes, live: Bitmaps, cancel: Cancel) -> None:
        self._repo = repo
        self._live = live
        self._cancel = cancel
        self._collector = collector
        self._sink = ChunkSink.into(repo, collector)
        self._believed: dict[int, bool] = {}
        """Packs, and whether what they are said to hold may be believed unread."""
        self._lies: defaultdict[PackName, int] = defaultdict(int)
        """Rows of packs that do not hold what they are said to hold."""
        self.blocks = 0
        self.chunks = 0
        self.made: list[Finished] = []

    def pack(self, number: int) -> None:
        """Copies what is live in a pack and in no usable one; notes where else the rest lies.

        Raises `Corruption` where something is not what was stored, `ObjectMissing` where the pack is gone.
        """
        entry = self._repo.index.entry(number)
        if entry is None:
            raise ObjectMissing(f"pack {number}")
        what = pack_object(entry[0].name)
        footer = parse_footer(entry[1], what)
        live = self._live.number(number)
        for at, block in enumerate(footer.blocks):
            first = footer.first_rows[at]
            part = (live >> first) & ((1 << block.chunks) - 1)
            if not part:
                continue
            self._cancel.check()
            wanted = list(self._wanted(footer, first, set_bits(part, block.chunks)))
            if self._lies:  # before anything is put, which would be deduplicated against them
                self._repo.spoilt.note(self._lies)
                self._lies.clear()
            if not wanted:
                continue
            try:
                self._block(footer, at, wanted, what)
            except Corruption:
                if not self._repo.backend.mend(what):
                    raise
                self._block(footer, at, wanted, what)

    def _block(self, footer: Footer, at: int, wanted: list[int], what: str) -> None:
        block = footer.blocks[at]
        sealed = self._repo.backend.get(what, footer.offsets[at], block.sealed_length)
        if len(wanted) == block.chunks:
            self._whole(footer, at, sealed, what)
        else:
            self._part(block, footer, wanted, sealed, what)

    def _wanted(self, footer: Footer, first: int, bits: bytes) -> Iterator[int]:
        """Yields the rows of a block that are live and have no usable copy; marks the copies of the others."""
        for row, bit in enumerate(bits, first):
            if not bit:
                continue
            found = self._repo.index.find(footer.chunk_id(row), usable_only=True)
            if found is None or not (self._believes(found[0]) or self._is_there(found)):
                yield row
            else:
                self._live.add(found)

    def _believes(self, number: int) -> bool:
        """Whether what a pack is said to hold needs no look: everywhere but in areas, where what was copied needs none.

        What others' collectors have copied is read again: who wrote a pack, its footer alone does not prove.
        """
        if self._repo.telling.trusted:
            return True
        if number not in self._believed:
            encoded = self._repo.index.footer(number)
            self._believed[number] = bool(encoded) and parse_footer(encoded, "pack").session == self._collector
        return self._believed[number]

    def _is_there(self, found: Position) -> bool:
        """Whether a chunk is where a pack is said to hold it; takes note of a lie."""
        if self._repo.source.holds(*found):
            return True
        pack = self._repo.index.pack(found[0])
        if pack is not None:
            self._lies[pack.name] |= 1 << found[1]
        return False

    def _whole(self, footer: Footer, at: int, sealed: bytes, what: str) -> None:
        block, first = footer.blocks[at], footer.first_rows[at]
        if len(sealed) != block.sealed_length or sealed[24:HEAD_BYTES] != block.commitment:
            raise Corruption(what, "a block is not the one that the footer describes")
        kind = Kind(block.kind)
        sealer = self._repo.vault.sealer
        if self._repo.telling.trusted:
            head, body = sealer.renew(kind.word, "", block.raw_length, sealed, what)
        else:
            message = sealer.open(kind.word, "", block.raw_length, sealed, what)
            raw = memoryview(open_block(self._repo.vault, block, sealed, what))
            for row in range(first, first + block.chunks):
                _, offset, length = footer.place(row)
                self._repo.source.check(kind, footer.chunk_id(row), raw[offset : offset + length])
            head, body = sealer.seal(kind.word, "", block.raw_length, message)
        self._sink.copy(block_of(footer, at, head, body))
        self.blocks += 1

    def _part(self, block: BlockRow, footer: Footer, wanted: list[int], sealed: bytes, what: str) -> None:
        raw = memoryview(open_block(self._repo.vault, block, sealed, what))
        kind = Kind(block.kind)
        for row in wanted:
            _, offset, length = footer.place(row)
            chunk = raw[offset : offset + length]
            self._repo.source.check(kind, footer.chunk_id(row), chunk)
            self._sink.put(kind, chunk)
        self._sink.separate()
        self.chunks += len(wanted)

    def finish(self) -> None:
        """Makes the copies durable and lists them in a segment; what is in them is live."""
        self._sink.flush()
        made = self._sink.unlisted
        if made:
            with_ballast(self._repo.backend, lambda: self._repo.put_segments(self._collector, made))
        for item in made:
            number = self._repo.index.number_of(item.name)
            if number is not None:
                self._live.fill(number, len(item.footer.lengths))
        self.made += made
        made.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sink.close()
