"""What a backup is asked for, and what came of it. Values only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, tzinfo

from respaldo.catalog.labels import Bump
from respaldo.core.errors import UsageError
from respaldo.core.ids import SnapshotId
from respaldo.format.canonical import is_time
from respaldo.format.figures import Figures
from respaldo.format.snapshot import ITEMS_MAX, RECORD_RAW_BYTES_MAX, TEXT_BYTES_MAX, Manifest

READ_AGAIN_MAX = 3
"""A file that changes while it is read is read this many times before it is kept as read last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupOptions:
    """Says what to back up and how.

    ``exclude`` are gitignore patterns, the last that matches decides; ``exclude_larger_bytes`` 0 means no limit;
    ``recorded_as`` is the absolute path that the one source is recorded under. ``time_ns`` 0 means now. Without a
    ``kind``, it follows from the days and weeks in ``zone``; without a ``label``, it is the next version: ``bump`` says
    which.
    """

    exclude: tuple[str, ...] = ()
    exclude_caches: bool = False
    exclude_larger_bytes: int = 0
    one_file_system: bool = False
    recorded_as: bytes = b""
    ignore_ctime: bool = False
    trust_times: bool = False
    paranoid: float = 0.0
    """The share of the unchanged files that is read again."""
    dry_run: bool = False
    estimate: bool = False
    """Whether to find out beside the first backup how much there is, for somebody who watches."""
    host: str = ""
    user: str = ""
    uid: int = 0
    gid: int = 0
    kind: str = ""
    label: str = ""
    bump: Bump = Bump.PATCH
    zone: tzinfo = UTC
    reason: str = ""
    tags: tuple[str, ...] = ()
    time_ns: int = 0
    program: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.paranoid <= 1:
            raise UsageError("what is read again is a share from 0% to 100%")

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
    reread_files: int = 0
    reread_bytes: int = 0
    rotten: list[bytes] = field(default_factory=list)
    """Files whose content changed while their times did not."""
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


RECORDED_BYTES_MAX = RECORD_RAW_BYTES_MAX - 2 * FAILED_BYTES_KEPT


def check_recordable(options: BackupOptions, sources: Sequence[bytes]) -> None:
    """Raises `UsageError` for what a manifest cannot hold: before a file is read, not when all are."""
    lists: dict[str, Sequence[bytes]] = {
        "paths": sources,
        "patterns": [_bytes(rule) for rule in options.rules()],
        "tags": [_bytes(tag) for tag in options.tags],
    }
    for what, items in lists.items():
        if len(items) > ITEMS_MAX:
            raise UsageError(
                f"{len(items):,} {what} are too many: a snapshot records {ITEMS_MAX:,} at most",
                hint="name the directories above them, and use patterns" if what == "paths" else "use fewer of them",
            )
    texts = {
        "host": (_bytes(options.host),),
        "kind": (_bytes(options.kind),),
        "label": (_bytes(options.label),),
        "reason": (_bytes(options.reason),),
        "pattern": lists["patterns"],
        "tag": lists["tags"],
    }
    for what, items in texts.items():
        if any(len(item) > TEXT_BYTES_MAX for item in items):
            raise UsageError(f"a {what} is too long: a snapshot records {TEXT_BYTES_MAX:,} bytes at most")
    if sum(len(item) for items in lists.values() for item in items) > RECORDED_BYTES_MAX:
        raise UsageError(
            "the paths, patterns and tags are too long to be recorded in a snapshot",
            hint="name the directories above the paths, and use patterns",
        )
    if not is_time(options.time_ns):
        raise UsageError("the time of a snapshot must lie between the years 1677 and 2262")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupResult:
    """Is a finished backup: the snapshot (None for a dry run) and its manifest.

    ``reread_files``, ``reread_bytes``: what of the unchanged was read again; ``rotten``: what had changed all the same.
    ``healed``: how many chunks were stored again that were damaged or lost.
    """

    snapshot: SnapshotId | None
    manifest: Manifest
    reread_files: int = 0
    reread_bytes: int = 0
    rotten: tuple[bytes, ...] = ()
    healed: int = 0

    @property
    def figures(self) -> Figures:
        """What was counted."""
        return self.manifest.figures

    @property
    def complete(self) -> bool:
        """Whether everything was read."""
        return self.figures.errors == 0
