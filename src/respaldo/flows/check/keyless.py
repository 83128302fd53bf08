"""The check without a key: every object's bytes against its name or its closing hash. Finds decay, not malice.

Needs no passphrase, so that whoever keeps the storage can run it. A few megabytes of an object at a time. Implements
docs/format.md, "Closing hash" and "Names".
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from respaldo.backend.base import FOLDERS, LOST_FOUND, Backend
from respaldo.codec.slots import SLOT_BYTES_MAX
from respaldo.core.errors import Corruption, NotARepository, ObjectMissing, StorageFailed, UnsupportedFormat
from respaldo.core.ids import parse_hash_leaf
from respaldo.core.seams import Cancel, Progress
from respaldo.flows.check.result import Damage, KeylessResult
from respaldo.format.catalogue import CATALOGUE_BYTES_MAX
from respaldo.format.header import HASH_BYTES, HEADER, HEADER_BYTES_MAX, MAGIC, parse_header
from respaldo.format.pack import PACK_BYTES_MAX
from respaldo.format.parity import SIDECAR_BYTES_MAX
from respaldo.format.segment import SEGMENT_BYTES_MAX
from respaldo.format.snapshot import RECORD_BYTES_MAX
from respaldo.store.mending import Mending

PIECE_BYTES = 4 << 20
_NAMED_BY_HASH = frozenset({"packs", "segments", "catalogue"})
_LENGTH_BYTES_MAX = {
    HEADER: HEADER_BYTES_MAX,
    "keys": SLOT_BYTES_MAX + HASH_BYTES,
    "packs": PACK_BYTES_MAX,
    "segments": SEGMENT_BYTES_MAX,
    "catalogue": CATALOGUE_BYTES_MAX,
    "parity": SIDECAR_BYTES_MAX,
}
"""What is longer is not read: storage may say that an object has any number of bytes."""


def run_keyless(backend: Backend, *, progress: Progress, cancel: Cancel) -> KeylessResult:
    """Checks every object; raises `NotARepository`, `Interrupted`, and errors of the storage as a whole."""
    length = backend.exists(HEADER)
    if length is None:
        raise NotARepository(backend.location, "it has no header")
    if length > HEADER_BYTES_MAX and backend.get(HEADER, 0, len(MAGIC)) != MAGIC:
        raise NotARepository(backend.location, "its header is not that of a repository")
    misplaced = {name for name, _ in backend.misplaced()}
    damages = [Damage(name=name, reason="something else stands where an object should be") for name in misplaced]
    damages.sort(key=lambda damage: damage.name)
    objects = [(HEADER, length)]
    for folder in sorted(FOLDERS - {LOST_FOUND}):
        try:
            objects += sorted(item for item in backend.list(folder) if item[0] not in misplaced)
        except Corruption as error:
            beside = f"the others of {folder} could not be listed beside it: {error.reason}"
            damages.append(Damage(name=error.name, reason=beside))
    for damage in damages:
        progress.note(-1, str(damage))
    progress.total(files=len(objects), length_bytes=sum(length for _, length in objects))
    mending = Mending(backend)
    read = checked = 0
    for name, length in objects:
        cancel.check()
        try:
            reason = _fault(backend, name, length, cancel)
        except ObjectMissing:
            reason = None  # it was deleted meanwhile
        except Corruption as error:
            reason = error.reason
        except StorageFailed as error:
            if backend.exists(HEADER) is None:
                raise
            reason = f"it cannot be read ({error.reason})"
        if reason is not None:
            checked += 1
            read += length
            if reason:
                damages.append(Damage(name=name, reason=reason, mendable=mending.mend(name)))
                progress.note(-1, str(damages[-1]))
        progress.advance(files=1, length_bytes=length)
    return KeylessResult(objects=checked, read_bytes=read, damages=tuple(damages))


def _fault(backend: Backend, name: str, length: int, cancel: Cancel) -> str | None:
    """Returns what is wrong with an object, empty where nothing is, None where its name means nothing."""
    folder, _, leaf = name.partition("/")
    expected = parse_hash_leaf(leaf) if folder in _NAMED_BY_HASH else None
    if folder in _NAMED_BY_HASH and expected is None:
        return None
    if length > _LENGTH_BYTES_MAX.get(folder, RECORD_BYTES_MAX):
        return f"it is {length} bytes long, more than such an object can be"
    if expected is not None:
        hasher = hashlib.sha256()
        for piece in _pieces(backend, name, length, cancel):
            hasher.update(piece)
        return "" if hasher.digest() == expected else "its bytes do not have its name"
    hasher = hashlib.sha256()
    for piece in _pieces(backend, name, max(0, length - HASH_BYTES), cancel):
        hasher.update(piece)
    closing = backend.get(name, length - HASH_BYTES, HASH_BYTES) if length >= HASH_BYTES else b""
    if hasher.digest() != closing:
        return "its closing hash does not fit its bytes"
    return _header_fault(backend) if name == HEADER else ""


def _header_fault(backend: Backend) -> str:
    try:
        parse_header(backend.get(HEADER, 0, HEADER_BYTES_MAX + 1), backend.location)
    except UnsupportedFormat:
        return ""
    except NotARepository as error:
        return error.reason
    return ""


def _pieces(backend: Backend, name: str, length: int, cancel: Cancel) -> Iterator[bytes]:
    for at in range(0, length, PIECE_BYTES):
        cancel.check()
        yield backend.get(name, at, min(PIECE_BYTES, length - at))
