"""The look at copies that are about to become the only ones: what is deleted must not have been the sound one.

A chunk may lie in several packs because one copy was found damaged and was stored again. So where a pack that is to go
holds a copy of something, the copy that is live elsewhere is read and checked first, whether it stays or is to be
copied. What is found damaged is remembered, so that the next collection takes another copy for the live one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable

from respaldo.core.errors import Corruption, ObjectMissing
from respaldo.core.ids import Kind, PackName
from respaldo.core.seams import Cancel
from respaldo.format.pack import parse_footer
from respaldo.store.bitmaps import Bitmaps, set_bits
from respaldo.store.repo import Repo


def needed_after_all(
    repo: Repo, live: Bitmaps, going: Iterable[int], cancel: Cancel, *, known_sound: Collection[int] = frozenset()
) -> tuple[set[int], list[Corruption]]:
    """Returns the packs of those that go that must stay, because copies elsewhere are damaged; and what is damaged.

    ``known_sound``: packs that need no look.
    """
    leaving = set(going)
    only = Bitmaps()
    for copies in repo.index.duplicates():
        kept = next((copy for copy in copies if copy in live), None)
        if (
            kept is not None
            and kept[0] not in known_sound
            and any(copy[0] in leaving and copy != kept for copy in copies)
        ):
            only.add(kept)
    needed: set[int] = set()
    spoilt: defaultdict[PackName, int] = defaultdict(int)
    damages: list[Corruption] = []
    for number in sorted(only.rows):
        entry = repo.index.entry(number)
        if entry is None:
            continue  # gone: the next look at roots finds out
        footer = parse_footer(entry[1], "pack")
        bits = only.number(number)
        for at, block in enumerate(footer.blocks):
            first = footer.first_rows[at]
            part = (bits >> first) & ((1 << block.chunks) - 1)
            if not part:
                continue
            cancel.check()
            rows = [row for row, bit in enumerate(set_bits(part, block.chunks), first) if bit]
            kind = Kind(block.kind)
            try:
                raw = memoryview(repo.source.block(number, at, as_stored=True))
            except ObjectMissing:
                continue
            except Corruption as error:
                damages.append(error)
                raw = memoryview(b"")
            for row in rows:
                _, offset, length = footer.place(row)
                try:
                    repo.source.check(kind, footer.chunk_id(row), raw[offset : offset + length])
                except Corruption as error:
                    if raw:
                        damages.append(error)
                    others = {copy for copy, _ in repo.index.copies(footer.chunk_id(row))} & leaving
                    if others - {number}:
                        needed |= others - {number}
                        spoilt[entry[0].name] |= 1 << row
    repo.spoilt.note(spoilt)
    return needed, damages
