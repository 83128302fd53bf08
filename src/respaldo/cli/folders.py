"""The user's directories for this program: where caches, state and configuration lie. Loaded when it is asked for."""

from __future__ import annotations

from pathlib import Path

_NAME = "respaldo"


def cache_folder() -> Path:
    """Returns where what can be made anew lies."""
    import platformdirs  # start-up time

    return platformdirs.user_cache_path(_NAME)


def state_folder() -> Path:
    """Returns where what a machine remembers lies."""
    import platformdirs  # start-up time

    return platformdirs.user_state_path(_NAME)


def config_folder() -> Path:
    """Returns where the user's own settings lie."""
    import platformdirs  # start-up time

    return platformdirs.user_config_path(_NAME)
