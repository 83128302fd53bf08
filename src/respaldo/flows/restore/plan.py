"""Planning: walks a tree beside what is there, and yields the steps that make the second equal the first.

The walk is depth first, the files of a directory before its subdirectories, as they were backed up. It reads the target
but changes nothing; what it plans may be executed some steps behind it, since no step touches a directory that comes
later. Trees are not trusted: impossible, repeated and unordered names, and trees that contain themselves, fail where
they stand.
"""

from __future__ import annotations

import stat
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field

from respaldo.core.errors import ChunkMissing, Corruption, RespaldoError
from respaldo.core.ids import ChunkId
from respaldo.core.model import Entry, Mark
from respaldo.core.seams import Cancel
from respaldo.flows.restore.decide import Decider
from respaldo.flows.restore.present import Present
from respaldo.flows.restore.seams import Trees
from respaldo.flows.restore.select import SPARING_MARKS, Selection, Spared, Take
from respaldo.flows.restore.steps import Enter, Fail, Leave, Remove, Step, There
from respaldo.format.tree import Leaf
from respaldo.fs.place import NAME_BYTES_MAX, Folder, is_temporary
from respaldo.fs.remove import OWN, Spares
from respaldo.fs.unfinished import is_unfinished

NOT_READ = {
    Mark.UNREADABLE: "it could not be read when the snapshot was made",
    Mark.LOST: "some of what was in it was lost to damage",
}


@dataclass(slots=True)
class Frame:
    """Is a directory on the way from the root to where the walk is. ``present`` None: it is not there yet."""

    entry: Entry
    leaves: Iterator[Leaf]
    present: Present | None
    there: There
    mode: int
    settle: bool
    inside: bool
    tree: ChunkId | None
    waiting: deque[tuple[Entry, int, bool]] = field(default_factory=deque)
    """Subdirectories: entry, row in ``present``, whether they are included."""
    entered: bool = False
    whole: bool = True
    mounted: bool = False
    """Whether it lies in what is mounted below the root: a deletion does not reach there."""
    last: bytes = b""
    removed: set[bytes] = field(default_factory=set)
    """Unfinished directories that were removed already."""
    kept: list[tuple[bytes, int, int]] = field(default_factory=list)
    """Name, mode and size of what the snapshot does not have and that stays, once the end is reached."""


