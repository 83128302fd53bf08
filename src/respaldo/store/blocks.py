"""What whoever reads content reads from: chunks, found, fetched in blocks, and checked.

The façade puts an open repository behind it (`respaldo.api.blocks`), tests put a model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from respaldo.core.errors import StorageFailed
from respaldo.core.ids import ChunkId, Kind
from respaldo.core.seams import Buffer


class Location(Protocol):
    """Says where a chunk lies: in which pack and block, and at which bytes of the block."""

    @property
    def pack(self) -> int: ...
    @property
    def block(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def length(self) -> int: ...


class Run(Protocol):
    """Is chunks one behind the other in a block of a pack; ``pack`` is negative where no pack holds them."""

    @property
    def pack(self) -> int: ...
    @property
    def block(self) -> int: ...
    @property
    def spans(self) -> Sequence[tuple[int, int]]:
        """Offset and length of each in the block's bytes."""
        ...


class Blocks(Protocol):
    """Finds, fetches and checks chunks. `block` and `check` are called by several threads at once."""

    @property
    def at_once(self) -> int:
        """How many calls of `block` are to be under way at once."""
        ...

    def locate(self, kind: Kind, chunk_id: ChunkId, /) -> Location:
        """Returns where a chunk lies; raises `ChunkMissing`."""
        ...

    def locate_each(self, ids: bytes, /) -> Sequence[Location | None]:
        """Returns where each of some data chunks (32 bytes an id, joined) lies, None for one that no pack holds."""
        ...

    def locate_runs(self, ids: bytes, /) -> Sequence[Run]:
        """Returns where some data chunks (32 bytes an id, joined) lie, in their order."""
        ...

    def block(self, pack: int, block: int, /) -> bytes:
        """Fetches, opens and decompresses a block; raises `Corruption`, `StorageError`."""
        ...

    def check(self, kind: Kind, chunk_id: ChunkId, raw: Buffer, /) -> None:
        """Raises `Corruption` unless the bytes have the id."""
        ...

    def copy(self, kind: Kind, chunk_id: ChunkId, /) -> bytes:
        """Returns a chunk from whichever pack holds it sound; raises `Corruption`, `ChunkMissing`, `StorageError`."""
        ...

    def still_there(self, error: StorageFailed, /) -> None:
        """Raises an error again where not one object but the storage as a whole has failed."""
        ...

    def damaged(self, pack: int, ids: Iterable[ChunkId], /) -> None:
        """Takes note of chunks that are damaged where they lie."""
        ...

    def refresh(self) -> None:
        """Looks again which packs there are, because one has gone."""
        ...
