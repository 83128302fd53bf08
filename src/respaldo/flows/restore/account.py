"""Accounts of a plan that is not executed: what a dry run shows, and what a restore that is read back finds wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from respaldo.core.seams import Cancel
from respaldo.flows.restore.options import Verb
from respaldo.flows.restore.steps import Batch, Enter, Fail, Leave, Link, Make, Remove, Stay, Step, There, Touch, Write
from respaldo.flows.restore.tally import Tally
from respaldo.fs.place import Folder
from respaldo.fs.remove import measure


class Trail:
    """Is the directories that steps have entered, for the paths of what is in them."""

    def __init__(self, base: bytes) -> None:
        self._base = base.rstrip(b"/")
        self._names: list[bytes] = []
        self._depth = 0

    def follow(self, step: Step) -> None:
        """Takes note of a step that enters or leaves a directory."""
        if isinstance(step, Enter):
            self._depth += 1
            if self._depth > 1:
                self._names.append(step.entry.name)
        elif isinstance(step, Leave):
            self._depth -= 1
            if self._names:
                self._names.pop()

    def path(self, name: bytes = b"") -> bytes:
        """Returns the snapshot's path of a name in the directory, or of the directory."""
        return b"/".join([self._base, *self._names, *([name] if name else [])]) or b"/"


def show(steps: Iterable[Step], base: bytes, folder: Callable[[], Folder | None], tally: Tally, cancel: Cancel) -> None:
    """Counts what steps would do. ``folder``: the directory that the last step is about, if it is there."""
    trail = Trail(base)
    for step in steps:
        trail.follow(step)
        if isinstance(step, Leave):
            tally.directories += 1
        elif isinstance(step, Batch):
            for name, size in zip(step.files.names, step.files.sizes, strict=True):
                tally.plan(Verb.CREATE, trail.path(name), size)
        elif isinstance(step, Write | Make | Link):
            size = step.entry.size if isinstance(step, Write) else 0
            verb = Verb.CREATE if step.there is There.NOTHING else Verb.OVERWRITE
            tally.plan(verb, trail.path(step.entry.name), size)
        elif isinstance(step, Touch):
            tally.plan(Verb.ATTRIBUTES, trail.path(step.entry.name))
        elif isinstance(step, Stay):
            tally.verbs[Verb.KEEP if step.kept else Verb.UNCHANGED] += len(step.entries)
        elif isinstance(step, Fail):
            tally.fail(trail.path(step.name), step.error)
        elif isinstance(step, Remove) and not step.leftover:
            _show_removal(step, trail.path(step.name), folder(), tally, cancel)


def _show_removal(step: Remove, path: bytes, folder: Folder | None, tally: Tally, cancel: Cancel) -> None:
    entries, size = 1, step.size
    if step.is_dir and folder is not None:
        entries, size = measure(folder, step.name, cancel, step.spares)
        if not entries:  # All of it is spared.
            return
    tally.plan(Verb.DELETE, path, size)
    tally.verbs[Verb.DELETE] += entries - 1


def find_differences(steps: Iterable[Step], base: bytes, tally: Tally) -> None:
    """Counts as failed what steps would still have to do, but for what is known to have failed or to have been kept."""
    trail = Trail(base)
    excused = 0
    for step in steps:
        trail.follow(step)
        if isinstance(step, Enter):
            if excused or tally.is_excused(trail.path()):
                excused += 1
            elif step.there is not There.SAME_TYPE:
                tally.fail(trail.path(), "it is not there after it was written")
                excused = 1
        elif isinstance(step, Leave):
            excused = max(0, excused - 1)
        elif not excused:
            _find(step, trail, tally)


def _find(step: Step, trail: Trail, tally: Tally) -> None:
    differing = "it differs from the snapshot after it was written"
    if isinstance(step, Batch):
        for name in step.files.names:
            path = trail.path(name)
            if not tally.is_excused(path):
                tally.fail(path, "it is not there after it was written")
    elif isinstance(step, Write | Make | Link):
        path = trail.path(step.entry.name)
        if not tally.is_excused(path) and not (isinstance(step, Link) and tally.unlinked):
            tally.fail(path, differing)
    elif isinstance(step, Touch) and not tally.missed_any:
        path = trail.path(step.entry.name)
        if not tally.is_excused(path):
            tally.fail(path, "its attributes differ from the snapshot after they were set")
