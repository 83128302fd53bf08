"""What came of a check: what was looked at, what is damaged, which files of which snapshots that concerns."""

from __future__ import annotations

from dataclasses import dataclass

from respaldo.core.ids import ChunkId, SnapshotId

AFFECTED_KEPT = 1000
"""So many paths are named for each damaged object; all are counted."""

_DAMAGED = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Affected:
    """Is a path of a snapshot that cannot be restored as it was; with ``below`` a directory, and everything in it."""

    snapshot: SnapshotId
    path: bytes
    below: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """Is one object that is not what was stored.

    ``needed``: whether a snapshot refers to what is damaged; None where nobody looked (without a key). ``chunks_lost``
    have no sound copy, ``chunks_spared`` have one in another pack. ``affected`` names the first paths,
    ``affected_count`` counts all.
    """

    name: str
    reason: str
    needed: bool | None = None
    chunks_lost: int = 0
    chunks_spared: int = 0
    affected: tuple[Affected, ...] = ()
    affected_count: int = 0
    mendable: bool = False
    """Whether its parity gives its bytes back."""

    @property
    def snapshots(self) -> tuple[SnapshotId, ...]:
        """The snapshots of the paths that are named."""
        return tuple(dict.fromkeys(item.snapshot for item in self.affected))

    @property
    def consequence(self) -> str:
        """What it means, in one clause for a person; empty where nobody looked."""
        if self.mendable:
            return "nothing is lost: parity mends it"
        if self.affected_count:
            return f"{self.affected_count} paths are affected"
        if self.chunks_spared:
            return "nothing is lost: every chunk of it that a snapshot needs has a sound copy in another pack"
        if self.needed is False:
            return "nothing is lost: no snapshot needs what is damaged"
        return ""

    def __str__(self) -> str:
        consequence = self.consequence
        return f"{self.name}: {self.reason}" + (f"; {consequence}" if consequence else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Is something worth knowing that is no damage, about an object or a folder."""

    name: str
    text: str

    def __str__(self) -> str:
        return f"{self.name}: {self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyResult:
    """Is a finished check. ``read_bytes`` counts what was read of packs, ``chunks`` distinct ones that were read."""

    snapshots: int
    segments: int
    packs: int
    pack_bytes: int
    trees: int
    references: int
    """Places in distinct trees and lists that refer to a data chunk; each was found in a pack that exists."""
    packs_read: int = 0
    read_bytes: int = 0
    chunks: int = 0
    damages: tuple[Damage, ...] = ()
    notes: tuple[Note, ...] = ()
    lost: tuple[Affected, ...] = ()
    """The first paths that a repair has marked as lost, and that have not come back; ``lost_count`` counts all."""
    lost_count: int = 0
    whole: tuple[tuple[SnapshotId, ChunkId], ...] = ()
    """Snapshots of which this check read everything and found it whole, and their roots."""
    checksums: int = 0
    """Of how many contents the SHA-256 was computed."""
    checksums_left: int = 0
    """Of how many it was not, since they would have had to be read once more."""
    unsound: tuple[SnapshotId, ...] = ()
    """Snapshots that are not whole, as far as this check has looked."""

    @property
    def exit_status(self) -> int:
        """0, or 4 where something is damaged. What is known to be lost is no new damage."""
        return _DAMAGED if self.damages else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class KeylessResult:
    """Is a finished check without a key: every object's bytes against its name or its closing hash."""

    objects: int
    read_bytes: int
    damages: tuple[Damage, ...] = ()

    @property
    def exit_status(self) -> int:
        """0, or 4 where something is damaged."""
        return _DAMAGED if self.damages else 0
