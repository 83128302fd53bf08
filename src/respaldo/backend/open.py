"""From what a user writes for a repository's location to the backend that serves it.

Invariant: a location has one meaning whatever lies on the disk: "SCHEME:…" is never tried as a path, so that a typing
error cannot make a repository in a directory called "sftp:host".

Never: reads the environment, expands "~", or looks whether a repository is there.
"""

from __future__ import annotations

import os
import re
from typing import Final

from respaldo.backend.base import AREAS, Backend
from respaldo.backend.local import LocalBackend
from respaldo.backend.oserrors import storage_error
from respaldo.core.errors import UsageError

_SCHEME: Final = re.compile(r"([^/:]*):(.*)", re.DOTALL)
_AREA: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)
_PLANNED: Final = frozenset(("sftp", "s3"))


def open_backend(location: str, *, create: bool = False) -> Backend:
    """Opens the backend of a location: a path, or "file:PATH"; `create` makes the directory where it is missing.

    Raises UsageError for what is no location, and what the backend's constructor raises.
    """
    return LocalBackend(local_path(location), create=create)


def local_path(location: str) -> str:
    """Returns the path that a location means, or raises UsageError for one that is not on a file system."""
    found = _SCHEME.fullmatch(location)
    scheme, path = found.groups() if found else ("file", location)
    if scheme in _PLANNED:
        raise UsageError(
            f"repositories by {scheme} are not there yet: {location}",
            hint="name a directory; one of another machine can be mounted (sshfs, rclone mount)",
        )
    if scheme != "file":
        raise UsageError(
            f"unknown scheme {scheme!r} in the repository's location: {location}",
            hint=f"for a directory of that name, write file:{location}",
        )
    if not path or "\0" in path:
        raise UsageError("the repository's location is empty or no path", hint="name a directory with -r DIRECTORY")
    return path


def area_location(location: str, client: bytes) -> str:
    """Returns the location of a client's area in the repository at a location."""
    return "file:" + os.path.join(local_path(location), AREAS, client.hex())


def list_areas(location: str) -> list[bytes]:
    """Returns the clients whose areas lie in the repository at a location, by what their directories are called."""
    try:
        names = os.listdir(os.path.join(local_path(location), AREAS))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise storage_error(error, AREAS) from error
    return [bytes.fromhex(name) for name in sorted(names) if _AREA.fullmatch(name)]
