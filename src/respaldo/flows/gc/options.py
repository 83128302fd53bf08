"""What a collection is asked for, the plan that it follows, and what came of it; and what snapshots hold. Values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from respaldo.core.errors import Corruption, UsageError
from respaldo.core.ids import PackName, SnapshotId

REPACK_BELOW = 0.5
FREE_REPACK_BELOW = 0.9
"""Where space is wanted: up to nine bytes are copied for one that is freed, before one more snapshot goes."""
LAST_PACK_BYTES = 1 << 16
"""The last pack of the copies may be small, and small ones are padded to a multiple of this."""
_PADDED = 32
"""Padding takes no more than one byte of so many of a big pack."""
_DAMAGED = 4
_FAILED = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneOptions:
    """Says what may be copied: packs of which less than a share is live; so many bytes in all (None: any number).

    ``enough_bytes``: of the packs that are more than half live, only as many as it takes to free so much. ``renew``:
    all that are of an earlier epoch, whatever is live in them.
    """

    repack_below: float = REPACK_BELOW
    max_repack_bytes: int | None = None
    enough_bytes: int | None = None
    renew: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.repack_below <= 1:
            raise UsageError("what is repacked is a share from 0% to 100%")
        if self.max_repack_bytes is not None and self.max_repack_bytes < 0:
            raise UsageError("what may be copied is not less than nothing")


@dataclass(frozen=True, slots=True, kw_only=True)
class PackPlan:
    """Is a pack that is to go: its length, and how many bytes of it are live and will be copied before."""

    name: PackName
    number: int
    length_bytes: int
    live_bytes: int = 0
    body_bytes: int = 0
    """What its blocks take, and what its footer: of use where it is copied, 0 where that does not matter."""
    footer_bytes: int = 0

    @property
    def freed_bytes(self) -> int:
        """What is gained, but for padding and footers."""
        return self.length_bytes - self.live_bytes

    @property
    def sure_bytes(self) -> int:
        """What is gained at least, where copies compress as before: they have footers and padding, too."""
        if not self.live_bytes:
            return self.length_bytes
        listed = self.live_bytes + self.live_bytes * self.footer_bytes // max(self.body_bytes, 1)
        return self.length_bytes - listed - listed // _PADDED

    @property
    def price(self) -> float:
        """Bytes copied for each byte that is freed."""
        return self.live_bytes / max(self.freed_bytes, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunePlan:
    """Is what a collection will do. Packs of sessions that are alive are in ``kept``, whatever is live in them.

    ``expire``: undecided snapshots whose sessions are gone. ``dead``: packs without anything live. ``repack``: those
    that are copied, in this order. ``left``: those that would be, but for the limit.
    """

    snapshots: int
    undecided: int
    expire: tuple[SnapshotId, ...]
    packs: int
    pack_bytes: int
    live_bytes: int
    dead: tuple[PackPlan, ...]
    repack: tuple[PackPlan, ...]
    left: tuple[PackPlan, ...] = ()

    @property
    def copied_bytes(self) -> int:
        """What is copied."""
        return sum(pack.live_bytes for pack in self.repack)

    @property
    def freed_bytes(self) -> int:
        """What is gained in packs, but for padding and footers."""
        return sum(pack.freed_bytes for pack in (*self.dead, *self.repack))

    @property
    def sure_bytes(self) -> int:
        """What packs will take less at least; less than nothing where little is freed of many small ones."""
        packed = sum(pack.sure_bytes for pack in (*self.dead, *self.repack))
        return packed - (LAST_PACK_BYTES if self.repack else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneResult:
    """Is a finished collection. ``swept`` counts the small objects that were cleared away, by folder.

    ``full``: storage took no more copies, so that what was to be repacked stays as it is. ``damages``: packs that stay
    because what is live in them could not be copied sound. ``parity``: objects that lacked their parity and got it.
    """

    plan: PrunePlan
    expired: int = 0
    deleted_packs: int = 0
    deleted_bytes: int = 0
    new_packs: int = 0
    new_bytes: int = 0
    copied_blocks: int = 0
    copied_chunks: int = 0
    swept: tuple[tuple[str, int], ...] = ()
    full: bool = False
    ballast: bool = True
    parity: int = 0
    damages: tuple[Corruption, ...] = ()

    @property
    def freed_bytes(self) -> int:
        """What packs take less than before."""
        return self.deleted_bytes - self.new_bytes

    @property
    def exit_status(self) -> int:
        """0; 4 where damage was met, 1 where storage was too full for all that was planned."""
        if self.damages:
            return _DAMAGED
        return _FAILED if self.full else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """Says what snapshots hold, in bytes.

    ``alone``: what goes when this snapshot is forgotten and no other. ``steps``: what goes when it is forgotten after
    those that stand before it in the order that was asked for; so the sum of the first so many is what they hold
    together, and nobody else. ``held``: everything that is needed.
    """

    alone: Mapping[SnapshotId, int]
    steps: Mapping[SnapshotId, int]
    held: int

    @property
    def together(self) -> int:
        """What goes when all that were asked for are forgotten."""
        return sum(self.steps.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """Says how much space is wanted: so much less than now, or so much in all. One of the two."""

    free_bytes: int | None = None
    size_bytes: int | None = None

    def missing_bytes(self, stored_bytes: int) -> int:
        """Returns how much has to go of so much."""
        if self.free_bytes is not None:
            return self.free_bytes
        return max(stored_bytes - (self.size_bytes or 0), 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpacePlan:
    """Says which snapshots have to go, and what that frees.

    ``stored_bytes``: what packs and segments take now. ``wanted_bytes``: how much of that has to go. ``options``: what
    the collection must be run with. ``freed_bytes``: what is freed at least; less than wanted where all that may go is
    not enough. ``without_forgetting_bytes``: what a collection would free that forgets nothing.
    """

    stored_bytes: int
    wanted_bytes: int
    going: tuple[SnapshotId, ...]
    freed_bytes: int
    without_forgetting_bytes: int
    copied_bytes: int
    options: PruneOptions
    shares: Shares

    @property
    def reached(self) -> bool:
        """Whether that is enough."""
        return self.freed_bytes >= self.wanted_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Is what a snapshot refers to, each chunk once: data and trees (with lists) as they were, and as they are stored.

    ``own_data_bytes``, ``own_tree_bytes``: what of it no other root holds; ``frees_bytes``: that as it is stored.
    """

    data_bytes: int = 0
    tree_bytes: int = 0
    stored_bytes: int = 0
    own_data_bytes: int = 0
    own_tree_bytes: int = 0
    frees_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Is the cost of each snapshot. ``missing``: how many chunks were not to be had; ``trees``: how many were read."""

    snapshots: Mapping[SnapshotId, Cost]
    missing: int = 0
    trees: int = 0
