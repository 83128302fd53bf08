"""What a restore reads trees by. The catalogue fits it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from respaldo.core.ids import ChunkId
from respaldo.core.model import Content
from respaldo.format.content import Row
from respaldo.format.tree import Leaf


class Trees(Protocol):
    """Reads directories and lists; raises `Corruption`, `ChunkMissing`, `StorageError`."""

    def leaves(self, tree_id: ChunkId, /) -> Iterator[Leaf]:
        """Yields a directory in the order of its names, a long one in runs."""
        ...

    def list_rows(self, content: Content, /) -> Iterator[Row]:
        """Yields the data chunks and holes of a file whose content is a list (level 1 and above)."""
        ...

    def data_bytes(self, content: Content, /) -> int:
        """Returns how many bytes of such a file are no holes, in a time that is bounded by what is stored of it."""
        ...
