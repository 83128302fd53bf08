"""Space: whether a target can take what a plan would write, asked before the first byte."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from respaldo.core.errors import TargetError
from respaldo.flows.restore.contents import Contents
from respaldo.flows.restore.steps import Batch, Enter, Make, Remove, Step, There, Write
from respaldo.format.figures import Figures
from respaldo.fs.place import Folder
from respaldo.fs.unfinished import measure_unfinished


@dataclass(slots=True)
class Need:
    """Is what a plan needs: bytes at its peak, and inodes."""

    length_bytes: int = 0
    inodes: int = 0


@dataclass(frozen=True, slots=True)
class Room:
    """Is what a target has. ``inodes`` -1: as many as one likes."""

    length_bytes: int
    inodes: int

    @classmethod
    def at(cls, fd: int) -> Room:
        """Returns what the file system of an open directory has for this user."""
        found = os.fstatvfs(fd)
        free = found.f_bfree if os.geteuid() == 0 else found.f_bavail
        inodes = (found.f_ffree if os.geteuid() == 0 else found.f_favail) if found.f_files else -1
        return cls(free * found.f_frsize, inodes)

    def fits(self, need: Need) -> bool:
        """Whether it is enough."""
        return need.length_bytes <= self.length_bytes and (self.inodes < 0 or need.inodes <= self.inodes)


def most(figures: Figures) -> Need | None:
    """Returns what a whole snapshot needs at most; None where it does not say."""
    if not figures.files and not figures.directories:
        return None
    return Need(figures.length_bytes, figures.files + figures.directories + figures.others)


class Promise:
    """Is what a snapshot's figures say that it needs, which is compared with the plan as that comes.

    Anybody may have written them: what holds more than it says could fill the disk of whoever restores it.
    """

    def __init__(self, need: Need) -> None:
        self._left = Need(need.length_bytes, need.inodes)

    def breaks(self, step: Step) -> bool:
        """Whether the plan, with one more step, is more than was promised."""
        if isinstance(step, Batch):
            self._left.length_bytes -= sum(step.files.sizes)
            self._left.inodes -= len(step.files)
        elif isinstance(step, Write):
            self._left.length_bytes -= step.entry.size
            self._left.inodes -= 1
        elif isinstance(step, Enter | Make) and step.there is There.NOTHING:
            self._left.inodes -= 1
        return self._left.length_bytes < 0 or self._left.inodes < 0


def survey(steps: Iterable[Step], contents: Contents, room: Room, folder: Callable[[], Folder | None]) -> Need:
    """Adds up what a plan needs: holes not counted, and what is replaced only once, as long as both are there.

    What a killed run left makes room. ``folder``: the directory that the last step is about, if it is there.

    Ends where there is no room for it.
    """
    need = Need()
    replaced = 0
    for step in steps:
        if not room.fits(need):
            break
        if isinstance(step, Batch):
            need.length_bytes += sum(step.files.sizes)
            need.inodes += len(step.files)
        elif isinstance(step, Write):
            length = contents.data_bytes(step.entry)
            if step.there is There.NOTHING:
                need.length_bytes += length
                need.inodes += 1
            else:
                replaced = max(replaced, length)
        elif isinstance(step, Enter | Make) and step.there is There.NOTHING:
            need.inodes += 1
        elif isinstance(step, Remove) and step.leftover and step.is_dir:
            above = folder()
            if above is not None:
                with suppress(OSError):
                    inodes, length = measure_unfinished(above, step.name)
                    need.inodes -= inodes
                    need.length_bytes -= length
    need.length_bytes += replaced
    return need


def refuse(target: bytes, need: Need, room: Room, *, begun: bool = False) -> TargetError:
    """Returns the error for a target that is too small; ``begun``: for what was not known before."""
    written = "the snapshot holds more than it says, and something was written" if begun else "nothing was written"
    if need.length_bytes > room.length_bytes:
        reason = f"at least {_shown(need.length_bytes)} are needed, {_shown(room.length_bytes)} are free"
        return TargetError(target, reason, hint=f"make room, restore a part, or restore elsewhere; {written}")
    reason = f"at least {need.inodes} files and directories are needed, {room.inodes} more fit"
    return TargetError(target, reason, hint=f"restore a part, or restore elsewhere; {written}")


def _shown(length_bytes: int) -> str:
    size = float(length_bytes)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
