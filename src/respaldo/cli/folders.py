"""The user's directories, by the XDG Base Directory Specification: where caches, state and configuration lie.

Of a snapshot with nothing new, a library for every system's directories took one and a half per cent.
"""

from __future__ import annotations

import os
from pathlib import Path

_NAME = "respaldo"


def cache_folder() -> Path:
    """Returns where what can be made anew lies."""
    return _folder("XDG_CACHE_HOME", ".cache")


def state_folder() -> Path:
    """Returns where what a machine remembers lies."""
    return _folder("XDG_STATE_HOME", ".local/state")


def config_folder() -> Path:
    """Returns where the user's own settings lie."""
    return _folder("XDG_CONFIG_HOME", ".config")


def _folder(variable: str, below_home: str) -> Path:
    base = os.environ.get(variable, "").strip() or os.path.join(os.path.expanduser("~"), below_home)
    return Path(base, _NAME)
