"""Small objects made again under the newest epoch: configuration, log, checksums, what is left of pins and the trash.

Invariant: what says something is durable under the new key before it goes under the old. Catalogues repeat what stands
elsewhere, and go. Implements docs/format.md, "Re-encryption".
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection
from typing import Final

from respaldo.core.errors import Corruption, ObjectExists, ObjectMissing
from respaldo.core.ids import RANDOM_ID_BYTES
from respaldo.core.seams import Cancel
from respaldo.format.logbook import object_name, parse_name
from respaldo.format.snapshot import RECORD_BYTES_MAX
from respaldo.store.areas import renewed_name
from respaldo.store.census import take_census
from respaldo.store.markers import read_markers
from respaldo.store.repo import Repo

_FOLDERS: Final = ("config", "log", "sums", "verified", "pins", "trash", "catalogue", "enrolled")
OWNERS: Final = ("sums", "verified", "pins", "trash", "catalogue")
"""What only its owner writes in the area of a client: a log, made again, would be the owner's, who is believed."""


def renew_objects(repo: Repo, cancel: Cancel, folders: Collection[str] = _FOLDERS) -> int:
    """Makes small objects of earlier epochs again; returns how many."""
    census = take_census(repo.backend, repo.vault, folders, cancel.check)
    renewed = 0

    def each(folder: str, renew: Callable[[str], object]) -> None:
        nonlocal renewed
        for item in census.older_than(repo.epoch.number, folder):
            cancel.check()
            with contextlib.suppress(ObjectMissing, Corruption):  # what is damaged is others' to report
                renew(item.name)
                renewed += 1

    def again(kind: str, name: str, fresh: str, *, first: bool = True) -> None:
        raw = repo.vault.open_record(kind, name, repo.backend.get_whole(name, RECORD_BYTES_MAX))
        if not first:
            repo.backend.discard([name])
        with contextlib.suppress(ObjectExists):  # a run that was cut off has put it
            repo.backend.put(fresh, [repo.vault.seal_record(kind, fresh, raw)])
        if first:
            repo.backend.discard([name])

    config = census.older_than(repo.epoch.number, "config")
    if config:
        repo.configure(lambda now: now)
        repo.backend.discard(item.name for item in config)
        renewed += len(config)
    each("log", lambda name: again("log", name, _log_name(name, repo.epoch.number)))
    each("enrolled", lambda name: again("client", name, renewed_name(name, repo.epoch.number)))
    each("sums", lambda name: again("sums", name, "sums/" + repo.random(RANDOM_ID_BYTES).hex()))
    each("verified", lambda name: again("verified", name, "verified/" + repo.random(RANDOM_ID_BYTES).hex()))
    # Their names are all that matters of pins, and the moment without a record of the trash only shows a snapshot.
    each("pins", lambda name: again("pin", name, name, first=False))
    each("trash", lambda name: again("trash", name, name, first=False))
    repo.backend.discard(item.name for item in census.older_than(repo.epoch.number, "catalogue"))
    repo.backend.discard(read_markers(repo).stale)
    return renewed


def _log_name(name: str, epoch: int) -> str:
    parsed = parse_name(name)
    if parsed is None:
        raise ObjectMissing(name)
    return object_name(*parsed, epoch)
