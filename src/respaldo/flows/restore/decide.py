"""Decisions: what is done about each entry that is no directory, by what is there and by the overwrite policy.

Also keeps the account of hard links: the first selected name of a group gets the content, the others are linked to it,
but for those that the snapshot has with other content, as of a file that changed between the readings of its names.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from respaldo.core.model import Entry, Mark
from respaldo.flows.restore.columns import Columns, Files
from respaldo.flows.restore.contents import Contents
from respaldo.flows.restore.options import Overwrite
from respaldo.flows.restore.present import Present
from respaldo.flows.restore.steps import Batch, Fail, Link, Make, Stay, Step, There, Touch, Write
from respaldo.fs.draft import resumable_name
from respaldo.fs.settle import Owners

IN_PLACE_MIN_BYTES = 1 << 20
RESUMABLE_MIN_BYTES = 16 << 20
NOT_STORED = {
    Mark.UNREADABLE: "it could not be read when the snapshot was made",
    Mark.LOST: "its content was lost to damage",
}
_TYPE = 0o170000
Where = Callable[[], bytes]
"""Returns the path of a directory below the root; a deep one's takes time."""


@dataclass(slots=True)
class _Group:
    """Is a hard-linked file: where its first name is, and what it is."""

    origin: tuple[bytes, ...]
    like: Entry
    ino: int


