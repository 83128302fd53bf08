"""What an import is asked for, and what came of it. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, tzinfo

from respaldo.core.ids import SnapshotId
from respaldo.format.snapshot import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """Says how to import an archive.

    ``base``: the absolute path that names in the archive are relative to. ``time_ns``: what it is recorded with, 0 for
    what the archive says; ``before_ns``: nothing in it counts as newer, 0 for no limit. Empty texts and no tags stand
    for what an archive that Respaldo exported says of itself.
    """

    base: bytes = b""
    time_ns: int = 0
    before_ns: int = 0
    dry_run: bool = False
    host: str = ""
    default_host: str = ""
    """What is recorded where neither ``host`` nor the archive names one."""
    user: str = ""
    uid: int = 0
    kind: str = ""
    label: str = ""
    reason: str = ""
    tags: tuple[str, ...] = ()
    program: str = ""
    zone: tzinfo = UTC
    """Whose days and weeks decide about the kind, where nothing else does, and whose time stands in the label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportResult:
    """Is an archive that was imported: the snapshot (None for a dry run), or the one that was there already."""

    snapshot: SnapshotId | None
    manifest: Manifest
    present: bool = False
    members: int = 0

    @property
    def complete(self) -> bool:
        """Whether all that the archive holds was taken over."""
        return not self.manifest.figures.errors
