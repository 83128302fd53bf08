"""Commands on a repository and the areas of all its clients, one after the other: --all-clients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import click

from respaldo.cli import show
from respaldo.cli.settings import Settings
from respaldo.core.errors import Interrupted, RespaldoError, UsageError

F = TypeVar("F", bound=Callable[..., Any])
_GRAVEST: Final = (4, 1, 12, 10)
"""Which exit status tells of all, where there are several; those that are not here come last."""
NOTE: Final = (
    "With --all-clients: repositories, a list of client (its name, null for the repository itself), status (exit "
    "status of it alone), error (null, or what kept it from being done), result (as above, null where there is none)."
)


def all_clients_option(function: F) -> F:
    """Adds --all-clients."""
    option = click.option(
        "--all-clients", is_flag=True, help="Do so in the repository and in the area of each of its clients."
    )
    return option(function)


def for_all_keyless(settings: Settings, run: Callable[[str], int]) -> int:
    """Runs a command that needs no secret at the place of the repository, then at that of every area; as `for_all`.

    Clients are called by their ids, which are all that can be told of them.
    """
    from respaldo import api  # start-up time

    places = api.areas_at(settings.location())
    return for_all(settings, lambda: run(places.get(settings.client) or settings.location()), lambda: list(places))


def for_all(settings: Settings, run: Callable[[], int], clients: Callable[[], Sequence[str]] | None = None) -> int:
    """Runs a command in the repository, then in the area of every client; returns the gravest exit status.

    What fails in one is said, and keeps nothing from being done in the others. ``clients`` gives what these are
    called, where it is not what their owner calls them.
    """
    if settings.client:
        raise UsageError("--client and --all-clients exclude each other")
    results: list[dict[str, object]] = []
    for name in ("", *(clients or settings.clients)()):
        settings.client = name
        settings.gathered = []
        if not settings.json and not settings.quiet:
            show.out(f"{'' if not results else chr(10)}{_title(name)}")
        error = ""
        try:
            status = run()
        except Interrupted:
            raise
        except RespaldoError as failure:
            status, error = failure.exit_status, str(failure)
            show.err(f"error: {_title(name)} {show.shown(error)}")
            if failure.hint:
                show.err(f"hint: {show.shown(failure.hint)}")
        result = settings.gathered[-1] if settings.gathered else None
        results.append({"client": name or None, "status": status, "error": error or None, "result": result})
    settings.gathered = None
    settings.report({"repositories": results}, "")
    found = {item["status"] for item in results}
    return next(
        (status for status in _GRAVEST if status in found), max(status for status in found if isinstance(status, int))
    )


def _title(name: str) -> str:
    return f"client {show.shown(name)}:" if name else "the repository itself:"
