"""Previews: what a restore would change in its target, as a tree; and whether it would take anything away.

Both read the steps of the plan that a run would execute, and change nothing. Memory is bounded: rows for the first
names that change, counts for all.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NamedTuple

from respaldo.core.model import Entry
from respaldo.core.seams import Cancel
from respaldo.flows.restore.begin import Restore, open_folder, planner_of, root_of
from respaldo.flows.restore.plan import Planner
from respaldo.flows.restore.present import same_xattrs
from respaldo.flows.restore.steps import Batch, Enter, Fail, Leave, Link, Make, Remove, Stay, Step, There, Touch, Write
from respaldo.flows.restore.tally import is_damage
from respaldo.fs.meta import beside, read_xattrs
from respaldo.fs.place import Folder
from respaldo.fs.remove import measure
from respaldo.fs.settle import Owners

ROWS_KEPT = 10_000
ROW_BYTES_KEPT = 4 << 20
"""Of their paths: a directory in a directory in a directory makes long ones."""
QUIET_KEPT = 20
"""So many names of each directory are shown that stay as they are: directories, and what the snapshot does not have."""
_PERMISSIONS = 0o7777


class What(StrEnum):
    """Says what becomes of a name."""

    ADDED = "added"
    OVERWRITTEN = "overwritten"
    DELETED = "deleted"
    METADATA = "metadata"
    """Its content stays, its attributes change."""
    KEPT = "kept"
    """It differs from the snapshot, or the snapshot does not have it, and it stays."""
    UNCHANGED = "unchanged"
    FAILED = "failed"
    """It cannot be restored, as far as is known without reading content."""


_QUIET = frozenset({What.KEPT, What.UNCHANGED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Is a line of a preview. ``path`` is relative to the target, empty for the target itself.

    ``size``: what it will have, of a directory what the snapshot's files in it will; ``size_before``: what it has, None
    where nothing is there. ``counts``: of a directory what becomes of what is below it, itself apart.
    """

    path: bytes
    what: What
    mode: int
    size: int = 0
    size_before: int | None = None
    counts: Mapping[What, int] = field(default_factory=dict)
    reason: str = ""

    @property
    def depth(self) -> int:
        """How many directories stand above it, the target apart."""
        return self.path.count(b"/") if self.path else -1

    @property
    def is_dir(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.mode)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """Is what a restore would do: rows in the order of a tree, the target first, and what becomes of all names.

    ``cut``: how many names that change are not among the rows, because there are too many. ``damaged``: whether
    something cannot be restored because what is stored of it is damaged.
    """

    rows: tuple[Row, ...]
    counts: Mapping[What, int]
    write_bytes: int
    delete_bytes: int
    cut: int
    damaged: bool

    @property
    def exit_status(self) -> int:
        """0 all can be restored as far as is known, 3 not all, 4 because of damage."""
        return 4 if self.damaged else 3 if self.counts.get(What.FAILED) else 0


class _Named(NamedTuple):
    """Is what a step says of one name."""

    what: What
    name: bytes
    mode: int
    size: int
    before: int | None = None
    number: int = 1
    reason: str = ""
    damaged: bool = False


@dataclass(slots=True)
class _Frame:
    """Is a directory that is gone through. ``at``: its row, -1 where there are too many."""

    at: int
    path: bytes
    entry: Entry
    there: There
    counts: Counter[What] = field(default_factory=Counter)
    size: int = 0
    quiet: Counter[What] = field(default_factory=Counter)
    reason: str = ""


def preview_restore(restore: Restore, *, cancel: Cancel) -> Preview:
    """Returns what `run_restore` would change; changes nothing. Raises `UsageError`, `TargetError`, `Interrupted`."""
    with ExitStack() as stack:
        looked = _Look(stack, restore, cancel)
        sketch = _Sketch()
        for step in looked.steps:
            if isinstance(step, Enter):
                sketch.enter(step)
            elif isinstance(step, Leave):
                for kept in looked.kept():
                    sketch.add(kept)
                sketch.leave(differs=looked.differs(step, sketch.top.there))
            else:
                for named in looked.names(step):
                    sketch.add(named)
        return sketch.freeze()


