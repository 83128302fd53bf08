"""Snapshot names on the command line, completed from the local cache: while a word is typed, nothing is asked."""

from __future__ import annotations

import contextlib
from typing import Any

import click
from click.shell_completion import CompletionItem

from respaldo.cli import show
from respaldo.cli.settings import Settings


class SnapshotName(click.ParamType[str]):
    """Is ``latest``, the beginning of an id or a label, each with ``:/PATH`` behind it where a part is meant."""

    name = "snapshot"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ANN401
        if not value:
            self.fail("the name of a snapshot is empty; write latest, an id or a label", param, ctx)
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002
        found = [CompletionItem("latest", help="the newest snapshot")]
        with contextlib.suppress(Exception):  # a completion that fails completes nothing
            from respaldo.api import cached_snapshots  # start-up time

            settings = ctx.find_root().ensure_object(Settings)
            with settings.places() as places:
                for name, about in cached_snapshots(settings.location(), places=places):
                    # A shell that shows a label sends it to the terminal as it is, and reads it line by line.
                    if name.isprintable():
                        found.append(CompletionItem(name, help=show.shown(about)))
        return [item for item in found if item.value.startswith(incomplete)]


SNAPSHOT = SnapshotName()
host_option = click.option("--host", default="", metavar="HOST", help="Leave the snapshots of other machines aside.")
