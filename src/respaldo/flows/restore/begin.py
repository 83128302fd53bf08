"""Where a restore begins: what is restored, the directory that the walk begins with, and the planner of its steps."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace

from respaldo.core.errors import TargetError, UsageError
from respaldo.core.model import Entry, Mark
from respaldo.core.seams import Cancel
from respaldo.flows.restore.columns import leaf_of
from respaldo.flows.restore.contents import Contents
from respaldo.flows.restore.decide import Decider
from respaldo.flows.restore.options import Overwrite, RestoreOptions
from respaldo.flows.restore.plan import Planner
from respaldo.flows.restore.seams import Trees
from respaldo.flows.restore.select import Selection, Spared
from respaldo.format.snapshot import Manifest
from respaldo.format.tree import Leaf
from respaldo.fs.place import Folder, Target
from respaldo.fs.settle import Owners
from respaldo.store.blocks import Blocks

_SPECIAL = {
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "FIFO",
    stat.S_IFSOCK: "socket",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Restore:
    """Is what is to be restored, from where and to where.

    ``entry`` is what is at ``path`` (absolute, as recorded) of the snapshot that ``manifest`` describes; of ``/``, an
    entry without a name. A directory's content lands directly in ``target``; a file becomes ``target``, or lands in it
    where that is a directory.
    """

    blocks: Blocks
    trees: Trees
    manifest: Manifest
    entry: Entry
    path: bytes
    target: bytes
    options: RestoreOptions = field(default_factory=RestoreOptions)
    own: frozenset[tuple[int, int]] = frozenset()
    """Device and inode of the directories that what is restored comes from, which are not to be written to."""


@dataclass(frozen=True, slots=True)
class Root:
    """Is the directory that the walk begins with: the one that is restored, or one around a single file."""

    target: bytes
    base: bytes
    entry: Entry
    only: Entry | None = None

    def leaves(self) -> Iterator[Leaf] | None:
        """Returns what stands for the directory of a single file; None where the directory has a tree."""
        return None if self.only is None else iter([leaf_of([self.only])])


def root_of(restore: Restore) -> Root:
    """Returns where the walk begins.

    Raises `UsageError`, also for a target in the repository, and `TargetError` for a file that would replace a device.
    """
    entry, target = restore.entry, restore.target
    if not target or b"\0" in target:
        raise UsageError("a target cannot be an empty path")
    _refuse_own(target, restore.own)
    if entry.is_dir:
        return Root(target, restore.path, entry)
    place, _, name = target.rpartition(b"/")
    if os.path.isdir(target) or name in (b"", b".", b".."):
        place, name = target, entry.name
    around = Entry(name=b"", mode=stat.S_IFDIR | 0o755, mark=Mark.PARTIAL)
    place = place or (b"/" if target.startswith(b"/") else b".")
    if restore.options.overwrite is not Overwrite.NEVER:
        _refuse_special(os.path.join(place, name), entry)
    return Root(place, restore.path.rpartition(b"/")[0] or b"/", around, replace(entry, name=name))


def _refuse_own(path: bytes, own: frozenset[tuple[int, int]]) -> None:
    """Raises `UsageError` where a path is one of some directories, or lies below one."""
    at = os.path.realpath(path) if own else b"/"
    while at != b"/":
        with suppress(OSError):
            found = os.stat(at)
            if (found.st_dev, found.st_ino) in own:
                raise UsageError(
                    "the target lies in the repository itself", hint="restore to a directory that is not in it"
                )
        at = os.path.dirname(at)


def _refuse_special(path: bytes, entry: Entry) -> None:
    """Raises `TargetError` where a single file would take the place of a device, a FIFO or a socket: a typing error."""
    try:
        found = os.lstat(path)
    except OSError:
        return
    kind = stat.S_IFMT(found.st_mode)
    what = _SPECIAL.get(kind)
    same = kind == stat.S_IFMT(entry.mode) and entry.rdev == os.major(found.st_rdev) << 32 | os.minor(found.st_rdev)
    if what is not None and not same:
        hint = "restore to another path, or take away first what is there"
        raise TargetError(path, f"there is a {what}, which a restore does not replace", hint=hint)


def open_folder(stack: ExitStack, restore: Restore, root: Root, *, looks_only: bool) -> Folder | None:
    """Opens the target for the planner, where it is there."""
    if not os.path.isdir(root.target):
        return None
    target = stack.enter_context(Target(root.target, looks_only=looks_only, own=restore.own))
    if restore.options.delete and target.is_filesystem_root():
        raise UsageError("--delete is refused on /", hint="restore elsewhere, or without --delete")
    return target.root


def planner_of(restore: Restore, cancel: Cancel, *, checks: bool = False) -> Planner:
    """Returns a planner; with ``checks``, one that compares all content, and reads it from the disk."""
    options, manifest = restore.options, restore.manifest
    decider = Decider(
        contents=Contents(restore.blocks, restore.trees),
        owners=Owners(keep=options.owners, numeric=options.numeric_ids),
        overwrite=Overwrite.ALWAYS if checks else options.overwrite,
        in_place=options.in_place and not checks,
        cold=checks,
    )
    return Planner(
        trees=restore.trees,
        decider=decider,
        selection=Selection(options.include, options.exclude),
        spared=Spared(manifest.rules, manifest.sources) if options.delete and not checks else None,
        cancel=cancel,
    )
