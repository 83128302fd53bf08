"""What a copy is asked for, and what came of it. Values only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from respaldo.catalog.snapshots import Snapshot
from respaldo.core.ids import SnapshotId
from respaldo.format.snapshot import Manifest

LOST = "its content is lost in the repository it was copied from"
LOST_KEPT = 1000
"""So many paths that are lost are named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyOptions:
    """Says how to copy. ``pinned``: which of the snapshots are pinned in the source, and shall be in the target."""

    dry_run: bool = False
    pinned: frozenset[SnapshotId] = frozenset()
    program: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """Is one snapshot that was copied, or would be (``copy`` None then).

    ``read_bytes``: what was read of the source's packs, as stored, trees aside. ``new_bytes``: what the target lacked,
    before compression. ``blocks_kept``: how many blocks went over without being compressed again. ``lost``: paths, the
    first of them, whose content the source has lost; ``errors``: how many there are.
    """

    source: Snapshot
    copy: SnapshotId | None
    chunks_new: int = 0
    new_bytes: int = 0
    stored_bytes: int = 0
    read_bytes: int = 0
    blocks_kept: int = 0
    lost: tuple[bytes, ...] = ()
    errors: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyResult:
    """Is a finished copy: what was copied, what was there before, what could not be copied at all and why."""

    alike: bool
    """Whether both repositories cut and name content alike, so that blocks went over as they are."""
    copied: tuple[Copied, ...]
    present: tuple[Snapshot, ...]
    failed: tuple[tuple[Snapshot, str], ...] = ()
    unreadable: tuple[tuple[SnapshotId, str], ...] = ()
    """Those that could not be looked at, because their manifests are damaged."""

    @property
    def complete(self) -> bool:
        """Whether everything that was asked for is in the target, whole."""
        return not self.failed and not self.unreadable and not any(item.errors for item in self.copied)


def origin_of(repository: bytes, item: SnapshotId, manifest: Manifest) -> tuple[bytes, bytes]:
    """Returns which snapshot of which repository this one is, is a copy of, or was put in the place of by a repair."""
    return manifest.origin or (repository, manifest.repairs or item)


def copies_of(repository: bytes, snapshots: Sequence[Snapshot]) -> dict[tuple[bytes, bytes], Snapshot]:
    """Returns a repository's snapshots by what they are, or are copies of: of several the one that lacks least."""
    found: dict[tuple[bytes, bytes], Snapshot] = {}
    for item in snapshots:
        origin = origin_of(repository, item.id, item.manifest)
        if origin not in found or lacks(item.manifest) < lacks(found[origin].manifest):
            found[origin] = item
    return found


def lacks(manifest: Manifest) -> tuple[bool, int, int]:
    """Says how much a snapshot lacks: its root, things that could not be read or copied, chunks that were lost."""
    return manifest.root_lost, manifest.figures.errors, len(manifest.lost)


def as_copied(manifest: Manifest, copied: Copied) -> Manifest:
    """Returns a manifest that says what its copy cost, and what was lost on the way."""
    figures = replace(
        manifest.figures,
        chunks_new=copied.chunks_new,
        chunk_bytes_new=copied.new_bytes,
        stored_bytes=copied.stored_bytes,
        errors=manifest.figures.errors + copied.errors,
    )
    room = max(0, LOST_KEPT - len(manifest.failed))
    failed = manifest.failed + tuple((path, LOST) for path in copied.lost[:room])
    return replace(manifest, figures=figures, failed=failed)