class Decider:
    """Decides. One thread, entries in the order of the walk."""

    def __init__(
        self, *, contents: Contents, owners: Owners, overwrite: Overwrite, in_place: bool, cold: bool = False
    ) -> None:
        self._contents = contents
        self._owners = owners
        self._overwrite = overwrite
        self._in_place = in_place
        self._cold = cold
        self._groups: dict[bytes, _Group] = {}
        self.columns = Columns(owners)
        self.unalike = 0
        """How many names differ from the first of their group and are copies of their own."""

    @property
    def settles_directories(self) -> bool:
        """Whether directories that are there get the snapshot's attributes."""
        return self._overwrite is not Overwrite.NEVER

    def settles_directory(self, entry: Entry, present: Present, row: int) -> bool:
        """Whether this directory does."""
        return self.may_replace(entry, present, row)

    def may_replace(self, entry: Entry, present: Present, row: int) -> bool:
        """Whether the policy lets an entry take the place of what is there."""
        if self._overwrite is Overwrite.NEVER:
            return False
        return self._overwrite is not Overwrite.IF_NEWER or present.meta(row)[5] < entry.mtime_ns

    @staticmethod
    def stay(entry: Entry) -> Stay:
        """Leaves one name alone."""
        return Stay([entry], kept=True)

    def files(self, directory: Where, entries: list[Entry], present: Present | None, rows: list[int]) -> Iterator[Step]:
        """Yields the steps for entries of a directory; ``rows``: theirs in ``present``, -1 for those not there."""
        entries = [self._contents.found(entry) if entry.mark is Mark.LOST else entry for entry in entries]
        missing = entries
        if present is not None:
            missing = [entry for entry, row in zip(entries, rows, strict=True) if row < 0]
            there = [(entry, row) for entry, row in zip(entries, rows, strict=True) if row >= 0]
            if there:
                yield from self._present(directory, there, present)
        plain = Files()
        for given in missing:
            entry = self._parted(given)
            if not self.columns.add(plain, entry):
                yield self._new(directory, entry, There.NOTHING, present)
        yield from self.plain(plain)

    @staticmethod
    def plain(files: Files) -> Iterator[Step]:
        """Yields the steps for plain files that are not there."""
        for batch in files.batches():
            yield Batch(batch)

    def _new(self, directory: Where, entry: Entry, there: There, present: Present | None) -> Step:
        """Plans an entry whose content is to be written or linked."""
        if entry.mark in NOT_STORED:
            return Fail(entry.name, NOT_STORED[entry.mark])
        if entry.link_group:
            linked = self._linked(directory, entry, there)
            if linked is not None:
                return linked
        if not entry.is_regular:
            return Make(entry, there)
        return Write(entry, there, local=self._leftover(entry, present))

    def _linked(self, directory: Where, entry: Entry, there: There) -> Step | None:
        """Plans a later name of a hard-linked file; None for the first."""
        group = self._groups.get(entry.link_group)
        if group is None:
            self._remember(directory, entry, 0)
            return None
        return Link(entry, there, group.origin, group.ino)

    def _parted(self, entry: Entry) -> Entry:
        """Takes an entry out of its group where the group's first name stands for something else."""
        group = self._groups.get(entry.link_group) if entry.link_group else None
        if group is None or entry.mark in NOT_STORED or _same_file(group.like, entry):
            return entry
        self.unalike += 1
        return replace(entry, link_group=b"")

    def _remember(self, directory: Where, entry: Entry, ino: int) -> None:
        relative = directory()
        origin = (*relative.split(b"/"), entry.name) if relative else (entry.name,)
        self._groups[entry.link_group] = _Group(origin, entry, ino)

    @staticmethod
    def _leftover(entry: Entry, present: Present | None) -> bytes:
        """Returns the name of what a killed run left of a long file."""
        if present is None or entry.size < RESUMABLE_MIN_BYTES:
            return b""
        name = resumable_name(resume_key(entry))
        return name if present.find(name) >= 0 else b""

    # --- where something is there
    # --------------------------------------------------------------------------------------

    def _present(self, directory: Where, there: list[tuple[Entry, int]], present: Present) -> Iterator[Step]:
        if self._overwrite is Overwrite.NEVER:
            for entry, row in there:
                self._note_origin(directory, entry, present, row)
            yield Stay([entry for entry, _ in there], kept=True)
            return
        regular = stat.S_IFREG
        present.probe([row for entry, row in there if entry.mode & present.mode(row) & _TYPE == regular])
        equal: list[Entry] = []
        for given, row in there:
            entry = self._parted(given)
            step = self._one(directory, entry, present, row)
            if step is None:
                equal.append(entry)
            else:
                yield step
        if equal:
            yield Stay(equal, kept=False)

    def _one(self, directory: Where, entry: Entry, present: Present, row: int) -> Step | None:
        """Plans an entry whose name is taken; None where nothing is to be done."""
        if not self.may_replace(entry, present, row) and not (
            present.meta(row)[5] == entry.mtime_ns and self._same(entry, present, row)
        ):
            self._note_origin(directory, entry, present, row)
            return self.stay(entry)
        mode = present.mode(row)
        if entry.mark in NOT_STORED:
            return Fail(entry.name, NOT_STORED[entry.mark])
        if mode & _TYPE != entry.mode & _TYPE:
            there = There.DIRECTORY if stat.S_ISDIR(mode) else There.OTHER
            return self._new(directory, entry, there, present)
        ino, _, links, _ = present.ident(row)
        group = self._groups.get(entry.link_group) if entry.link_group else None
        if group is not None and group.ino != ino:
            return self._linked(directory, entry, There.SAME_TYPE)
        if not self._same(entry, present, row):
            return self._overwritten(directory, entry, present, links)
        settled = present.settled(entry, row, self._owners.of(entry), chown=self._owners.keep)
        flags = present.flags_differ(entry, row)
        if links > 1 and not entry.link_group and entry.is_regular and not (settled and not flags):
            # Another name of this file, which the snapshot knows nothing of, would be changed with it.
            return Write(entry, There.SAME_TYPE)
        if entry.link_group and group is None:
            self._remember(directory, entry, ino)
        return None if settled and not flags else Touch(entry, flags)

    def _overwritten(self, directory: Where, entry: Entry, present: Present, links: int) -> Step:
        long = entry.is_regular and entry.size >= IN_PLACE_MIN_BYTES
        if self._in_place and long and links == 1 and not entry.link_group:
            return Write(entry, There.SAME_TYPE, in_place=True, local=entry.name)
        return self._new(directory, entry, There.SAME_TYPE, present)

    def _same(self, entry: Entry, present: Present, row: int) -> bool:
        """Whether what is there has the entry's type and content."""
        mode, _, _, _, size, mtime_ns, _ = present.meta(row)
        kind = mode & _TYPE
        if kind != entry.mode & _TYPE:
            return False
        if kind == stat.S_IFREG:
            if entry.mark in NOT_STORED or size != entry.size:
                return False
            if mtime_ns == entry.mtime_ns and self._overwrite is not Overwrite.ALWAYS:
                return True
            return self._contents.same(present.folder.fd, entry, entry.name, cold=self._cold)
        if kind == stat.S_IFLNK:
            return present.target(row) == entry.target
        return size == entry.rdev if kind in (stat.S_IFBLK, stat.S_IFCHR) else True

    def _note_origin(self, directory: Where, entry: Entry, present: Present, row: int) -> None:
        """Lets later names be linked to a first one that stays, if that is the file they belong to."""
        if entry.link_group and entry.link_group not in self._groups and self._same(entry, present, row):
            self._remember(directory, entry, present.ident(row)[0])


def resume_key(entry: Entry) -> bytes:
    """Returns what the draft of a long file is found by: its name and all of its content."""
    return b"\0".join((entry.name, b"%d %d" % (entry.size, entry.content.level), entry.content.ids))


def _same_file(one: Entry, other: Entry) -> bool:
    return (
        stat.S_IFMT(one.mode) == stat.S_IFMT(other.mode)
        and (one.size, one.rdev, one.target) == (other.size, other.rdev, other.target)
        and one.content == other.content
    )
