"""Named policies: those that come with the program, those of the user's file, those of any other file.

The user's file is ``RESPALDO_POLICIES``, else ``policies.toml`` in the user's directory for configuration. What it
names goes before what comes with the program. Its ``sources`` say whose policy is whose.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from respaldo.cli.folders import config_folder
from respaldo.core.errors import UsageError
from respaldo.core.private import read_file

if TYPE_CHECKING:
    from respaldo.api import Policy


def named(name: str) -> Policy:
    """Returns a policy by name: the user's, the program's, or one of a file: ``FILE``, ``FILE:NAME``."""
    from respaldo.api import BUILT_IN, choose, parse_policies  # start-up time

    own = _own()
    if name in own:
        return own[name]
    if name in BUILT_IN:
        return BUILT_IN[name]
    path, which = name, ""
    text = _text(path)
    if text is None and ":" in name:
        path, _, which = name.rpartition(":")
        text = _text(path)
    if text is None:
        known = ", ".join({**BUILT_IN, **own})
        raise UsageError(f"there is no policy and no file {name!r}", hint=f"name {known}, or a file of policies")
    return choose(parse_policies(text, path), which, path)


def policy_of_sources(sources: Iterable[bytes]) -> Policy:
    """Returns the policy of the user's file that names these sources as its own."""
    from respaldo.api import choose_for  # start-up time

    own = _own()
    if not own:
        raise UsageError(
            f"no policy was named, and {_own_path()} is not there to name one",
            hint="use --policy standard, or write a policy with: sources = [PATH]",
        )
    return choose_for(own, sources, _own_path())


def _own() -> Mapping[str, Policy]:
    from respaldo.api import parse_policies  # start-up time

    path = _own_path()
    text = _text(path)
    if text is None:
        if os.environ.get("RESPALDO_POLICIES"):
            raise UsageError(f"there is no file {path}, which RESPALDO_POLICIES names")
        return {}
    if all(line.lstrip()[:1] in {"", "#"} for line in text.splitlines()):
        return {}  # a file that is only begun is no reason not to know the program's own
    return parse_policies(text, path)


def _own_path() -> str:
    return os.environ.get("RESPALDO_POLICIES", "") or str(_default_path())


def _default_path() -> Path:
    return config_folder() / "policies.toml"


def _text(path: str) -> str | None:
    try:
        if path == str(_default_path()):
            return read_file(path).decode("utf-8")
        with open(path, encoding="utf-8") as file:  # a FIFO, too, where somebody names one
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not TOML: it is not UTF-8") from None
    except OSError as error:
        raise UsageError(f"cannot read the policies {path}: {error.strerror}") from None
