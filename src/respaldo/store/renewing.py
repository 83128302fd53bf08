"""Renewing: a client and its area get other keys, and go on with the snapshots that are there.

Invariant: a snapshot that a client commits counts, whatever it was doing meanwhile. The sign that an epoch has ended is
there before the runs that count are listed; a client puts its run before it looks for that sign. Only a credential that
the owner hands over says which keys are the new ones: storage, and whoever held the old ones, have no part in it.
Implements docs/format.md, "Renewal".
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace

from respaldo.codec.box import box_public
from respaldo.codec.keys import KEY_BYTES
from respaldo.codec.signing import Signer
from respaldo.core.errors import Corruption, ObjectExists, Refused, StorageError, UsageError
from respaldo.format.credential import Credential
from respaldo.format.enrolment import RecordName, Renewal
from respaldo.format.epoch import ended_name
from respaldo.format.header import close_object
from respaldo.store.areas import Client, list_runs, put_record
from respaldo.store.epochs import require_newest
from respaldo.store.owned import ClientTelling, OwnedArea
from respaldo.store.repo import Repo
from respaldo.store.rotating import listed_heads

RENEW = "renew"
"""The verb in the log."""


def check_renewable(client: Client) -> None:
    """Raises `UsageError` for a client that was removed, `Corruption` where its keys are not known."""
    if client.removal is not None:
        raise UsageError(
            f"the client {client.enrolment.name} was removed, and its keys with it",
            hint="add it anew: respaldo key client add NAME --out FILE",
        )
    client.epoch()


def renew(repo: Repo, client: Client, opens: Callable[[Client], OwnedArea]) -> Credential:
    """Gives a client and its area other keys; returns its new credential, which is kept nowhere else.

    ``opens`` opens the area of a client to write into it. What was sealed stays readable to who could read it. Runs
    that have begun count, and others under the old credential do not. Raises as `check_renewable`; `KeyRotated`;
    `Refused` where another was faster. May be done again, also after a run that was cut off.
    """
    check_renewable(client)
    require_newest(repo.backend, repo.epoch)
    with opens(client) as area:
        config = area.config
        sign_seed, box_seed = repo.random(KEY_BYTES), repo.random(KEY_BYTES)
        name, number = client.enrolment.name, area.epoch.number + 1
        with contextlib.suppress(ObjectExists):
            area.backend.put(ended_name(area.epoch.number), [close_object(b"")])
        renewal = Renewal(
            client=client.enrolment.client,
            epoch=number,
            time_ns=repo.clock.now_ns(),
            sign_public=Signer(sign_seed).public,
            box_public=box_public(box_seed),
            master=repo.random(KEY_BYTES),
            runs=frozenset(list_runs(area.backend)),
            heads=tuple(sorted(listed_heads(area.backend).items())),
        )
    repo.announce(RENEW, [renewal.client], f"{name}: epoch {number}")
    try:
        put_record(repo, RecordName(client=renewal.client, renewal=number), renewal.encode())
    except ObjectExists:
        raise Refused(
            f"the client {name} was renewed by somebody else at the same time",
            hint="the credential that was made there is the one that counts; renew once more if you want another",
        ) from None
    renewed = replace(client, renewals=(*client.renewals, renewal))
    with contextlib.suppress(StorageError, Corruption), opens(renewed) as area:
        _tell(area)
    epoch = renewed.epoch()
    return Credential(
        name=name,
        rights=client.enrolment.rights,
        header_hash=client.enrolment.header_hash,
        sign_seed=sign_seed,
        box_seed=box_seed,
        owner_box=box_public(epoch.ring.box_seed),
        owner_sign=Signer(epoch.ring.admin_seed).public,
        content_keys=epoch.ring.content_keys,
        config=replace(config, content_keys=b""),
        client=renewal.client,
        epoch=number,
    )


def _tell(area: OwnedArea) -> None:
    """Puts notices that the new credential opens; the client does without where that fails, and uploads again."""
    if isinstance(area.telling, ClientTelling) and (area.backend.names("notices") or area.backend.names("condemned")):
        area.synchronise(lenient=True)
        area.telling.anew()
