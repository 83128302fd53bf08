"""The newest state of each source, every source at its own path, as a directory of a mount.

A source inside another one stands in that one, where it is newer, or where the other has nothing: a disk that was not
crossed, a directory that was left out. Where several machines have a source of the same path, the newest of all is
shown, and within it what that machine has. The directories on the way from one to the other are made up, with the
attributes of those that they stand for. Where a manifest is damaged nothing is shown: what it hides may be newer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from respaldo.catalog.snapshots import Snapshot, ordinary
from respaldo.core.errors import Corruption
from respaldo.core.model import Entry
from respaldo.views.directories import Directories
from respaldo.views.layout import Folder, Inside, Spec, folder
from respaldo.views.walk import tree_of

Sources = Mapping[bytes, Snapshot]
"""By path, the snapshot that has the newest state of it."""


def latest(directories: Directories, snapshots: Sequence[Snapshot]) -> Spec:
    """Returns the newest snapshot of each source; ``snapshots`` by time.

    What a restore put away for safety is nobody's newest.
    """
    newest: dict[bytes, Snapshot] = {}
    of_host: dict[tuple[str, bytes], Snapshot] = {}
    for item in ordinary(snapshots):  # the last one counts
        for source in item.manifest.sources:
            newest[source] = of_host[item.manifest.host, source] = item
    shown: dict[bytes, Spec] = {}
    for source, item in newest.items():
        if any(other in newest for other in _above(source)):
            continue
        inner = {
            other: found
            for (host, other), found in of_host.items()
            if host == item.manifest.host and source in _above(other)
        }
        shown[source] = _over(directories, item, source, inner)
    if b"/" in shown:
        return shown[b"/"]
    return folder(_nested(shown, b""), snapshots[-1].time_ns if snapshots else 0)


def unknown(error: Corruption) -> Spec:
    """Returns what stands for the newest where nobody knows which it is: a directory that can only be an error.

    One of the snapshots that cannot be read may be it, and an older one would be taken for it.
    """

    def children() -> Mapping[bytes, Spec]:
        raise Corruption(error.name, error.reason)

    return Folder(children=children)


def _above(path: bytes) -> list[bytes]:
    """Returns the directories above a path, the root included."""
    parts = path.split(b"/")[1:]
    return [] if path == b"/" else [b"/" + b"/".join(parts[:count]) for count in range(len(parts))]


def _nested(shown: Mapping[bytes, Spec], above: bytes) -> Mapping[bytes, Spec]:
    groups: dict[bytes, dict[bytes, Spec]] = {}
    found: dict[bytes, Spec] = {}
    for path, spec in shown.items():
        name, _, rest = path[len(above) + 1 :].partition(b"/")
        if rest:
            groups.setdefault(name, {})[path] = spec
        else:
            found[name] = spec
    for name, group in groups.items():
        found[name] = folder(_nested(group, above + b"/" + name))
    return found


def _over(directories: Directories, item: Snapshot, path: bytes, inner: Sources) -> Spec:
    """Returns a directory of a snapshot, with other sources in their places somewhere in it."""
    base = Inside(snapshot=item, path=path)
    if not inner:
        return base
    last = max([item, *inner.values()], key=lambda found: found.time_ns)
    return Folder(children=partial(_children, directories, base, inner), snapshot=last.id, like=base)


def _children(directories: Directories, base: Inside, inner: Sources) -> Mapping[bytes, Spec]:
    entry = directories.at(base.snapshot, base.path)
    tree = None if entry is None else tree_of(entry)
    entries: Mapping[bytes, Entry] = {} if tree is None else {item.name: item for item in directories.entries(tree)}
    above = base.path.rstrip(b"/") + b"/"
    shown: dict[bytes, Spec] = {
        name: Inside(snapshot=base.snapshot, path=above + name, entry=item) for name, item in entries.items()
    }
    groups: dict[bytes, dict[bytes, Snapshot]] = {}
    for source, item in inner.items():
        groups.setdefault(source[len(above) :].partition(b"/")[0], {})[source] = item
    for name, group in groups.items():
        path = above + name
        there = entries.get(name)
        empty = there is None or (there.is_dir and tree_of(there) is None)
        newer = group.pop(path, None)
        if newer is not None and (empty or newer.time_ns > base.snapshot.time_ns):
            shown[name] = _over(directories, newer, path, group)
        elif group and empty:
            specs = {source: _over(directories, item, source, {}) for source, item in group.items()}
            shown[name] = folder(_nested(_outermost(specs), path))
        elif group and there is not None and there.is_dir:
            shown[name] = _over(directories, base.snapshot, path, group)
    return shown


def _outermost(specs: Mapping[bytes, Spec]) -> Mapping[bytes, Spec]:
    return {path: spec for path, spec in specs.items() if not any(other in specs for other in _above(path))}