def loses_something(restore: Restore, *, cancel: Cancel) -> bool:
    """Whether a restore would overwrite or delete something, or change more of its attributes than the time.

    Ends at the first that it finds; raises what `preview_restore` does.
    """
    with ExitStack() as stack:
        looked = _Look(stack, restore, cancel)
        there: list[There] = []
        for step in looked.steps:
            if isinstance(step, Enter):
                there.append(step.there)
                if step.there is There.OTHER:
                    return True
            elif isinstance(step, Leave):
                if looked.differs(step, there.pop(), but_time=True):
                    return True
            elif any(_loses(named.what) for named in looked.names(step, but_time=True)):
                return True
    return False


def _loses(what: What) -> bool:
    return what in {What.OVERWRITTEN, What.DELETED, What.METADATA}


class _Look:
    """Looks at each step of a plan, and at what is there before it."""

    def __init__(self, stack: ExitStack, restore: Restore, cancel: Cancel) -> None:
        root = root_of(restore)
        folder = open_folder(stack, restore, root, looks_only=True)
        self._planner: Planner = planner_of(restore, cancel)
        self._owners = Owners(keep=restore.options.owners, numeric=restore.options.numeric_ids)
        self._cancel = cancel
        self._alone = root.only is not None
        self.steps = self._planner.steps(root.entry, root.base, folder, leaves=root.leaves())
        stack.callback(self.steps.close)

    def names(self, step: Step, *, but_time: bool = False) -> Iterator[_Named]:
        """Yields what a step does to names; with ``but_time``, a change of times alone is none."""
        if isinstance(step, Batch):
            for name, size in zip(step.files.names, step.files.sizes, strict=True):
                yield _Named(What.ADDED, name, stat.S_IFREG, size)
        elif isinstance(step, Write | Make | Link):
            entry = step.entry
            what = What.ADDED if step.there is There.NOTHING else What.OVERWRITTEN
            yield _Named(what, entry.name, entry.mode, _length(entry), self._before(entry.name))
        elif isinstance(step, Touch):
            what = What.UNCHANGED if but_time and self._differs_in_time_only(step) else What.METADATA
            yield _Named(what, step.entry.name, step.entry.mode, _length(step.entry), self._before(step.entry.name))
        elif isinstance(step, Stay):
            what = What.KEPT if step.kept else What.UNCHANGED
            for entry in step.entries:
                yield _Named(what, entry.name, entry.mode, _length(entry), self._before(entry.name))
        elif isinstance(step, Remove) and not step.leftover:
            yield from self._removed(step)
        elif isinstance(step, Fail):
            yield _Named(What.FAILED, step.name, 0, 0, reason=str(step.error), damaged=is_damage(step.error))

    def kept(self) -> Iterator[_Named]:
        """Yields what the snapshot does not have and stays in the directory that is left; of a single file none."""
        for name, mode, size in () if self._alone else self._planner.kept:
            yield _Named(What.KEPT, name, mode, 0, size if stat.S_ISREG(mode) else 0)

    def _removed(self, step: Remove) -> Iterator[_Named]:
        folder = self._planner.folder
        entries, size = 1, step.size
        if step.is_dir and folder is not None:
            entries, size = measure(folder, step.name, self._cancel, step.spares)
        if entries:
            mode = stat.S_IFDIR if step.is_dir else stat.S_IFREG
            yield _Named(What.DELETED, step.name, mode, 0, size, number=entries)
        else:
            yield _Named(What.KEPT, step.name, stat.S_IFDIR, 0, 0)  # all of it is spared

    def _before(self, name: bytes) -> int | None:
        present = self._planner.present
        row = -1 if present is None else present.find(name)
        if present is None or row < 0:
            return None
        mode, _, _, _, size, _, _ = present.meta(row)
        return size if stat.S_ISREG(mode) else 0

    def _differs_in_time_only(self, step: Touch) -> bool:
        present = self._planner.present
        row = -1 if present is None else present.find(step.entry.name)
        if step.flags or present is None or row < 0:
            return False
        entry = replace(step.entry, mtime_ns=present.meta(row)[5])
        return present.settled(entry, row, self._owners.of(entry), chown=self._owners.keep)

    def differs(self, step: Leave, there: There, *, but_time: bool = False) -> bool:
        """Whether the attributes of a directory that is there change when it is left."""
        folder = self._planner.folder
        if not step.settle or there is not There.SAME_TYPE or folder is None:
            return False
        return _differs(folder, step.entry, self._owners, but_time=but_time)


