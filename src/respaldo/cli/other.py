"""The second repository of a command: where it lies, and what opens it. Its secret never stands on the command line."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import click

from respaldo.cli import show
from respaldo.cli.settings import Settings
from respaldo.core.errors import WrongSecret

if TYPE_CHECKING:
    from respaldo.api import Repository, Secret

F = TypeVar("F", bound=Callable[..., Any])
_HINT = (
    "the second repository opens with --other-password-file or --other-key-file, or with RESPALDO_OTHER_PASSWORD_FILE, "
    "RESPALDO_OTHER_PASSWORD_COMMAND, RESPALDO_OTHER_PASSWORD or RESPALDO_OTHER_KEY_FILE"
)


def other_options(function: F) -> F:
    """Adds the options that say what opens the second repository."""
    for option in (
        click.option(
            "--other-key-file",
            default="",
            metavar="FILE",
            type=click.Path(path_type=str),
            help="Open the second repository with this key (or RESPALDO_OTHER_KEY_FILE).",
        ),
        click.option(
            "--other-password-file",
            default="",
            metavar="FILE",
            type=click.Path(path_type=str),
            help="Read the second repository's passphrase from a file. Else it comes from "
            "RESPALDO_OTHER_PASSWORD_FILE, RESPALDO_OTHER_PASSWORD_COMMAND or RESPALDO_OTHER_PASSWORD; else the first "
            "one's is tried; else it is asked for.",
        ),
    ):
        function = option(function)
    return function


@contextlib.contextmanager
def open_other(
    settings: Settings, location: str, given: dict[str, str], first: Secret, *, writes: bool, limit_bytes_per_s: int = 0
) -> Iterator[Repository]:
    """Opens the second repository, if nothing says with what, with the first one's secret, or asks."""
    from respaldo.cli.passphrase import ask_for, find_other_secret  # start-up time

    other = replace(settings, repo=location, client="", client_file="", above=True)
    secret = find_other_secret(given["other_password_file"], given["other_key_file"])
    with contextlib.ExitStack() as stack:
        try:
            opened = stack.enter_context(
                other.open(writes=writes, secret=secret or first, limit_bytes_per_s=limit_bytes_per_s)
            )
        except WrongSecret as error:
            error.hint = f"{_HINT} ({show.shown(location)} was tried)"
            secret = None if secret is not None else ask_for(show.shown(location))
            if secret is None:
                raise
            opened = stack.enter_context(other.open(writes=writes, secret=secret, limit_bytes_per_s=limit_bytes_per_s))
        yield opened
