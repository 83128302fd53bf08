"""The census: which objects are sealed under which epoch, told by their first bytes, without opening any.

A pack is of the epoch of its trailer, since it is written by one session under one key. Says nothing of whether the
rest of an object is sound. Implements docs/format.md, "Re-encryption".
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from respaldo.backend.base import Backend
from respaldo.codec.seal import HEAD_BYTES, OVERHEAD_BYTES
from respaldo.core.errors import Corruption, ObjectMissing
from respaldo.core.ids import PackName, pack_object
from respaldo.format.header import HASH_BYTES
from respaldo.format.pack import TRAILER_BYTES
from respaldo.store.several import read_several
from respaldo.store.vault import Vault

RECORDS: Final = {
    "config": "config",
    "pending": "manifest",
    "outcome": "outcome",
    "condemned": "condemnation",
    "sessions": "marker",
    "pins": "pin",
    "trash": "trash",
    "log": "log",
    "verified": "verified",
    "sums": "sums",
    "enrolled": "client",
}
"""The kinds of the records in folders."""
NAMED: Final = {"segments": "segment", "catalogue": "catalogue"}
FOLDERS: Final = (*RECORDS, *NAMED, "packs")
"""All that is sealed under the master key of an epoch, but for slots and the records of epochs themselves."""
_TRAILER_LENGTH: Final = 16


class Sealed(NamedTuple):
    """Is an object: its name and its length."""

    name: str
    length_bytes: int


@dataclass(slots=True)
class Census:
    """Is the objects of each folder by epoch; ``unknown``: those that no key in use was used for, or are damaged."""

    by_epoch: dict[int, dict[str, list[Sealed]]] = field(default_factory=dict)
    unknown: list[Sealed] = field(default_factory=list)

    def older_than(self, epoch: int, folder: str) -> list[Sealed]:
        """Returns the objects of a folder that are of earlier epochs."""
        return [item for number, found in self.by_epoch.items() if number < epoch for item in found.get(folder, ())]


def take_census(
    backend: Backend, vault: Vault, folders: Collection[str] = FOLDERS, check: Callable[[], object] = lambda: None
) -> Census:
    """Lists folders and looks at the first bytes of each object. ``check`` is called now and then, and may raise."""
    census = Census()
    for folder in folders:
        objects = [Sealed(*item) for item in sorted(backend.list(folder))]
        for item, epoch in epochs_of(backend, vault, folder, objects):
            check()
            if isinstance(epoch, ObjectMissing):
                continue
            if isinstance(epoch, int):
                census.by_epoch.setdefault(epoch, {}).setdefault(folder, []).append(item)
            else:
                census.unknown.append(item)
    return census


def epochs_of(
    backend: Backend, vault: Vault, folder: str, objects: Sequence[Sealed]
) -> Iterator[tuple[Sealed, int | Corruption | ObjectMissing | None]]:
    """Yields objects of a folder, each with its epoch; None for one that no key in use was used for."""
    return read_several(lambda item: _epoch_of(backend, vault, folder, item), objects)


def _epoch_of(backend: Backend, vault: Vault, folder: str, item: Sealed) -> int | None:
    kind, name, at = RECORDS.get(folder, ""), item.name, 0
    length = item.length_bytes - OVERHEAD_BYTES - HASH_BYTES
    if folder in NAMED:
        kind, name, length = NAMED[folder], "", item.length_bytes - OVERHEAD_BYTES
    elif folder == "packs":
        kind, name, length, at = "trailer", "", _TRAILER_LENGTH, item.length_bytes - TRAILER_BYTES
    if length < 0 or at < 0:
        return None
    ring = vault.sealer.ring_of(kind, name, length, backend.get(item.name, at, HEAD_BYTES))
    return None if ring is None else ring.epoch


def packs_under(
    epochs: Collection[int],
    backend: Backend,
    vault: Vault,
    packs: Mapping[PackName, int],
    known: dict[PackName, int],
) -> set[PackName]:
    """Returns which of some packs (with their lengths) are of some epochs. ``known``: what was found out before."""
    fresh = {pack_object(name): name for name in packs if name not in known}
    objects = [Sealed(what, packs[name]) for what, name in fresh.items()]
    for item, epoch in epochs_of(backend, vault, "packs", objects):
        if isinstance(epoch, int):
            known[fresh[item.name]] = epoch
    return {name for name in packs if known.get(name) in epochs}
