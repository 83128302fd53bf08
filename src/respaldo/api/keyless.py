"""What can be done with a repository, and with the areas in it, without any secret."""

from __future__ import annotations

from respaldo.backend.open import area_location, list_areas, open_backend
from respaldo.backend.wrap import ReadOnly
from respaldo.core.seams import Cancel, Progress
from respaldo.flows.check.result import KeylessResult


def verify_keyless(location: str, *, progress: Progress, cancel: Cancel) -> KeylessResult:
    """Checks the bytes of every object against its name or closing hash; needs no secret."""
    from respaldo.flows.check.keyless import run_keyless  # noqa: PLC0415 - start-up time

    with ReadOnly(open_backend(location)) as backend:
        return run_keyless(backend, progress=progress, cancel=cancel)


def areas_at(location: str) -> dict[str, str]:
    """Returns where the areas of clients lie that are in a repository, by the clients' ids: their names take a key."""
    return {client.hex(): area_location(location, client) for client in list_areas(location)}
