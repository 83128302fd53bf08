"""Imports: tar archives of earlier backups become snapshots; when each was made, and what says so."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Protocol

from respaldo.api.repository import Repository
from respaldo.core.errors import UsageError
from respaldo.core.seams import Cancel, Progress
from respaldo.flows.importing.options import ImportOptions, ImportResult
from respaldo.flows.importing.run import run_import
from respaldo.format.canonical import is_time

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DIRECTIVES = {
    "Y": r"\d{4}",
    "y": r"\d{2}",
    "m": r"\d{2}",
    "d": r"\d{2}",
    "j": r"\d{3}",
    "H": r"\d{2}",
    "M": r"\d{2}",
    "S": r"\d{2}",
    "b": r"[^\W\d_]{3}",
    "B": r"[^\W\d_]+",
    "p": r"[AaPp][Mm]",
    "I": r"\d{2}",
    "z": r"[+-]\d{2}:?\d{2}|Z",
    "%": "%",
}


class Stream(Protocol):
    """Gives bytes until it gives none."""

    def read(self, length_bytes: int, /) -> bytes: ...


def import_archive(
    repository: Repository, name: bytes, stream: Stream, options: ImportOptions, *, progress: Progress, cancel: Cancel
) -> ImportResult:
    """Makes a snapshot of a tar archive, packed or not; raises `SourceError` where it is none."""
    return run_import(repository.within, name, stream, options, progress=progress, cancel=cancel)


def time_from_name(name: str, pattern: str) -> int:
    """Returns the time that stands in a name, local unless it names a zone; as ns since the epoch.

    ``pattern`` is what `strptime` takes (``%Y-%m-%d_%H%M``), and may stand anywhere in the name. Raises `UsageError`.
    """
    expression = _expression(pattern)
    found = list(re.finditer(expression, name))
    for match in reversed(found):  # the last, as directories come before
        try:
            moment = datetime.strptime(match[0], pattern).astimezone()
        except (ValueError, OverflowError):
            continue
        time_ns = (moment - _EPOCH) // timedelta(microseconds=1) * 1000
        if is_time(time_ns):
            return time_ns
    raise UsageError(
        f"no time like {pattern} stands in {name}", hint="name another pattern, or the time itself with --time"
    )


def _expression(pattern: str) -> str:
    parts = []
    seen: set[str] = set()
    at = 0
    while at < len(pattern):
        letter = pattern[at]
        if letter == "%":
            at += 1
            directive = pattern[at : at + 1]
            if directive not in _DIRECTIVES:
                raise UsageError(
                    f"%{directive} cannot stand in a pattern of times",
                    hint="use %Y %m %d %H %M %S %y %j %b %B %I %p %z",
                )
            if directive in seen:
                raise UsageError(f"%{directive} stands twice in a pattern of times")
            seen.add(directive)
            parts.append(f"(?:{_DIRECTIVES[directive]})")
        else:
            parts.append(re.escape(letter))
        at += 1
    if not any(part.startswith("(?:") for part in parts):
        raise UsageError("a pattern of times needs directives", hint="as in: --time-from-name '%Y-%m-%d'")
    return "".join(parts)