class Planner:
    """Plans one restore. ``folder`` is the target's root, None where it does not exist."""

    def __init__(
        self,
        *,
        trees: Trees,
        decider: Decider,
        selection: Selection,
        spared: Spared | None,
        cancel: Cancel,
    ) -> None:
        self._trees = trees
        self._decider = decider
        self._selection = selection
        self._spared = spared
        """None unless names that the snapshot lacks are deleted."""
        self._cancel = cancel
        self._stack: list[Frame] = []
        self._trees_above: set[ChunkId] = set()
        self._base = b""

    def steps(
        self, entry: Entry, path: bytes, folder: Folder | None, *, leaves: Iterator[Leaf] | None = None
    ) -> Generator[Step, None, None]:
        """Yields the steps that restore a directory (``leaves``: instead of its own) at an absolute path.

        Whoever leaves off before the end closes it, while ``folder`` is still open.
        """
        settle = leaves is None and bool(entry.name)
        tree = next(iter(entry.content), None) if leaves is None else None
        self._base = path.rstrip(b"/")
        frame = Frame(
            entry=entry,
            leaves=self._leaves(tree) if leaves is None else leaves,
            present=None if folder is None else Present(folder),
            there=There.NOTHING if folder is None else There.SAME_TYPE,
            mode=0,
            settle=settle and (folder is None or self._decider.settles_directories),
            inside=False,
            tree=tree,
        )
        self._push(frame)
        try:
            yield from self._enter()
            while self._stack:
                yield from self._go_on()
        finally:
            while self._stack:
                self._pop()

    @property
    def folder(self) -> Folder | None:
        """The directory that the last step is about, None where it is not there yet."""
        present = self._stack[-1].present if self._stack else None
        return None if present is None else present.folder

    @property
    def present(self) -> Present | None:
        """What is in the directory that the last step is about, None where it is not there yet."""
        return self._stack[-1].present if self._stack else None

    @property
    def kept(self) -> list[tuple[bytes, int, int]]:
        """Name, mode and size of what the directory that is left holds besides the snapshot's, and keeps."""
        return self._stack[-1].kept if self._stack else []

    @property
    def unalike(self) -> int:
        """How many names were taken out of their hard-link groups so far, having content of their own."""
        return self._decider.unalike

    def _leaves(self, tree: ChunkId | None) -> Iterator[Leaf]:
        return iter(()) if tree is None else self._trees.leaves(tree)

    def _relative(self) -> bytes:
        """Returns the path of the directory below the root: built when asked for, since a path may be very long."""
        return b"/".join(frame.entry.name for frame in self._stack[1:])

    def _path(self) -> bytes:
        relative = self._relative()
        return self._base + b"/" + relative if relative else self._base or b"/"

    def _push(self, frame: Frame) -> None:
        self._stack.append(frame)
        if frame.tree is not None:
            self._trees_above.add(frame.tree)

    def _pop(self) -> None:
        frame = self._stack.pop()
        if frame.tree is not None:
            self._trees_above.discard(frame.tree)
        if frame.present is not None and frame.present.folder.parent is not None:
            frame.present.folder.close()

    def _enter(self) -> Iterator[Step]:
        """Enters the directories on the way that nothing was selected in so far."""
        if self._stack[-1].entered:
            return
        for frame in self._stack:
            if not frame.entered:
                frame.entered = True
                yield Enter(frame.entry, frame.there, frame.mode)
                if frame.entry.mark is Mark.UNREADABLE:
                    yield Fail(b"", NOT_READ[Mark.UNREADABLE])

    def _go_on(self) -> Iterator[Step]:
        """Makes the next move: into a subdirectory, to the next entries, or out."""
        self._cancel.check()
        frame = self._stack[-1]
        if frame.waiting:
            yield from self._descend(frame, *frame.waiting.popleft())
            return
        try:
            leaf = next(frame.leaves, None)
        except RespaldoError as error:
            frame.whole = False
            frame.leaves = iter(())
            yield from self._enter()
            lost = frame.entry.mark is Mark.LOST and isinstance(error, ChunkMissing)
            yield Fail(b"", NOT_READ[Mark.LOST] if lost else error)
            return
        if leaf is not None:
            yield from self._take(frame, leaf)
            return
        if frame.entered:
            yield from self._leave(frame)
        self._pop()

    def _take(self, frame: Frame, leaf: Leaf) -> Iterator[Step]:
        """Plans a directory, or the next run of a long one."""
        names = leaf.names.split(b"\0")
        names.pop()
        if not names:
            return
        if len(names) != len(leaf):
            frame.whole = False
            yield from self._enter()
            yield Fail(b"", Corruption(f"tree of {_shown(frame.entry.name)}", "its columns have different lengths"))
        elif not _plausible(names, frame.last):
            yield from self._take_good(frame, leaf)
        elif frame.present is None and self._selection.takes_all:
            # Nothing is there and all of it is wanted: most files need no look of their own.
            frame.last = names[-1]
            files, others = self._decider.columns.split(leaf, names)
            yield from self._decider.plain(files)
            yield from self._decide(frame, others)
        else:
            yield from self._make_room(frame, names)
            frame.last = names[-1]
            yield from self._decide(frame, list(leaf.entries()))

    @staticmethod
    def _make_room(frame: Frame, names: list[bytes]) -> Iterator[Step]:
        """Removes the directory that a killed run left before anything takes the space that its files hold."""
        present = frame.present
        if present is None or not frame.entered:
            return
        for row in present.temporaries(frame.last, names[-1]):
            name = present.names[row]
            if is_unfinished(name) and stat.S_ISDIR(present.mode(row)) and name not in names:
                frame.removed.add(name)
                yield Remove(name, is_dir=True, size=0, leftover=True)

    def _take_good(self, frame: Frame, leaf: Leaf) -> Iterator[Step]:
        """Plans what can be restored of a directory with impossible, repeated or unordered names."""
        frame.whole = False
        yield from self._enter()
        entries, failures = _sieve(list(leaf.entries()), frame.last)
        yield from failures
        if entries:
            frame.last = entries[-1].name
            yield from self._decide(frame, entries)

    def _decide(self, frame: Frame, entries: list[Entry]) -> Iterator[Step]:
        """Selects among entries, plans files and notes directories for later."""
        present = frame.present
        rows = [-1] * len(entries) if present is None else [present.row(entry.name) for entry in entries]
        takes = None
        if not self._selection.takes_all:
            names, is_dir = [entry.name for entry in entries], [entry.is_dir for entry in entries]
            takes = self._selection.take(self._relative(), names, is_dir, inside=frame.inside)
        files: list[Entry] = []
        file_rows: list[int] = []
        for number, entry in enumerate(entries):
            take = Take.YES if takes is None else takes[number]
            if take is Take.NO:
                continue
            if entry.is_dir:
                inside = takes is None or frame.inside or take is Take.YES
                frame.waiting.append((entry, rows[number], inside))
            else:
                files.append(entry)
                file_rows.append(rows[number])
        if files:
            yield from self._enter()
            yield from self._decider.files(self._relative, files, present, file_rows)

    def _descend(self, frame: Frame, entry: Entry, row: int, inside: bool) -> Iterator[Step]:  # noqa: FBT001 - private
        """Goes into a subdirectory, unless the target or the tree forbids it."""
        tree = next(iter(entry.content), None)
        error: RespaldoError | str = ""
        if len(entry.content) > 1 or entry.content.level:
            error = Corruption(f"directory {_shown(entry.name)}", "it has a file's content")
        elif tree is not None and tree in self._trees_above:
            error = Corruption(f"tree {tree.hex()[:16]}", "it contains itself")
        there, mode, present, mounted = There.NOTHING, 0, None, frame.mounted
        if row >= 0 and frame.present is not None:
            mode = frame.present.mode(row)
            mounted = mounted or frame.present.is_mount(row)
            there = There.SAME_TYPE if stat.S_ISDIR(mode) else There.OTHER
            if there is There.OTHER and not self._decider.may_replace(entry, frame.present, row):
                yield from self._enter()
                yield self._decider.stay(entry)
                return
            if there is There.SAME_TYPE and not error:
                try:
                    folder = frame.present.folder.enter(entry.name)
                    if folder.is_own:
                        folder.close()
                        error = f"{OWN}: nothing in it is changed"
                    else:
                        present = Present(folder)
                except (OSError, RespaldoError) as problem:
                    error = problem.strerror or str(problem) if isinstance(problem, OSError) else problem
        if error:
            frame.whole = False
            yield from self._enter()
            yield Fail(entry.name, error)
            return
        settle = there is not There.SAME_TYPE or (
            frame.present is not None and self._decider.settles_directory(entry, frame.present, row)
        )
        self._push(
            Frame(
                entry=entry,
                leaves=self._leaves(tree),
                present=present,
                there=there,
                mode=mode,
                settle=settle,
                inside=inside,
                tree=tree,
                mounted=mounted,
            )
        )
        if inside or self._selection.takes_all:
            yield from self._enter()

    def _leave(self, frame: Frame) -> Iterator[Step]:
        """Deletes what the snapshot does not have, and leaves."""
        if frame.present is not None:
            yield from self._others(frame, frame.present)
        yield Leave(frame.entry, frame.settle)

    def _others(self, frame: Frame, present: Present) -> Iterator[Step]:
        others = present.others()
        if not others:
            return
        rows = [(present.meta(row)[0], present.meta(row)[4]) for row in others]
        names = [present.names[row] for row in others]
        spared = [True] * len(others)
        spares: Spares | None = None
        known = frame.whole and frame.entry.mark not in SPARING_MARKS
        if self._spared is not None and known and not frame.mounted:
            spares = self._spares(self._spared)
            spared = list(spares(b"", names, rows))
        for name, (mode, size), spare in zip(names, rows, spared, strict=True):
            is_dir = stat.S_ISDIR(mode)
            if name in frame.removed:
                continue
            if is_unfinished(name) if is_dir else is_temporary(name):
                yield Remove(name, is_dir=is_dir, size=size, leftover=True)
            elif not spare:
                yield Remove(name, is_dir=is_dir, size=size, spares=spares if is_dir else None)
            else:
                frame.kept.append((name, mode, size))

    def _spares(self, by_snapshot: Spared) -> Spares:
        """Returns what decides which names stay in the directory at hand and in what is deleted below it."""
        path, relative, selection = self._path(), self._relative(), self._selection

        def spares(below: bytes, names: Sequence[bytes], rows: Sequence[tuple[int, int]]) -> list[bool]:
            spared = by_snapshot.spares(_joined(path, below), names, rows)
            is_dir = [stat.S_ISDIR(mode) for mode, _ in rows]
            left_out = selection.left_out(_joined(relative, below), names, is_dir)
            if left_out is None:
                return spared
            return [one or other for one, other in zip(spared, left_out, strict=True)]

        return spares


