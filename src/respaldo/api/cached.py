"""Names of snapshots out of the local cache, for completion: no key is needed, and of the storage only the header."""

from __future__ import annotations

from respaldo.api.naming import ID_SHOWN
from respaldo.api.places import Places
from respaldo.backend.open import open_backend
from respaldo.core.errors import Corruption
from respaldo.format import canonical
from respaldo.format.snapshot import Manifest, parse_manifest
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
        found = []
        for name in index.record_names():
            manifest = _manifest(name, index.record(name)) if name.startswith("pending/") else None
            if manifest is not None:
                found.append((manifest.time_ns, name.partition("/")[2], manifest))
    finally:
        index.close()
    names = []
    for _, snapshot, manifest in sorted(found, key=lambda item: item[:2], reverse=True):
        about = b" ".join(manifest.sources).decode("utf-8", "replace")
        names += [(name, about) for name in (snapshot[:ID_SHOWN], manifest.label) if name]
    return names


def _manifest(name: str, record: bytes | None) -> Manifest | None:
    try:
        match canonical.unpack(record or b"", name):
            case ["commit", bytes(raw)]:
                return parse_manifest(raw, name)
    except Corruption:
        pass
    return None
