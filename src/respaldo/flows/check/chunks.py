"""Chunks as a check reads them: any sound copy will do, and every copy that is not is a finding.

Knows which rows of which packs are no use (`Findings`), and what was asked for in vain (`missing`). One thread.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict

from blake3 import blake3

from respaldo.core.errors import Corruption, ObjectMissing, StorageFailed
from respaldo.core.ids import ChunkId, Kind, PackName, pack_object
from respaldo.flows.check.findings import Finding, Findings
from respaldo.format.pack import Footer, parse_footer
from respaldo.store.header import still_there
from respaldo.store.repo import Repo

_LENGTHS_KEPT = 1024
_FOOTERS_KEPT = 32
_BLOCKS_KEPT = 8
MISSING_KEPT = 1 << 18
"""So many missing chunks are told apart; what is missing beyond is counted for no pack."""

Position = tuple[int, int]


def doubt_segments(repo: Repo, findings: Findings) -> bool:
    """Asks the packs what they hold, where segments are in doubt; returns whether that was something else."""
    lying = repo.segments.doubt()
    for error in lying:
        findings.add(error.name, error.reason)
    if lying:
        repo.source.forget_positions()
        repo.synchronise(lenient=True)
    return bool(lying)


class Chunks:
    """Finds and reads chunks, and keeps account of those that cannot be had."""

    def __init__(self, repo: Repo, findings: Findings) -> None:
        self._repo = repo
        self._findings = findings
        self._lengths: OrderedDict[int, array[int]] = OrderedDict()
        self._footers: OrderedDict[int, tuple[PackName, Footer]] = OrderedDict()
        self._blocks: OrderedDict[Position, bytes] = OrderedDict()
        self.missing: dict[bytes, Finding] = {}
        """Chunks that are in no pack, each with the object that is to blame."""
        self.nowhere = Finding("packs")
        """Blamed for what is missing and was in no pack that anybody has heard of."""
        self.quiet = False
        """Whether what cannot be had is nobody's fault: it is known to be lost, and may have come back."""

    def length(self, position: Position) -> int:
        """Returns the length of the chunk at a position."""
        number, row = position
        lengths = self._lengths.get(number)
        if lengths is None:
            lengths = self._lengths[number] = self._footer(number)[1].lengths
            if len(self._lengths) > _LENGTHS_KEPT:
                self._lengths.popitem(last=False)
        return lengths[row]

    def _footer(self, number: int) -> tuple[PackName, Footer]:
        found = self._footers.get(number)
        if found is not None:
            self._footers.move_to_end(number)
            return found
        entry = self._repo.index.entry(number)
        if entry is None:
            raise ObjectMissing(f"pack {number}")
        pack, encoded = entry
        footer = parse_footer(encoded, pack_object(pack.name))
        self._footers[number] = found = (pack.name, footer)
        if len(self._footers) > _FOOTERS_KEPT:
            self._footers.popitem(last=False)
        return found

    def position(self, chunk_id: ChunkId, blame: list[Finding]) -> Position | None:
        """Returns where a sound copy of a chunk lies; else None, and says in ``blame`` what took it."""
        found = self._repo.index.find(chunk_id, usable_only=False)
        if found is None and doubt_segments(self._repo, self._findings):
            found = self._repo.index.find(chunk_id, usable_only=False)
        if found is None and self.quiet:
            blame.append(self.nowhere)
            return None
        if found is None:
            if len(self.missing) < MISSING_KEPT:
                self.missing.setdefault(chunk_id, self.nowhere)
            blame.append(self.missing.get(chunk_id, self.nowhere))
            return None
        finding = self._findings.by_pack.get(found[0])
        if finding is None or found[1] not in finding.rows:
            return found
        return self._copy(chunk_id, blame)

    def _copy(self, chunk_id: ChunkId, blame: list[Finding]) -> Position | None:
        spoilt: list[tuple[Finding, int]] = []
        sound: Position | None = None
        for number, row in self._repo.index.copies(chunk_id):
            finding = self._findings.by_pack.get(number)
            if finding is not None and row in finding.rows:
                spoilt.append((finding, row))
            elif sound is None:
                sound = (number, row)
        for finding, row in () if self.quiet else spoilt:
            (finding.lost if sound is None else finding.spared).add(row)
        if sound is None:
            blame += [finding for finding, _ in spoilt]
        return sound

    def read(self, kind: Kind, chunk_id: ChunkId, blame: list[Finding]) -> bytes | None:
        """Returns the bytes of a chunk, checked; else None, and says in ``blame`` what took it."""
        while (position := self.position(chunk_id, blame)) is not None:
            number, row = position
            name, footer = self._footer(number)
            block, offset, length = footer.place(row)
            rows = range(footer.first_rows[block], footer.first_rows[block + 1])
            where = f"block {block + 1} of {len(footer.blocks)}"
            try:
                raw = self._block(number, block)[offset : offset + length]
            except ObjectMissing:
                self._look_again(number, name, footer)
            except StorageFailed as error:
                still_there(self._repo.backend, error)
                self._findings.spoil(number, name, rows, f"{where}: it cannot be read ({error.reason})")
            except Corruption as error:
                self._findings.spoil(number, name, rows, f"{where}: {error.reason}")
            else:
                if blake3(raw, key=self._repo.ring.id_keys[kind]).digest() == chunk_id:
                    return raw
                self._findings.spoil(number, name, range(row, row + 1), f"{where}: a chunk does not have its id")
        return None

    def _block(self, number: int, block: int) -> bytes:
        key = (number, block)
        raw = self._blocks.get(key)
        if raw is None:
            raw = self._blocks[key] = self._repo.source.block(number, block)
            if len(self._blocks) > _BLOCKS_KEPT:
                self._blocks.popitem(last=False)
        else:
            self._blocks.move_to_end(key)
        return raw

    def _look_again(self, number: int, name: PackName, footer: Footer) -> None:
        """Brings the index up to date, because a pack has gone: a collector may have moved what was in it."""
        self._repo.source.forget_positions()
        self._repo.synchronise(lenient=True)
        if self._repo.index.pack(number) is not None:
            rows = range(len(footer.lengths))
            self._findings.spoil(number, name, rows, "storage lists it but does not find it")
        self._footers.pop(number, None)
        self._lengths.pop(number, None)