def _differs(folder: Folder, entry: Entry, owners: Owners, *, but_time: bool) -> bool:
    found = os.fstat(folder.fd)
    owner = owners.of(entry)
    if found.st_mode & _PERMISSIONS != entry.mode & _PERMISSIONS:
        return True
    if owners.keep and (found.st_uid, found.st_gid) != owner[:2]:
        return True
    if not but_time and found.st_mtime_ns != entry.mtime_ns:
        return True
    try:
        return not same_xattrs(read_xattrs(beside(folder.fd, b".")), entry.xattrs)
    except OSError:
        return False


def _length(entry: Entry) -> int:
    return entry.size if entry.is_regular else 0


class _Sketch:
    """Collects rows, each directory's before those of what is in it."""

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self._frames: list[_Frame] = []
        self._counts: Counter[What] = Counter()
        self._write_bytes = self._delete_bytes = 0
        self._cut = self._row_bytes = 0
        self._damaged = False

    @property
    def top(self) -> _Frame:
        """The directory at hand."""
        return self._frames[-1]

    def enter(self, step: Enter) -> None:
        """Goes into a directory."""
        path = self._path(step.entry.name) if self._frames else b""
        self._frames.append(
            _Frame(self._append(Row(path=path, what=What.UNCHANGED, mode=stat.S_IFDIR)), path, step.entry, step.there)
        )

    def add(self, named: _Named) -> None:
        """Takes note of a name in the directory at hand."""
        frame = self.top
        self._damaged = self._damaged or named.damaged
        if not named.name:  # the directory itself, which is counted when it is left
            frame.reason = named.reason
            return
        frame.counts[named.what] += named.number
        self._counts[named.what] += named.number
        frame.size += named.size
        if named.what in {What.ADDED, What.OVERWRITTEN}:
            self._write_bytes += named.size
        elif named.what is What.DELETED:
            self._delete_bytes += named.before or 0
        if named.what is What.UNCHANGED or (named.what is What.KEPT and not self._room(frame, What.KEPT)):
            return
        self._append(
            Row(
                path=self._path(named.name),
                what=named.what,
                mode=named.mode,
                size=named.size,
                size_before=named.before,
                reason=named.reason,
            )
        )

    def leave(self, *, differs: bool) -> None:
        """Comes out of a directory, whose row is now known."""
        frame = self._frames.pop()
        what = {There.NOTHING: What.ADDED, There.OTHER: What.OVERWRITTEN}.get(frame.there, What.UNCHANGED)
        if frame.reason:
            what = What.FAILED
        elif differs:
            what = What.METADATA
        above = self._frames[-1] if self._frames else None
        if above is not None:
            above.counts.update(frame.counts)
            above.counts[what] += 1
            above.size += frame.size
        self._counts[what] += 1
        if frame.at < 0:
            return
        self._rows[frame.at] = replace(
            self._rows[frame.at], what=what, size=frame.size, counts=dict(frame.counts), reason=frame.reason
        )
        still = what is What.UNCHANGED and frame.counts.keys() <= {What.UNCHANGED}
        if still and above is not None and not self._room(above, What.UNCHANGED):
            del self._rows[frame.at :]
        elif still:
            del self._rows[frame.at + 1 :]

    @staticmethod
    def _room(frame: _Frame, what: What) -> bool:
        frame.quiet[what] += 1
        return frame.quiet[what] <= QUIET_KEPT

    def _append(self, row: Row) -> int:
        self._row_bytes += len(row.path)
        if len(self._rows) >= ROWS_KEPT or self._row_bytes > ROW_BYTES_KEPT:
            self._cut += row.what not in _QUIET
            return -1
        self._rows.append(row)
        return len(self._rows) - 1

    def _path(self, name: bytes) -> bytes:
        above = self.top.path
        return above + b"/" + name if above else name

    def freeze(self) -> Preview:
        """Returns what was collected."""
        return Preview(
            rows=tuple(self._rows),
            counts=dict(self._counts),
            write_bytes=self._write_bytes,
            delete_bytes=self._delete_bytes,
            cut=self._cut,
            damaged=self._damaged,
        )
