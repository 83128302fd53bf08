"""Sidecars of a whole repository: which objects have one, the missing ones made, the orphaned ones swept.

Invariant: a sidecar is made only of an object whose bytes have the hash that they should have. Sidecars are listed
before objects: one whose object is not in the later listing is of an object that is gone. Objects without a sidecar
are no damage. Implements docs/format.md, "Parity".
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from respaldo.backend.base import HEADER, Backend
from respaldo.codec import parity as code
from respaldo.core.errors import Corruption, ObjectExists, ObjectMissing, StorageFailed, StorageFull
from respaldo.format.parity import OBJECT_BYTES_MAX
from respaldo.store.parity import COVERED, FOLDER, is_sound, make_sidecar, object_name, sidecar_bytes, sidecar_name

_BATCH = 1000


@dataclass(slots=True, kw_only=True)
class Coverage:
    """Is what has parity and what has not: objects by name with their sizes, sidecars likewise."""

    objects: dict[str, int] = field(default_factory=dict)
    sidecars: dict[str, int] = field(default_factory=dict)
    missing: dict[str, int] = field(default_factory=dict)
    """Objects without a sidecar, or with one of another share."""
    orphans: tuple[str, ...] = ()
    """Sidecars whose objects are gone."""

    @property
    def sidecar_bytes(self) -> int:
        """How much parity takes."""
        return sum(self.sidecars.values())

    @property
    def object_bytes(self) -> int:
        """How much it is for."""
        return sum(self.objects.values())


def survey(backend: Backend, share: int) -> Coverage:
    """Lists objects and sidecars; ``share`` in thousandths, 0 where any sidecar will do."""
    found = Coverage(sidecars=dict(backend.list(FOLDER)))
    length = backend.exists(HEADER)
    if length is not None:
        found.objects[HEADER] = length
    for folder in COVERED:
        for name, length in backend.list(folder):
            if sidecar_name(name) is not None:
                found.objects[name] = length
    for name, length in found.objects.items():
        has = found.sidecars.get(sidecar_name(name) or "")
        if 0 < length <= OBJECT_BYTES_MAX and (has is None or (share and has != sidecar_bytes(name, length, share))):
            found.missing[name] = length
    there = found.objects
    found.orphans = tuple(name for name in found.sidecars if (object_name(name) or name) not in there)
    return found


def sweep(backend: Backend) -> int:
    """Deletes sidecars whose objects are gone, the header's aside; returns how many."""
    if not backend.list(FOLDER):
        return 0
    orphans = survey(backend, 0).orphans
    return backend.discard(name for name in orphans if object_name(name) not in {None, HEADER})


def remove_all(backend: Backend) -> int:
    """Deletes every sidecar; returns how many there were."""
    names = [name for name, _ in backend.list(FOLDER)]
    return sum(backend.discard(names[at : at + _BATCH]) for at in range(0, len(names), _BATCH))


@dataclass(slots=True, kw_only=True)
class Filled:
    """Counts the sidecars that were made; ``unsound`` names objects that are damaged, of which none can be made."""

    made: int = 0
    made_bytes: int = 0
    unsound: list[str] = field(default_factory=list)


def fill(backend: Backend, share: int, names: Iterable[str], step: Callable[[str, int], None]) -> Filled:
    """Makes the sidecars of objects that are sound; ``step`` is told each name and size, and may raise to stop.

    Goes on where it was cut off: what has a sidecar is not among the names next time. Raises `UsageError` where the
    library is missing, and errors of storage.
    """
    done = Filled()
    for name in names:
        made = _make(backend, share, name)
        if made is None:
            done.unsound.append(name)
        elif made:
            done.made += 1
            done.made_bytes += made
        step(name, made or 0)
    return done


def _make(backend: Backend, share: int, name: str) -> int | None:
    """Makes a sidecar; returns its size, 0 where the object is gone, None where the object is damaged."""
    beside = sidecar_name(name)
    try:
        data = backend.get_whole(name, OBJECT_BYTES_MAX)
    except ObjectMissing:
        return 0
    except (Corruption, StorageFailed):
        return None
    if beside is None or not is_sound(name, data):
        return None
    sidecar = make_sidecar(name, data, share)
    try:
        backend.put(beside, [sidecar])
    except ObjectExists:
        with contextlib.suppress(ObjectMissing):
            backend.replace(beside, [sidecar])
    if backend.exists(name) is None:  # deleted meanwhile: a key slot must not live on in a copy
        backend.discard([beside])
        return 0
    return len(sidecar)


def catch_up(backend: Backend, share: int, check: Callable[[], None] = lambda: None) -> int:
    """Makes the sidecars that are missing, as far as storage has room and the library is here; returns how many.

    ``check`` is called between two of them, and may raise.
    """
    if not share or not code.is_available():
        return 0
    made = 0

    def step(_name: str, length_bytes: int) -> None:
        nonlocal made
        made += bool(length_bytes)
        check()

    with contextlib.suppress(StorageFull):
        fill(backend, share, survey(backend, share).missing, step)
    return made
