"""The tally of a run: what was done, what failed, what could not be set. Bounded in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from respaldo.core.errors import ChunkMissing, Corruption, KeyRotated, ObjectMissing, StorageFailed
from respaldo.core.seams import Progress
from respaldo.flows.restore.options import ACTIONS_KEPT, FAILURES_KEPT, Action, Missed, RestorePlan, RestoreResult, Verb


def is_damage(error: Exception | str) -> bool:
    """Whether an error says that what is stored is damaged or missing."""
    return isinstance(error, Corruption | ChunkMissing | ObjectMissing)


class Tally:
    """Counts. One thread."""

    def __init__(
        self, progress: Progress, *, still_there: Callable[[StorageFailed], None], excuses: bool = False
    ) -> None:
        """``still_there`` raises an error of the storage again where that concerns more than one name."""
        self._progress = progress
        self._still_there = still_there
        self._excused: set[int] | None = set() if excuses else None
        self.verbs: Counter[Verb] = Counter()
        self.directories = 0
        self.written_bytes = 0
        self.delete_bytes = 0
        self.failed = 0
        self.damaged = 0
        self.failures: list[tuple[bytes, str]] = []
        self.rewritten = 0
        self.unlinked = 0
        self.devices = 0
        self.unalike = 0
        self.mounts_kept = 0
        self.own_kept = False
        self._missed: dict[str, tuple[int, bytes]] = {}
        self._actions: list[Action] = []

    def fail_device(self, path: bytes, error: OSError) -> None:
        """Counts a device that this user may not make: there are many or none, and what to say of each is the same."""
        self.devices += 1
        self.fail(path, error.strerror or str(error), level=1)

    def fail(self, path: bytes, error: Exception | str, and_so: str = "", *, level: int = -1) -> None:
        """Counts a name that is not there as the snapshot has it; ``and_so`` is what follows from that.

        Raises `KeyRotated`: that is no failure of one name, and the same for all that are left.
        """
        if isinstance(error, KeyRotated):
            raise error
        if isinstance(error, StorageFailed):
            self._still_there(error)
        reason = f"{error}{and_so}"
        self.failed += 1
        if is_damage(error):
            self.damaged += 1
        if len(self.failures) < FAILURES_KEPT:
            self.failures.append((path, reason))
        self.excuse(path)
        self._progress.note(level, reason, path)

    def excuse(self, path: bytes) -> None:
        """Takes note that a path need not be as the snapshot has it: a hash, and only where it will be asked for."""
        if self._excused is not None:
            self._excused.add(hash(path))

    def is_excused(self, path: bytes) -> bool:
        """Whether a path need not be as the snapshot has it."""
        return self._excused is not None and hash(path) in self._excused

    def miss(self, path: bytes, whats: Iterable[str]) -> None:
        """Counts what could not be set."""
        for what in whats:
            count, example = self._missed.get(what, (0, path))
            self._missed[what] = (count + 1, example)

    @property
    def missed_any(self) -> bool:
        """Whether anything could not be set."""
        return bool(self._missed)

    def plan(self, verb: Verb, path: bytes, size: int = 0) -> None:
        """Counts what would be done."""
        self.verbs[verb] += 1
        if verb in {Verb.CREATE, Verb.OVERWRITE}:
            self.written_bytes += size
        elif verb is Verb.DELETE:
            self.delete_bytes += size
        if verb not in {Verb.UNCHANGED, Verb.KEEP} and len(self._actions) < ACTIONS_KEPT:
            self._actions.append(Action(verb, path, size))

    def as_plan(self) -> RestorePlan:
        """Returns what was counted as a plan."""
        return RestorePlan(
            directories=self.directories,
            created=self.verbs[Verb.CREATE],
            overwritten=self.verbs[Verb.OVERWRITE],
            attributes=self.verbs[Verb.ATTRIBUTES],
            unchanged=self.verbs[Verb.UNCHANGED],
            kept=self.verbs[Verb.KEEP],
            deleted=self.verbs[Verb.DELETE],
            write_bytes=self.written_bytes,
            delete_bytes=self.delete_bytes,
            actions=tuple(self._actions),
            failed=self.failed,
            damaged=self.damaged,
            failures=tuple(self.failures),
        )

    def as_result(self, duration_ns: int) -> RestoreResult:
        """Returns what was counted as a result."""
        return RestoreResult(
            directories=self.directories,
            created=self.verbs[Verb.CREATE],
            overwritten=self.verbs[Verb.OVERWRITE],
            attributes=self.verbs[Verb.ATTRIBUTES],
            unchanged=self.verbs[Verb.UNCHANGED],
            kept=self.verbs[Verb.KEEP],
            deleted=self.verbs[Verb.DELETE],
            failed=self.failed,
            damaged=self.damaged,
            written_bytes=self.written_bytes,
            failures=tuple(self.failures),
            missed=tuple(Missed(what=what, count=count, example=path) for what, (count, path) in self._missed.items()),
            notes=tuple(self._notes()),
            duration_ns=duration_ns,
        )

    def _notes(self) -> Iterator[str]:
        if self.rewritten:
            yield f"{self.rewritten} files were rewritten in place: while that lasted they were neither old nor new"
        if self.unlinked:
            yield f"{self.unlinked} hard links could not be made; these names have content of their own"
        if self.devices:
            yield f"{self.devices} devices could not be made, which only root may (-v names them)"
        if self.unalike:
            yield f"{self.unalike} names of hard-linked files have content of their own in the snapshot, too"
        if self.mounts_kept:
            yield f"{self.mounts_kept} mount points were not deleted"
        if self.own_kept:
            yield "the repository itself, which lies there, was not deleted"
