"""How a repository is opened: the backend of its location, its wrappers, its pinned header, its log.

Where nothing is to be written, the storage is opened for reading only, so that a repository on a read-only mount works.
"""

from __future__ import annotations

from respaldo.api.history import Rollback
from respaldo.api.places import Pins, Places
from respaldo.api.repository import Repository
from respaldo.backend.base import Backend
from respaldo.backend.open import open_backend
from respaldo.backend.wrap import RateLimit, ReadOnly
from respaldo.codec.slots import Secret
from respaldo.core.seams import SystemClock, system_random
from respaldo.store import repo as store


def open_repository(
    location: str,
    secret: Secret,
    *,
    places: Places,
    writes: bool = False,
    limit_bytes_per_s: int = 0,
    rollback: Rollback = Rollback.REFUSE,
) -> Repository:
    """Opens a repository; unless ``writes``, nothing in it can be changed.

    ``limit_bytes_per_s`` 0 means no limit. Raises `NotARepository`, `WrongSecret`, `Corruption` (also for another
    header than the one seen at this place before), and `HistoryChanged` where its log is not what it was, unless
    ``rollback`` says otherwise.
    """
    backend = open_backend(location)
    try:
        wrapped: Backend = backend if writes else ReadOnly(backend)
        limit = RateLimit(wrapped, limit_bytes_per_s) if limit_bytes_per_s else None
        header, wrapped = store.read_header_mended(wrapped if limit is None else limit)
        pins = Pins(places, location)
        pins.check(header)
        repo = store.Repo.open(
            wrapped,
            secret,
            cache_dir=places.cache_dir,
            clock=SystemClock(),
            random=system_random,
            header=header,
            state_dir=places.state_dir,
        )
    except BaseException:
        backend.close()
        raise
    opened = Repository(repo, secret, pinned=pins.trust(header), limit=limit, rollback=rollback)
    try:
        opened.history.follow()
    except BaseException:
        repo.close()
        raise
    return opened
