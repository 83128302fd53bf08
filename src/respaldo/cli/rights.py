"""Which right a command takes, where whoever runs it is a client that writes into an area."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from respaldo.core.errors import NotEntitled, UsageError

if TYPE_CHECKING:
    from respaldo.api import Credential

_WRITING: Final = "snapshot"
_TAKES: Final = {
    **dict.fromkeys(("snapshots", "ls", "find", "diff", "history", "stats", "log show"), "list"),
    **dict.fromkeys(("restore", "dump", "export", "checksums", "mount"), "restore"),
}
"""Commands that read; any other one is the owner's."""


_ABOVE: Final = frozenset({"init", "key", "unlock", "lock", "agent"})
"""Commands on keys and on the repository as such: an area has none of its own."""
_EPOCHS: Final = (["key", "epochs"], ["key", "reencrypt"])
"""But it has epochs, since its client can be renewed."""


def check_area() -> None:
    """Raises `UsageError` where the command that is run means nothing in the area of a client."""
    words = click.get_current_context().command_path.split()[1:]
    command = words[0]
    if command in _ABOVE and words not in _EPOCHS:
        raise UsageError(f"{command} is about the repository, not about the area of a client: leave out --client")


def check_right(credential: Credential) -> bool:
    """Returns whether the command that is run reads; raises `NotEntitled` unless the client may run it."""
    words = click.get_current_context().command_path.split()[1:]
    if words == [_WRITING]:
        return False
    right = _TAKES.get(" ".join(words), "")
    if right not in credential.rights:
        raise NotEntitled(credential.name, right)
    return True
