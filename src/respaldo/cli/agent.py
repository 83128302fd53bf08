"""Where the agent of this user is, and the key that it holds for a repository, if it does.

With a directory of the login (XDG_RUNTIME_DIR) the agent ends when the login does, since that directory goes then.
Without one it ends with the session that unlock was run in: its terminal, its script.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from respaldo.cli import show
from respaldo.cli.folders import state_folder
from respaldo.core.errors import Refused

if TYPE_CHECKING:
    from respaldo.api import Opened

_FOLDER = "respaldo"
_SECRETS = ("RESPALDO_KEY_FILE", "RESPALDO_PASSWORD_FILE", "RESPALDO_PASSWORD_COMMAND", "RESPALDO_PASSWORD")


def directory() -> Path:
    """Returns the directory of the agent's socket."""
    login = _login_directory()
    if login is not None:
        return login / _FOLDER
    return state_folder() / "agent"


def leader() -> int:
    """Returns the process whose end is the end of the login, 0 where the login's directory says it."""
    return 0 if _login_directory() is not None else os.getsid(0)


def _login_directory() -> Path | None:
    """Returns the login's directory where there is one that is this user's alone (sudo keeps the name of another's)."""
    name = os.environ.get("XDG_RUNTIME_DIR", "")
    try:
        found = os.lstat(name)
    except (OSError, ValueError):
        return None
    private = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077
    return Path(name) if private and name.startswith("/") else None


def environment() -> dict[str, str]:
    """Returns what an agent gets to know of the environment: nothing of what may hold or name a secret."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RESPALDO_")}


def held(header_hash: bytes, is_there: Callable[[str], bool]) -> Opened | None:
    """Returns the key that an agent holds for a repository, unless a secret is named in the environment.

    What was opened with a slot that has been removed since is not used, and the agent is ended.
    """
    if any(name in os.environ for name in _SECRETS):
        return None
    where = directory()
    if not where.exists():
        return None
    from respaldo.ops.agent import client  # start-up time

    try:
        opened = client.fetch(where, header_hash)
        if opened is None or is_there(opened.slot):
            return opened
        client.lock(where, header_hash)
        show.err("note: the key that this repository was unlocked with was removed or rotated; it is locked again")
    except Refused as error:
        show.err(f"warning: {show.shown(str(error))}; it is not asked for the key")
    return None
