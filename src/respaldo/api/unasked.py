"""Names of key slots and of clients, for completion: as much as can be told without asking anybody for a secret.

Ids lie open in storage; labels and names take the key, where an agent holds it or a file does. Reads the header and
what is listed, and nothing else: no index, no log.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

from respaldo.api.clients import described, named
from respaldo.backend.base import Backend
from respaldo.backend.open import open_backend
from respaldo.backend.wrap import ReadOnly
from respaldo.codec.compress import LEVEL
from respaldo.codec.slots import Opened, Secret
from respaldo.core.errors import Corruption, ObjectMissing, RespaldoError
from respaldo.core.seams import system_random
from respaldo.format.enrolment import Removal, parse_record_name
from respaldo.store import slots
from respaldo.store.epochs import open_newest
from respaldo.store.header import read_header
from respaldo.store.vault import Vault, make_vault

Unasked = Callable[[bytes, Callable[[str], bool]], Secret | Opened | None]
"""Gives what opens the repository of a header, None where somebody would have to be asked."""
_ID_SHOWN = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class _Records:
    """Is as much of a repository as is needed."""

    backend: Backend
    vault: Vault
    removals: Mapping[bytes, Removal] = field(default_factory=dict)


def slot_names(location: str, unasked: Unasked) -> list[tuple[str, str]]:
    """Returns (id, label or how it opens) of the key slots."""
    with _opened(location, unasked) as (backend, records):
        labels = {}
        if records is not None:
            labels = {item.name: item.label for item in slots.describe(backend, records.vault)[0]}
        return [(name.partition("/")[2], labels.get(name) or _method(backend, name)) for name in slots.names(backend)]


def client_names(location: str, unasked: Unasked, *, removed: bool) -> list[tuple[str, str]]:
    """Returns (name, rights) of the clients, or (beginning of an id, nothing); ``removed``: of those too."""
    with _opened(location, unasked) as (backend, records):
        if records is not None:
            found = [item for item in described(records) if removed or item.removed_ns is None]
            return [(name, ", ".join(("write", *item.rights))) for name, item in named(found)]
        parsed = list(filter(None, map(parse_record_name, backend.names("enrolled"))))
        gone = {item.client for item in parsed if item.removed and not removed}
        return [
            (client.hex()[:_ID_SHOWN], "")
            for client in dict.fromkeys(item.client for item in parsed)
            if client not in gone
        ]


@contextlib.contextmanager
def _opened(location: str, unasked: Unasked) -> Iterator[tuple[Backend, _Records | None]]:
    with ReadOnly(open_backend(location)) as backend:
        records = None
        with contextlib.suppress(RespaldoError):
            header = read_header(backend)
            secret = unasked(header.hash, partial(slots.is_there, backend))
            if secret is not None:
                epoch, _ = open_newest(backend, header, secret, system_random)
                records = _Records(backend=backend, vault=make_vault(epoch.rings, header, LEVEL, system_random))
        yield backend, records


def _method(backend: Backend, name: str) -> str:
    try:
        return "passphrase" if slots.read(backend, name).kdf is not None else "key"
    except (Corruption, ObjectMissing):
        return ""
