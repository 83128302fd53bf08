"""Parity switched on and off. Switching on is resumed by doing it again: what has its sidecar is not read again.

The share stands in the sealed configuration, so that every client that opens the repository from then on keeps it.
"""

from __future__ import annotations

from dataclasses import replace

from respaldo.codec import parity as code
from respaldo.core.errors import UsageError
from respaldo.core.seams import Cancel, Progress
from respaldo.flows.parity.options import ParityChange, ParityStatus
from respaldo.store.repo import Repo
from respaldo.store.sidecars import fill, remove_all, survey


def parity_status(repo: Repo) -> ParityStatus:
    """Counts what has parity and what has not; lists, and reads nothing."""
    share = repo.config.parity
    found = survey(repo.backend, share)
    return ParityStatus(
        share=share,
        able=code.is_available(),
        objects=len(found.objects),
        object_bytes=found.object_bytes,
        sidecars=len(found.sidecars),
        sidecar_bytes=found.sidecar_bytes,
        missing=len(found.missing) if share else 0,
        missing_bytes=sum(found.missing.values()) if share else 0,
        orphans=len(found.orphans),
    )


def switch_on(repo: Repo, share: int, *, progress: Progress, cancel: Cancel) -> ParityChange:
    """Keeps a share (thousandths) of parity from now on, and makes what is missing of it.

    Raises `UsageError` where the library is missing.
    """
    code.require()
    if repo.config.parity != share:
        repo.configure(lambda config: replace(config, parity=share))
    return make_missing(repo, progress=progress, cancel=cancel)


def make_missing(repo: Repo, *, progress: Progress, cancel: Cancel) -> ParityChange:
    """Makes the sidecars that are missing, or of another share than the one that counts."""
    share = repo.config.parity
    if not share:
        raise UsageError("parity is off", hint="switch it on with: respaldo parity on")
    found = survey(repo.backend, share)
    progress.total(files=len(found.missing), length_bytes=sum(found.missing.values()))

    def step(name: str, made: int) -> None:
        progress.note(2, f"parity of {name}: {made} bytes")
        progress.advance(files=1, length_bytes=found.missing[name])
        cancel.check()

    done = fill(repo.backend, share, found.missing, step)
    return ParityChange(share=share, made=done.made, made_bytes=done.made_bytes, unsound=tuple(done.unsound))


def switch_off(repo: Repo) -> ParityChange:
    """Keeps no parity from now on, and deletes what there is."""
    if repo.config.parity:
        repo.configure(lambda config: replace(config, parity=0))
    return ParityChange(share=0, removed=remove_all(repo.backend))
