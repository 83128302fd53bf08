"""The configuration in storage: versions under names that count up, of which the highest one that opens counts.

Implements docs/format.md, "Config".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from respaldo.backend.base import Backend
from respaldo.core.errors import Corruption, ObjectExists
from respaldo.format.config import Config, parse_config
from respaldo.format.header import unclose_object
from respaldo.format.snapshot import RECORD_BYTES_MAX
from respaldo.store.again import look_again
from respaldo.store.vault import Vault

_NAME = "config/%016x"
_FORM = re.compile(r"config/[0-9a-f]{16}")


def next_name(listed: Iterable[str]) -> str:
    """Returns the name of the version that comes after all that are listed; raises `Corruption` where none can."""
    newest = max((name for name in listed if _FORM.fullmatch(name)), default=_NAME % 0)
    following = _NAME % (int(newest.partition("/")[2], 16) + 1)
    if not _FORM.fullmatch(following):  # nobody counts so far: it was put to keep others from coming after it
        raise Corruption(newest, "no configuration can come after it", hint="delete it, if it is damaged")
    return following


def read_config(backend: Backend, vault: Vault, *, lenient: bool) -> Config:
    """Returns the version that counts; raises `Corruption`.

    ``lenient``: one that is whole and cannot be opened is passed over, since it was put by somebody who held a master
    key that is destroyed by now.
    """
    return look_again(lambda: _read_config(backend, vault, lenient=lenient))


def _read_config(backend: Backend, vault: Vault, *, lenient: bool) -> Config:
    names = sorted(name for name, _ in backend.list("config") if _FORM.fullmatch(name))
    for name in reversed(names):
        data = backend.get_whole(name, RECORD_BYTES_MAX)
        try:
            return parse_config(vault.open_record("config", name, data), name)
        except Corruption as error:
            unclose_object(data, name)
            if not lenient or name == names[0]:
                raise error from None
    raise Corruption("config", "the repository has no configuration")


def change_config(
    backend: Backend, vault: Vault, change: Callable[[Config], Config], read: Callable[[], Config]
) -> Config:
    """Puts a new version, made of the one that counts, which ``read`` gives; returns it."""
    while True:
        # Before it is read: one that another client puts after that has this very name, or is read.
        name = next_name(name for name, _ in backend.list("config"))
        config = change(read())
        try:
            backend.put(name, [vault.seal_record("config", name, config.encode())])
        except ObjectExists:
            continue  # another client was faster: its change counts, and this one comes on top of it
        return config
