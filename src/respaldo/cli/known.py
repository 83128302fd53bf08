"""Key slots and clients on the command line, completed from what is known without asking anybody for a secret."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from respaldo.cli import show
from respaldo.cli.settings import Settings

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class _Known(click.ParamType[str]):
    """Is a name that is completed from what is known of it; anything else is told by whoever looks for it."""

    def known(self, settings: Settings) -> Iterable[tuple[str, str]]:
        """Returns names, and what to say of each."""
        raise NotImplementedError

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002
        from click.shell_completion import CompletionItem  # start-up time

        found: list[CompletionItem] = []
        # A completion that fails completes nothing; and it writes nothing into what is being typed.
        with contextlib.suppress(Exception), contextlib.redirect_stderr(io.StringIO()):
            for name, about in self.known(ctx.find_root().ensure_object(Settings)):
                if name.startswith(incomplete) and name.isprintable():
                    found.append(CompletionItem(name, help=show.shown(about)))
        return found


class _Slot(_Known):
    name = "id"

    def known(self, settings: Settings) -> Iterable[tuple[str, str]]:
        from respaldo.api import slot_names  # start-up time

        return slot_names(settings.location(), settings.unasked)


class _Client(_Known):
    name = "name"

    def __init__(self, *, removed: bool) -> None:
        self._removed = removed

    def known(self, settings: Settings) -> Iterable[tuple[str, str]]:
        from respaldo.api import client_names  # start-up time

        return client_names(settings.location(), settings.unasked, removed=self._removed)


SLOT = _Slot()
CLIENT = _Client(removed=True)
CLIENT_LEFT = _Client(removed=False)
"""Of those that were not removed."""
