"""How a repository is opened: the backend of its location, its wrappers, its pinned header, its log.

Where nothing is to be written, the storage is opened for reading only, so that a repository on a read-only mount works.
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

from respaldo.api.history import Rollback
from respaldo.api.places import Pins, Places, Uses
from respaldo.api.repository import Repository
from respaldo.backend.base import Backend
from respaldo.backend.open import open_backend
from respaldo.backend.wrap import RateLimit, ReadOnly
from respaldo.codec import boxes
from respaldo.codec.slots import Opened, Secret
from respaldo.core.errors import WrongSecret
from respaldo.core.seams import SystemClock, system_random
from respaldo.store import repo as store
from respaldo.store import slots
from respaldo.store.header import read_header_mended
from respaldo.store.recollection import Recollection, recollection_path

if TYPE_CHECKING:
    from respaldo.api.keys import KeySource


def open_repository(
    location: str,
    secret: Secret | Opened | KeySource,
    *,
    places: Places,
    writes: bool = False,
    limit_bytes_per_s: int = 0,
    rollback: Rollback = Rollback.REFUSE,
    allow_unrecorded: bool = False,
) -> Repository:
    """Opens a repository, with a secret or with what one gave before; unless ``writes``, it cannot be changed.

    ``limit_bytes_per_s`` 0 means no limit. Raises `NotARepository`, `WrongSecret`, `Corruption` (also for another
    header than the one seen at this place before), and `HistoryChanged` where its log is not what it was, unless
    ``rollback`` says otherwise. ``allow_unrecorded``: what cannot be written into the access log is handed over all
    the same, instead of `NotRecorded`.
    """
    backend = open_backend(location)
    try:
        wrapped: Backend = backend if writes else ReadOnly(backend)
        limit = RateLimit(wrapped, limit_bytes_per_s) if limit_bytes_per_s else None
        header, wrapped = read_header_mended(wrapped if limit is None else limit)
        pins = Pins(places, location)
        pins.check(header)
        if not isinstance(secret, Secret | Opened):
            secret = secret(header.hash, partial(slots.is_there, wrapped))
        try:
            repo = store.Repo.open(
                wrapped,
                secret,
                cache_dir=places.cache_dir,
                clock=SystemClock(),
                random=system_random,
                header=header,
                state_dir=places.state_dir,
            )
        except WrongSecret:
            from respaldo.api.recording import note_failure  # noqa: PLC0415 - start-up time

            place = Recollection(recollection_path(places.state_dir, header.repository), system_random)
            note_failure(place, SystemClock(), os.fsencode(backend.location))
            raise
    except BaseException:
        backend.close()
        raise
    uses = Uses(places, header.repository)
    uses.note(repo.slot, repo.clock.now_ns())
    if repo.log is not None:
        repo.log.recollection.remember_access_key(boxes.public_of(repo.ring.access_seed))
    opened = Repository(
        repo, uses, pinned=pins.trust(header), limit=limit, rollback=rollback, allow_unrecorded=allow_unrecorded
    )
    try:
        opened.history.follow()
    except BaseException:
        repo.close()
        raise
    return opened
