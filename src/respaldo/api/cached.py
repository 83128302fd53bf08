"""Names of snapshots out of the local cache, for completion: no key is needed, and of the storage only the header."""

from __future__ import annotations

import contextlib
from functools import cached_property

from respaldo.api.naming import ID_SHOWN
from respaldo.api.places import Places
from respaldo.backend.open import open_backend
from respaldo.catalog.decided import Decided, cached
from respaldo.catalog.kinds import kind_of
from respaldo.catalog.labels import shared_labels, shown_label
from respaldo.core.errors import Corruption
from respaldo.core.ids import SnapshotId
from respaldo.format.snapshot import Manifest, parse_manifest
from respaldo.store.header import read_header
from respaldo.store.index import Index


def cached_snapshots(location: str, *, places: Places) -> list[tuple[str, str]]:
    """Returns (id or label, sources) of the snapshots that this machine has seen, the newest first."""
    found = _load(location, places)
    shared = shared_labels(found)
    names = []
    for item in sorted(found, key=lambda item: (item.time_ns, item.id), reverse=True):
        try:
            about = b" ".join(item.manifest.sources).decode("utf-8", "replace")
            label = shown_label(item, shared)
        except Corruption:
            continue
        names += [(name, about) for name in (item.id.hex()[:ID_SHOWN], label) if name]
    return names


def cached_conditions(location: str, *, places: Places) -> list[str]:
    """Returns conditions that snapshots this machine has seen fulfil: ``kind=full``, ``host=web``, ``tag=x``."""
    found = {"verified", "complete"}
    for item in _load(location, places):
        with contextlib.suppress(Corruption):
            manifest = item.manifest
            found |= {f"kind={kind_of(manifest.kind, manifest.parent)}", f"host={manifest.host}"}
            found |= {f"tag={tag}" for tag in manifest.tags}
    return sorted(item.replace(",", "\\,") for item in found)


def _load(location: str, places: Places) -> list[_Cached]:
    with open_backend(location) as backend:
        path = places.cache_dir / read_header(backend).repository.hex() / "index"
    if not path.is_dir():
        return []
    index = Index(path)
    try:
        return [_Cached(snapshot, entry) for snapshot, entry in cached(index) if entry.committed]
    finally:
        index.close()


class _Cached:
    """Is a snapshot as the cache holds it."""

    def __init__(self, snapshot: SnapshotId, entry: Decided) -> None:
        self.id = snapshot
        self.time_ns = entry.time_ns
        self.encoded = entry.manifest

    @cached_property
    def manifest(self) -> Manifest:
        return parse_manifest(self.encoded, self.id.hex())
