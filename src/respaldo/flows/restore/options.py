"""What a restore is asked for, what it would do, and what came of it. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from respaldo.core.errors import UsageError

FAILURES_KEPT = 1000
ACTIONS_KEPT = 10_000


class Overwrite(StrEnum):
    """Says what happens to what is there already.

    ``ALWAYS``: its content is compared, chunk by chunk, and written anew where it differs. ``IF_CHANGED``: likewise,
    but equal size and time are taken for equal content. ``IF_NEWER``: only what is older than in the snapshot.
    ``NEVER``: it is left alone, and only what is missing is written. Attributes are put right wherever content may be.
    """

    ALWAYS = "always"
    IF_CHANGED = "if-changed"
    IF_NEWER = "if-newer"
    NEVER = "never"


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreOptions:
    """Says what to restore and how. Patterns are gitignore's, anchored at the directory that is restored.

    ``in_place`` rewrites only what differs in long files that exist, which while it lasts are neither old nor new.
    ``sparse`` makes holes of zeros, besides the holes that were recorded. ``check_space`` False begins although
    the target seems too small (it may compress, or share blocks).
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    overwrite: Overwrite = Overwrite.IF_CHANGED
    delete: bool = False
    verify: bool = False
    owners: bool = True
    numeric_ids: bool = False
    sparse: bool = False
    in_place: bool = False
    check_space: bool = True

    def __post_init__(self) -> None:
        if self.delete and self.include:
            raise UsageError("--delete and --include exclude each other", hint="restore a path, or use --exclude")


class Verb(StrEnum):
    """Says what is done to one name."""

    CREATE = "create"
    OVERWRITE = "overwrite"
    ATTRIBUTES = "attributes"
    UNCHANGED = "unchanged"
    KEEP = "keep"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Action:
    """Is one line of a plan. ``path`` is the snapshot's; of what is deleted, where it would be in the snapshot."""

    verb: Verb
    path: bytes
    size: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RestorePlan:
    """Is what a run would do: numbers of names, bytes of files that would be written or deleted.

    ``actions`` are the first ten thousand that change something; ``failures`` what cannot be restored as far as is
    known without reading content, and ``damaged`` of them because of damage.
    """

    directories: int
    created: int
    overwritten: int
    attributes: int
    unchanged: int
    kept: int
    deleted: int
    write_bytes: int
    delete_bytes: int
    actions: tuple[Action, ...]
    failed: int
    damaged: int
    failures: tuple[tuple[bytes, str], ...]

    @property
    def exit_status(self) -> int:
        """0 all can be done as far as is known, 3 not all, 4 because of damage."""
        return _status(failed=self.failed, damaged=self.damaged)


@dataclass(frozen=True, slots=True, kw_only=True)
class Missed:
    """Says what could not be set on how many entries, and on which first."""

    what: str
    count: int
    example: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreResult:
    """Is a finished restore: numbers of names (directories apart), bytes written, and what did not work.

    ``kept`` were left alone by the overwrite policy. ``failures`` are the first thousand of ``failed``, each with its
    path in the snapshot and a reason that names the object; ``damaged`` of them failed because of damage.
    """

    directories: int
    created: int
    overwritten: int
    attributes: int
    unchanged: int
    kept: int
    deleted: int
    failed: int
    damaged: int
    written_bytes: int
    failures: tuple[tuple[bytes, str], ...]
    missed: tuple[Missed, ...]
    notes: tuple[str, ...]
    duration_ns: int

    @property
    def complete(self) -> bool:
        """Whether every file is there as the snapshot has it."""
        return self.failed == 0

    @property
    def exit_status(self) -> int:
        """0 done, 3 a file could not be written or read, 4 damage was found."""
        return _status(failed=self.failed, damaged=self.damaged)


def _status(*, failed: int, damaged: int) -> int:
    return 4 if damaged else 3 if failed else 0
