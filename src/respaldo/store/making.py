"""A repository is made.

Invariant: the header is put last, so that there is a whole one or none. Implements docs/format.md, "Repository".
"""

from __future__ import annotations

import contextlib

from respaldo.backend.base import Backend
from respaldo.codec.keys import KEY_BYTES, KeyRing
from respaldo.codec.slots import Kdf, Secret
from respaldo.core.errors import ObjectExists, ObjectMissing, RepositoryExists, RespaldoError
from respaldo.core.ids import AES_256_GCM, RANDOM_ID_BYTES
from respaldo.core.seams import Clock, Random
from respaldo.format.config import Config
from respaldo.format.header import HEADER, HEADER_BYTES_MAX, Header
from respaldo.store import slots
from respaldo.store.configuration import next_name
from respaldo.store.vault import make_vault


def create(
    backend: Backend,
    *,
    secret: Secret,
    kdf: Kdf,
    config: Config,
    clock: Clock,
    random: Random,
    label: str,
    suite: str = AES_256_GCM,
) -> Header:
    """Makes a repository; raises `RepositoryExists` where there is one, and leaves nothing behind where it fails."""
    if backend.exists(HEADER) is not None:
        raise RepositoryExists(HEADER)
    header = Header(repository=random(RANDOM_ID_BYTES), created_ns=clock.now_ns(), suite=suite)
    ring = KeyRing(random(KEY_BYTES), header.hash)
    vault = make_vault(ring, header, config.level, random)
    slot_name = slots.new_name(random)
    # What an init that was cut off left behind opens nothing under another header. It may also be of one that is still
    # at work: nothing of it is deleted before this one has won, and nothing that came after.
    stale = [name for folder in ("keys", "config") for name, _ in backend.list(folder)]
    config_name = next_name(stale)
    made: list[str] = []
    try:
        slot = slots.make(slot_name, ring, secret, kdf, vault, label=label, now_ns=clock.now_ns(), random=random)
        for name, data in (
            (slot_name, slot),
            (config_name, vault.seal_record("config", config_name, config.encode())),
            (HEADER, header.encode()),
        ):
            made.append(name)
            try:
                backend.put(name, [data])
            except ObjectExists:  # another init was first with it
                made.pop()
                raise RepositoryExists(HEADER) from None
    except BaseException:
        with contextlib.suppress(RespaldoError):
            _take_back(backend, made, header)
        raise
    with contextlib.suppress(RespaldoError):
        backend.discard(stale)
    return header


def _take_back(backend: Backend, made: list[str], header: Header) -> None:
    """Deletes what an init has put or may have put: the header first, so that it is never there without a slot."""
    if HEADER in made:
        with contextlib.suppress(ObjectMissing):
            if backend.get(HEADER, 0, HEADER_BYTES_MAX + 1) == header.encode():
                backend.delete(HEADER)
    backend.discard(name for name in made if name != HEADER)