def _joined(path: bytes, below: bytes) -> bytes:
    return path.rstrip(b"/") + b"/" + below if path and below else path or below


def _plausible(names: list[bytes], last: bytes) -> bool:
    """Whether names are possible and in ascending order, all at once: sorting what is sorted is cheap."""
    if max(map(len, names)) > NAME_BYTES_MAX:
        return False
    joined = b"\0".join(names)
    if b"/" in joined or joined.count(b"\0") != len(names) - 1 or not names[0] > last:
        return False
    unique = set(names)
    return len(unique) == len(names) and names == sorted(names) and unique.isdisjoint((b"", b".", b".."))


def _sieve(entries: list[Entry], last: bytes) -> tuple[list[Entry], list[Fail]]:
    """Parts entries whose names are possible, and come after those before them, from the others."""
    good: list[Entry] = []
    failures: list[Fail] = []
    for entry in entries:
        name = entry.name
        if not name or b"/" in name or b"\0" in name or name in (b".", b"..") or len(name) > NAME_BYTES_MAX:
            failures.append(Fail(b"", Corruption(f"name {name[:NAME_BYTES_MAX]!r}", "it would leave its directory")))
        elif name <= last:
            failures.append(Fail(b"", Corruption(f"name {name!r}", "it is repeated or out of order")))
        else:
            good.append(entry)
            last = name
    return good, failures


def _shown(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")
