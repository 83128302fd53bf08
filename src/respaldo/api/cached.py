"""Names of snapshots out of the local cache, for completion: no key is needed, and of the storage only the header."""

from __future__ import annotations

from respaldo.api.naming import ID_SHOWN
from respaldo.api.places import Places
from respaldo.backend.open import open_backend
from respaldo.catalog.decided import cached
from respaldo.core.errors import Corruption
from respaldo.format.snapshot import parse_manifest
from respaldo.store.index import Index
from respaldo.store.repo import read_header


def cached_snapshots(location: str, *, places: Places) -> list[tuple[str, str]]:
    """Returns (id or label, sources) of the snapshots that this machine has seen, the newest first."""
    with open_backend(location) as backend:
        path = places.cache_dir / read_header(backend).repository.hex() / "index"
    if not path.is_dir():
        return []
    index = Index(path)
    try:
        found = [
            (entry.time_ns, snapshot.hex(), entry.manifest) for snapshot, entry in cached(index) if entry.committed
        ]
    finally:
        index.close()
    names = []
    for _, snapshot, encoded in sorted(found, reverse=True):
        try:
            manifest = parse_manifest(encoded, snapshot)
        except Corruption:
            continue
        about = b" ".join(manifest.sources).decode("utf-8", "replace")
        names += [(name, about) for name in (snapshot[:ID_SHOWN], manifest.label) if name]
    return names
