"""Retiring earlier epochs: once nothing is sealed under their master keys any more, these are destroyed.

Invariant: a snapshot that a slow session commits under an old key is never lost. The sign that an epoch is retiring is
durable (R1) before anything is listed (R2), and a writer looks for that sign after its manifest is (W3): either the
listing shows the manifest, or the writer sees the sign. Implements docs/format.md, "Retirement".
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from respaldo.core.errors import ObjectExists
from respaldo.format.epoch import retiring_name
from respaldo.format.header import close_object
from respaldo.store.authority import RETIRE
from respaldo.store.ballast import with_ballast
from respaldo.store.census import Sealed, take_census
from respaldo.store.repo import Repo
from respaldo.store.rotating import save_record


@dataclass(frozen=True, slots=True, kw_only=True)
class Retired:
    """Is what came of it: epochs whose master keys are destroyed, or what is left of them that forbids it."""

    epochs: tuple[int, ...] = ()
    left: tuple[Sealed, ...] = ()
    busy: bool = False
    """Whether a session writes under an earlier epoch, or died within a day: nothing was begun then."""


def retire(repo: Repo, check: Callable[[], object]) -> Retired:
    """Destroys the master keys of all earlier epochs, unless anything is left that is sealed under them."""
    epoch = repo.epoch
    if epoch.record is None or not epoch.in_use:
        return Retired()
    sessions = take_census(repo.backend, repo.vault, ["sessions"], check).older_than(epoch.number, "sessions")
    if sessions:
        return Retired(left=tuple(sessions), busy=True)
    for number in epoch.in_use:
        with contextlib.suppress(ObjectExists):
            repo.backend.put(retiring_name(number), [close_object(b"")])
    left = _left(repo, check)
    if left:
        return Retired(left=tuple(left))
    repo.announce(RETIRE, note=f"epochs {', '.join(map(str, epoch.in_use))}")
    fresh = replace(epoch, record=replace(epoch.record, masters=()))
    with_ballast(repo.backend, lambda: save_record(repo.backend, fresh, repo.vault))
    return Retired(epochs=tuple(epoch.in_use))


def _left(repo: Repo, check: Callable[[], object]) -> list[Sealed]:
    """Lists what opens under earlier epochs (R2), but for outcomes without manifests: those mean nothing, and stay."""
    census = take_census(repo.backend, repo.vault, check=check)
    pending = set(repo.backend.names("pending"))  # listed after the outcomes: a manifest comes before its outcome
    found = [
        item
        for number, folders in census.by_epoch.items()
        if number < repo.epoch.number
        for items in folders.values()
        for item in items
    ]
    return [item for item in found if not _is_orphan(item.name, pending)]


def _is_orphan(name: str, pending: set[str]) -> bool:
    folder, _, leaf = name.partition("/")
    return folder == "outcome" and f"pending/{leaf}" not in pending
