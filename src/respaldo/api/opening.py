"""How a repository is opened: the backend of its location, its wrappers, its pinned header, its log; or an area.

Where nothing is to be written, the storage is opened for reading only, so that a repository on a read-only mount works.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from respaldo.api.history import Rollback
from respaldo.api.places import Pins, Places, Uses
from respaldo.api.repository import Repository
from respaldo.backend.base import Backend
from respaldo.backend.open import area_location, open_backend
from respaldo.backend.wrap import RateLimit, ReadOnly
from respaldo.codec.slots import Opened, Secret
from respaldo.core.errors import Corruption, KeyRotated, NotARepository, WrongSecret
from respaldo.core.seams import SystemClock, system_random
from respaldo.format.header import HEADER
from respaldo.store import repo as store
from respaldo.store import slots
from respaldo.store.header import read_header_mended
from respaldo.store.recollection import Recollection, recollection_path
from respaldo.store.succession import Succession

if TYPE_CHECKING:
    from respaldo.api.keys import KeySource
    from respaldo.format.credential import Credential

_LOOKS: Final = 3


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
    for look in range(_LOOKS):
        opened, secret = _opened(
            location,
            secret,
            places=places,
            writes=writes,
            limit_bytes_per_s=limit_bytes_per_s,
            rollback=rollback,
            allow_unrecorded=allow_unrecorded,
        )
        try:
            return _followed(opened)
        except KeyRotated:  # after it was opened, and before its log was read
            if look + 1 == _LOOKS:
                raise
    raise AssertionError


def _opened(
    location: str,
    secret: Secret | Opened | KeySource,
    *,
    places: Places,
    writes: bool,
    limit_bytes_per_s: int,
    rollback: Rollback,
    allow_unrecorded: bool,
) -> tuple[Repository, Secret | Opened]:
    """Returns an open repository whose log has not been followed, and what opened it."""
    backend = open_backend(location)
    try:
        wrapped, limit = _wrapped(backend, limit_bytes_per_s, writes=writes)
        header, wrapped = read_header_mended(wrapped)
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
        except WrongSecret as error:
            if not backend.names("keys"):
                error.hint = (
                    "no passphrase opens the area of a client: name the repository above it, with --client NAME"
                )
            from respaldo.api.recording import note_failure  # noqa: PLC0415 - start-up time

            place = Recollection(recollection_path(places.state_dir, header.repository), system_random)
            note_failure(place, header, SystemClock(), os.fsencode(backend.location))
            raise
    except BaseException:
        backend.close()
        raise
    # Whoever writes stays in the epoch that it was opened in.
    repo.keep_up = Succession(repo, secret if isinstance(secret, Secret) and not writes else None)
    uses = Uses(places, header.repository)
    uses.note(repo.slot, repo.clock.now_ns())
    opened = Repository(
        repo, uses, pinned=pins.trust(header), limit=limit, rollback=rollback, allow_unrecorded=allow_unrecorded
    )
    return opened, secret


def open_as_client(
    location: str,
    credential: Credential,
    *,
    places: Places,
    writes: bool = False,
    limit_bytes_per_s: int = 0,
    rollback: Rollback = Rollback.REFUSE,
    reads: bool = False,
    allow_unrecorded: bool = False,
) -> Repository:
    """Opens the area of a client, to write into it: at a location, or in the repository that lies there.

    ``reads``: instead, to read what the client wrote, as far as its rights go; raises `NotEntitled` without any. Raises
    `NotARepository` where there is no area of this client, and else as `open_repository`.
    """
    backend = _find_area(location, credential)
    try:
        wrapped, limit = _wrapped(backend, limit_bytes_per_s, writes=writes)
        header, wrapped = read_header_mended(wrapped)
        if header.hash != credential.header_hash:
            raise Corruption(
                HEADER,
                f"it is not the one of the area of the client {credential.name}",
                hint="name the repository that the client was added to, or its area, with -r; if this is it, the area "
                "is gone from it, or something else stands in its place: ask its owner",
            )
        clock, cache = SystemClock(), places.cache_dir
        if reads:
            from respaldo.store.granted import GrantedRepo, need_rights  # noqa: PLC0415 - start-up time

            need_rights(credential)
            granted = GrantedRepo(
                wrapped,
                header,
                credential,
                cache_dir=cache,
                clock=clock,
                random=system_random,
                state_dir=places.state_dir,
            )
            uses = Uses(places, header.repository)
            return Repository(granted, uses, pinned=True, limit=limit, allow_unrecorded=allow_unrecorded)
        from respaldo.store.clientrepo import ClientRepo  # noqa: PLC0415 - start-up time

        repo = ClientRepo(
            wrapped,
            header,
            credential,
            cache_dir=cache,
            clock=clock,
            random=system_random,
            state_dir=places.state_dir,
        )
    except BaseException:
        backend.close()
        raise
    opened = Repository(repo, Uses(places, header.repository), pinned=True, limit=limit, rollback=rollback)
    return _followed(opened, repo.apply_notices)


def open_area(
    owner: Repository,
    name: str,
    *,
    places: Places,
    writes: bool = False,
    limit_bytes_per_s: int = 0,
    rollback: Rollback = Rollback.REFUSE,
    allow_unrecorded: bool = False,
) -> Repository:
    """Opens the area of a client of an open repository, as its owner: by the client's name or the beginning of its id.

    Raises `UsageError` where there is no such client, and else as `open_repository`.
    """
    from respaldo.store.areasuccession import AreaSuccession  # noqa: PLC0415 - start-up time

    clients = owner.clients
    client = clients.record(name)
    wrapped, limit = _wrapped(clients.area_backend(client), limit_bytes_per_s, writes=writes)
    repo = clients.open_area(client, wrapped, state_dir=places.state_dir)
    if not writes:  # whoever writes stays in the epoch that it was opened in
        repo.keep_up = AreaSuccession(repo, owner.within)
    opened = Repository(
        repo,
        Uses(places, repo.header.repository),
        pinned=True,
        limit=limit,
        rollback=rollback,
        allow_unrecorded=allow_unrecorded,
    )
    return _followed(opened)


def _wrapped(backend: Backend, limit_bytes_per_s: int, *, writes: bool) -> tuple[Backend, RateLimit | None]:
    """Returns a backend as it may be used, and what limits it, which is the same one where there is a limit."""
    wrapped: Backend = backend if writes else ReadOnly(backend)
    if not limit_bytes_per_s:
        return wrapped, None
    limit = RateLimit(wrapped, limit_bytes_per_s)
    return limit, limit


def _followed(opened: Repository, first: Callable[[], object] = lambda: None) -> Repository:
    """Follows the log of what was opened, and returns that; closes it where the log is not to be gone on with."""
    try:
        first()
        opened.history.follow()
    except BaseException:
        opened.within.close()
        raise
    return opened


def _find_area(location: str, credential: Credential) -> Backend:
    """Returns the backend of a client's area: what lies at the location, or below it."""
    from respaldo.store.runs import id_of  # noqa: PLC0415 - start-up time

    below = area_location(location, id_of(credential))
    try:
        return open_backend(below)
    except NotARepository:
        return open_backend(location)
