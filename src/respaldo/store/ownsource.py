"""Chunks out, for a client that cannot read: what the session at work has stored itself, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

from respaldo.backend.base import Backend
from respaldo.core.errors import Corruption
from respaldo.core.ids import Kind, pack_object
from respaldo.store.index import Index
from respaldo.store.source import ChunkSource
from respaldo.store.vault import Vault


class OwnSource(ChunkSource):
    """Reads chunks of the packs that one session put. What others put it refuses without asking storage for it."""

    def __init__(
        self,
        *,
        backend: Backend,
        vault: Vault,
        index: Index,
        id_keys: dict[Kind, bytes],
        reload: Callable[[], None],
        session: Callable[[], bytes],
    ) -> None:
        super().__init__(backend=backend, vault=vault, index=index, id_keys=id_keys, reload=reload)
        self._session = session

    def block(self, pack: int, block: int, *, as_stored: bool = False) -> bytes:
        """Fetches a block of a pack of this session; raises `Corruption` for any other."""
        opened = self._opened(pack)
        if opened.footer.session != self._session():
            raise Corruption(pack_object(opened.name), "this client cannot read what an earlier run has written")
        return super().block(pack, block, as_stored=as_stored)
