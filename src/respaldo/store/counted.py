"""The area of a client that was removed, without what it went on writing afterwards.

Whoever has a removed client's credential, and a way to its storage, can still put objects there. They are sealed under
runs that do not count, which the owner can open, and so tell from what is damaged: they are not listed. Nothing else is
hidden: what opens under no run of the client at all is damage, as everywhere. Implements docs/format.md, "Run".
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Final

from respaldo.backend.base import Backend, Listing, Names, Stage
from respaldo.backend.wrap import Wrapper
from respaldo.codec.seal import HEAD_BYTES, OVERHEAD_BYTES, Sealer
from respaldo.core.errors import Corruption, ObjectMissing
from respaldo.core.ids import PackName, parse_hash_leaf
from respaldo.format.header import HASH_BYTES
from respaldo.format.pack import TRAILER_BYTES
from respaldo.format.snapshot import RECORD_BYTES_MAX

_RECORDS: Final = {"pending": "manifest", "outcome": "outcome", "sessions": "marker", "log": "log"}
"""Kinds of what a session puts besides packs, by folder."""


class Counted(Wrapper):
    """Leaves what runs of no account wrote out of listings. ``removed``: opens what those sealed, and nothing else."""

    def __init__(self, inner: Backend, removed: Callable[[], Sealer | None]) -> None:
        super().__init__(inner)
        self._removed = removed
        self._decided: dict[str, bool] = {}
        self.known: Callable[[], Container[PackName]] = dict
        """Says which packs were opened before."""

    def stage(self, folder: str) -> Stage:
        return self.inner.stage(folder)

    def list(self, folder: str) -> Listing:
        hidden = self._hidden(folder)
        return [item for item in self.inner.list(folder) if not hidden(*item)]

    def names(self, folder: str) -> Names:
        hidden = self._hidden(folder)
        return [name for name in self.inner.names(folder) if not hidden(name)]

    def _hidden(self, folder: str) -> Callable[..., bool]:
        """Returns what says of an object of a folder, by name and perhaps length, whether it is to be hidden."""
        sealer = self._removed() if folder in _RECORDS or folder == "packs" else None
        if sealer is None:
            return lambda *_: False
        known = self.known()

        def hidden(name: str, length: int = 0) -> bool:
            found = self._decided.get(name)
            if found is None:
                try:
                    found = (
                        _is_packs(self.inner, name, length, known, sealer)
                        if folder == "packs"
                        else (_is_records(self.inner, name, _RECORDS[folder], sealer))
                    )
                except (ObjectMissing, Corruption):
                    return False
                self._decided[name] = found
            return found

        return hidden


def _is_packs(backend: Backend, name: str, length: int, known: Container[PackName], sealer: Sealer) -> bool:
    """Whether a pack that was never opened was sealed so, by its trailer."""
    pack = parse_hash_leaf(name.partition("/")[2])
    end = (length or backend.exists(name) or 0) - TRAILER_BYTES
    if pack is None or PackName(pack) in known or end < 0:
        return False
    head = backend.get(name, end, HEAD_BYTES)
    return sealer.ring_of("trailer", "", TRAILER_BYTES - OVERHEAD_BYTES, head) is not None


def _is_records(backend: Backend, name: str, kind: str, sealer: Sealer) -> bool:
    data = backend.get_whole(name, RECORD_BYTES_MAX)
    message = len(data) - HASH_BYTES - OVERHEAD_BYTES
    return message >= 0 and sealer.ring_of(kind, name, message, data[:HEAD_BYTES]) is not None
