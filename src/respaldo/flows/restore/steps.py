"""Steps: what a plan consists of, in the order in which it is executed. Values only.

A directory is an `Enter` and a `Leave`, and everything between them happens in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from respaldo.core.errors import RespaldoError
from respaldo.core.model import Entry
from respaldo.flows.restore.columns import Files
from respaldo.fs.remove import Spares


class There(Enum):
    """Says what a name stands for in the target before a step."""

    NOTHING = "nothing"
    SAME_TYPE = "same type"
    OTHER = "other"
    """Something that is no directory where a directory is to be, or of another type."""
    DIRECTORY = "directory"
    """A directory where something else is to be."""


@dataclass(frozen=True, slots=True)
class Enter:
    """Goes into a directory, making it first unless it is there."""

    entry: Entry
    there: There
    mode: int = 0
    """What it had before the plan was made."""


@dataclass(frozen=True, slots=True)
class Leave:
    """Leaves a directory, giving it its attributes if ``settle``."""

    entry: Entry
    settle: bool


@dataclass(frozen=True, slots=True)
class Batch:
    """Creates plain files."""

    files: Files


@dataclass(frozen=True, slots=True)
class Write:
    """Creates a regular file, or puts it in the place of what is there.

    ``local`` names a file with part of the content: the file itself (``in_place``), or what a killed run left.
    """

    entry: Entry
    there: There
    in_place: bool = False
    local: bytes = b""


@dataclass(frozen=True, slots=True)
class Make:
    """Makes a symbolic link, a FIFO, a socket or a device, or puts it in the place of what is there."""

    entry: Entry
    there: There


@dataclass(frozen=True, slots=True)
class Link:
    """Makes another name for a file of this restore. ``origin``: its first name's path; ``ino`` 0: made by this run."""

    entry: Entry
    there: There
    origin: tuple[bytes, ...]
    ino: int


@dataclass(frozen=True, slots=True)
class Touch:
    """Puts the attributes of an entry right whose content is as it should be."""

    entry: Entry
    flags: bool
    """Whether its inode flags differ."""


@dataclass(frozen=True, slots=True)
class Stay:
    """Says that names stay as they are: equal to the snapshot's, or (``kept``) left alone on purpose."""

    entries: list[Entry]
    kept: bool


@dataclass(frozen=True, slots=True)
class Remove:
    """Removes a name that the snapshot does not have, or (``leftover``) what a killed run left.

    ``spares``: what stays of that which is below it.
    """

    name: bytes
    is_dir: bool
    size: int
    leftover: bool = False
    spares: Spares | None = None


@dataclass(frozen=True, slots=True)
class Fail:
    """Says that a name (empty: the directory itself) cannot be restored, whatever the target."""

    name: bytes
    error: RespaldoError | str


Step = Enter | Leave | Batch | Write | Make | Link | Touch | Stay | Remove | Fail
