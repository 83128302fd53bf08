"""What a collection is asked for, the plan that it follows, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass

from respaldo.core.errors import Corruption, UsageError
from respaldo.core.ids import PackName, SnapshotId

REPACK_BELOW = 0.5
_DAMAGED = 4
_FAILED = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneOptions:
    """Says what may be copied: packs of which less than a share is live; so many bytes in all (None: any number)."""

    repack_below: float = REPACK_BELOW
    max_repack_bytes: int | None = None

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

    @property
    def freed_bytes(self) -> int:
        """What is gained, but for padding and footers."""
        return self.length_bytes - self.live_bytes

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


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneResult:
    """Is a finished collection. ``swept`` counts the small objects that were cleared away, by folder.

    ``full``: storage took no more copies, so that what was to be repacked stays as it is. ``damages``: packs that stay
    because what is live in them could not be copied sound.
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
