"""Parity of an open repository, and mending of one that nobody has opened."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from respaldo.api.later import Later
from respaldo.backend.open import open_backend
from respaldo.backend.wrap import ReadOnly
from respaldo.core.seams import Cancel, Progress
from respaldo.store.mending import Mending
from respaldo.store.repo import Repo

if TYPE_CHECKING:
    from respaldo.flows.parity import run
    from respaldo.flows.parity.options import Mended, MendResult, ParityChange, ParityStatus
else:  # start-up time
    run = Later("run", "respaldo.flows.parity")


class Parity:
    """Is the parity of an open repository."""

    def __init__(self, repo: Repo) -> None:
        self._repo = repo

    @property
    def mended(self) -> Mapping[str, str]:
        """Objects that are damaged and could be read with their parity since this was opened, and what is wrong."""
        backend = self._repo.backend
        return dict(backend.mended) if isinstance(backend, Mending) else {}

    def mend(self, names: Iterable[str]) -> Iterator[Mended]:
        """Replaces damaged objects by what their parity gives."""
        from respaldo.flows.parity.mend import mend_named  # noqa: PLC0415 - start-up time

        backend = self._repo.backend
        return mend_named(backend.inner if isinstance(backend, Mending) else backend, names)

    @property
    def without(self) -> int:
        """How many objects were put since this was opened and have no parity, though they should."""
        backend = self._repo.backend
        return backend.without if isinstance(backend, Mending) else 0

    def status(self) -> ParityStatus:
        """Counts what has parity and what has not."""
        return run.parity_status(self._repo)

    def switch_on(self, share: int, *, progress: Progress, cancel: Cancel) -> ParityChange:
        """Keeps parity from now on (``share`` in thousandths), and makes what is missing of it."""
        return run.switch_on(self._repo, share, progress=progress, cancel=cancel)

    def switch_off(self) -> ParityChange:
        """Keeps none from now on, and deletes what there is."""
        return run.switch_off(self._repo)


def mend_objects(location: str, *, dry_run: bool, progress: Progress, cancel: Cancel) -> MendResult:
    """Compares every object with its hash and replaces what is damaged by what its parity gives; needs no secret."""
    from respaldo.flows.parity.mend import run_mend  # noqa: PLC0415 - start-up time

    with open_backend(location) as backend:
        where = ReadOnly(backend) if dry_run else backend
        return run_mend(where, dry_run=dry_run, progress=progress, cancel=cancel)
