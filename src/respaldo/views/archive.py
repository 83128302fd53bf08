"""Archives: a directory of a snapshot as one stream of members.

Members are named relative to the directory (``./a``). It comes first itself, so that its attributes are not lost; but
not the root of a whole snapshot, which is nobody's. Two runs over one snapshot give the same members in the same order.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Protocol

from respaldo.catalog.trees import TreeReader
from respaldo.core.model import Entry
from respaldo.core.seams import Progress
from respaldo.format.snapshot import Manifest
from respaldo.views.content import Contents
from respaldo.views.tar import Tar
from respaldo.views.walk import walk


class Archive(Protocol):
    """Takes members."""

    def add(self, name: bytes, entry: Entry) -> str:
        """Appends an entry under a name; returns "", or why it is left out."""
        ...

    def finish(self) -> None:
        """Ends the archive."""
        ...


def about(manifest: Manifest, path: bytes) -> bytes:
    """Returns what an archive says of the snapshot it was made of, so that an import knows; ASCII."""
    value = {
        "respaldo": 1,
        "path": path.decode("utf-8", "surrogateescape"),
        "sources": [source.decode("utf-8", "surrogateescape") for source in manifest.sources],
        "time_ns": manifest.time_ns,
        "host": manifest.host,
        "user": manifest.user,
        "kind": manifest.kind,
        "label": manifest.label,
        "reason": manifest.reason,
        "tags": list(manifest.tags),
    }
    return json.dumps(value, sort_keys=True).encode("ascii")


def write_tar(
    trees: TreeReader,
    contents: Contents,
    top: Entry,
    write: Callable[[bytes], object],
    progress: Progress,
    comment: bytes = b"",
) -> tuple[int, int]:
    """Writes a directory, or one file, as a tar archive; returns the number of members and of entries left out."""
    archive = Tar(write, contents)
    if comment:
        archive.comment(comment)
    return fill(archive, trees, top, progress)


def fill(archive: Archive, trees: TreeReader, top: Entry, progress: Progress) -> tuple[int, int]:
    """Puts a directory, or one file, into an archive and ends it; returns how many members and how many left out.

    Says of each that is left out why.
    """
    members = left_out = 0

    def add(name: bytes, entry: Entry) -> None:
        nonlocal members, left_out
        progress.at(name)
        why = archive.add(name, entry)
        if why:
            progress.note(-1, f"left out: {why}", name)
            left_out += 1
        else:
            members += 1
            progress.advance(files=1, length_bytes=entry.size if entry.is_regular else 0)

    if not top.is_dir:
        add(top.name, top)
    elif top.name:
        add(b".", top)
    if top.is_dir:
        for path, entry in walk(trees, top, b"./" if top.name else b""):
            add(path, entry)
    archive.finish()
    return members, left_out
