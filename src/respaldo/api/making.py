"""How a repository is made. Nothing is left behind where that fails."""

from __future__ import annotations

import os
from dataclasses import replace

from respaldo.api.opening import open_repository
from respaldo.api.places import Pins, Places, check_free
from respaldo.api.repository import Repository
from respaldo.backend.open import open_backend
from respaldo.chunk.chunker import ChunkerParams
from respaldo.codec.parity import require as require_parity
from respaldo.codec.slots import STANDARD, Kdf, Secret
from respaldo.core.ids import AES_256_GCM
from respaldo.core.seams import SystemClock, system_random
from respaldo.format.config import Config
from respaldo.format.header import Header
from respaldo.store.ballast import keep_ballast
from respaldo.store.making import create
from respaldo.store.sidecars import catch_up


def init(
    location: str,
    secret: Secret,
    *,
    places: Places,
    kdf: Kdf = STANDARD,
    label: str = "",
    recovery: Secret | None = None,
    parity: int = 0,
    suite: str = AES_256_GCM,
    like: Repository | None = None,
) -> Header:
    """Makes a repository that opens with a secret, and with a recovery key where one is given; pins its header.

    ``parity``: the share of it that is kept of every object, in thousandths; ``suite``: one of `SUITES`. ``like``: a
    repository that it cuts and names content like, so that what is copied between the two goes over as it is. Raises
    `RepositoryExists` where there is a repository already, `UsageError` where there is anything else.
    """
    check_free(location)
    if parity:
        require_parity()
    params = ChunkerParams.standard()
    chunker = (params.minimum, params.average, params.maximum, params.strict, params.loose)
    config = Config(chunker=chunker, parity=parity)
    if like is not None:
        with like.accesses.recorded("init --like", target=os.fsencode(location)):
            config = replace(like.within.config, parity=parity, content_keys=like.within.ring.content_keys)
    clock = SystemClock()
    with open_backend(location, create=True) as backend:
        header = create(
            backend,
            secret=secret,
            kdf=kdf,
            config=config,
            clock=clock,
            random=system_random,
            label=label,
            suite=suite,
        )
        keep_ballast(backend, system_random)
        catch_up(backend, parity)
    Pins(places, location).trust(header)
    if recovery is not None:
        with open_repository(location, secret, places=places, writes=True, allow_unrecorded=True) as repository:
            repository.slots.add(recovery, label="recovery")
    return header
