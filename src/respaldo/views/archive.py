"""Archives: a directory of a snapshot as one stream of members.

Members are named relative to the directory (``./a``). It comes first itself, so that its attributes are not lost; but
not the root of a whole snapshot, which is nobody's. Two runs over one snapshot give the same members in the same order.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from respaldo.catalog.trees import TreeReader
from respaldo.core.errors import ChunkMissing, Corruption, StorageFailed
from respaldo.core.model import Entry, Mark
from respaldo.core.seams import Progress
from respaldo.format.snapshot import Manifest
from respaldo.views.content import WITHOUT_CONTENT, Contents
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


@dataclass(slots=True, kw_only=True)
class Filled:
    """Counts what is in an archive, and what was left out: because it cannot be in it, was lost, or is damaged."""

    members: int = 0
    left_out: int = 0
    damaged: int = 0


def fill(archive: Archive, trees: TreeReader, contents: Contents, top: Entry, progress: Progress) -> Filled:
    """Puts a directory, or one file, into an archive and ends it.

    Says of each entry that is left out why, and goes on. Raises `Corruption`, `ChunkMissing` or `StorageError` where
    damage shows in the middle of a file: what was written by then cannot be taken back.
    """
    filled = Filled()

    def without(name: bytes, why: str, *, damaged: bool) -> None:
        progress.note(-1, f"left out: {why}", name)
        filled.damaged += damaged
        filled.left_out += not damaged

    def failed(path: bytes, error: Corruption | ChunkMissing, lost: bool) -> None:  # noqa: FBT001 - walk's callback
        why = WITHOUT_CONTENT[Mark.LOST] if lost else str(error)
        without(path or b".", f"what is in it, or some of it: {why}", damaged=not lost)

    def found() -> Iterator[tuple[bytes, Entry]]:
        if top.name:
            yield (b"." if top.is_dir else top.name), top
        if top.is_dir:
            yield from walk(trees, top, b"./" if top.name else b"", failed=failed)

    for name, entry, error in contents.members(found()):
        progress.at(name)
        if error is not None:
            if isinstance(error, StorageFailed):
                raise error
            without(name, str(error), damaged=True)
            continue
        why = archive.add(name, entry)
        if why:
            without(name, why, damaged=False)
        else:
            filled.members += 1
            progress.advance(files=1, length_bytes=entry.size if entry.is_regular else 0)
    archive.finish()
    return filled
