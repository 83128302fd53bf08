"""Where this client keeps what it knows: caches, the pins of headers it has seen, and when it used which key slot.

A pin is the hash of a repository's header under the place it was seen at. The first header seen at a place is
trusted, and so is every one that `init` made there (disks that take turns at one mount point); any other one is
refused. Never lies in the repository: whoever holds the storage could change it there.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from respaldo.backend.base import AREAS, FOLDERS
from respaldo.backend.filestage import TEMPORARY
from respaldo.backend.open import local_path
from respaldo.core.errors import Corruption, UsageError
from respaldo.core.private import read_file, write_file
from respaldo.format.header import HASH_BYTES, HEADER, Header

_PIN_BYTES_MAX = 1 << 20
_USES_MAX = 64
_USE = re.compile(rb"(keys/[0-9a-f]{16}) (\d{1,19})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Names the two directories of this client: ``cache_dir`` can be thrown away, ``state_dir`` holds the pins."""

    cache_dir: Path
    state_dir: Path


def repository_path(location: str) -> str:
    """Returns where a location lies on this machine, links resolved; raises `UsageError` where it does not."""
    return os.path.realpath(local_path(location))


def check_free(location: str) -> None:
    """Raises `UsageError` where a directory holds what is no repository's: one made there would be mixed up with it."""
    path = repository_path(location)
    try:
        others = set(os.listdir(path)) - FOLDERS - {HEADER, AREAS, "lost+found"}
    except OSError:
        return  # not there yet; or what opens it says what is wrong
    others = {name for name in others if not name.startswith(TEMPORARY)}
    if others:
        raise UsageError(
            f"{path} is not empty: it holds {min(others)}", hint="name a new or an empty directory for the repository"
        )


class Pins:
    """Remembers which headers were seen at a location."""

    def __init__(self, places: Places, location: str) -> None:
        self._place = repository_path(location)
        name = hashlib.sha256(os.fsencode(self._place)).hexdigest()[:32]
        self.path = places.state_dir / "pins" / name

    def known(self) -> set[bytes]:
        """Returns the hashes that were trusted at this place; empty where none was seen yet."""
        try:
            lines = read_file(self.path, _PIN_BYTES_MAX).split(b"\n")[1:]
        except (FileNotFoundError, NotADirectoryError):
            return set()
        found = set()
        for line in lines:
            with contextlib.suppress(ValueError):
                found.add(bytes.fromhex(line.decode("ascii", "replace")))
        return {item for item in found if len(item) == HASH_BYTES}

    def check(self, header: Header) -> None:
        """Raises `Corruption` for a header that is not the one seen here before."""
        known = self.known()
        if known and header.hash not in known:
            error = Corruption(HEADER, f"it is not the one that was seen at {self._place} before")
            error.hint = (
                "another repository lies there now, or somebody exchanged the header; "
                f"if you know that it is yours, remove {self.path} and try again"
            )
            raise error

    def trust(self, header: Header) -> bool:
        """Remembers a header; returns whether that was possible (a read-only home is no reason not to restore)."""
        known = self.known()
        if header.hash in known:
            return True
        lines = [os.fsencode(self._place).replace(b"\n", b"?"), *sorted(item.hex().encode() for item in known)]
        lines += [header.hash.hex().encode(), b""]
        try:
            write_file(self.path, b"\n".join(lines))
        except OSError:
            return False
        return True


class Uses:
    """Remembers when this client last opened a repository with which key slot, for people who clear slots out."""

    def __init__(self, places: Places, repository: bytes) -> None:
        self._path = places.state_dir / "uses" / repository.hex()

    def known(self) -> dict[str, int]:
        """Returns the times (ns since the epoch) by the slots' object names; nothing where nothing can be read."""
        try:
            lines = read_file(self._path, _PIN_BYTES_MAX).split(b"\n")
        except OSError:
            return {}
        found = (_USE.fullmatch(line) for line in lines)
        return {match[1].decode(): int(match[2]) for match in found if match}

    def note(self, slot: str, now_ns: int) -> None:
        """Remembers a use; of the latest slots only, and not at all where that is not possible."""
        known = {**self.known(), slot: now_ns}
        latest = sorted(known.items(), key=lambda item: item[1])[-_USES_MAX:]
        with contextlib.suppress(OSError):
            write_file(self._path, b"".join(b"%s %d\n" % (name.encode(), time_ns) for name, time_ns in latest))
