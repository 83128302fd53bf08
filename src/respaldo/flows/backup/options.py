"""What a backup is asked for, and what came of it. Values only."""

from __future__ import annotations

from dataclasses import dataclass, field

from respaldo.core.ids import SnapshotId
from respaldo.format.snapshot import Figures, Manifest

READ_AGAIN_MAX = 3
"""A file that changes while it is read is read this many times before it is kept as read last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupOptions:
    """Says what to back up and how.

    ``exclude`` are gitignore patterns, the last that matches decides; ``exclude_larger_bytes`` 0 means no limit;
    ``recorded_as`` is the absolute path that the one source is recorded under. ``time_ns`` 0 means now.
    """

    exclude: tuple[str, ...] = ()
    exclude_caches: bool = False
    exclude_larger_bytes: int = 0
    one_file_system: bool = False
    recorded_as: bytes = b""
    ignore_ctime: bool = False
    trust_times: bool = False
    dry_run: bool = False
    estimate: bool = False
    """Whether to find out beside the first backup how much there is, for somebody who watches."""
    host: str = ""
    user: str = ""
    uid: int = 0
    gid: int = 0
    kind: str = ""
    label: str = ""
    reason: str = ""
    tags: tuple[str, ...] = ()
    time_ns: int = 0
    program: str = ""

    def rules(self) -> tuple[str, ...]:
        """Returns the options that decide what is left out, one a string, as the manifest records them."""
        words = ["exclude=" + pattern for pattern in self.exclude]
        if self.exclude_caches:
            words.append("exclude-caches")
        if self.exclude_larger_bytes:
            words.append(f"exclude-larger-than={self.exclude_larger_bytes}")
        if self.one_file_system:
            words.append("one-file-system")
        return tuple(words)


@dataclass(slots=True, kw_only=True)
class Counts:
    """Counts entries and failures while a walk goes on. ``failed`` keeps the first thousand, within bounds."""

    files: int = 0
    directories: int = 0
    others: int = 0
    length_bytes: int = 0
    files_new: int = 0
    files_changed: int = 0
    files_unchanged: int = 0
    read_bytes: int = 0
    errors: int = 0
    failed: list[tuple[bytes, str]] = field(default_factory=list)
    failed_bytes: int = 0

    def fail(self, path: bytes, reason: str) -> None:
        """Counts a path that could not be read as it should."""
        self.errors += 1
        self.failed_bytes += len(path)
        if len(self.failed) < FAILED_KEPT and self.failed_bytes < FAILED_BYTES_KEPT:
            self.failed.append((path, reason))


FAILED_KEPT = 1000
FAILED_BYTES_KEPT = 8 << 20
"""Deep down, paths take megabytes, and a manifest has an end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupResult:
    """Is a finished backup: the snapshot (None for a dry run) and its manifest."""

    snapshot: SnapshotId | None
    manifest: Manifest

    @property
    def figures(self) -> Figures:
        """What was counted."""
        return self.manifest.figures

    @property
    def complete(self) -> bool:
        """Whether everything was read."""
        return self.figures.errors == 0
