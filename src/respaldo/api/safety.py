"""Safety: what a restore would take away is put away first, as a snapshot of its own, or nothing is touched.

Invariant: a restore that takes something away from a source of the repository begins only after all that is there was
stored and committed. Never takes a snapshot where nothing would be lost.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from respaldo.api.naming import Found, covers
from respaldo.api.places import repository_path
from respaldo.catalog.selectors import ID_SHOWN
from respaldo.catalog.snapshots import SAFETY, Catalogue
from respaldo.core.errors import Interrupted, Refused, RespaldoError
from respaldo.core.ids import SnapshotId
from respaldo.core.seams import Cancel, Progress
from respaldo.flows.backup.options import BackupOptions
from respaldo.flows.backup.run import run_backup
from respaldo.flows.restore.begin import Restore
from respaldo.flows.restore.options import Overwrite, RestoreOptions
from respaldo.flows.restore.preview import Preview, loses_something, preview_restore
from respaldo.store.repo import Repo

_HINT = "to restore without putting it away: --no-safety"


@dataclass(frozen=True, slots=True, kw_only=True)
class PutAway:
    """Is a place whose state was put away, and the snapshot that has it."""

    snapshot: SnapshotId
    path: bytes
    is_dir: bool

    def way_back(self, options: RestoreOptions) -> tuple[bytes, ...]:
        """Returns the arguments of `respaldo` that bring it back, after a restore with these options."""
        words = [b"restore", self.snapshot.hex()[:ID_SHOWN].encode() + b":" + self.path, self.path]
        if self.is_dir:
            words.append(b"--delete")
        if options.overwrite is Overwrite.ALWAYS:  # what has the same size and time was replaced, too
            words += [b"--overwrite", b"always"]
        return tuple(words)


class Restoring:
    """Looks ahead of one restore. One thread."""

    def __init__(self, repo: Repo, restore: Restore, found: Found, snapshots: Callable[[], Catalogue]) -> None:
        self._repo = repo
        self._restore = restore
        self._found = found
        self._snapshots = snapshots

    def preview(self, *, cancel: Cancel) -> Preview:
        """Returns what would change in the target, as a tree; changes nothing."""
        return preview_restore(self._restore, cancel=cancel)

    def endangered(self, *, everywhere: bool, cancel: Cancel) -> tuple[bytes, ...]:
        """Returns the places, absolute, where something would be taken away; none where nothing is.

        Unless ``everywhere``, only those that lie under a source of this repository.
        """
        items = () if everywhere else self._snapshots().snapshots
        # A source is recorded as it was named, perhaps by way of a link.
        as_named = touched(self._found, self._restore.target, os.path.abspath)
        places = [
            place
            for name, place in zip(as_named, touched(self._found, self._restore.target, os.path.realpath), strict=True)
            if _holds_something(place)
            and (everywhere or any(covers(item, name) or covers(item, place) for item in items))
        ]
        return tuple(places) if places and loses_something(self._restore, cancel=cancel) else ()

    def put_away(
        self, places: Sequence[bytes], options: BackupOptions, *, progress: Progress, cancel: Cancel
    ) -> tuple[PutAway, ...]:
        """Takes a snapshot of each place; raises `Refused` where one cannot be taken whole, `Interrupted`."""
        return tuple(_put_away(self._repo, place, options, progress, cancel) for place in places)


def _put_away(repo: Repo, place: bytes, options: BackupOptions, progress: Progress, cancel: Cancel) -> PutAway:
    mine = replace(options, tags=(*options.tags, SAFETY), exclude=_but_for_itself(repo, place))
    try:
        result = run_backup(repo, [place], mine, progress=progress, cancel=cancel)
    except Interrupted:
        raise
    except RespaldoError as error:
        reason = f"what is there could not be put away, so nothing was touched: {error}"
        raise Refused(reason, hint=_HINT) from error
    if not result.complete or result.snapshot is None:
        shown = place.decode("utf-8", "surrogateescape")
        reason = f"{result.figures.errors} paths below {shown} could not be put away, so nothing was touched"
        raise Refused(reason, hint=_HINT)
    return PutAway(snapshot=result.snapshot, path=place, is_dir=_is_dir(place))


def touched(found: Found, target: bytes, resolve: Callable[[bytes], bytes]) -> list[bytes]:
    """Returns where a restore writes: its target, or below that the places of the sources that are restored.

    ``resolve`` makes a directory absolute, and may follow links on the way to it; a file that is a link is replaced.
    """
    if not found.entry.is_dir:
        folder, name = os.path.split(os.path.abspath(target))
        if os.path.isdir(target):
            folder, name = target, found.entry.name
        return [os.path.join(resolve(folder), name)]
    top = resolve(target)
    if covers(found.snapshot, found.path):
        return [top]
    above = found.path.rstrip(b"/") + b"/"
    below = sorted(source for source in found.snapshot.manifest.sources if source.startswith(above))
    outermost = [source for source in below if not any(source.startswith(other + b"/") for other in below)]
    return [os.path.join(top, source[len(above) :]) for source in outermost]


def _holds_something(path: bytes) -> bool:
    """Whether there is something at a path that can be lost: an empty directory is nothing."""
    if not _is_dir(path):
        return os.path.lexists(path)
    try:
        with os.scandir(path) as entries:
            return next(entries, None) is not None
    except OSError:
        return True


def _is_dir(path: bytes) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


def _but_for_itself(repo: Repo, place: bytes) -> tuple[str, ...]:
    """Returns patterns that leave repository and cache out where they lie inside a place: they change meanwhile."""
    above = os.path.realpath(place).rstrip(b"/") + b"/"
    own = (os.fsencode(repository_path(repo.backend.location)), os.path.realpath(os.fsencode(repo.cache_dir)))
    below = [os.fsdecode(path[len(above) :]) for path in own if path.startswith(above)]
    return tuple("/" + re.sub(r"([\\*?\[\] ])", r"\\\1", path) + "/" for path in below)
