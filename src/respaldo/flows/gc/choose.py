"""The choice: how much of every pack is live, and which packs go.

Pure of side effects but for the marks of chunks that lie in several packs: one copy of each stays live, the one in the
pack that is fullest. Nothing is read but the local index.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from itertools import compress

from respaldo.core.ids import PackName, SnapshotId, pack_object
from respaldo.flows.gc.options import LAST_PACK_BYTES, REPACK_BELOW, PackPlan, PruneOptions, PrunePlan
from respaldo.format.pack import Footer, parse_footer
from respaldo.store.bitmaps import Bitmaps, Position, set_bits
from respaldo.store.repo import Listing, Repo

SMALL_BYTES = 4 << 20
"""Packs under this length are merged, whatever is live in them."""
GROUP_MIN = 16
"""So many small packs of one size class make a group, if all together do not make a big one: each byte is then copied
no more often than there are classes."""


@dataclass(slots=True)
class Choice:
    """Is what goes, and what was counted on the way."""

    dead: list[PackPlan] = field(default_factory=list)
    repack: list[PackPlan] = field(default_factory=list)
    left: list[PackPlan] = field(default_factory=list)
    packs: int = 0
    pack_bytes: int = 0
    live_bytes: int = 0

    def plan(self, *, snapshots: int, undecided: int = 0, expire: tuple[SnapshotId, ...] = ()) -> PrunePlan:
        """Returns the plan that follows from it."""
        return PrunePlan(
            snapshots=snapshots,
            undecided=undecided,
            expire=expire,
            packs=self.packs,
            pack_bytes=self.pack_bytes,
            live_bytes=self.live_bytes,
            dead=tuple(self.dead),
            repack=tuple(self.repack),
            left=tuple(self.left),
        )


def settle_duplicates(repo: Repo, live: Bitmaps) -> None:
    """Leaves one live copy of every chunk that has several, by choice in the pack of which most is live."""
    for marked, keep in settled_duplicates(repo, live):
        for copy in marked:
            live.remove(copy)
        live.add(keep)


def settled_duplicates(repo: Repo, live: Bitmaps) -> Iterator[tuple[list[Position], Position]]:
    """Yields the live copies of every chunk that has several, and the one copy of all that is to stay."""
    index = repo.index
    shares: dict[int, float] = {}

    def share(number: int) -> float:
        if number not in shares:
            rows = len(index.footer(number)) or 1  # of one encoding: proportional to the chunks, and that will do
            shares[number] = live.number(number).bit_count() / rows
        return shares[number]

    for copies in index.duplicates():
        marked = [copy for copy in copies if copy in live]
        usable = [copy for copy in copies if copy[0] in index.usable]
        if not marked or not usable:
            continue
        usable = [copy for copy in usable if not index.spoilt.get(copy[0], 0) >> copy[1] & 1] or usable
        yield marked, max(usable, key=lambda copy: (share(copy[0]), copy))


def weigh(footer: Footer, live: int) -> int:
    """Returns how many sealed bytes of a pack are live, of a block its share. ``live``: a bit a row."""
    total = 0
    for block, first in zip(footer.blocks, footer.first_rows, strict=False):
        part = (live >> first) & ((1 << block.chunks) - 1)
        if not part:
            continue
        if part.bit_count() == block.chunks:
            total += block.sealed_length
        else:
            lengths = footer.lengths[first : first + block.chunks]
            raw = sum(compress(lengths, set_bits(part, block.chunks)))
            total += max(1, block.sealed_length * raw // block.raw_length)
    return total


def choose(
    repo: Repo,
    live: Bitmaps,
    listing: Listing,
    alive: frozenset[bytes],
    options: PruneOptions,
    old: Collection[PackName] = (),
) -> Choice:
    """Decides about every pack that is listed and known; what sessions that are alive have written stays.

    ``old``: packs that are to be repacked whatever is live in them.
    """
    choice = Choice()
    renewed: list[PackPlan] = []
    condemned: list[PackPlan] = []
    sparse: list[PackPlan] = []
    small: list[PackPlan] = []
    for pack in list(repo.index.packs()):
        entry = repo.index.entry(pack.number)
        if entry is None or listing.packs.get(pack.name) != pack.length_bytes:
            continue
        footer = parse_footer(entry[1], pack_object(pack.name))
        bits = live.number(pack.number)
        live_bytes = weigh(footer, bits) if bits else 0
        choice.packs += 1
        choice.pack_bytes += pack.length_bytes
        choice.live_bytes += live_bytes
        if footer.session in alive:
            continue
        plan = PackPlan(
            name=pack.name,
            number=pack.number,
            length_bytes=pack.length_bytes,
            live_bytes=live_bytes,
            body_bytes=footer.body_length,
            footer_bytes=len(entry[1]),
        )
        if not live_bytes:
            choice.dead.append(plan)
        elif pack.name in listing.condemned:  # by a collector that did not come to its end, or is about to
            condemned.append(plan)
        elif pack.name in old:
            renewed.append(plan)
        elif live_bytes < options.repack_below * footer.body_length:
            sparse.append(plan)
        elif pack.length_bytes < SMALL_BYTES:
            small.append(plan)
    sparse.sort(key=lambda plan: (plan.price, plan.name))
    merged = groups(small)
    if options.enough_bytes is not None:
        anyway = (*choice.dead, *condemned, *(plan for group in merged for plan in group))
        sparse = _enough(sparse, options.enough_bytes + LAST_PACK_BYTES - sum(plan.sure_bytes for plan in anyway))
    _limit(choice, [[plan] for plan in (*condemned, *renewed, *sparse)] + merged, options.max_repack_bytes)
    return choice


def _enough(cheapest_first: list[PackPlan], wanted_bytes: int) -> list[PackPlan]:
    """Returns the packs that are sparse in any case, and of the others those that it takes to free so much."""
    taken: list[PackPlan] = []
    for plan in cheapest_first:
        if plan.live_bytes >= REPACK_BELOW * plan.body_bytes and wanted_bytes <= 0:
            break
        taken.append(plan)
        wanted_bytes -= plan.sure_bytes
    return taken


def groups(small: list[PackPlan]) -> list[list[PackPlan]]:
    """Returns the groups of small packs that are worth merging: all of them, or those of the classes that are full."""
    if len(small) > 1 and sum(plan.live_bytes for plan in small) >= SMALL_BYTES:
        return [sorted(small, key=lambda plan: plan.name)]
    classes: defaultdict[int, list[PackPlan]] = defaultdict(list)
    for plan in small:
        classes[plan.length_bytes.bit_length() // 2].append(plan)
    return [
        sorted(found, key=lambda plan: plan.name) for _, found in sorted(classes.items()) if len(found) >= GROUP_MIN
    ]


def _limit(choice: Choice, wanted: list[list[PackPlan]], copied_bytes_max: int | None) -> None:
    """Takes, in order, what stays within the limit."""
    copied = 0
    for group in wanted:
        cost = sum(plan.live_bytes for plan in group)
        if copied_bytes_max is not None and copied + cost > copied_bytes_max:
            choice.left += group
            continue
        copied += cost
        choice.repack += group
