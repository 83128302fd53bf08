"""Snapshot names on the command line, completed from the local cache: while a word is typed, nothing is asked."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from respaldo.cli import show
from respaldo.cli.settings import Settings

if TYPE_CHECKING:
    from respaldo.core.errors import Corruption

_WORDS = ("today", "yesterday")


class SnapshotName(click.ParamType[str]):
    """Is the name of a snapshot (see the page of `respaldo`), with ``:/PATH`` behind it where a part is meant."""

    name = "snapshot"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ANN401
        if not value:
            self.fail("the name of a snapshot is empty; write latest, an id, a label or a time", param, ctx)
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002
        found = [CompletionItem("latest", help="the newest snapshot")]
        if incomplete:
            found += [CompletionItem(word, help="the newest snapshot of then") for word in _WORDS]
        with contextlib.suppress(Exception):  # a completion that fails completes nothing
            from respaldo.api import cached_conditions, cached_snapshots  # start-up time

            settings = ctx.find_root().ensure_object(Settings)
            with settings.places() as places:
                if incomplete.startswith("latest:"):
                    known = cached_conditions(settings.location(), places=places)
                    return _conditions(incomplete, known)
                for name, about in cached_snapshots(settings.location(), places=places):
                    # A shell that shows a label sends it to the terminal as it is, and reads it line by line.
                    if name.isprintable():
                        found.append(CompletionItem(name, help=show.shown(about)))
        return [item for item in found if item.value.startswith(incomplete)]


def _conditions(incomplete: str, known: Sequence[str]) -> list[CompletionItem]:
    """Completes the last condition of several."""
    before = incomplete[: max(incomplete.rfind(":"), incomplete.rfind(",")) + 1]
    words = [before + condition for condition in known if condition.isprintable()]
    return [CompletionItem(word) for word in words if word.startswith(incomplete)]


Command = TypeVar("Command", bound=Callable[..., object])


def of_snapshots(command: Command) -> Command:
    """Adds the options that say in which snapshots is looked: ``host``, ``tags``, ``kind``."""
    for option in (
        click.option("--kind", default="", metavar="KIND", help="Only in those of a kind: full, incremental, …"),
        click.option(
            "--tag", "tags", multiple=True, metavar="TAG", help="Only in those with this tag (with all of them)."
        ),
        click.option("--host", default="", metavar="HOST", help="Only in the snapshots of a machine."),
    ):
        command = option(command)
    return command


def say_damaged(damaged: Iterable[Corruption]) -> int:
    """Says which records of snapshots could not be read, so that these were not looked at; returns the exit status."""
    status = 0
    for error in damaged:
        show.err(f"warning: a snapshot was not looked at: {show.shown(str(error))}")
        status = error.exit_status
    return status


SNAPSHOT = SnapshotName()
host_option = click.option("--host", default="", metavar="HOST", help="Leave the snapshots of other machines aside.")
