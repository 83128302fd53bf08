"""Views that compare snapshots: every version of a file, and what changed from one snapshot to the next.

Computed when somebody looks, a directory at a time; directories with equal trees are looked at once, or not at all. A
directory that cannot be read has nothing to show here; in its snapshot, it is an error.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import tzinfo
from functools import partial

from respaldo.catalog.kinds import kind_of
from respaldo.catalog.snapshots import Snapshot
from respaldo.core.errors import ChunkMissing, Corruption
from respaldo.core.ids import ChunkId, SnapshotId
from respaldo.core.model import Entry
from respaldo.views.directories import Directories
from respaldo.views.layout import Folder, Inside, Names, Spec, Text, folder, time_name

DELETED = b"DELETED"
"""The name of the list of what a snapshot lacks that the one before it has."""
_ALL = 1 << 40

Found = tuple[Snapshot, ChunkId]
"""A directory as a snapshot has it."""


def versions(directories: Directories, snapshots: Sequence[Snapshot], zone: tzinfo) -> Folder:
    """Returns ``versions/``: all paths that any snapshot has, and as a directory of each file its distinct versions.

    A version is named by the time of the first snapshot that has it.
    """
    roots = _distinct((item, item.manifest.root) for item in snapshots)
    return Folder(children=partial(_names, directories, roots, zone))


def _distinct(found: Iterator[Found]) -> list[Found]:
    first: dict[ChunkId, Found] = {}
    for item in found:
        first.setdefault(item[1], item)
    return list(first.values())


def _names(directories: Directories, places: Sequence[Found], zone: tzinfo) -> Mapping[bytes, Spec]:
    names: dict[bytes, Spec] = {}
    for _, tree in places:
        try:
            rows = directories.rows(tree, 0, _ALL)
        except (ChunkMissing, Corruption):
            continue
        for name, *_ in rows:
            if name not in names:
                names[name] = Folder(children=partial(_versions, directories, places, name, zone))
    return names


def _versions(directories: Directories, places: Sequence[Found], name: bytes, zone: tzinfo) -> Mapping[bytes, Spec]:
    """Returns what stands below one name: versions of the file, entries of the directory that it is or once was."""
    below: list[Found] = []
    known: set[Entry] = set()
    shown: dict[bytes, Spec] = {}
    for snapshot, tree in places:
        try:
            found = directories.find(tree, name)
        except (ChunkMissing, Corruption):
            continue
        if found is None:
            continue
        entry = found[1]
        if entry.is_dir:
            below += [(snapshot, ChunkId(entry.content.ids))] if entry.content else []
        elif entry not in known:
            known.add(entry)
            when = time_name(snapshot.time_ns, zone)
            shown[when if when not in shown else when + b"_" + snapshot.hex[:8].encode()] = Inside(
                snapshot=snapshot, path=name, entry=entry
            )
    return {**_names(directories, _distinct(iter(below)), zone), **shown}


def incremental(directories: Directories, snapshots: Sequence[Snapshot], names: Names) -> Folder:
    """Returns ``incremental/``: of each snapshot that followed another, what changed since, and what was deleted."""
    by_id = {item.id: item for item in snapshots}
    last: dict[tuple[str, tuple[bytes, ...]], Snapshot] = {}
    found: dict[bytes, Spec] = {}
    for item in snapshots:
        manifest = item.manifest
        source = (manifest.host, manifest.sources)
        before = by_id.get(SnapshotId(manifest.parent)) or last.get(source)
        last[source] = item
        if before is not None and kind_of(manifest.kind, manifest.parent) == "incremental":
            found[names.of(item)] = Folder(
                children=partial(_changes, directories, item, before), snapshot=item.id, time_ns=item.time_ns
            )
    return folder(found)


def _changes(directories: Directories, after: Snapshot, before: Snapshot) -> Mapping[bytes, Spec]:
    deleted: list[bytes] = []
    changed = _changed(directories, after, b"", after.manifest.root, before.manifest.root, deleted.append)
    text = b"".join(path + b"\n" for path in deleted)
    return {**changed, DELETED: Text(content=text)}


def _changed(
    directories: Directories,
    after: Snapshot,
    path: bytes,
    now: ChunkId,
    old: ChunkId | None,
    delete: Callable[[bytes], None],
) -> dict[bytes, Spec]:
    """Returns what is new or other in a directory, down to what is equal; a directory that is new stands whole."""
    shown: dict[bytes, Spec] = {}
    try:
        entries = _entries(directories, now)
        earlier = _entries(directories, old) if old else {}
    except (ChunkMissing, Corruption):
        return shown
    for name, entry in entries.items():
        was = earlier.pop(name, None)
        if was == entry:
            continue
        where = path + b"/" + name
        if was is None or not (entry.is_dir and was.is_dir and entry.content):
            shown[name] = Inside(snapshot=after, path=where, entry=entry)
        elif entry.content != was.content:
            tree, tree_old = ChunkId(entry.content.ids), ChunkId(was.content.ids) if was.content else None
            shown[name] = folder(_changed(directories, after, where, tree, tree_old, delete))
        if was is not None and was.is_dir and not entry.is_dir:
            delete(where + b"/")
    for name, was in earlier.items():
        delete(path + b"/" + name + (b"/" if stat.S_ISDIR(was.mode) else b""))
    return shown


def _entries(directories: Directories, tree: ChunkId) -> dict[bytes, Entry]:
    return {entry.name: entry for entry in directories.entries(tree)}
