"""Chunks of a repository for the flows that read content: the store's source, and a way to look again."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from respaldo.backend.base import AREAS
from respaldo.catalog.gathered import Gathered
from respaldo.catalog.trees import TreeReader
from respaldo.core.errors import StorageFailed
from respaldo.core.ids import ChunkId, Kind
from respaldo.core.model import Entry
from respaldo.core.seams import Buffer
from respaldo.store.header import still_there
from respaldo.store.repo import Repo
from respaldo.store.source import FETCHED_AT_ONCE, OPENED_AT_ONCE, Location, Run

if TYPE_CHECKING:
    from respaldo.api.naming import Found
    from respaldo.flows.restore.begin import Restore
    from respaldo.flows.restore.options import RestoreOptions
    from respaldo.flows.restore.seams import Trees


class Blocks:
    """Finds, fetches and checks chunks; `refresh` brings the index up to date where a pack has gone meanwhile.

    `locate` and `refresh` belong to one thread; `block` and `check` may be called by many.
    """

    def __init__(self, repo: Repo) -> None:
        self._repo = repo

    @property
    def at_once(self) -> int:
        """How many blocks are to be under way at once."""
        return FETCHED_AT_ONCE if self._repo.backend.distant else OPENED_AT_ONCE

    def locate(self, kind: Kind, chunk_id: ChunkId, /) -> Location:
        """Returns where a chunk lies; raises `ChunkMissing`."""
        return self._repo.source.locate(kind, chunk_id)

    def locate_each(self, ids: bytes, /) -> list[Location | None]:
        """Returns where each of some chunks (32 bytes an id, joined) lies, None for one that no pack holds."""
        return self._repo.source.locate_each(ids)

    def locate_runs(self, ids: bytes, /) -> list[Run]:
        """Returns where some chunks (32 bytes an id, joined) lie, in their order, as runs of one block each."""
        return self._repo.source.locate_runs(ids)

    def block(self, pack: int, block: int, /) -> bytes:
        """Fetches, opens and decompresses a block."""
        return self._repo.source.block(pack, block)

    def check(self, kind: Kind, chunk_id: ChunkId, raw: Buffer, /) -> None:
        """Raises `Corruption` unless the bytes have the id."""
        self._repo.source.check(kind, chunk_id, raw)

    def copy(self, kind: Kind, chunk_id: ChunkId, /) -> bytes:
        """Returns a chunk from whichever pack holds it sound; raises `Corruption`, `ChunkMissing`."""
        return self._repo.source.get(kind, chunk_id)

    def still_there(self, error: StorageFailed, /) -> None:
        """Raises an error again where not one object but the storage as a whole has failed."""
        still_there(self._repo.backend, error)

    def damaged(self, pack: int, ids: Iterable[ChunkId], /) -> None:
        """Remembers chunks that are damaged where they lie: no backup of this machine relies on them any more."""
        self._repo.spoilt.note_chunks(pack, ids)

    def refresh(self) -> None:
        """Looks again which packs there are."""
        self._repo.source.forget_positions()
        self._repo.synchronise(lenient=True)


def trees_below(repo: Repo, entry: Entry) -> TreeReader:
    """Returns what reads trees for whoever is about to go through all of a directory."""
    gathered = Gathered(repo.source, repo.source, repo.source.reopened)
    if entry.is_dir:
        gathered.expect(entry.content)
    return TreeReader(gathered)


def restore_of(repo: Repo, trees: Trees, found: Found, target: bytes, options: RestoreOptions) -> Restore:
    """Returns what the flow needs to know of one restore."""
    from respaldo.flows.restore.begin import Restore  # noqa: PLC0415 - start-up time

    return Restore(
        blocks=Blocks(repo),
        trees=trees,
        manifest=found.snapshot.manifest,
        entry=found.entry,
        path=found.path,
        target=target,
        options=options,
        own=frozenset(_places(repo.backend.location)),
    )


def _places(location: str) -> Iterator[tuple[int, int]]:
    """Yields device and inode of a repository's directory; of an area's, and of that of the repository it lies in."""
    above, folder = os.path.split(os.path.dirname(os.path.abspath(location)))
    for place in (location, above) if folder == AREAS else (location,):
        with contextlib.suppress(OSError):
            found = os.stat(place)
            yield found.st_dev, found.st_ino
