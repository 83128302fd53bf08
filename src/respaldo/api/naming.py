"""Names of snapshots with paths: what ``latest:/home/ana`` means.

Invariant: a path that is gone from the snapshot a name means is an error that says which snapshot last held it; an
older snapshot is never taken silently. Symbolic links on the way are not followed: a path is the one that was recorded.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from respaldo.catalog.selectors import ID_SHOWN, Context, Selector, choose, covers, plain_path
from respaldo.catalog.snapshots import Catalogue, Snapshot
from respaldo.catalog.trees import TreeReader
from respaldo.core.errors import ChunkMissing, Corruption, NoSuchPath, NoSuchSnapshot
from respaldo.core.model import Content, Entry, Mark
from respaldo.views.walk import Failed, tree_of
from respaldo.views.walk import walk as below

__all__ = ["ID_SHOWN", "Found", "covers", "find_entry", "plain_path", "resolve", "split_name", "walk"]

_HOSTS_SHOWN = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Is what a name with a path means. ``path`` is absolute as recorded, ``/`` for the whole snapshot."""

    snapshot: Snapshot
    path: bytes
    entry: Entry
    selector: Selector | None = None
    """How it was named, unless by its id or label."""


def split_name(name: str) -> tuple[str, bytes | None]:
    """Splits ``SNAPSHOT:/PATH`` at the first ``:/``; returns the path absolute and plain, None where there is none."""
    snapshot, separator, path = name.partition(":/")
    if not separator:
        return name, None
    return snapshot, plain_path(path)


def lies_above(snapshot: Snapshot, path: bytes) -> bool:
    """Whether one of a snapshot's sources lies below the path."""
    return any(source.startswith(path.rstrip(b"/") + b"/") for source in snapshot.manifest.sources)


def root_entry(snapshot: Snapshot) -> Entry:
    """Returns the entry that stands for ``/``."""
    content = Content(ids=snapshot.manifest.root)
    mark = Mark.LOST if snapshot.manifest.root_lost else Mark.PARTIAL
    return Entry(name=b"", mode=stat.S_IFDIR | 0o755, content=content, mark=mark)


def find_entry(trees: TreeReader, snapshot: Snapshot, path: bytes) -> Entry | None:
    """Returns the entry of a recorded path."""
    entry = root_entry(snapshot)
    for name in path.split(b"/"):
        if not name:
            continue
        tree = tree_of(entry)
        found = None if tree is None else trees.find(tree, name)
        if found is None:
            return None
        entry = found
    return entry


def resolve(catalogue: Catalogue, trees: TreeReader, name: str, context: Context, *, host: str = "") -> Found:
    """Returns what a name means; raises `NoSuchSnapshot`, `NoSuchPath`, and `Corruption` as `Catalogue.find` does.

    ``host`` leaves the others' snapshots aside, but not damaged ones: they may be this one's.
    """
    snapshots = tuple(item for item in catalogue.snapshots if not host or item.manifest.host == host)
    if host and not snapshots and catalogue.snapshots:
        hosts = sorted({item.manifest.host for item in catalogue.snapshots})[:_HOSTS_SHOWN]
        raise NoSuchSnapshot(name, f"no snapshot is of host {host}", hint=f"there are some of {', '.join(hosts)}")
    trash = tuple(item for item in catalogue.trash if not host or item.manifest.host == host)
    catalogue = Catalogue(snapshots=snapshots, undecided=(), damaged=catalogue.damaged, trash=trash)
    wanted, path = split_name(name)
    path = path or b"/"
    tests: tuple[Callable[[Snapshot], bool], ...] = ()
    if path != b"/":
        tests = (lambda item: covers(item, path), lambda item: lies_above(item, path))
    where = ":" + path.decode("utf-8", "surrogateescape")
    chosen = choose(catalogue, wanted, context, tests=tests, where=where)
    snapshot = chosen.snapshot
    entry = find_entry(trees, snapshot, path)
    if entry is None:
        last = next(_holding(trees, reversed(snapshots), path, snapshot), None)
        raise NoSuchPath(path, snapshot.hex[:ID_SHOWN], last_in=last.hex[:ID_SHOWN] if last else "")
    return Found(snapshot=snapshot, path=path, entry=entry, selector=chosen.selector)


def _holding(trees: TreeReader, snapshots: Iterable[Snapshot], path: bytes, but: Snapshot) -> Iterator[Snapshot]:
    for snapshot in snapshots:
        try:
            if snapshot.id != but.id and covers(snapshot, path) and find_entry(trees, snapshot, path) is not None:
                yield snapshot
        except (ChunkMissing, Corruption):
            continue


def walk(
    trees: TreeReader, found: Found, *, recursive: bool, failed: Failed | None = None
) -> Iterator[tuple[bytes, Entry]]:
    """Yields (path, entry) of what is in a directory, everything below it if ``recursive``; of a file, itself.

    ``failed``: as for `respaldo.views.walk.walk`.
    """
    if not found.entry.is_dir:
        yield found.path, found.entry
        return
    yield from below(trees, found.entry, found.path.rstrip(b"/") + b"/", recursive=recursive, failed=failed)
